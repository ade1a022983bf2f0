"""The law of every panel: the patches of a run, applied to the empty figure, give the figure of the whole trace."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopviz.panels import GROUPS, PANELS, Focus, apply, figure_json, passing
from loopviz.trace import EXTRAS, Trace
from tests.panels.cases import focuses, looped, smollm2, wild_traces, wire_size
from tests.trace.synthetic import change_loop, make_meta, random_frames

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def fold(panel, trace: Trace, focus: Focus, together: int = 1) -> dict:
    """The empty figure with every patch applied, as a page does it: each one by way of JSON text, so many a message."""
    shown = figure_json(panel.figure(Trace(trace.meta), focus))
    grown = Trace(trace.meta)
    for i, frame in enumerate(trace.frames):
        with passing((i + 1) % together > 0 and i + 1 < len(trace)):
            apply(shown, json.loads(json.dumps(panel.patch(grown, frame, focus), allow_nan=False)))
        grown.append(frame)
    return shown


@pytest.mark.parametrize("name", PANELS)
@relaxed
@given(trace=wild_traces(), focus=focuses, together=st.integers(1, 4))
def test_folding_patches_gives_the_whole_figure(name, trace, focus, together):
    before = copy.deepcopy(trace.frames)
    assert fold(PANELS[name], trace, focus, together) == figure_json(PANELS[name].figure(trace, focus))
    assert trace.frames == before, "a panel changed the frames it reads"


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("focus", [Focus(), Focus(token=75), Focus(token=140)], ids=["newest", "fixed", "not-yet"])
def test_law_holds_where_faint_curves_are_replaced(name, focus):
    trace = looped(tokens=135)
    assert fold(PANELS[name], trace, focus) == figure_json(PANELS[name].figure(trace, focus))


@pytest.mark.parametrize("name", PANELS)
@relaxed
@given(trace=wild_traces(), focus=focuses)
def test_every_state_of_a_run_has_a_sentence(name, trace, focus):
    for tokens in {0, 1, len(trace)}:
        said = PANELS[name].summary(Trace(trace.meta, trace.frames[:tokens]), focus)
        assert said.strip()
        assert "<sub>" not in said
        assert "&lt;" not in said


SUMMING = {
    "exit_gate",
    "layers_run",
    "loops_per_token",
    "state_trajectory",
    "cost",
}  # show sums over the run as well: see their own tests


@pytest.mark.parametrize("name", [name for name in PANELS if name not in SUMMING])
def test_a_fixed_selection_does_not_move(name):
    trace, focus = looped(tokens=8), Focus(token=2)
    for at in range(3, 8):
        ops = PANELS[name].patch(Trace(trace.meta, trace.frames[:at]), trace.frames[at], focus)
        assert all(op["op"] == "append" for op in ops), ops


@pytest.mark.parametrize("blocks", [[(10, 14)], [(0, 29)]], ids=["layers 10-14", "all layers"])
def test_a_token_is_small_on_the_wire(blocks):
    trace = smollm2(blocks=blocks)
    worst, worst_kv, worst_layers = 0, 0, 0
    before = Trace(trace.meta, trace.frames[:1])
    for at in (*range(1, 130), *range(195, 205), *range(295, 305), 509, 510, 511):
        for frame in trace.frames[len(before) : at]:
            before.append(frame)
        sizes = {name: wire_size(panel.patch(before, trace.frames[at], Focus())) for name, panel in PANELS.items()}
        for name in ("layers_run", "exit_gate"):
            worst_layers = max(worst_layers, sizes.pop(name))  # off until asked for
        groups = [sum(size for name, size in sizes.items() if group == PANELS[name].GROUP) for group in GROUPS]
        worst, worst_kv = max(worst, *groups), max(worst_kv, sizes["kv_occupancy"])
    assert worst <= 4600, "of the open group's panels, which alone are sent"
    assert worst_layers <= 600
    assert worst_kv <= 1200 + 240, "the grid's 1.2 kB and four points of the lines"


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("focus", [Focus(), Focus(token=5)], ids=["newest", "fixed"])
@pytest.mark.parametrize("together", [1, 3])
def test_law_holds_across_a_change_of_the_loop(name, together, focus):
    """More steps than there was room for, then fewer; other thresholds, another way to read the slots."""
    trace = looped(tokens=1)
    change_loop(trace.meta, 7, max_steps=11, count=11, cosine_threshold=0.5, kl_threshold=1e-5, damping=0.5)
    change_loop(trace.meta, 12, max_steps=2, count=2, strategy="fixed_count", attention_mode="serial")
    changed = Trace(trace.meta, random_frames(5, trace.meta, 16))
    assert fold(PANELS[name], changed, focus, together) == figure_json(PANELS[name].figure(changed, focus))


def test_panels_draw_what_held_for_the_token_selected():
    trace = looped(tokens=9)
    change_loop(trace.meta, 6, max_steps=12, kl_threshold=1e-5)
    trace = Trace(trace.meta, random_frames(5, trace.meta, 9))
    lines = [PANELS["convergence"].data(trace, Focus(token=t))["layout"]["shapes"][1]["y0"] for t in (5, 6)]
    assert lines == [0.01, 1e-5]


def axis_of_steps(name: str, trace: Trace, focus: Focus) -> float:
    """How many loop steps the axis of a panel has room for."""
    figure = PANELS[name].data(trace, focus)
    axis, least = {
        "convergence": ("xaxis", 0.5),
        "token_loop_map": ("yaxis", 0.5),
        "loops_per_token": ("yaxis", 0.6),
        "attention": ("yaxis", 0.5),
        "cost": ("xaxis2", 0.5),
        "key_similarity": (None, 0),
    }[name]
    if axis is None:
        return len(figure["data"][0]["x"]) + 1  # the first step has none before it
    ends = figure["layout"][axis]["range"]
    return max(ends) - least + (1 if name == "attention" else 0)


def ran(counts: list[int], allowed: int) -> Trace:
    """A trace of these numbers of loops, of up to ``allowed``, which records everything."""
    trace = looped(1, max_steps=allowed, prompt_tokens=1, extras=EXTRAS)
    frames = []
    for t, count in enumerate(counts):
        meta = make_meta(max_steps=count, extras=EXTRAS, prompt_tokens=1)
        frames.append(random_frames(t, meta, len(counts))[t])
        frames[-1]["blocks"][0]["stop_reason"] = "kl"
    return Trace(trace.meta, frames)


GROWING = ("convergence", "token_loop_map", "loops_per_token", "attention", "cost", "key_similarity")


@pytest.mark.parametrize("name", GROWING)
def test_axes_go_by_what_happened_not_by_what_might_have(name):
    """A8: 2 and 3 loops of 32 allowed are not drawn on an axis to 32; room grows by steps, and is no more than allowed."""
    for counts, allowed, room in (([2, 3], 32, 4), ([2, 5], 32, 8), ([9, 2], 32, 16), ([2, 5], 6, 6), ([2, 2], 2, 2)):
        trace = ran(counts, allowed)
        assert axis_of_steps(name, trace, Focus()) == pytest.approx(room), (counts, allowed)
        assert fold(PANELS[name], trace, Focus()) == figure_json(PANELS[name].figure(trace, Focus()))


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("focus", [Focus(step=3), Focus(step=7), Focus(token=1, step=3), Focus(token=5, step=20)])
def test_law_holds_while_axes_grow_and_a_step_is_pointed_at(name, together, focus):
    """D5: a step picked in an earlier run, beyond what this one may run yet; the loop is raised past it live."""
    meta = make_meta(max_steps=2, extras=EXTRAS, prompt_tokens=1)
    change_loop(meta, 2, max_steps=4, count=4)
    change_loop(meta, 4, max_steps=24, count=24)
    change_loop(meta, 6, max_steps=1, count=1)
    trace = Trace(meta, random_frames(3, meta, 8))
    assert fold(PANELS[name], trace, focus, together) == figure_json(PANELS[name].figure(trace, focus))
    grown = ran([1, 2, 5, 3, 9, 2, 17, 4], 20)
    assert fold(PANELS[name], grown, focus, together) == figure_json(PANELS[name].figure(grown, focus))


def test_no_message_grows_with_the_tokens_already_there():
    trace = looped(tokens=150, strategy="fixed_count", max_steps=8)
    sizes, grown = {name: [] for name in PANELS}, Trace(trace.meta)
    for frame in trace.frames:
        for name, panel in PANELS.items():
            sizes[name].append(wire_size(panel.patch(grown, frame, Focus())))
        grown.append(frame)
    for name, of in sizes.items():
        early, late = sum(of[70:95]) / 25, sum(of[-25:]) / 25
        assert late <= 1.15 * early + 20, f"{name}: {early:.0f} bytes a token, later {late:.0f}"
