"""Text through tokens and back: prompts, chat templates, and the piece that each token adds, whatever a tokenizer does."""

from __future__ import annotations

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.engine import Pieces, StreamSettings, TokenTexts, encode_prompt, run
from loopviz.engine.pieces import HELD, decode
from tests.engine import kinds, tiny

KINDS = kinds.kinds()
ODD_TEXTS = [
    "🙂🙂 从前有一只小狗。",
    "👩‍👩‍👧 e\u0301 é",
    "<|end|> a <|end|>",
    "  \n\t x",
    "One\rtwo\r\nthree",
    "\ufeffOnce",
    "nul\0nul",
    "\u202eright to left\u202c שלום \u2066x\u2069",
    "line\u2028paragraph\u2029end\x85",
    "a\ufffdb\ufffd",
]


def said(tokenizer, ids):
    pieces = Pieces(tokenizer)
    return [pieces.add(token) for token in ids]


def whole(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def any_ids(name, most=40):
    return st.lists(st.integers(0, len(KINDS[name]) - 1), max_size=most)


@pytest.mark.parametrize("tokenizer", [tiny.tokenizer(), kinds.Slow(tiny.tokenizer())], ids=["fast", "slow"])
@given(text=st.text() | st.sampled_from(ODD_TEXTS))
@settings(max_examples=60, deadline=None)
def test_pieces_concatenate_to_the_text(tokenizer, text):
    added = said(tokenizer, tiny.tokenizer()(text)["input_ids"])
    if isinstance(tokenizer, kinds.Slow) and text.endswith("\ufffd"):
        text = text.rstrip("\ufffd")  # whether it is whole, only what follows could tell
    assert "".join(added).rstrip("\ufffd" if isinstance(tokenizer, kinds.Slow) else "") == text
    assert not any("\ufffd" in piece for piece in added) or "\ufffd" in text


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_of_any_tokens_concatenate_to_what_the_tokenizer_decodes(name, data):
    """Wherever it decodes to characters; at the text's end one that is cut may lack."""
    ids = data.draw(any_ids(name))
    ours, theirs = "".join(said(KINDS[name], ids)), whole(KINDS[name], ids)
    if name.startswith("bytes") or name == "stories":  # bytes decoded one after the other, broken ones in place
        assert theirs.startswith(ours)
        assert theirs[len(ours) :] in ("", "\ufffd", *(["\ufffd" * 2, "\ufffd" * 3] if "slow" in name else []))
    elif "\ufffd" not in theirs:
        assert ours == theirs


@given(ids=any_ids("sentencepiece"))
@settings(max_examples=300, deadline=None)
def test_a_broken_run_of_bytes_keeps_the_text_around_it(ids):
    """Against Python's own reading of each run of byte tokens, everything else as the tokenizer decodes it."""
    tokenizer, expected = KINDS["sentencepiece, nothing dropped"], ""
    for run_of in re.findall(r"(?:b\d+ )+|w\d+ ", "".join(f"{'b' if 3 <= i < 259 else 'w'}{i} " for i in ids)):
        numbers = [int(word[1:]) for word in run_of.split()]
        if run_of.startswith("b"):
            expected += bytes(i - 3 for i in numbers).decode(errors="replace")
        else:
            expected += whole(tokenizer, numbers)
    ours = "".join(said(tokenizer, ids))
    assert ours == expected or (expected.startswith(ours) and set(expected[len(ours) :]) == {"\ufffd"})


def test_a_line_break_and_half_a_character_before_a_word_are_no_error():
    tokenizer = KINDS["sentencepiece"]
    ids = tokenizer.convert_tokens_to_ids(["<0x0A>", "<0xE4>", "▁hello"])
    assert said(tokenizer, ids) == ["\n", "", "\ufffd hello"]
    ids = tokenizer.convert_tokens_to_ids(["<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<0xE6>", "h"])
    assert said(tokenizer, ids) == ["", "", "", "😀", "", "\ufffdh"]


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_decoder_that_raises_ends_no_text(name, data):
    ids = data.draw(any_ids(name, most=20))
    bad = set(data.draw(st.lists(st.sampled_from(ids), max_size=3))) if ids else set()
    raising = kinds.Raising(KINDS[name], bad)
    pieces = said(raising, ids)
    for token, piece in zip(ids, pieces, strict=True):
        if token in bad:
            assert "\ufffd" in piece
    texts = TokenTexts(raising)
    assert all(isinstance(texts(token), str) for token in ids)
    assert decode(raising, ids).count("\ufffd") >= sum(token in bad for token in ids)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "sentencepiece, slow"])
@pytest.mark.parametrize("same", [False, True], ids=["any tokens", "one token"])
def test_a_token_costs_the_same_however_long_the_text_is(name, same, monkeypatch):
    from loopviz.engine import pieces as module

    real, seen = module._decoded, []
    monkeypatch.setattr(
        module, "_decoded", lambda tokenizer, ids, *how: seen.append(len(ids)) or real(tokenizer, ids, *how)
    )
    size = len(KINDS[name])
    pieces = Pieces(KINDS[name])
    seen.clear()
    for i in range(600):
        pieces.add(size - 5 if same else (i * 7919) % size)
    assert max(seen, default=0) <= 2 * HELD + 1
    assert sum(seen) <= 600 * 3 * HELD


def test_a_text_of_half_characters_costs_no_more_than_any_other(monkeypatch):
    from loopviz.engine import pieces as module

    seen, real = [], module._decoded
    monkeypatch.setattr(
        module, "_decoded", lambda tokenizer, ids, *how: seen.append(len(ids)) or real(tokenizer, ids, *how)
    )
    for name in ("bytes, slow", "sentencepiece", "sentencepiece, slow"):
        lead = 3 + 0xE4 if name.startswith("sent") else tiny.tokenizer().convert_tokens_to_ids("ä")
        pieces = Pieces(KINDS[name])
        said_ = "".join(pieces.add(lead) for _ in range(300))
        assert len(said_) >= 290
        assert set(said_) == {"\ufffd"}
    assert max(seen) <= 2 * HELD + 1


def test_a_character_split_over_tokens_arrives_whole():
    ids = tiny.tokenizer()("🦊")["input_ids"]
    assert len(ids) > 1
    assert said(tiny.tokenizer(), ids) == [""] * (len(ids) - 1) + ["🦊"]


def test_the_mark_itself_is_text_like_any_other():
    assert "".join(said(tiny.tokenizer(), tiny.tokenizer()("a\ufffd")["input_ids"])) == "a\ufffd"
    unigram = KINDS["unigram"]
    assert "".join(said(unigram, unigram.convert_tokens_to_ids(["▁hello", "\ufffd"]))) == "hello\ufffd"


def test_half_a_surrogate_pair_that_a_decoder_gives_is_no_text():
    class Surrogates:
        def decode(self, ids, **how):
            return "\ud83d\ude00" if len(ids) == 2 else "\ud83d" * len(ids)

    assert decode(Surrogates(), [0, 0]) == "😀"
    assert decode(Surrogates(), [0]) == "\ufffd"


def test_the_text_of_one_token_keeps_its_space():
    texts = TokenTexts(tiny.tokenizer())
    for i in range(len(tiny.tokenizer())):
        assert texts(i) == tiny.tokenizer().decode([i])
    assert " " in texts(tiny.tokenizer()(" the", add_special_tokens=False)["input_ids"][0])


# -- runs and prompts --------------------------------------------------------------------------------------------------


def test_runs_of_a_sentencepiece_model_that_writes_half_characters_come_to_their_end():
    from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM

    tokenizer = KINDS["sentencepiece"]
    config = LoopLlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, loop_layers=(0, 1), loop_count=2, eos_token_id=None,
    )  # fmt: skip
    model = LoopLlamaForCausalLM(config).eval()
    for seed in range(6):
        found = run(model, tokenizer, "hello", StreamSettings(max_new_tokens=40, do_sample=True, seed=seed))
        assert found.frames[-1]["finish"] == "length"


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_text_is_a_prompt(text):
    found = run(tiny.model(), tiny.tokenizer(), text, StreamSettings(max_new_tokens=3))
    read = "".join(frame["text"] for frame in found.frames if frame["phase"] == "prompt")
    assert read == text


@pytest.mark.parametrize("text", ["", "\ud83d", "a\udc00b"])
def test_what_is_no_text_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"prompt: (empty|half a surrogate pair)"):
        encode_prompt(tiny.tokenizer(), text, chat=False, context=100)


def test_every_way_to_run_a_prompt_refuses_what_its_template_refuses():
    """The engine, Compare and the measurements that write; pages show what these say."""
    from loopviz.engine import stream
    from loopviz.engine.stream import run_meta
    from loopviz.lab.task import Subject
    from loopviz.lab.tasks.compare import CompareParams, Comparison

    model, tokenizer = tiny.model(loop_layers=(1, 2)), copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = "{{ raise_exception('Only \\ud83d systems, ' + messages[0]['content'] * 1000) }}"
    settings, subject = StreamSettings(chat=True), Subject(model, tokenizer, "tiny", "here")
    for start in (
        lambda: stream(model, tokenizer, "please", settings),
        lambda: run_meta(model, tokenizer, "please", settings),
        lambda: Comparison(subject, CompareParams(prompt="please", chat=True)),
    ):
        with pytest.raises(ValueError, match=r"chat template refuses this prompt \(Only \? systems, please") as refused:
            start()
        assert len(str(refused.value)) < 600
        str(refused.value).encode()


def template(text):
    tokenizer = kinds.sentencepiece()
    tokenizer.chat_template = text
    return tokenizer


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ raise_exception('System role required') }}", "System role required"),
        ("{{ tools[0].name }}", "has no element 0"),
        ("{{ strftime_now_ }}{{ nothing.at.all }}", "undefined"),
        ("{% for %}", "chat template"),
        ("{{ messages[5]['content'] }}", "chat template"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ '\\ud83d' }}", "gives no text"),
        ("{{ ''.__class__.mro() }}", "unsafe"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ({"tool_use": "x"}, "template"),
        (7, "chat template"),
        (b"hello", "chat template"),
        ("{# nothing #}", "no token"),
    ],
)
def test_a_chat_template_that_refuses_or_breaks_is_a_ValueError_in_its_own_words(text, says):
    with pytest.raises(ValueError, match=says):
        encode_prompt(template(text), "hi", chat=True, context=100)


@pytest.mark.parametrize("prompt", ["hello", "</s> hello <s>", *ODD_TEXTS])
def test_a_chat_prompt_is_what_transformers_makes_of_it(prompt):
    tokenizer = template("{{ bos_token }}[{{ messages[0]['content'] }}]{% if add_generation_prompt %}>{% endif %}")
    theirs = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
    assert encode_prompt(tokenizer, prompt, chat=True, context=200) == theirs["input_ids"]


def test_a_tokenizer_that_raises_is_a_ValueError_in_its_own_words():
    class Broken:
        def __call__(self, text, **how):
            raise Exception("no entry for this piece")

    with pytest.raises(ValueError, match="no entry for this piece"):
        encode_prompt(Broken(), "hi", chat=False, context=100)
