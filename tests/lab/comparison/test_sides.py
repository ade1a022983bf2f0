"""A TTT model among looped ones: its row against its own runs and passes, what does not apply to it, what is refused by name."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.checks import FieldError
from loopviz.engine import StreamSettings
from loopviz.engine.engine import TTTRequest
from loopviz.engine.ttt_local import LocalTTT
from loopviz.engine.ttt_stream import MOST_TOKENS
from loopviz.lab import TASKS, Experiment, Subject, repeat
from loopviz.lab.comparison.curves import edits, empty, figures
from loopviz.lab.comparison.result import Result
from loopviz.lab.comparison.sides import TTTSide, context_of
from loopviz.lab.comparison.table import FIRST_AXES, MEMORY_AXES, WORDLESS_AXES, first_axes
from loopviz.lab.comparison.verdict import verdict
from loopviz.lab.fellows import TTTSubject
from loopviz.lab.tasks.compare import CompareParams, Comparison
from loopviz.panels import apply
from loopviz.ttt import TTTCache
from tests.engine import tiny, tiny_ttt
from tests.lab.subject import subject

PROMPT, AFTER = "Once upon a time", " there was a small dog."
LOOP = {"loop_layers": (1, 2), "loop_count": 3}


def beside() -> Subject:
    """A looped model with a TTT one beside it."""
    found = subject(**LOOP)
    found.beside["tiny-ttt"] = TTTSubject(tiny_ttt.model(), tiny.tokenizer(), "tiny-ttt", "made here")
    return found


def compared(main: Subject, **more: Any) -> Comparison:
    usual = {"names": ("loop", "ttt"), "loops": ({}, {}), "models": ("", "tiny-ttt"), "max_new_tokens": 9}
    return Comparison(main, CompareParams(prompt=PROMPT, continuation=AFTER, **{**usual, **more}))


@pytest.fixture(scope="module")
def whole() -> tuple[Comparison, dict[int, dict[str, Any]]]:
    comparison = compared(beside())
    return comparison, {event.setup: event.row for event in comparison.events() if event.row is not None}


def ttt_of(comparison: Comparison) -> Any:
    return comparison.subject.beside["tiny-ttt"].model


def test_its_text_and_its_bytes_are_those_of_its_own_run(whole: Any) -> None:
    comparison, rows = whole
    model = ttt_of(comparison)
    handle = LocalTTT("x", model, tiny.tokenizer()).start(TTTRequest(PROMPT, {"max_new_tokens": 9}))
    frames = [frame for frame in handle.frames if frame["index"] >= len(comparison.prompt) - 1]
    assert comparison.results[1].ids == [frame["next_id"] for frame in frames]
    cache = TTTCache(model)
    model(torch.tensor([comparison.prompt]), past_key_values=cache, use_cache=True)
    assert (rows[1]["memory"], rows[1]["memory_bytes"]) == ("state", cache.nbytes)
    assert (rows[0]["memory"], rows[0]["memory_bytes"]) == ("kv", comparison.results[0].kv_bytes[-1])
    assert rows[0]["kv_bytes_per_token"] > 0


@torch.no_grad()
def test_its_perplexity_and_agreement_are_those_of_one_plain_pass(whole: Any) -> None:
    comparison, rows = whole
    model, prompt = ttt_of(comparison), comparison.prompt

    def said(ids: list[int]) -> torch.Tensor:
        logits = model(torch.tensor([prompt + ids]), use_cache=False).logits[0].double().log_softmax(-1)
        return logits[len(prompt) - 1 : -1]

    after, greedy = comparison.continuation, comparison.results[0].ids
    losses = [-float(each[token]) for each, token in zip(said(after), after, strict=True)]
    assert rows[1]["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    chosen = [int(each.argmax()) == token for each, token in zip(said(greedy), greedy, strict=True)]
    assert rows[1]["agreement"] == sum(chosen) / len(chosen)
    assert rows[1]["fidelity_worst"] < 1e-3, "its state loses nothing of what a whole pass knows"


def test_what_does_not_apply_to_it_is_empty_and_said_so(whole: Any) -> None:
    comparison, rows = whole
    empty_cells = {name for name, value in rows[1].items() if value is None}
    assert empty_cells == {"swept", "loops_mean", "loops_max", "read_out_mean", "kv_bytes_per_token"}
    assert rows[1]["stops"] == "ttt"
    assert rows[1]["ms_per_token"] > 0
    assert comparison.results[1].loops == []
    for lang, said in (("en", "no loop"), ("zh", "没有循环")):
        made = figures(["loop", "ttt"], comparison.results, lang)
        for called in ("convergence", "loops"):
            assert made[called]["data"][1]["x"] == []
            assert said in made[called]["layout"]["annotations"][0]["text"]
        assert len(set(made["kv"]["data"][1]["y"])) == 1, "its state does not grow"
        assert verdict(list(rows.values()), lang, continued=True)
    assert "annotations" not in figures(["loop"], comparison.results[:1], "en")["loops"]["layout"]


def test_folding_the_edits_gives_the_figures(whole: Any) -> None:
    comparison, _ = whole
    made = empty(["loop", "ttt"], "en", learning=["ttt"])
    for i, result in enumerate(comparison.results):
        for known in range(len(result.ids)):
            so_far = Result(learns=result.learns)
            for name in ("ids", "pieces", "loops", "kv_bytes"):
                setattr(so_far, name, getattr(result, name)[: known + 1])
            so_far.curves = result.curves
            for called, ops in edits(i, so_far, known).items():
                apply(made[called], ops)
    assert made == figures(["loop", "ttt"], comparison.results, "en")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"loops": ({}, None)}, "loop=null"),
        ({"loops": ({}, {"loop_count": 3})}, "loop_count"),
        ({"sweeps": (0, 4)}, "sweeps"),
        ({"models": ("", "no-such-model")}, "no-such-model"),
    ],
)
def test_what_it_has_not_is_refused_by_name_and_the_others_run(wrong: dict[str, Any], said: str) -> None:
    events = list(compared(beside(), **wrong).events())
    refused = [event for event in events if event.kind == "refused"]
    assert {event.setup for event in events if event.row is not None} == {0}
    assert refused
    assert all(said in event.reason for event in refused)


def test_parameters_and_lengths_that_cannot_be_are_refused() -> None:
    with pytest.raises(FieldError, match=r"models=.*: 2 configurations, so at most as many models"):
        CompareParams(models=("a", "b", "c"))
    main = beside()
    main.beside["tiny-ttt"].model.config.max_position_embeddings = 4
    assert context_of(main.beside["tiny-ttt"]) == MOST_TOKENS, "what it was trained at is no end of it"
    other = subject(1, loop_layers=None)
    other.model.config.max_position_embeddings = 4
    main.beside["short"] = other
    [refused] = [event for event in compared(main, models=("", "short")).events() if event.kind == "refused"]
    assert "continuation" in refused.reason


def test_a_ttt_model_may_be_the_one_that_is_measured_and_the_baseline(tmp_path: Path) -> None:
    main = TTTSubject(tiny_ttt.model(), tiny.tokenizer(), "tiny-ttt", "made here")
    main.beside["loop"] = subject(**LOOP)
    params = CompareParams(
        prompt=PROMPT, names=("ttt", "loop"), loops=({}, {}), models=("", "loop"), max_new_tokens=4, do_sample=True
    )
    experiment = Experiment(TASKS["compare"], main, params).run()
    assert [(row["setup"], row["memory"], row["baseline"]) for row in experiment.rows] == [
        ("ttt", "state", True),
        ("loop", "kv", False),
    ]
    assert experiment.rows[0]["agreement"] is not None, "its greedy tokens are its own run's"
    assert TASKS["compare"].work(main, params).layer_tokens > 0
    again = repeat(experiment.manifest, subject=main).run()
    assert [row["agreement"] for row in again.rows] == [row["agreement"] for row in experiment.rows]


def test_its_timed_passes_are_as_many_as_its_tokens_and_end_when_told() -> None:
    side, stop = TTTSide(tiny_ttt.model(), tiny.tokenizer()), threading.Event()
    spent = list(side.timed(PROMPT, [1, 2, 3], [4, 5, 6, 7], StreamSettings(), stop))
    assert spent[0] is None, "the prompt's pass is not of one token"
    assert all(ms > 0 for ms in spent[1:])
    assert len(spent) == 4
    stop.set()
    assert list(side.timed(PROMPT, [1, 2, 3], [4, 5], StreamSettings(), stop)) == []


def test_the_picture_opens_where_all_have_a_value() -> None:
    assert first_axes(True, False) == FIRST_AXES
    assert first_axes(True, True) == MEMORY_AXES
    assert first_axes(False, True) == WORDLESS_AXES
