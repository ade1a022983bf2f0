"""Perplexity by position against plain passes in float64; RoPE's two forms against transformers' own attention scores."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from loopviz.checks import FieldError
from loopviz.lab import TASKS, Experiment
from loopviz.lab.progress import drained
from loopviz.lab.tasks.rope_length import LengthParams, keys_of_both_forms, scores_of_both_forms
from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.interrupt import Interrupted, interruptible
from tests.lab.subject import TEXT, exact_subject

TASK = TASKS["rope_length"]
LOOPS = [{}, {"loop_layers": (1, 2), "loop_count": 3}]


def losses(model: LoopLlamaForCausalLM, ids: list[int]) -> list[float]:
    """-log p of every token but the first."""
    with torch.no_grad():
        scores = model(torch.tensor([ids[:-1]]), use_cache=False).logits[0].log_softmax(-1)
    return [-float(scores[t, token]) for t, token in enumerate(ids[1:])]


def both_forms(model: LoopLlamaForCausalLM, ids: torch.Tensor, first: int, last: int) -> tuple[float, float]:
    return scores_of_both_forms(model, ids, drained(keys_of_both_forms(model, ids)), first, last)


def short(subject, context: int = 20):
    """The same made for so many tokens."""
    subject.model.config.max_position_embeddings = context
    return subject


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", [0, 4])
def test_each_stretch_is_the_mean_of_a_direct_pass_there(loop: dict, seed: int) -> None:
    subject = short(exact_subject(seed, **loop))
    rows = Experiment(TASK, subject, LengthParams(text=TEXT, tokens=70, stretches=5)).run().rows
    ids = subject.tokenizer(TEXT)["input_ids"][:71]
    long = losses(subject.model, ids[:41]), losses(subject.model, ids[40:])  # 40 at once, then anew
    assert [(row["first"], row["last"]) for row in rows] == [(0, 7), (8, 15), (16, 23), (24, 31), (32, 39)]
    assert [row["beyond"] for row in rows] == [False, False, False, True, True]
    for row in rows:
        here = [loss for part in long for t, loss in enumerate(part) if row["first"] <= t <= row["last"]]
        assert row["tokens"] == len(here)
        assert row["nats"] == pytest.approx(sum(here) / len(here), abs=1e-10)
        assert row["perplexity"] == pytest.approx(math.exp(row["nats"]), rel=1e-12)
        assert row["trained"] == 20


def test_within_the_length_a_word_has_at_least_half_a_window_to_look_back_on() -> None:
    subject = short(exact_subject())
    rows = Experiment(TASK, subject, LengthParams(text=TEXT, tokens=40, stretches=4)).run().rows
    ids = subject.tokenizer(TEXT)["input_ids"][:41]
    near = losses(subject.model, ids[:21])
    near += losses(subject.model, ids[10:31])[10:]
    near += losses(subject.model, ids[20:41])[10:]
    for i, row in enumerate(rows):
        assert row["near_nats"] == pytest.approx(sum(near[10 * i : 10 * i + 10]) / 10, abs=1e-10)
    assert rows[0]["near_nats"] == pytest.approx(rows[0]["nats"], abs=1e-10), "nothing lies before the first words"
    assert abs(rows[3]["near_nats"] - rows[3]["nats"]) > 1e-4


SHAPES = [
    {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32},
    {"num_attention_heads": 6, "num_key_value_heads": 1, "hidden_size": 24, "head_dim": 10, "attention_bias": True},
    {"num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 16, "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_give_the_scores_of_transformers(shape: dict) -> None:
    torch.manual_seed(2)
    config = LoopLlamaConfig(vocab_size=50, intermediate_size=20, num_hidden_layers=1, initializer_range=0.4, **shape)
    config._attn_implementation = "eager"
    model = LoopLlamaForCausalLM(config).double().eval()
    seen = []
    attention = model.model.layers[0].self_attn

    def note(_, args, kwargs, out):
        seen.append(out[1])

    attention.register_forward_hook(note, with_kwargs=True)
    ids = torch.randint(0, 50, (30,))
    with torch.no_grad():
        model(ids[None], use_cache=False)
    apart, largest = both_forms(model, ids, 29, 29)
    assert apart < 1e-10 * largest  # angles are float32's in both, scores float64
    # the weights of the last query are the softmax of the scores: their largest ratio is that of the scores' ends
    weights = seen[0][0, :, -1].log()
    spread = float((weights.amax(-1) - weights.amin(-1)).max())
    assert 0 < spread / 2 <= largest * 1.0001


def test_a_permutation_left_out_is_seen() -> None:
    """Were the rows not permuted, the two forms would not agree: what is measured can fail."""
    from loopviz.anatomy import rope

    subject = exact_subject()
    ids = torch.tensor(subject.tokenizer(TEXT)["input_ids"][:40])
    apart, largest = both_forms(subject.model, ids, 0, 39)
    assert apart < 1e-12 * largest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rope, "projection_to_pairs", lambda weight, heads: weight)
        apart, largest = both_forms(subject.model, ids, 0, 39)
    assert apart > 1e-2 * largest


def test_a_length_of_one_is_refused_and_a_short_text_says_how_far_it_goes() -> None:
    with pytest.raises(FieldError, match="length=1"):
        LengthParams(text=TEXT, length=1)
    rows = Experiment(TASK, exact_subject(), LengthParams(text=TEXT[:60], tokens=30, stretches=3)).run().rows
    assert not any(row["beyond"] for row in rows)
    assert "Up to position 28 perplexity is" in TASK.headline(rows, "en")
    assert "nothing of that was read past the 256" in TASK.headline(rows, "en")


ROW = {
    "first": 448,
    "last": 511,
    "trained": 256,
    "beyond": True,
    "perplexity": 64.9,
    "near_perplexity": 20.3,
    "forms": 2e-6,
    "scores": 11.75,
}


def test_the_headline_is_of_the_furthest_stretch() -> None:
    said = TASK.headline([{**ROW, "forms": 4e-6, "first": 0, "last": 5}, ROW], "en")
    assert said == (
        "At positions 448 to 511 perplexity is 64.9; the same words read within the 256 it is made for: 20.3. "
        "RoPE's two forms agree: scores are at most 4.0e-6 apart, of up to 11.8."
    )


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_figure_has_both_readings_and_the_length(lang: str) -> None:
    subject = short(exact_subject())
    frame = Experiment(TASK, subject, LengthParams(text=TEXT, tokens=70, stretches=4)).run().frame
    figure = TASK.plot(frame, lang)
    assert [list(line.y) for line in figure.data] == [frame["perplexity"].tolist(), frame["near_perplexity"].tolist()]
    [line] = figure.layout.shapes
    assert line.x0 == 20
    assert not TASK.plot(frame.iloc[:0], lang).data


def test_a_stretch_that_goes_past_the_length_is_not_told_as_within_it() -> None:
    """Only where a stretch began past the length did the headline see that any of it was."""
    partly = {**ROW, "first": 192, "last": 319, "beyond": False}
    assert TASK.headline([partly], "en").startswith(
        "At positions 192 to 319, the last of them past the 256 it is made for, perplexity is 64.9; the same words read within "
        "that: 20.3."
    )
    assert "超出设计长度 256" in TASK.headline([partly], "zh")
    assert "没有" not in TASK.headline([partly], "zh")
    subject = short(exact_subject())
    rows = Experiment(TASK, subject, LengthParams(text=TEXT, tokens=70, stretches=1)).run().rows
    assert "At positions 0 to 39, the last of them past the 20 it is made for" in TASK.headline(rows, "en")
    edge = {**ROW, "first": 192, "last": 255, "beyond": False}
    assert "nothing of that was read past" in TASK.headline([edge], "en")
    assert "没有超出" in TASK.headline([edge], "zh")


def test_the_two_forms_agree_only_where_they_do() -> None:
    """That they agree was said whatever had been measured."""
    for forms, en, zh in (
        (0.01, "two forms agree", "写法一致"),
        (0.02, "do not agree: scores differ by up to 0.02", "不一致"),
    ):
        rows = [{**ROW, "forms": forms, "scores": 11.75}, {**ROW, "forms": 0.1, "scores": 1e4}]
        assert en in TASK.headline(rows, "en")
        assert zh in TASK.headline(rows, "zh")
    for unknown in (math.nan, None):
        assert "forms" not in TASK.headline([{**ROW, "forms": unknown}], "en")
    torch.manual_seed(0)
    broken = exact_subject()
    broken.model.model.layers[0].self_attn.k_proj.weight.data[0, 0] = math.nan
    ids = torch.arange(1, 9)
    assert all(math.isnan(value) for value in both_forms(broken.model, ids, 0, 7))


@pytest.mark.parametrize("piece", [7, 2**14])
def test_keys_are_turned_once_for_all_stretches(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Each stretch turned all keys before it again: at a length of 100,000 that was most of the work, and none of it counted."""
    from loopviz.anatomy import rope

    subject, turned = short(exact_subject()), []
    plain = rope.rotate_pairs
    monkeypatch.setattr("loopviz.lab.tasks.rope_length.PIECE", piece)
    monkeypatch.setattr(rope, "rotate_pairs", lambda x, *more: turned.append(x.shape[:2]) or plain(x, *more))
    Experiment(TASK, subject, LengthParams(text=TEXT, tokens=70, stretches=20)).run()
    keys = [tokens for heads, tokens in turned if heads == subject.model.config.num_key_value_heads]
    assert sum(keys) == 41, "the longest piece of the text, once"
    assert max(keys) <= piece


def test_scores_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = exact_subject()
    subject.model.model.layers[0].self_attn.k_proj.weight.data *= 9
    ids = torch.tensor(subject.tokenizer(TEXT)["input_ids"][:40])
    whole = both_forms(subject.model, ids, 20, 39)
    monkeypatch.setattr("loopviz.lab.tasks.rope_length.PIECE", 7)
    assert both_forms(subject.model, ids, 20, 39)[1] == pytest.approx(whole[1], rel=1e-12)


def test_the_work_of_both_forms_is_counted_and_can_be_left() -> None:
    subject = short(exact_subject())
    one, many = (TASK.work(subject, LengthParams(text=TEXT, tokens=70, stretches=n)) for n in (1, 201))
    assert many.pairs - one.pairs == 200 * 8 * 40 / 2
    assert many.layer_tokens > one.layer_tokens
    stop = threading.Event()
    stop.set()
    with interruptible(stop), pytest.raises(Interrupted):
        both_forms(subject.model, torch.arange(1, 9), 0, 7)
