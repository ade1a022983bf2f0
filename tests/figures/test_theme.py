"""One meaning a colour; colours that stay apart for every eye, on both pages."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from loopviz.figures import theme
from loopviz.panels import PANELS, Focus, figure_json
from tests.panels.cases import looped

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
WHITE = (0.95047, 1.0, 1.08883)
TOGETHER = {  # meanings drawn as marks or lines of one subplot
    "token_loop_map": [f"stop_{kind}" for kind in theme.STOPS],
    "convergence": ["cosine", "kl", "stop_max", "stop_other"],
    "kv_occupancy": ["kv_used", "plain", "unrolled"],
    "loops_per_token": [f"stop_{kind}" for kind in theme.STOPS],
    "cost": ["part_prelude", "part_block", "part_coda", "part_head", "part_recording"],
}


def linear(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def lab(colour, vision):
    seen = [min(1.0, max(0.0, c)) for c in times(VISION[vision], linear(colour))]
    ratio = [c / white for c, white in zip(times(TO_XYZ, seen), WHITE, strict=True)]
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in ratio)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def apart(one, other, vision):
    """Distance of two colours in CIELAB (CIE 1976) as this vision sees them; about 2 is just noticeable."""
    return sum((a - b) ** 2 for a, b in zip(lab(one, vision), lab(other, vision), strict=True)) ** 0.5


def contrast(one, other):
    low, high = sorted(times(TO_XYZ, linear(c))[1] for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_one_meaning_a_colour():
    by_colour = {}
    for meaning, colour in theme.COLOURS.items():
        by_colour.setdefault(colour, set()).add(meaning)
    shared = [meanings for meanings in by_colour.values() if len(meanings) > 1]
    assert sorted(map(sorted, shared)) == sorted(map(sorted, theme.SAME_MEANING))
    assert theme.SELECTED not in by_colour
    assert set(theme.STOP_SYMBOLS) == set(theme.STOPS)
    assert len(set(theme.STOP_SYMBOLS.values())) == len(theme.STOPS), "stop reasons differ in symbol as well"


@pytest.mark.parametrize("name", PANELS)
def test_panels_use_no_colour_of_their_own(name):
    trace = looped(tokens=20)
    trace.meta["model"] = "glassbox"  # the one that every panel draws
    trace.meta["blocks"][0] |= {"injection": "linear", "norm": False}
    figure = figure_json(PANELS[name].figure(trace, Focus(step=2)))
    known = {*theme.COLOURS.values(), theme.SELECTED, theme.INK, theme.MARK_EDGE}
    known |= {colour for _, colour in theme.SCALE} | {theme.ON_SCALE}
    used = set(re.findall(r"#[0-9A-Fa-f]{6}", json.dumps([figure["data"], figure["layout"].get("shapes")])))
    assert used
    assert used <= known


@pytest.mark.parametrize("meaning", ["cosine", "kl", "kv_used", "kv_allocated", "plain", "unrolled"])
@pytest.mark.parametrize("page", theme.PAGES)
def test_lines_stand_out_from_the_page(meaning, page):
    assert contrast(theme.COLOURS[meaning], theme.PAGES[page]["page"]) >= 3


@pytest.mark.parametrize("page", theme.PAGES)
def test_text_can_be_read(page):
    assert contrast(theme.PAGES[page]["ink"], theme.PAGES[page]["page"]) >= 7


def test_a20_words_on_cells_and_bars_can_be_read():
    assert min(contrast(theme.ON_SCALE, colour) for _, colour in theme.LIGHT_SCALE) >= 4.5
    assert all(contrast(theme.on(colour), colour) >= 4.5 for colour in (*theme.COLOURS.values(), *theme.SETUP_COLOURS))
    assert all({theme.on(colour), theme.off(colour)} == {"#000000", "#FFFFFF"} for colour in theme.COLOURS.values())


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("panel", TOGETHER)
def test_colours_of_one_panel_stay_apart(panel, vision):
    colours = [theme.COLOURS[meaning] for meaning in TOGETHER[panel]]
    for one, other in itertools.combinations(colours, 2):
        assert apart(one, other, vision) >= 12, (one, other)


@pytest.mark.parametrize("vision", VISION)
def test_the_selection_can_be_seen_on_every_cell_and_beside_every_mark(vision):
    assert min(apart(theme.SELECTED, colour, vision) for _, colour in theme.SCALE) >= 25
    for panel in TOGETHER.values():  # an outline or a thin line: form tells it from marks as well
        assert min(apart(theme.SELECTED, theme.COLOURS[meaning], vision) for meaning in panel) >= 10


@pytest.mark.parametrize("vision", VISION)
def test_the_colour_scale_grows_lighter_step_by_step(vision):
    lightness = [lab(colour, vision)[0] for _, colour in theme.SCALE]
    assert all(b - a > 3 for a, b in itertools.pairwise(lightness))


@pytest.mark.parametrize("vision", VISION)
def test_configurations_side_by_side_stay_apart_in_colour_dash_and_symbol(vision):
    for one, other in itertools.combinations(theme.SETUP_COLOURS, 2):
        assert apart(one, other, vision) >= 20, (one, other)
    for page in theme.PAGES.values():
        assert all(contrast(colour, page["page"]) >= 3 for colour in theme.SETUP_COLOURS)
    for signs in (theme.SETUP_COLOURS, theme.SETUP_DASHES, theme.SETUP_SYMBOLS):
        assert len(set(signs)) == 6


def test_two_and_three_loops_of_thirty_two_are_told_apart():
    """A8: a word's tint goes by the run's own loops, and not by what it might have taken."""
    assert theme.tints_of([2, 3, 2]) == [None, *theme.loop_tints(2)]
    assert theme.tints_of([3, 3]) == [None, None, *theme.loop_tints(1)]
    assert theme.tints_of([2, 16, 3, 0]) == [None, *theme.loop_tints(3)[:2], *[None] * 12, theme.loop_tints(3)[2]]
    assert theme.tints_of([0, 0]) == theme.tints_of([]) == []


def over(tint, page):
    """A translucent colour on a page: `#rrggbb`."""
    *parts, strength = (float(part) for part in re.findall(r"[\d.]+", tint))
    ground = [int(page[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(strength * a + (1 - strength) * b):02x}" for a, b in zip(parts, ground, strict=True))


@pytest.mark.parametrize("page", theme.PAGES)
def test_b2_few_loops_are_faint_and_many_strong_in_both_looks(page):
    """Every word's letters can be read on its colour, and a colour of more loops is further from the page's own."""
    ground, ink = theme.PAGES[page]["page"], {"light": "#1f2733", "dark": "#e6eaf0"}[page]
    for steps in (2, 3, 5, 8, 16):
        tints = [over(tint, ground) for tint in theme.loop_tints(steps)]
        assert min(contrast(ink, tint) for tint in tints) >= 4.5
        away = [apart(tint, ground, "full") for tint in tints]
        assert all(b > a for a, b in itertools.pairwise(away)), away
        assert away[-1] > 2.5 * away[0]
