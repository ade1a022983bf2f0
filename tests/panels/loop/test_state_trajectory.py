"""State trajectory: what is drawn is the states' projection, on axes that are fitted once and stay."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.figures import theme
from loopviz.panels import LANGUAGES, PANELS, Focus, apply, figure_json
from loopviz.panels.kit import trajectories
from loopviz.panels.kit.rest_distance import ROUNDING
from loopviz.panels.kit.view import box, outside
from loopviz.panels.loop.state_trajectory import (
    AWAY,
    AWAY_PINNED,
    CHOSEN,
    ENDS,
    MAPPED,
    NEAR,
    NEIGHBOURS,
    OTHERS,
    PINNED,
    REST,
    STARTS,
)
from loopviz.trace import Trace, decode_states, encode_states
from tests.panels.cases import looped, smollm2, wire_size
from tests.trace.synthetic import random_trace

panel = PANELS["state_trajectory"]


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def notice(figure):
    first = figure["layout"]["annotations"][0]
    return first["text"].replace("<br>", " ") if first["visible"] else None


def states(trace, token, block=0):
    return decode_states(trace.frames[token]["blocks"][block]["states"], trace.meta["shape"]["hidden"]).astype(float)


def coordinates(figure, place, dims=2):
    return list(zip(*(figure["data"][place][axis] for axis in "xyz"[:dims]), strict=True))


def put_states(trace, token, array):
    block = trace.frames[token]["blocks"][0]
    block["n_steps"], block["states"] = len(array) - 1, encode_states(np.array(array))


def expected(trace, token, tokens, dims):
    """The coordinates of ``token``'s states on the principal axes of the first ``tokens`` tokens, up to a sign an axis."""

    def unit(array):
        return array / np.sqrt((array**2).sum(axis=1, keepdims=True))

    fitted = unit(np.concatenate([states(trace, t) for t in range(tokens)]))
    mean = fitted.mean(axis=0)
    _, _, axes = np.linalg.svd(fitted - mean, full_matrices=False)
    return (unit(states(trace, token)) - mean) @ axes[:dims].T


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("token", [1, 7])
def test_the_path_is_the_states_on_the_principal_axes_of_the_prompt(token, dims):
    trace = looped(tokens=10)
    figure = drawn(trace, token=token, dims=dims)
    shown = np.array(coordinates(figure, CHOSEN, dims))
    wanted = expected(trace, token, tokens=4, dims=dims)  # four tokens of prompt
    for axis in range(dims):
        sign = np.sign(shown[:, axis] @ wanted[:, axis])
        assert shown[:, axis] == pytest.approx(sign * wanted[:, axis], abs=1e-4)
    ((start, end),) = zip(coordinates(figure, STARTS, dims), coordinates(figure, ENDS, dims), strict=True)
    assert (start, end) == (tuple(shown[0]), tuple(shown[-1]))


def test_the_share_of_every_axis_is_told():
    trace = looped(tokens=6)
    rows = np.concatenate([states(trace, t) for t in range(4)])
    variances = np.sort(np.linalg.eigvalsh(np.cov((rows / np.linalg.norm(rows, axis=1, keepdims=True)).T)))[::-1]
    layout = drawn(trace)["layout"]
    for axis, share in zip("xy", variances / variances.sum(), strict=False):
        assert f"({100 * share:.1f} %)" in layout[f"{axis}axis"]["title"]["text"]
    assert f"{100 * variances[:2].sum() / variances.sum():.1f} %" in panel.summary(trace, Focus())


def test_a_path_once_drawn_stays_where_it_is():
    """Whatever comes later: neither its coordinates nor the view it fills."""
    trace = looped(tokens=80)
    early = drawn(Trace(trace.meta, trace.frames[:4]), token=2)
    for tokens in (5, 30, 80):
        figure = drawn(Trace(trace.meta, trace.frames[:tokens]), token=2)
        assert coordinates(figure, CHOSEN) == coordinates(early, CHOSEN)
        assert figure["layout"]["xaxis"]["range"] == early["layout"]["xaxis"]["range"]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pins", [(), (3,), (1, 9, 14)])
def test_the_paths_shown_fill_the_plot(dims, pins):
    """A19: the selected path took a twentieth of it, for the view held every state of the run."""
    trace = looped(tokens=20)
    for token in (5, 12):
        figure = drawn(trace, token=token, dims=dims, pins=pins)
        points = [p for place in (CHOSEN, PINNED) for p in coordinates(figure, place, dims) if None not in p]
        assert len(set(points)) >= 2
        place = figure["layout"] if dims == 2 else figure["layout"]["scene"]
        for axis in range(dims):
            low, high = place[f"{'xyz'[axis]}axis"]["range"]
            values = [point[axis] for point in points]
            assert low <= min(values) <= max(values) <= high, "whole"
            assert max(values) - min(values) >= 0.75 * (high - low), "and not lost in it"


def test_states_hardly_apart_are_not_blown_up():
    trace = looped(tokens=8)
    put_states(trace, 6, [[1.0] * 8, [1.001] * 8, [1.0] * 8, [1.001] * 8])
    low, high = drawn(trace, token=6)["layout"]["xaxis"]["range"]
    assert high - low >= 0.0199


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), pins=st.lists(st.integers(0, 11), max_size=3, unique=True))
def test_names_of_ends_stay_inside_the_plot(seed, pins):
    """A19: labels ran out of the plot. A name of usual length beside a mark anywhere in the view has room on some side."""
    trace = random_trace(seed, 12, strategy="dynamic_stop", max_steps=6)
    for frame in trace.frames:
        frame["text"] = " word"
    figure = drawn(trace, token=7, pins=tuple(pins))
    ends = figure["data"][ENDS]
    for x, y, name, place in zip(ends["x"], ends["y"], ends["text"], ends["textposition"], strict=True):
        (left, right), (low, high) = (figure["layout"][f"{axis}axis"]["range"] for axis in "xy")
        taken = box(place, (x - left) / (right - left), (y - low) / (high - low), len(name))
        assert outside(taken) == 0


def test_names_of_ends_keep_apart():
    trace = looped(tokens=8)
    for token in (5, 6):  # two paths that end in nearly the same place
        put_states(trace, token, [[token, 1, *[0] * 6], [1, 1, 1, *[0] * 5], [1, 1, 1.01, 0.001 * token, *[0] * 4]])
    ends = drawn(trace, token=6, pins=(5,))["data"][ENDS]
    assert len(set(ends["textposition"])) == 2


def test_axes_wait_for_the_prompt_and_twelve_states():
    trace = looped(tokens=8)  # four prompt tokens
    for token in range(8):
        put_states(trace, token, np.random.default_rng(token).normal(size=(2, 8)))
    for tokens, waits in ((1, True), (4, True), (5, True), (6, False)):  # two states a token
        figure = drawn(Trace(trace.meta, trace.frames[:tokens]))
        assert (notice(figure) == panel.TEXTS["en"]["fitting"]) == waits, tokens
        assert bool(figure["data"][CHOSEN]["x"]) != waits
    trace.meta["prompt_tokens"] = 7
    assert notice(drawn(Trace(trace.meta, trace.frames[:6]))) == panel.TEXTS["en"]["fitting"]
    assert notice(drawn(Trace(trace.meta, trace.frames[:7]))) is None


def test_a_long_prompt_is_thinned_before_fitting():
    trace = looped(tokens=130, prompt_tokens=130, strategy="fixed_count", max_steps=4)
    every = math.ceil(130 * 5 / 256)
    fitted = np.concatenate([states(trace, t) for t in range(0, 130, every)])
    basis = trajectories.fit(fitted)
    shown = np.array(coordinates(drawn(trace, token=9), CHOSEN))
    assert shown == pytest.approx(basis.project(states(trace, 9))[:, :2], abs=1e-4)


def test_pinned_paths_are_kept_beside_the_selected_one():
    trace = looped(tokens=12)
    figure = drawn(trace, token=5, pins=(2, 9, 5, 40))
    both = [point for token in (2, 9) for point in [*coordinates(drawn(trace, token=token), CHOSEN), (None, None)]]
    assert coordinates(figure, PINNED) == both
    assert [text.split()[0] for text in figure["data"][ENDS]["text"]] == ["5", "2", "9"]
    assert len(figure["data"][STARTS]["x"]) == 3


def test_ends_are_coloured_by_why_they_stopped():
    trace = looped(tokens=12)
    for token, reason in ((5, "kl"), (2, "max"), (9, "acceleration")):
        trace.frames[token]["blocks"][0]["stop_reason"] = reason
    marker = drawn(trace, token=5, pins=(2, 9))["data"][ENDS]["marker"]
    assert marker["color"] == [theme.COLOURS[f"stop_{kind}"] for kind in ("kl", "max", "other")]
    assert marker["symbol"] == [theme.STOP_SYMBOLS[kind] for kind in ("kl", "max", "other")]


@pytest.mark.parametrize(
    ("token", "shown"),
    [(None, range(35, 99)), (0, range(1, 65)), (50, [*range(18, 50), *range(51, 83)]), (99, range(67, 99))],
)
def test_other_tokens_are_a_bounded_number_of_end_points(token, shown):
    trace = looped(tokens=100)
    rest = drawn(trace, token=token)["data"][REST]
    ends = {
        int(text.split()[0]): point
        for text, point in zip(rest["text"], zip(rest["x"], rest["y"], strict=True), strict=True)
    }
    assert sorted(ends) == list(shown)
    assert len(rest["x"]) <= OTHERS
    for other in (min(shown), max(shown)):
        assert ends[other] == coordinates(drawn(trace, token=other), CHOSEN)[-1]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("fixed", [[10 + 0.3**r, 5, 0, 0, 0, 0, 0, 0] for r in range(9)]),
        ("settling", [[1 + 4 * 0.75**r, 3, 0, 0, 0, 0, 0, 0] for r in range(5)]),
        ("orbit", [[[1, 0], [0, 1], [-1, 0], [0, -1]][r % 4] + [1] * 6 for r in range(9)]),
        ("drift", [[1, r, 0, 0, 0, 0, 0, 0] for r in range(9)]),
        ("few", [[1, r, 0, 0, 0, 0, 0, 0] for r in range(4)]),
    ],
)
def test_how_a_path_ends_is_told_on_the_figure_and_in_the_sentence(kind, path, lang):
    trace = looped(tokens=8)
    put_states(trace, 6, path)
    words = panel.TEXTS[lang][kind].format(period=4)
    figure = drawn(trace, token=6, lang=lang)
    assert words in figure["layout"]["title"]["text"]
    assert words in figure["data"][ENDS]["customdata"][0], "its hover says it; its label is short, and stays inside"
    assert words in panel.summary(trace, Focus(token=6, lang=lang))


def test_steps_are_numbered_and_a_click_on_one_selects_it():
    trace = looped(tokens=8)
    put_states(trace, 6, [[3.0, 4.0] + [0] * 6, [3.0, 3.0] + [0] * 6, [0.0] * 8])
    figure = drawn(trace, token=6, step=1)
    chosen = figure["data"][CHOSEN]
    assert chosen["customdata"] == ["s₀", f"1: {1 / math.sqrt(18):.3g}", "2: undefined"]
    assert chosen["meta"]["select"] == {"step": "customdata"}
    small, large, last = chosen["marker"]["size"]
    assert small == last < large
    for place in (REST, PINNED, STARTS, ENDS):
        assert figure["data"][place]["meta"]["select"] == {"token": "text"}


def test_dimensions_are_a_choice_the_page_can_offer():
    for dims, kind in ((2, "scatter"), (3, "scatter3d")):
        figure = drawn(looped(), dims=dims)
        choices = figure["layout"]["meta"]["choices"]["dims"]
        assert choices["value"] == dims
        assert [value for value, _ in choices["options"]] == [2, 3]
        paths = [figure["data"][place] for place in (NEIGHBOURS, PINNED, CHOSEN, STARTS, ENDS)]
        assert {trace["type"] for trace in paths} == {kind}
        for value, _ in choices["options"]:
            assert Focus.from_json({"dims": value}).dims == value


@pytest.mark.parametrize("lang", LANGUAGES)
def test_axes_in_space_are_titled(lang):
    scene = drawn(looped(), dims=3, lang=lang)["layout"]["scene"]
    for i, axis in enumerate("xyz"):
        assert panel.TEXTS[lang][f"axis_{i + 1}"] in scene[f"{axis}axis"]["title"]["text"]


@pytest.mark.parametrize("record", [{"record": "off"}, {"states": False}])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_states_that_were_not_recorded_are_not_made_up(record, lang):
    trace = looped(**record)
    figure = drawn(trace, lang=lang, pins=(1,))
    assert notice(figure).replace(" ", "") == panel.TEXTS[lang]["not_recorded"].replace(" ", "")
    assert not any(value is not None for data in figure["data"] for key in "xy" for value in data.get(key, []))
    assert panel.summary(trace, Focus(lang=lang)) == panel.TEXTS[lang]["not_recorded"]


def test_the_states_themselves_are_not_sent():
    trace = smollm2(tokens=40)
    packed = trace.frames[30]["blocks"][0]["states"]
    for text in (
        json.dumps(drawn(trace)),
        json.dumps(panel.patch(Trace(trace.meta, trace.frames[:30]), trace.frames[30], Focus())),
    ):
        assert packed[:40] not in text


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pins", [(), (1, 2, 3, 4, 5, 6)])
def test_a_token_is_small_on_the_wire(dims, pins):
    trace = smollm2(tokens=200)
    sizes = [
        wire_size(panel.patch(Trace(trace.meta, trace.frames[:n]), trace.frames[n], Focus(dims=dims, pins=pins)))
        for n in (40, 100, 150, 199)
    ]
    assert max(sizes) <= (1700 if not pins else 2400)


def test_a_fixed_selection_stays_while_others_come():
    trace, focus = looped(tokens=60), Focus(token=2, pins=(1, 3))
    before = drawn(Trace(trace.meta, trace.frames[:5]), token=2, pins=(1, 3))
    shown = apply(json.loads(json.dumps(before)), [])
    for at in range(5, 60):
        apply(shown, panel.patch(Trace(trace.meta, trace.frames[:at]), trace.frames[at], focus))
    for place in (PINNED, CHOSEN, STARTS):
        assert shown["data"][place] == before["data"][place]
    assert shown["layout"]["title"] == before["layout"]["title"]


# --- numbers on the path, neighbours, the whole small, how far from where it ended


def test_b7_points_of_a_path_bear_their_steps_where_there_is_room():
    trace = looped(tokens=8)
    far = np.random.default_rng(3).normal(size=(6, 8))
    put_states(trace, 6, far)
    figure = drawn(trace, token=6)
    text = figure["data"][CHOSEN]["text"]
    assert "text" in figure["data"][CHOSEN]["mode"]
    assert text[0] == text[-1] == "", "its ends have marks and names of their own"
    assert {r for r in text if r} <= set("1234")
    assert len([r for r in text if r]) >= 2
    put_states(trace, 6, [far[0], *[far[1] + 1e-3 * r for r in range(9)], far[2]])
    assert len([r for r in drawn(trace, token=6)["data"][CHOSEN]["text"] if r]) < 9, (
        "on top of each other none could be read"
    )


def paths(figure):
    """The neighbours' paths, each a list of points."""
    out, path = [], []
    for one in coordinates(figure, NEIGHBOURS):
        if None not in one:
            path.append(one)
        elif path:
            out, path = [*out, path], []
    return out


@pytest.mark.parametrize(
    ("token", "shown"),
    [(None, range(27, 39)), (20, [*range(14, 20), *range(21, 27)]), (0, range(1, 13)), (39, range(33, 39))],
)
def test_b7_twelve_neighbours_are_faint_paths_of_their_own_states(token, shown):
    trace = looped(tokens=40)
    assert NEAR == 12
    mine = sorted(paths(drawn(trace, token=token)))
    assert mine == sorted(coordinates(drawn(trace, token=other), CHOSEN) for other in shown)


def test_b7_the_small_map_holds_the_whole_and_frames_the_view():
    trace = looped(tokens=30)
    figure = drawn(trace, token=11)
    rest, path = figure["data"][REST], figure["data"][MAPPED]
    assert len(rest["x"]) == 29
    assert rest["xaxis"] == path["xaxis"] == "x3"
    assert coordinates(figure, MAPPED) == coordinates(figure, CHOSEN)
    frame = figure["layout"]["shapes"][0]
    assert (frame["xref"], frame["yref"], frame["visible"]) == ("x3", "y3", True)
    assert [frame["x0"], frame["x1"]] == figure["layout"]["xaxis"]["range"]
    assert [frame["y0"], frame["y1"]] == figure["layout"]["yaxis"]["range"]
    assert not drawn(Trace(trace.meta))["layout"]["shapes"][0]["visible"]


@pytest.mark.parametrize("dims", [2, 3])
def test_b7_how_far_from_where_it_ended_is_of_the_recorded_states(dims):
    trace = looped(tokens=12)
    figure = drawn(trace, token=7, pins=(3,), dims=dims)
    away, pinned = figure["data"][AWAY], figure["data"][AWAY_PINNED]
    for token, shown in ((7, away["y"]), (3, pinned["y"][:-1])):
        path = states(trace, token)
        wanted = [np.linalg.norm(state - path[-1]) / np.linalg.norm(path[-1]) for state in path[:-1]]
        assert shown == pytest.approx(wanted, rel=5e-3)
    assert (away["x0"], away["dx"]) == (0, 1), "s₀ first"
    assert pinned["x"] == [*range(len(states(trace, 3)) - 1), None]
    axis = figure["layout"]["yaxis2"]
    assert axis["type"] == "log"
    assert away["yaxis"] == "y2"
    assert figure["layout"]["shapes"][1]["y0"] == ROUNDING, "below it there is only the rounding of float16"


def test_b7_the_steps_there_is_room_for_are_those_that_were_taken():
    trace = looped(tokens=8)
    for steps, room in ((3, 4), (4, 4), (9, 9)):
        put_states(trace, 6, np.random.default_rng(1).normal(size=(steps + 1, 8)))
        assert drawn(trace, token=6)["layout"]["xaxis2"]["range"] == [-0.5, room + 0.5]


def test_b7_many_steps_leave_room_for_fewer_neighbours():
    figure = drawn(looped(tokens=40, strategy="fixed_count", max_steps=64))
    assert 1 <= len(paths(figure)) < NEAR
    assert len(figure["data"][NEIGHBOURS]["x"]) <= 400
