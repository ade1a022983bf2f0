"""Cost: times and memory as recorded, per pass, and means counted by hand."""

from __future__ import annotations

import pytest

from loopviz.engine import summarize
from loopviz.export.panel_table import panel_table
from loopviz.figures import theme
from loopviz.figures.labels import COMMON
from loopviz.panels import LANGUAGES, PANELS, Focus, figure_json
from loopviz.panels.loop.cost import DEVICE, HERE, NO_STEPS, PART, PROCESS, SPEED, STEPS_MEAN, STEPS_SELECTED
from loopviz.trace import Trace
from loopviz.trace.pace import tokens_per_second
from tests.panels.cases import looped, smollm2, wire_size

panel = PANELS["cost"]
MEAN_ROW, SELECTED_ROW = 0, 1


def timed(passes, **meta):
    """A trace of one prompt pass of two tokens and a pass a generated token.

    Args:
        passes: for each pass its parts' milliseconds (prelude, block, coda, head, recording) and its steps'.
    """
    trace = looped(tokens=len(passes) + 1, prompt_tokens=2, **meta)
    for frame in trace.frames:
        parts, steps = passes[max(0, frame["index"] - 1)]
        frame["pass_tokens"], frame["pass_runs"] = 2 if frame["index"] < 2 else 1, 1
        frame["phase"] = "prompt" if frame["index"] < 2 else "generated"
        frame["parts"] = dict(zip(("prelude", "block", "coda", "head", "recording"), parts, strict=True))
        frame["pass_ms"] = sum(part or 0 for part in parts[:4])
        # by the clock: a pass, and as much again of what is no part of it
        frame["wall_ms"] = float(
            sum(2 * sum(part or 0 for part in p) for p, _ in passes[: max(0, frame["index"] - 1) + 1])
        )
        frame["memory"] = {"process": 10**6 * (100 + frame["index"]), "device": None}
        for block in frame["blocks"]:
            block["n_steps"] = len(steps)
            block["steps"] = {name: [0.0] * len(steps) for name in block["steps"]} | {"ms": list(steps)}
    return trace


PASSES = [
    ([10, 80, 5, 3, 2], [40, 40]),  # the prompt
    ([1, 10, 2, 3, 4], [4, 6]),
    ([3, 20, 2, 5, 10], [6, 7, 8]),
]


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def row(figure, place):
    return {part: figure["data"][i]["x"][place] for part, i in PART.items()}


def test_parts_of_the_selected_pass_and_the_mean_of_generated_ones():
    trace = timed(PASSES)
    figure = drawn(trace, token=3)
    assert row(figure, SELECTED_ROW) == {"prelude": 3, "block": 20, "coda": 2, "head": 5, "recording": 10}
    assert row(figure, MEAN_ROW) == {"prelude": 2, "block": 15, "coda": 2, "head": 4, "recording": 7}
    assert figure["layout"]["barmode"] == "stack"
    assert row(drawn(trace, token=0), MEAN_ROW) == row(figure, MEAN_ROW), "the prompt is in no mean"


def test_a_prompts_pass_is_told_as_one_pass_of_its_tokens():
    trace = timed(PASSES)
    for token in (0, 1):
        figure = drawn(trace, token=token)
        assert row(figure, SELECTED_ROW) == {"prelude": 10, "block": 80, "coda": 5, "head": 3, "recording": 2}
        assert "pass of 2 tokens, 100 ms" in figure["layout"]["title"]["text"]
    assert "pass of 40 ms" in drawn(trace, token=3)["layout"]["title"]["text"]


def test_a_pass_recorded_in_chunks_is_as_long_as_its_last_frame_says():
    trace = timed(PASSES)
    trace.frames[0]["parts"] |= {"head": 1, "recording": 1}  # the first chunk's
    assert row(drawn(trace, token=0), SELECTED_ROW) == row(drawn(trace, token=1), SELECTED_ROW)
    so_far = drawn(Trace(trace.meta, trace.frames[:1]), token=0)
    assert row(so_far, SELECTED_ROW)["recording"] == 1


def test_the_time_of_every_step_and_its_mean_over_passes_that_ran_it():
    figure = drawn(timed(PASSES), token=2)
    assert figure["data"][STEPS_SELECTED]["y"] == [4, 6]
    assert figure["data"][STEPS_MEAN]["y"] == [5, 6.5, 8]
    assert drawn(timed(PASSES), token=1)["data"][STEPS_SELECTED]["y"] == [40, 40]


def test_tokens_a_second_are_by_the_clock_and_the_models_own_rate_has_another_name():
    """A4: two generated tokens in 40 and 80 ms by the clock; 16 and 30 of prelude, block, coda and head."""
    trace = timed(PASSES)
    figure = drawn(trace)
    assert figure["data"][SPEED]["y"] == [None, None, 25.0, 12.5]
    title, said = figure["layout"]["title"]["text"], panel.summary(trace, Focus())
    for text in (title, said):
        assert f"{2000 / 120:.3g} tokens/s by the clock over 2 generated tokens" in text
        assert f"{2000 / 46:.3g} passes/s in the model alone" in text
    assert tokens_per_second(trace.frames) == summarize(trace).tokens_per_second == pytest.approx(2000 / 120)
    assert summarize(trace).model_tokens_per_second == pytest.approx(2000 / 46)
    one = panel.summary(Trace(trace.meta, trace.frames[:3]), Focus())
    assert "over one generated token" in one


@pytest.mark.parametrize(
    ("lang", "mean", "took", "hover"),
    [
        ("en", "passes shared by 2.5 runs on average", "pass of 40 ms, shared by 4 runs", ", in a pass of 4 runs"),
        ("zh", "前向平均由 2.5 个运行共用", "前向 40 毫秒，由 4 个运行共用", "，该前向由 4 个运行共用"),
    ],
)
def test_a_time_of_a_shared_pass_is_told_with_how_many_shared_it(lang, mean, took, hover):
    trace = timed(PASSES)
    alone = drawn(trace, lang=lang)
    assert set(alone["data"][SPEED]["text"]) == {""}
    words = panel.TEXTS[lang]["shared"].partition("{runs}")
    assert words[0] not in alone["layout"]["title"]["text"]
    trace.frames[3]["pass_runs"] = 4
    trace.frames[0]["pass_runs"] = trace.frames[1]["pass_runs"] = 9  # no part of the mean
    trace = Trace(trace.meta, trace.frames)
    figure = drawn(trace, lang=lang, token=3)
    for text in (figure["layout"]["title"]["text"], panel.summary(trace, Focus(lang=lang, token=3))):
        assert mean in text
        assert took in text
    assert figure["data"][SPEED]["text"] == [*figure["data"][SPEED]["text"][:3], hover]
    assert hover in panel_table(trace, "cost", Focus(lang=lang))["text"].tolist()


def test_memory_is_told_in_megabytes_and_a_gpu_only_where_there_is_one():
    trace = timed(PASSES)
    figure = drawn(trace)
    assert figure["data"][PROCESS]["y"] == [0, 1, 2, 3], (
        "beyond the first pass: what the whole process takes is told above"
    )
    assert figure["data"][DEVICE]["y"] == [None] * 4
    assert not figure["data"][DEVICE]["showlegend"]
    assert "103 MB in the process" in figure["layout"]["title"]["text"]
    assert "GPU" not in figure["layout"]["title"]["text"]
    trace.frames[3]["memory"] = {"process": 1, "device": 7 * 10**6}
    figure = drawn(Trace(trace.meta, trace.frames))
    assert figure["data"][DEVICE]["y"] == [None] * 4, "there is nothing to compare with"
    for frame in trace.frames:
        frame["memory"] = {"process": 10**6, "device": (4 + frame["index"]) * 10**6}
    figure = drawn(Trace(trace.meta, trace.frames))
    assert figure["data"][DEVICE]["y"] == [0, 1, 2, 3]
    assert figure["data"][DEVICE]["showlegend"]
    assert "7 MB on the GPU" in figure["layout"]["title"]["text"]


def test_what_is_undefined_is_left_out_of_means():
    passes = [PASSES[0], ([None, 10, 2, 3, None], [None, 6]), ([3, 20, 2, 5, None], [6, 8])]
    figure = drawn(timed(passes), token=2)
    assert row(figure, MEAN_ROW) == {"prelude": 3, "block": 15, "coda": 2, "head": 4, "recording": None}
    assert row(figure, SELECTED_ROW)["prelude"] is None
    assert figure["data"][STEPS_MEAN]["y"] == [6, 7]
    trace = timed(passes)
    for frame in trace.frames:
        frame["pass_ms"] = frame["wall_ms"] = None
        frame["parts"] = dict.fromkeys(frame["parts"])
    assert set(drawn(trace)["data"][SPEED]["y"]) == {None}
    assert COMMON["en"]["undefined"] in panel.summary(trace, Focus())


@pytest.mark.parametrize("lang", LANGUAGES)
def test_without_step_times_the_rest_is_still_shown(lang):
    for trace, words in (
        (looped(blocks=[]), COMMON[lang]["no_blocks"]),
        (looped(record="off"), panel.TEXTS[lang]["no_steps"]),
    ):
        figure = drawn(trace, lang=lang)
        note = figure["layout"]["annotations"][NO_STEPS]
        assert note["visible"]
        assert note["text"].replace("<br>", "").replace(" ", "") == words.replace(" ", "")
        assert figure["data"][STEPS_SELECTED]["y"] == []
        assert None not in row(figure, SELECTED_ROW).values()
    assert not drawn(looped(), lang=lang)["layout"]["annotations"][NO_STEPS]["visible"]


def test_steps_are_those_of_the_block_shown():
    trace = looped(blocks=[(0, 0), (2, 3)])
    for block in (0, 1):
        figure = drawn(trace, block=block, token=6)
        ms = trace.frames[6]["blocks"][block]["steps"]["ms"]
        assert figure["data"][STEPS_SELECTED]["y"] == pytest.approx(ms, rel=5e-3)


def test_the_selected_token_is_marked_on_both_lines():
    figure = drawn(timed(PASSES), token=2)
    for shape in HERE:
        line = figure["layout"]["shapes"][shape]
        assert (line["x0"], line["x1"], line["visible"]) == (2, 2, True)
        assert line["line"]["color"] == theme.SELECTED


def test_the_longest_part_is_named():
    assert "most of it in: block" in panel.summary(timed(PASSES), Focus())


def test_a_token_is_small_on_the_wire():
    trace = smollm2()
    sizes = [
        wire_size(panel.patch(Trace(trace.meta, trace.frames[:n]), trace.frames[n], Focus())) for n in (40, 300, 511)
    ]
    assert max(sizes) <= 1500
