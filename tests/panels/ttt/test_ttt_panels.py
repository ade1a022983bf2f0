"""Panels of a TTT run: their law, their words, and that what they draw are the library's numbers."""

from __future__ import annotations

import copy
import functools
import threading
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from loopviz.engine.engine import TTTRequest
from loopviz.engine.ttt_local import load_ttt
from loopviz.export.report import formula
from loopviz.figures.edits import apply, differences
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.panels.kit.focus import LANGUAGES
from loopviz.panels.ttt import TTT_PANELS, TTTFocus, attention, dual, forgetting, rules
from loopviz.paths import PACKAGE
from loopviz.trace import Trace
from loopviz.trace.packed import encode_singles
from tests.engine import tiny_ttt

KEYS = {"title", "question", "how", "formula", "source"}
ALL = {**TTT_PANELS, "attention": attention, "forgetting": forgetting, "rules": rules}
PANEL = pytest.mark.parametrize("name", TTT_PANELS)


@functools.cache
def run() -> Trace:
    """With a change of the rate and a forgetting in it."""
    handle = tiny_ttt.engine().start(TTTRequest("Once upon a time there was", {"max_new_tokens": 24}))
    trace = Trace(handle.meta)
    for frame in handle.frames:
        trace.append(frame)
        if frame["index"] == 19:
            handle.steer(inner_lr_scale=0.5)
        if frame["index"] == 24:
            handle.steer(forget=True)
    assert len(trace.meta["ttt"]["changes"]) == 2
    return trace


FOCI = [TTTFocus(), TTTFocus(1, 2, 9, "zh"), TTTFocus(0, 1, 33), TTTFocus(7, 9, 500, "zh"), TTTFocus(1, None, 3)]


@PANEL
@pytest.mark.parametrize("focus", FOCI)
def test_patches_of_a_run_folded_over_the_empty_figure_give_the_whole(name: str, focus: TTTFocus) -> None:
    panel, trace = TTT_PANELS[name], run()
    seen = Trace(trace.meta)
    figure = copy.deepcopy(panel.data(seen, focus))
    for frame in trace.frames:
        apply(figure, panel.patch(seen, frame, focus))
        seen.append(frame)
    assert figure == panel.data(trace, focus)


@PANEL
def test_a_figure_is_one_that_plotly_takes_and_a_sentence_for_those_who_do_not_see_it(name: str) -> None:
    panel = TTT_PANELS[name]
    for trace in (Trace(run().meta), run()):
        for focus in FOCI:
            figure = panel.figure(trace, focus)
            assert figure.layout.height
            assert panel.summary(trace, focus)
            assert "{" not in panel.summary(trace, focus) + figure.layout.title.text


@pytest.mark.parametrize("name", ALL)
def test_both_languages_say_the_same_with_a_formula_that_is_set_and_code_that_is_there(name: str) -> None:
    panel = ALL[name]
    assert set(panel.TEXTS) == set(LANGUAGES)
    assert set(panel.TEXTS["en"]) == set(panel.TEXTS["zh"]) >= KEYS
    for words in panel.TEXTS.values():
        assert all(words.values())
        assert "<math" in formula(words["formula"])
        assert "<code>" not in formula(words["formula"])
    for reference in panel.CODE:
        module, called = reference.split(":")
        source = (PACKAGE.parent / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert f" {called.split('.')[-1]}" in source


def hooks(trace: Trace) -> list[Any]:
    """The inner hook's own, of the text read in one pass; only of the tokens before anything was changed."""
    model, steps = tiny_ttt.engine().model.view(), []
    model.register_inner_hook(steps.append)
    with torch.no_grad():
        model(torch.tensor([[frame["token_id"] for frame in trace.frames]]))
    return steps


@pytest.mark.parametrize("focus", FOCI[:3])
def test_what_is_drawn_is_what_the_hook_tells(focus: TTTFocus) -> None:
    trace, steps, n = run(), hooks(run()), 20

    def wanted(name: str) -> np.ndarray:
        found = getattr(steps[focus.layer], name)[0]  # [H, T]
        return (found.mean(0) if focus.head is None else found[focus.head])[:n].numpy()

    def drawn(panel: str, place: int) -> np.ndarray:
        return np.array(TTT_PANELS[panel].data(trace, focus)["data"][place]["y"][:n])

    for panel, place, name in (
        ("inner_loss", 0, "loss_before"),
        ("inner_loss", 1, "loss_after"),
        ("drift", 0, "drift"),
        ("rates", 0, "lr"),
    ):
        np.testing.assert_allclose(drawn(panel, place), wanted(name), rtol=1e-3, atol=1e-4)
    M = trace.meta["ttt"]["mini_batch"]
    learned = TTT_PANELS["rates"].data(trace, focus)["data"]
    np.testing.assert_allclose(learned[1]["y"], steps[focus.layer].token_scale[0, :M].numpy(), rtol=1e-3)
    np.testing.assert_allclose(learned[2]["y"], 1 / np.arange(1, M + 1), rtol=1e-3)
    at = TTTFocus(focus.layer, focus.head, 9, focus.lang)
    first, rows = TTT_PANELS["dual"].matrix(trace, at)
    values = steps[focus.layer].dual_matrices()[first // M].values[0]
    own = values.mean(0) if focus.head is None else values[focus.head]
    assert first == 9 - 9 % M
    np.testing.assert_allclose(np.array([[v or 0 for v in row] for row in rows]), own.numpy(), rtol=2e-3, atol=1e-4)
    assert [row.count(None) for row in rows] == [3, 2, 1, 0]


def test_ages_are_counted_from_the_word_itself() -> None:
    trace, focus = run(), TTTFocus(token=12)
    start, now = TTT_PANELS["held"].data(trace, focus)["data"]
    assert now["x"] == list(range(13))
    after = TTT_PANELS["inner_loss"].data(trace, focus)["data"][1]["y"]
    assert now["y"][0] == pytest.approx(after[12], rel=3e-3)
    assert len(start["y"]) == 13


def test_after_forgetting_nothing_is_held_better_than_at_the_beginning() -> None:
    trace = run()
    at = next(change["index"] for change in trace.meta["ttt"]["changes"] if change["forget"])
    start, now = TTT_PANELS["held"].data(trace, TTTFocus(token=at))["data"]
    drift = TTT_PANELS["drift"].data(trace, TTTFocus())["data"][0]["y"]
    assert drift[at] < drift[at - 1]
    assert (
        np.abs(np.array(now["y"]) - start["y"]).mean()
        < np.abs(
            np.array(TTT_PANELS["held"].data(trace, TTTFocus(token=at - 1))["data"][1]["y"]) - start["y"][1:]
        ).mean()
    )


def test_the_state_is_as_large_whatever_is_read_and_keys_and_values_are_not() -> None:
    trace = run()
    state, same, *others, took = TTT_PANELS["cost"].data(trace, TTTFocus())["data"]
    assert set(state["y"]) == {trace.frames[-1]["kv"]["bytes_used"]}
    assert same["y"][-1] == same["x"][-1] * trace.frames[0]["kv"]["bytes_plain"]
    config = 2 * 4 * 64 * 4 * 16  # stories-loop: keys and values, 4 heads of 64, float32, 2 layers of 8 slots
    other = next(line for line in others if "stories-loop" in line["name"])
    assert other["y"][0] == 16 * config
    assert took["x"] == list(range(len(trace)))
    assert took["y"][-1] == pytest.approx(trace.frames[-1]["pass_ms"], rel=1e-4)


def test_a_last_place_whose_scale_is_0_is_said_for_then_nothing_is_kept() -> None:
    trace = run()
    meta = {**trace.meta, "ttt": {**trace.meta["ttt"], "scales": [[1.0, 0.5, 0.3, 0.0], [1.0, 0.5, 0.3, 0.2]]}}
    dead = Trace(meta, trace.frames)
    for lang, words in {"en": "back where it began", "zh": "记忆就回到开始"}.items():
        assert words in TTT_PANELS["rates"].summary(dead, TTTFocus(lang=lang))
        assert words not in TTT_PANELS["rates"].summary(dead, TTTFocus(1, lang=lang))


def test_what_was_lost_is_said_and_so_is_that_nothing_was() -> None:
    trace = run()
    own = [frame["next_logprob"] for frame in trace.frames]
    for lang in LANGUAGES:
        same = forgetting.summary(trace, 3, own, False, lang)
        assert same == forgetting.TEXTS[lang]["same"].format(
            at=3, token=trace.frames[3]["text"].strip(), n=len(trace) - 4
        )
        worse = forgetting.summary(trace, 3, [one - 0.5 for one in own], False, lang)
        assert "0.5" in worse
        assert "1.65" in worse
        assert worse != forgetting.summary(trace, 3, [one - 0.5 for one in own], True, lang)
    first, second = forgetting.losses(trace, [one - 0.5 for one in own], True)
    np.testing.assert_allclose(first - second, 0.5)


def test_the_control_s_attention_is_its_own_and_what_leaves_the_group_is_lacking_in_a_row() -> None:
    engine = load_ttt("stories-ttt", lambda *_: None, False)
    handle = engine.start(TTTRequest("One day, a bird found a shiny key. The bird", {"max_new_tokens": 30}))
    trace = Trace(handle.meta, handle.frames)
    found = engine.attention_beside(trace, 20, threading.Event())
    assert found is not None
    assert found.first == 16
    control = load_checkpoint(found.name).model
    control.set_attn_implementation("eager")
    with torch.no_grad():
        ids = torch.tensor([[frame["token_id"] for frame in trace.frames[:32]]])
        wanted = control.model(ids, output_attentions=True, use_cache=False).attentions
    shown = attention.matrix(found.weights, TTTFocus(1, 2))
    np.testing.assert_allclose(shown, wanted[1][0, 2, 16:32, 16:32].numpy(), atol=1e-5)
    mean = attention.matrix(found.weights, TTTFocus(0))
    np.testing.assert_allclose(mean, wanted[0][0, :, 16:32, 16:32].mean(0).numpy(), atol=1e-5)
    for lang in LANGUAGES:
        args = (trace, TTTFocus(lang=lang), found.name, found.first, found.weights)
        assert f"{mean.sum(1).mean():.0%}" in attention.summary(*args)
        assert go.Figure(attention.data(*args)).data[0].z[0][0] == pytest.approx(mean[0, 0], rel=1e-3)
    assert set(trace.meta["ttt"]["kv_beside"]) == {found.name, "stories-loop"}
    assert trace.meta["ttt"]["kv_beside"][found.name] == 2 * 2 * 256 * 4
    assert tiny_ttt.engine().attention_beside(run(), 3, threading.Event()) is None, "it reads other tokens"
    with pytest.raises(ValueError, match="index"):
        engine.attention_beside(trace, len(trace), threading.Event())


def test_differences_turn_one_figure_into_the_other() -> None:
    before = {"data": [{"x": [1], "y": []}], "layout": {"shapes": [{"x0": 1}], "a": 1}}
    after = {"data": [{"x": [1, 2], "y": [3]}], "layout": {"shapes": [], "a": 1.0, "b": None}}
    found = differences(before, after)
    assert {op["op"] for op in found} == {"append", "set"}
    assert apply(copy.deepcopy(before), found) == after
    with pytest.raises(ValueError, match="keeps its keys"):
        differences(before, {"data": []})


def test_of_a_huge_mini_batch_the_words_around_the_one_looked_at_are_drawn() -> None:
    """A file of 33 MB with one mini-batch of 4,096 took half a minute and a gigabyte to draw."""
    K = 300
    trace = Trace(copy.deepcopy(run().meta))
    meta = trace.meta["ttt"]
    meta |= {"mini_batch": K, "layers": 1, "heads": 1}
    frame = run().frames[0]
    for t in range(K + 20):
        row = [float(j) for j in range(t % K + 1)]
        inner = {**frame["ttt"], "slot": t % K, "reads": encode_singles([row])}
        trace.frames.append({**frame, "index": t, "text": f"w{t}", "ttt": inner})  # type: ignore[typeddict-item]
    for at, first in ((0, 0), (150, 150 - dual.MOST_WORDS // 2), (299, K - dual.MOST_WORDS), (310, K)):
        found, rows = dual.matrix(trace, TTTFocus(token=at))
        assert found == first
        assert len(rows) == min(dual.MOST_WORDS, K + 20 - first)
        for i, row in enumerate(rows):
            assert len(row) == len(rows)
            assert row[: i + 1] == [float(first % K + j) for j in range(i + 1)]
            assert set(row[i + 1 :]) <= {None}
    assert f"words {150 - 32} to {150 + 31}" in dual.summary(trace, TTTFocus(token=150))
