"""Prompts cut from a text begin with its documents and end where text can be cut; references end with the document."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.lab.reading.beginnings import beginnings, cuts_of
from tests.conftest import make_tokenizer
from tests.engine import kinds, tiny

MARK = "\n<|endoftext|>\n"
ENGLISH = "Once upon a time Lily didn't see the well-known dog, aged 3.14 or 1,000 years. She ran home."
CHINESE = "从前有一只小狗，它追赶着一张地图，他决定回家。后来，小狗回家了。"
EMOJI = "the 👩‍👩‍👧 ran 🇩🇪🇫🇷 with 👍🏽 e\u0301te\u0301 naïve"
TOKENIZERS = {"bytes": tiny.tokenizer(), "small": make_tokenizer(), "sentencepiece": kinds.sentencepiece()}


def inside_a_word(before: str, after: str) -> bool:
    """Whether a cut between two texts tears a word, a number or a character apart (no dictionary: Chinese at marks)."""
    if not before or not after:
        return False
    torn = before[-1].isalnum() and after[0].isalnum()
    mark = unicodedata.category(after[0]).startswith("M") or "\u200d" in (before[-1], after[0])
    joined = before[-1] in "'-.," and before[-2:-1].isalnum() and after[0].isalnum()
    joins = after[0] in "'-.," and before[-1].isalnum() and after[1:2].isalnum()
    return torn or mark or joined or joins


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("document", [ENGLISH, EMOJI])
@pytest.mark.parametrize(("prompt_tokens", "new_tokens"), [(12, 45), (40, 60), (33, 500)])
def test_nothing_is_torn_apart(tokenizer, document, prompt_tokens, new_tokens):
    ((ids, reference),) = beginnings(tokenizer, document, prompt_tokens, new_tokens)
    prompt = tokenizer.decode(ids, skip_special_tokens=True)
    assert document.startswith(prompt + reference)
    rest = document[len(prompt) + len(reference) :]
    assert not inside_a_word(prompt, reference)
    assert not inside_a_word(prompt + reference, rest)
    assert not prompt[-1].isspace()
    assert len(ids) <= prompt_tokens
    assert rest == "" or new_tokens < 500


def test_chinese_ends_at_a_mark_and_never_inside_a_character():
    """The prompt was `追赶着一张地�`, the reference began with the other half."""
    tokenizer = tiny.tokenizer()
    ((ids, reference),) = beginnings(tokenizer, CHINESE, 60, 60)
    prompt = tokenizer.decode(ids)
    assert "\ufffd" not in prompt + reference
    assert CHINESE.startswith(prompt + reference)
    assert prompt[-1] in "，。" or reference[0] in "，。"
    ((ids, reference),) = beginnings(tokenizer, "小" * 50, 9, 9)  # nowhere a mark: a whole character
    assert set(tokenizer.decode(ids) + reference) == {"小"}


@pytest.mark.parametrize(("name", "tokenizer"), TOKENIZERS.items())
def test_a_document_gives_one_prompt_and_a_reference_that_ends_with_it(name, tokenizer):
    documents = [ENGLISH, "short", CHINESE, "the dog ran."]
    found = list(beginnings(tokenizer, MARK.join(documents) + MARK, 6, 1000))
    told = [document for document in documents if document != "short"]
    assert len(found) >= 2
    for ids, reference in found:
        prompt = tokenizer.decode(ids, skip_special_tokens=True)
        assert prompt + reference in told
    begun = {ids.count(tokenizer.bos_token_id) for ids, _ in found}
    assert begun == {int(name == "sentencepiece")}, "what the tokenizer puts before every text, and nothing else"


def test_a_text_without_a_place_to_cut_gives_none_and_costs_little():
    assert list(beginnings(tiny.tokenizer(), "x" * 100_000, 9, 9)) == []
    assert list(beginnings(tiny.tokenizer(), " \n ", 9, 9)) == []


@given(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab -'．地图，\u0301\u200d👩🏽"), max_size=120)
)
@settings(max_examples=150, deadline=None)
def test_any_text(text):
    tokenizer = TOKENIZERS["bytes"]
    for ids, reference in itertools.islice(beginnings(tokenizer, text, 10, 12), 3):
        prompt = tokenizer.decode(ids)
        assert prompt + reference in text
        assert reference.strip()
        assert 1 <= len(ids) <= 10
        assert not unicodedata.category(reference[0]).startswith("M")


def test_places_to_cut():
    text = "It didn't, the well-known 3.14 dog"
    assert [text[at:] for at in cuts_of(text)[0]] == [
        " didn't, the well-known 3.14 dog",
        ", the well-known 3.14 dog",
        " the well-known 3.14 dog",
        " well-known 3.14 dog",
        " 3.14 dog",
        " dog",
    ]
    sure, every = cuts_of("地图，a地")
    assert (sure, every) == ([2, 3, 4], [1, 2, 3, 4])
