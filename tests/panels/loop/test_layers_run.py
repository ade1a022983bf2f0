"""Which layers ran: every cell is what the frames say, skipped tokens are blank, and the words count the work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from loopviz.panels import PANELS, Focus, figure_json
from loopviz.panels.loop.layers_run import MAP, STEPS, steps_of
from loopviz.trace import Trace
from tests.panels.cases import focuses, looped, wild_traces

panel = PANELS["layers_run"]
RAN = [[2, 3, 4], [3, 4], [2]]


def chosen(**meta) -> Trace:
    """Three tokens, 3 steps of layers 2..4: one leaves layers out, one skips the block, one stops after one step."""
    trace = looped(
        tokens=3,
        strategy="fixed_count",
        max_steps=3,
        blocks=[(2, 4)],
        chooser="influence",
        layer_threshold=0.25,
        **meta,
    )
    ends = ([RAN, "count"], [[], "influence"], [[[2, 3, 4]], "influence"])
    for frame, (ran, reason) in zip(trace.frames, ends, strict=True):
        frame["blocks"][0].update(n_steps=len(ran), layers_run=ran, stop_reason=reason)
        frame["text"] = f"t{frame['index']}"
    return trace


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def test_a_cell_is_how_many_steps_the_layer_ran():
    figure = drawn(chosen())
    assert figure["data"][MAP]["x"] == ["0 t0", "1 t1", "2 t2"]
    assert figure["data"][MAP]["z"] == [[2, 2, 2], [None, None, None], [1, 1, 1]]
    assert figure["data"][MAP]["text"] == [[": 1, 3", ": 1–2", ": 1–2"], ["", "", ""], ["", "", ""]]
    assert (figure["data"][MAP]["y0"], figure["data"][MAP]["transpose"]) == (2, True)


def test_the_selected_tokens_steps_stand_beside_it():
    assert drawn(chosen(), token=0)["data"][STEPS]["z"] == [[1, 1, 1], [None, 1, 1], [1, None, None]]
    assert drawn(chosen(), token=1)["data"][STEPS]["z"] == [[None] * 3] * 3
    assert drawn(chosen())["data"][STEPS]["z"] == [[1, 1, 1], [None] * 3, [None] * 3]


@pytest.mark.parametrize(
    ("lang", "by", "work", "skipped"),
    [
        ("en", "chooser influence, threshold 0.25", "layer runs: 9 of 27 (66.7 % left out)", "block skipped"),
        ("zh", "选择器 influence，阈值 0.25", "层运行数 9 / 27（66.7 % 未运行）", "跳过了这个块"),
    ],
)
def test_the_words_name_the_chooser_and_count_the_work(lang, by, work, skipped):
    title = drawn(chosen(), token=1, lang=lang)["layout"]["title"]["text"]
    said = panel.summary(chosen(), Focus(token=1, lang=lang))
    for words in (by, work, skipped):
        assert words in title
        assert words in said


def test_without_a_chooser_every_layer_runs_in_every_step_and_it_says_so():
    trace = looped(tokens=4, max_steps=5)
    figure = drawn(trace)
    assert "no chooser" in figure["layout"]["title"]["text"]
    assert figure["data"][MAP]["z"] == [[frame["blocks"][0]["n_steps"]] * 2 for frame in trace.frames]
    assert {text for column in figure["data"][MAP]["text"] for text in column} == {""}


@settings(max_examples=40, deadline=None)
@given(wild_traces(), focuses)
def test_the_cells_add_up_to_the_layer_runs_of_the_frames(trace, focus):
    figure = figure_json(panel.figure(trace, focus))
    if focus.block < len(trace.meta["blocks"]):
        blocks = [frame["blocks"][focus.block] for frame in trace.frames]
        made = [sum(map(len, block["layers_run"])) or block["n_steps"] * len(steps_of(block)) for block in blocks]
        assert [sum(n or 0 for n in column) for column in figure["data"][MAP]["z"]] == made


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_skipped_token_is_said_not_called_unrecorded(name, lang):
    """Every panel of one token's steps says that none ran."""
    trace = looped(tokens=4, max_steps=3, chooser="influence")
    at = next((f["index"] for f in trace.frames if f["blocks"][0]["n_steps"] == 0), None)
    seed = 0
    while at is None:
        seed += 1
        trace = looped(tokens=4 + seed, max_steps=3, chooser="influence")
        at = next((f["index"] for f in trace.frames if f["blocks"][0]["n_steps"] == 0), None)
    said = PANELS[name].summary(trace, Focus(token=at, lang=lang))
    title = figure_json(PANELS[name].figure(trace, Focus(token=at, lang=lang)))["layout"]
    words = said + str(title.get("annotations"))
    assert "not recorded" not in words
    assert "没有记录" not in words
    if name in ("convergence", "would_say", "text_by_loop", "key_similarity", "attention", "state_trajectory"):
        assert ("skipped" if lang == "en" else "跳过") in words
