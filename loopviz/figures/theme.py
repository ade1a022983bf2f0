"""One look for every panel: one meaning a colour, one lean template, readable on light and dark pages.

Colours are Okabe and Ito's (2008), which stay apart under the common colour vision deficiencies, three more for the
cache, and five muted ones for the parts of a pass, picked by the same test (``tests/figures/test_theme.py``). Line colours
have a contrast of 3:1 or more on white and on the dark page; colour is never the only sign: lines differ in dash, marks in
symbol, parts in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plotly.colors import sample_colorscale

# meaning -> colour. Two meanings share a colour only where they are one thing: a pass that stopped by cosine.
COLOURS: dict[str, str] = {
    "cosine": "#0072B2",
    "kl": "#D55E00",
    "rel_delta": "#009E73",
    "entropy": "#CC79A7",
    "stop_count": "#7F7F7F",
    "stop_cosine": "#0072B2",
    "stop_kl": "#D55E00",
    "stop_max": "#E69F00",
    "stop_other": "#F0E442",
    "kv_used": "#8C6238",
    "kv_allocated": "#8C6238",
    "plain": "#7961F2",
    "unrolled": "#1698D9",
    "part_prelude": "#6C94DA",
    "part_block": "#7B5C95",
    "part_coda": "#B78195",
    "part_head": "#D57C6E",
    "part_recording": "#49712F",
}
SAME_MEANING = [{"cosine", "stop_cosine"}, {"kl", "stop_kl"}, {"kv_used", "kv_allocated"}]

STOPS = ("count", "cosine", "kl", "max", "other")  # "other": a registered criterion
STOP_SYMBOLS = {"count": "square", "cosine": "circle", "kl": "diamond", "max": "triangle-up", "other": "star"}
DASHES = {"kv_used": "solid", "kv_allocated": "dot", "plain": "dash", "unrolled": "longdashdot"}

# Configurations side by side: a colour, a dash and a symbol for each place; grey is the first, the usual baseline.
# Picked by search: of colours with that contrast on both pages, six that stay far apart under every vision.
SETUP_COLOURS = ("#7F7F7F", "#0093F5", "#F56200", "#9B613B", "#643DFF", "#B62098")
SETUP_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SETUP_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")

# Greys that work on both pages. The page may override them: it is enough to set layout.template.layout.
INK = "#7A7A7A"  # text
FAINT = "rgba(127,127,127,0.35)"  # earlier tokens, not used
GRID = "rgba(127,127,127,0.20)"
SELECTED = "#FF33CC"  # what is selected: its outline, its line; no other data has this colour
MARK_EDGE = "#FFFFFF"

PAGES: dict[str, dict[str, str]] = {
    "light": {"ink": "#333A45", "grid": "rgba(0,0,0,0.10)", "page": "#FFFFFF"},
    "dark": {"ink": "#D5DAE1", "grid": "rgba(255,255,255,0.14)", "page": "#111827"},
}

# Cividis: perceptually uniform and made for colour vision deficiency (Nuñez, Anderton and Renslow 2018). Without its
# darkest ninth, which would pass for an empty cell on the dark page.
_CIVIDIS = ("#123570", "#3B496C", "#575D6D", "#707173", "#8A8678", "#A59C74", "#C3B369", "#E1CC55", "#FEE838")
SCALE: list[list[float | str]] = [[i / (len(_CIVIDIS) - 1), colour] for i, colour in enumerate(_CIVIDIS)]

# Of numbers of either sign, each stronger the further from 0: the ends of the common blue to orange, told apart by every vision.
SIGNS: dict[str, str] = {"below": "#0072B2", "above": "#D55E00"}

# Of it the half that words can stand on: black has a contrast of 4.5:1 or more with every one of these, in both looks.
ON_SCALE = "#000000"
LIGHT_SCALE: list[list[float | str]] = [[i / 4, colour] for i, colour in enumerate(_CIVIDIS[4:])]


def on(colour: str) -> str:
    """Black or white, whichever reads better on a colour (`#rrggbb`): one of them has 4.5:1 or more with any."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#FFFFFF"


def off(colour: str) -> str:
    """Black or white, whichever :func:`on` does not say: lines of it leave what is written over them readable."""
    return "#000000" if on(colour) == "#FFFFFF" else "#FFFFFF"


# How long a word looped: one warm colour of growing strength, so that few loops are faint and many strong on a light page
# and on a dark one alike; both pages' ink can be read on every one of them.
_GLOW = ("#FFC53D", "#F98B1D", "#EE5A12")
_FAINT, _DEEP = 0.14, 0.68  # opacity of the fewest loops, and of the most


def loop_tints(steps: int) -> list[str]:
    """A colour for each number of loops 1..``steps``: few loops faint, many strong. Each is ``rgba(r, g, b, opacity)``.

    Most tokens take few of many loops allowed, so the colours of few loops are further apart.
    """
    if steps < 1:
        return []
    shares = [(i / max(1, steps - 1)) ** 0.7 for i in range(steps)]
    hues = sample_colorscale([[i / 2, colour] for i, colour in enumerate(_GLOW)], shares)
    strengths = [_FAINT + share * (_DEEP - _FAINT) for share in shares]
    return [
        f"rgba{hue.removeprefix('rgb').removesuffix(')')}, {strength:.3g})"
        for hue, strength in zip(hues, strengths, strict=True)
    ]


def tints_of(taken: Iterable[int]) -> list[str | None]:
    """A colour for each number of loops that tokens of a run took (``taken``, 0 for none), faint for few, strong for many.

    By their order within the run: 2 and 3 loops are told apart in a run of 2 and 3, whatever it might have taken.

    Returns:
        One entry for each of 1 to the most loops; None for a number that no token took.
    """
    found = sorted({loops for loops in taken if loops > 0})
    colours = dict(zip(found, loop_tints(len(found)), strict=True))
    return [colours.get(loops) for loops in range(1, max(found, default=0) + 1)]


def stop_kind(reason: str) -> str:
    """Which of ``STOPS`` the stop reason of a frame is: itself, or "other" for a registered criterion's name."""
    return reason if reason in STOPS else "other"


def template(page: str | None = None) -> dict[str, Any]:
    """Our plotly template: transparent, small; ``page`` in ``PAGES`` for its ink and grid, None for greys that fit both."""
    ink = PAGES[page]["ink"] if page else INK
    grid = PAGES[page]["grid"] if page else GRID
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "tickcolor": grid,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 3,
        "tickfont": {"size": 11},
        "title": {"font": {"size": 12}, "standoff": 6},
        "automargin": True,
        "ticklabeloverflow": "allow",  # else every label is measured at every draw, to hide those that stick out
    }
    return {
        "layout": {
            "font": {"family": "system-ui, 'Noto Sans', 'Noto Sans CJK SC', 'PingFang SC', sans-serif", "color": ink},
            "title": {
                "font": {"size": 13},
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"l": 6},
            },
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"align": "left", "namelength": -1},
            "hovermode": "closest",
            "legend": {"orientation": "h", "font": {"size": 11}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ink, "activecolor": COLOURS["cosine"]},
        }
    }
