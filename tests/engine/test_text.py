"""Pieces: what each token adds to the text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.engine import Pieces, TokenTexts
from tests.engine import tiny


class Slow:
    """The same tokenizer as one without a fast backend offers it."""

    is_fast = False

    def decode(self, ids, **kwargs):
        return tiny.tokenizer().decode(ids, **kwargs)


@pytest.mark.parametrize("tokenizer", [tiny.tokenizer(), Slow()], ids=["fast", "slow"])
@given(text=st.text() | st.sampled_from(["🙂🙂 从前有一只小狗。", "👩‍👩‍👧 é é", "<|end|> a <|end|>", "  \n\t x"]))
@settings(max_examples=60, deadline=None)
def test_pieces_concatenate_to_the_text(tokenizer, text):
    pieces = Pieces(tokenizer)
    added = [pieces.add(i) for i in tiny.tokenizer()(text)["input_ids"]]
    assert "".join(added) == text
    assert not any("\ufffd" in piece for piece in added) or "\ufffd" in text


@pytest.mark.parametrize("tokenizer", [tiny.tokenizer(), Slow()], ids=["fast", "slow"])
@given(ids=st.lists(st.integers(0, 289), max_size=30))
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_text_lose_nothing_but_the_open_end(tokenizer, ids):
    pieces = Pieces(tokenizer)
    said = "".join(pieces.add(i) for i in ids)
    whole = tiny.tokenizer().decode(ids)
    assert whole.startswith(said)
    assert set(whole[len(said) :]) <= {"\ufffd"} or whole.endswith("\ufffd")


def test_a_character_split_over_tokens_arrives_whole():
    ids = tiny.tokenizer()("🦊")["input_ids"]
    assert len(ids) > 1
    pieces = Pieces(tiny.tokenizer())
    assert [pieces.add(i) for i in ids] == [""] * (len(ids) - 1) + ["🦊"]


def test_the_text_of_one_token_keeps_its_space():
    texts = TokenTexts(tiny.tokenizer())
    for i in range(len(tiny.tokenizer())):
        assert texts(i) == tiny.tokenizer().decode([i])
    assert " " in texts(tiny.tokenizer()(" the", add_special_tokens=False)["input_ids"][0])
