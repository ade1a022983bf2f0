"""What the figures show: the frames' numbers, at the right place, and words where there is nothing to show."""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest
from plotly.colors import sample_colorscale

from loopviz.figures.labels import COMMON, FLOOR
from loopviz.panels import LANGUAGES, METRICS, PANELS, Focus, figure_json
from loopviz.panels.kit.follower import contraction
from loopviz.trace import EXTRAS, Trace
from tests.panels.cases import looped

convergence, token_map, kv = (PANELS[name] for name in ("convergence", "token_loop_map", "kv_occupancy"))
LOOP_PANELS = [convergence, token_map]
BLOCK_PANELS = [*LOOP_PANELS, *(PANELS[n] for n in ("would_say", "text_by_loop", "key_similarity", "attention"))]
ANY_MODEL = [panel for panel in PANELS.values() if panel.NAME != "instrument"]  # that one speaks of glassbox alone


def drawn(panel, trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def notice(figure):
    """The text shown instead of data; None when none is shown."""
    first = figure["layout"]["annotations"][0]
    return first["text"].replace("<br>", " ") if first["visible"] else None


def named(figure, name):
    return [trace for trace in figure["data"] if trace.get("name") == name]


# --- convergence


def test_convergence_draws_the_selected_tokens_numbers():
    trace = looped()
    steps = trace.frames[5]["blocks"][0]["steps"]
    figure = drawn(convergence, trace, token=5)
    gaps = [None if c is None else 1 - c for c in steps["cosine"]]
    for name, values in (("1 − cos", gaps), ("KL", steps["kl"]), ("‖Δ‖/‖s‖", steps["rel_delta"])):
        (curve,) = named(figure, name)
        assert len(curve["y"]) == len(values)
        assert (curve["x0"], curve["dx"]) == (1, 1)
        for y, value in zip(curve["y"], values, strict=True):
            assert y is None if value is None else y == pytest.approx(value, rel=1e-3)
    for stop in named(figure, "stopped here"):
        assert stop["x"] == [trace.frames[5]["blocks"][0]["n_steps"]]


def curves(faint):
    """The faint curves of a trace, in no order: lists of numbers between gaps."""
    out, current = [], []
    for y in [*faint["y"], None]:
        if y is None:
            out, current = ([*out, current] if current else out), []
        else:
            current.append(y)
    return out


@pytest.mark.parametrize(("focus", "shown"), [(None, range(75, 99)), (70, range(46, 70)), (3, range(3))])
def test_faint_curves_are_the_24_tokens_before_the_selected_one(focus, shown):
    trace = looped(tokens=100)
    for i, frame in enumerate(trace.frames):  # every curve of one step, with a value that names its token
        for name in ("cosine", "kl", "rel_delta"):
            frame["blocks"][0]["steps"][name] = [i / 1000]
    faint = drawn(convergence, trace, token=focus)["data"][1]
    assert sorted(curves(faint)) == sorted([max(t / 1000, FLOOR)] for t in shown)


@pytest.mark.parametrize(
    ("strategy", "criterion", "used"),
    [
        ("fixed_count", "either", ()),
        ("dynamic_stop", "either", (0, 1)),
        ("dynamic_stop", "both", (0, 1)),
        ("dynamic_stop", "cosine", (0,)),
        ("dynamic_stop", "kl", (1,)),
    ],
)
def test_a_threshold_that_cannot_stop_the_loop_is_not_drawn_as_one_that_can(strategy, criterion, used):
    shapes = drawn(convergence, looped(strategy=strategy, criterion=criterion))["layout"]["shapes"]
    for i, value in enumerate((0.05, 0.01)):
        label = shapes[i]["label"]["text"]
        assert shapes[i]["y0"] == shapes[i]["y1"] == pytest.approx(value)
        assert (shapes[i]["line"]["dash"] == "dash") == (i in used)
        assert ("not used by" in label) == (i not in used)
        assert str(value) in label
        if i not in used:
            assert (strategy if strategy == "fixed_count" else criterion) in label


def test_whether_a_registered_rule_reads_a_threshold_is_not_claimed():
    """It was said not to be used, also where the rule read it."""
    shapes = drawn(convergence, looped(strategy="dynamic_stop", criterion="acceleration"))["layout"]["shapes"]
    for shape, value in zip(shapes, ("0.05", "0.01"), strict=False):
        assert shape["line"]["dash"] == "dot"
        assert shape["label"]["text"] == f"{value}, if acceleration uses it"


def test_a_threshold_of_zero_says_that_a_log_axis_cannot_show_it():
    shapes = drawn(convergence, looped(kl_threshold=0.0, cosine_threshold=1.0))["layout"]["shapes"]
    for shape in shapes[:2]:
        assert shape["y0"] == FLOOR
        assert "below the axis" in shape["label"]["text"]


@pytest.mark.parametrize(
    ("dtype", "eps"), [("float16", 2**-10), ("bfloat16", 2**-7), ("int8", None), ("float32", None)]
)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_run_in_half_has_a_line_where_rounding_ends_its_curves(dtype: str, eps: float | None, lang: str) -> None:
    trace = looped()
    plain = drawn(convergence, trace, lang=lang)["layout"]["shapes"]
    trace.meta["provenance"] = {"device": "cpu", "dtype": dtype}
    shapes = [shape for shape in drawn(convergence, trace, lang=lang)["layout"]["shapes"] if shape not in plain]
    assert len(shapes) == (eps is not None)
    for shape in shapes:
        assert shape["yref"] == "y3"
        assert shape["y0"] == shape["y1"] == pytest.approx(eps / 2, rel=1e-3)
        assert dtype in shape["label"]["text"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_identical_states_are_drawn_at_the_floor_and_the_hover_says_so(lang):
    trace = looped()
    trace.frames[-1]["blocks"][0].update(n_steps=2, stop_reason="cosine")
    trace.frames[-1]["blocks"][0]["steps"].update(cosine=[1.0, 1.0000001], kl=[0.0, -3e-9])
    figure = drawn(convergence, trace, lang=lang)
    for name in ("1 − cos", "KL"):
        (curve,) = named(figure, name)
        assert curve["y"] == [FLOOR, FLOOR]
        assert all("1e-8" in text for text in curve["text"])
    (cosine,) = named(figure, "1 − cos")
    assert "-1e-7" in cosine["text"][1], "the value itself, not the floor"


def test_the_pass_of_many_tokens_is_named_where_the_stop_was_a_mean():
    trace = looped()  # four prompt tokens in one pass
    assert "pass of 4 tokens" in drawn(convergence, trace, token=1)["layout"]["title"]["text"]
    assert "pass of" not in drawn(convergence, trace, token=6)["layout"]["title"]["text"]


# --- token x loop map


def recorded(block, metric):
    if metric == "contraction":
        return [None, *contraction(block)]
    return block["steps"][metric]


@pytest.mark.parametrize("metric", METRICS)
def test_the_map_has_a_cell_for_every_step_that_ran(metric):
    trace = looped()
    cells = drawn(token_map, trace, metric=metric)["data"][0]
    shown = {
        (int(x.split()[0]), y): (z, text)
        for x, y, z, text in zip(*(cells[k] for k in ("x", "y", "z", "text")), strict=True)
    }
    assert len(shown) == len(cells["z"]), "two tokens of the same text fell into one column"
    for frame in trace.frames:
        block = frame["blocks"][0]
        for r, value in enumerate(recorded(block, metric), start=1):
            z, text = shown.pop((frame["index"], r))
            if value is None:
                assert z is None
                continue
            value = 1 - value if metric == "cosine" else value
            assert z == pytest.approx(value if metric == "entropy" else math.log10(max(value, FLOOR)), abs=1e-3)
            assert float(text.split("<br>")[0].split()[0]) == pytest.approx(value, rel=5e-3)
    assert not shown, "cells of steps that did not run"


def test_marks_show_where_and_why_every_token_stopped():
    trace = looped(tokens=30)
    trace.frames[7]["blocks"][0]["stop_reason"] = "acceleration"
    marks = {}
    kinds = ("count", "cosine", "kl", "max", "acceleration")
    for kind, mark in zip(kinds, drawn(token_map, trace)["data"][1:], strict=True):
        marks |= {int(x.split()[0]): (kind, y) for x, y in zip(mark["x"], mark["y"], strict=True)}
    assert marks == {f["index"]: (f["blocks"][0]["stop_reason"], f["blocks"][0]["n_steps"]) for f in trace.frames}


@pytest.mark.parametrize(("focus", "at"), [(None, 7), (2, 2)])
def test_the_selected_column_is_outlined(focus, at):
    outline = drawn(token_map, looped(), token=focus)["layout"]["shapes"][0]
    assert outline["visible"]
    assert (outline["x0"], outline["x1"]) == (at - 0.5, at + 0.5)


def test_the_block_selected_is_the_block_shown():
    trace = looped(blocks=[(0, 1), (3, 4)])
    for i in (0, 1):
        kl = [value for frame in trace.frames for value in frame["blocks"][i]["steps"]["kl"]]
        z = drawn(token_map, trace, block=i, metric="kl")["data"][0]["z"]
        assert z == [pytest.approx(math.log10(value), abs=1e-3) for value in kl]
        assert named(drawn(convergence, trace, block=i), "KL")[0]["y"] == [
            pytest.approx(value, rel=1e-3) for value in trace.frames[-1]["blocks"][i]["steps"]["kl"]
        ]


# --- KV occupancy


@pytest.mark.parametrize(("focus", "at"), [(None, 7), (2, 2)])
def test_kv_shows_the_cache_after_the_selected_token(focus, at):
    trace = looped(slots=3)
    figure, held = drawn(kv, trace, token=focus), trace.frames[at]["kv"]
    grid = figure["data"][0]
    assert grid["z"] == held["slots"]
    assert grid["transpose"], "one list a layer: layers along x"
    assert (grid["zmin"], grid["zmax"]) == (0, at + 1)
    title = figure["layout"]["title"]["text"]
    for kind in ("used", "allocated", "plain", "unrolled"):
        count = held[f"bytes_{kind}"]
        assert f"{count / 1000:.4g} kB" in title


def test_kv_lines_are_the_bytes_of_every_token():
    trace = looped()
    figure = drawn(kv, trace, token=2)
    for name, kind in (("in use", "used"), ("allocated", "allocated"), ("plain Llama", "plain"), ("unrolled",) * 2):
        (line,) = named(figure, name)
        assert line["y"] == [frame["kv"][f"bytes_{kind}"] for frame in trace.frames]
        assert (line.get("x"), line["x0"], line["dx"]) == (None, 0, 1)


@pytest.mark.parametrize(("kv_mode", "rows"), [("virtual_layers", 4), ("merge_strategy", 1)])
def test_the_grid_has_a_row_for_every_slot_a_layer_owns(kv_mode, rows):
    assert drawn(kv, looped(slots=4, kv_mode=kv_mode))["layout"]["yaxis"]["range"] == [-0.5, rows - 0.5]


# --- nothing to show, and text that is not ours


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_is_missing_is_said_on_screen(lang):
    common, trace = COMMON[lang], looped(exit_selection="gate")
    for panel in ANY_MODEL:
        said = notice(drawn(panel, Trace(trace.meta), lang=lang))
        assert said.replace(" ", "") == panel.TEXTS[lang]["no_data"].replace(" ", "")
        assert notice(drawn(panel, trace, lang=lang)) is None
        late = drawn(panel, trace, token=9, lang=lang)
        assert common["not_yet"].format(token=9) in f"{notice(late)} {late['layout']['title']['text']}"
    for panel in BLOCK_PANELS:
        assert notice(drawn(panel, looped(blocks=[]), lang=lang)) == common["no_blocks"]
        said = notice(drawn(panel, looped(blocks=[(0, 0), (2, 3)]), block=2, lang=lang))
        assert said.replace(" ", "") == common["no_block"].format(block=2, last=1).replace(" ", "")
        off = drawn(panel, looped(record="off", extras=()), lang=lang)
        told = f"{notice(off)} {off['layout']['title']['text']}".replace(" ", "")
        assert (panel.TEXTS[lang]["not_recorded"] if getattr(panel, "NEEDS", ()) else common["not_recorded"]).replace(
            " ", ""
        ) in told


def test_plain_llama_still_has_its_cache():
    figure = drawn(kv, looped(blocks=[]))
    assert figure["data"][0]["z"] == [[8]] * 6
    assert notice(figure) is None


def test_recorder_off_still_marks_where_tokens_stopped():
    trace = looped(record="off")
    figure = drawn(token_map, trace)
    assert sum(len(mark["x"]) for mark in figure["data"][1:]) == len(trace)
    assert set(figure["data"][0]["z"]) == {None}


@pytest.mark.parametrize("text", ["<b>x</b>", "&lt;", "%{x}", "<a href='javascript:1'>y</a>", "\u202eabc", "\n\n"])
def test_a_tokens_characters_are_shown_as_characters(text):
    trace = looped()
    for frame in trace.frames:
        frame["text"] = frame["next_text"] = text
        frame["blocks"][0]["steps"]["topk_texts"] = [[text] * 5 for _ in range(frame["blocks"][0]["n_steps"])]
    for panel in PANELS.values():
        figure = drawn(panel, trace)
        figure["data"] = [{k: v for k, v in t.items() if not k.endswith("template")} for t in figure["data"]]
        dump = json.dumps(figure, ensure_ascii=False)
        for raw in ("<b>", "<a ", "%{", "\u202e", "\\n"):
            assert raw not in dump, (panel.NAME, raw)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" cat", "cat"),
        ("", "…"),
        ("  ", "␣␣"),
        ("a\n", "a↵"),
        ("<", "&lt;"),
        ("&lt;", "&amp;lt;"),
        ("你" * 20, "你" * 5 + "…"),
    ],
)
def test_show_token(text, shown):
    from loopviz.figures.labels import show_token

    assert show_token(text, width=10) == shown


def test_the_model_is_not_said_to_say_the_prompt():
    trace = looped()
    title = drawn(convergence, trace, token=1)["layout"]["title"]["text"]
    assert trace.frames[1]["phase"] == "prompt"
    assert "says" not in title


def test_contraction_is_how_much_shorter_each_step_is_than_the_one_before():
    trace = looped(tokens=2)
    steps = trace.frames[1]["blocks"][0]["steps"]
    sizes = [delta * norm for delta, norm in zip(steps["rel_delta"], steps["norm"], strict=True)]
    cells = drawn(token_map, trace, metric="contraction")["data"][0]
    column = [z for x, z in zip(cells["x"], cells["z"], strict=True) if x.startswith("1 ")]
    assert column[0] is None, "the first step has none before it"
    expected = [math.log10(max(new / old, FLOOR)) for old, new in itertools.pairwise(sizes)]
    assert column[1:] == pytest.approx(expected, abs=1e-3)
    assert notice(drawn(token_map, looped(record="off"), metric="contraction")) is None
    assert (
        COMMON["en"]["not_recorded"]
        in drawn(token_map, looped(record="off"), metric="contraction")["layout"]["title"]["text"]
    )


@pytest.mark.parametrize("panel", [p for p in ANY_MODEL if not p.NAME.startswith("kv_")], ids=lambda p: p.NAME)
def test_the_block_can_be_chosen_where_there_are_several(panel):
    two = looped(blocks=[(1, 2), (4, 5)])
    choice = drawn(panel, two, block=1)["layout"]["meta"]["choices"]["block"]
    assert [value for value, _ in choice["options"]] == [0, 1]
    assert choice["value"] == 1
    assert "layers 4–5" in choice["options"][1][1]
    assert "block" in drawn(panel, two, block=7)["layout"]["meta"]["choices"], "there is a way back"
    assert "block" not in drawn(panel, looped())["layout"]["meta"].get("choices", {})


@pytest.mark.parametrize(("layers", "blocks", "slots", "written"), [(2, [(0, 1)], 1, True), (30, [(10, 14)], 5, False)])
def test_a_slot_map_of_two_layers_says_what_it_holds(layers, blocks, slots, written):
    """It was one yellow block with "block 0" over it."""
    trace = looped(layers=layers, blocks=blocks, slots=slots)
    figure = PANELS["kv_occupancy"].data(trace, Focus())
    assert (figure["data"][0].get("texttemplate") == "%{z}") == written
    a, b = blocks[0]
    assert f"layers {a}–{b} loop" in figure["layout"]["shapes"][1]["label"]["text"]


# --- words on colours


def _colours(figure, trace):
    """What a heatmap's cells may be painted with, finely."""
    scale = trace.get("colorscale") or figure["layout"][trace["coloraxis"]]["colorscale"]
    return sample_colorscale(scale, [i / 200 for i in range(201)])


def _luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)] if colour.startswith("rgb") else []
    parts = parts or [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
@pytest.mark.parametrize("layers", [6, 2], ids=["usual", "few layers"])
def test_b7_words_on_cells_and_bars_can_be_read_on_every_colour(panel, layers):
    """WCAG AA, 4.5:1: a cell may have any colour of its scale."""
    figure = panel.data(looped(extras=EXTRAS, layers=layers, blocks=[(0, 1)]), Focus())
    for trace in figure["data"]:
        if "texttemplate" not in trace or trace.get("textposition") == "outside":
            continue
        if trace["type"] == "heatmap":
            ink, under = trace["textfont"]["color"], _colours(figure, trace)
        else:
            ink, under = trace["insidetextfont"]["color"], [trace["marker"]["color"]]
        for colour in under:
            light, dark = sorted((_luminance(ink), _luminance(colour)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (panel.NAME, ink, colour)
