"""What the panels of a TTT run are built with: its numbers by token, marks where it was changed, a patch by what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, differences
from loopviz.trace import Trace, decode_floats
from loopviz.trace.schema import decode_singles

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace import Frame

Data = Callable[["Trace", "TTTFocus"], dict[str, Any]]

# Grey is what there was before anything was learned, blue what was learned, orange what is held beside it.
BEFORE, LEARNED, BESIDE = theme.SETUP_COLOURS[:3]
MARGIN = {"l": 52, "r": 10, "t": 48, "b": 44}
MOST_ENDS = 160  # ends of mini-batches that are marked, the latest
DIGITS = 5
MATRIX_HEIGHT = 430


def short(value: float) -> float:
    """A number with as many digits as a picture needs."""
    return float(f"{value:.{DIGITS}g}")


def of_heads(rows: np.ndarray, meta: Mapping[str, Any], focus: TTTFocus) -> np.ndarray:
    """Of numbers by layer and head (the first axis) those looked at: one head's, or the mean over the layer's heads."""
    first = min(focus.layer, meta["layers"] - 1) * meta["heads"]
    if focus.head is None or focus.head >= meta["heads"]:
        return rows[first : first + meta["heads"]].mean(0, dtype=float)
    return rows[first + focus.head].astype(float)


def curve(trace: Trace, focus: TTTFocus, name: str) -> list[float]:
    """A number of every token: `loss_before`, `loss_after`, `loss_start`, `drift` or `lr`."""
    if not len(trace):
        return []
    return [short(value) for value in of_heads(trace.inner(name).T, trace.meta["ttt"], focus).tolist()]


def held(frame: Frame, meta: Mapping[str, Any], focus: TTTFocus) -> np.ndarray:
    """Inner loss of the last tokens under the weights after this one, the oldest first."""
    found = decode_floats(frame["ttt"]["held"], 1)[:, 0].reshape(meta["layers"] * meta["heads"], -1)
    return of_heads(found, meta, focus)


def reads(frame: Frame, meta: Mapping[str, Any], focus: TTTFocus) -> np.ndarray:
    """The token's row of the dual form's matrix, from its mini-batch's first token to itself."""
    return of_heads(decode_singles(frame["ttt"]["reads"], frame["ttt"]["slot"] + 1), meta, focus)


def place(focus: TTTFocus, meta: Mapping[str, Any]) -> str:
    """Which layer and head is shown."""
    words = WORDS[focus.lang]
    layer = min(focus.layer, meta["layers"] - 1)
    if focus.head is None or focus.head >= meta["heads"]:
        return words["mean"].format(layer=layer, heads=meta["heads"])
    return words["head"].format(layer=layer, head=focus.head)


WORDS = {
    "en": {
        "mean": "layer {layer}, mean of {heads} heads",
        "head": "layer {layer}, head {head}",
        "forget": "forgot",
        "token": "position of the word (token)",
    },
    "zh": {
        "mean": "第 {layer} 层，{heads} 个头的平均",
        "head": "第 {layer} 层，第 {head} 头",
        "forget": "遗忘",
        "token": "词（词元）的位置",
    },
}


@lru_cache(maxsize=4096)
def shown(word: str) -> str:
    """A token as a hover shows it."""
    return labels.show_token(word, width=14)


def names(trace: Trace) -> list[str]:
    """The tokens as a hover shows them."""
    return [shown(frame["text"]) for frame in trace.frames]


def number(value: float, digits: int = 3) -> str:
    """As people read it."""
    return f"{value:.{digits}g}"


def _upright(x: float, colour: str, dash: str, width: float, axes: str = "") -> dict[str, Any]:
    return {
        "type": "line",
        "xref": f"x{axes}",
        "yref": f"y{axes} domain",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": colour, "width": width, "dash": dash},
    }


def marks(trace: Trace, focus: TTTFocus) -> list[dict[str, Any]]:
    """Shapes over positions: the token looked at, what was changed, and the ends of mini-batches, where W_0 is renewed."""
    meta, n = trace.meta["ttt"], len(trace)
    at, found = focus.selected(n), []
    if at is not None and focus.token is not None:
        found.append(_upright(at, theme.SELECTED, "solid", 1.5))
    for change in meta["changes"]:
        if change["index"] >= n:
            continue
        scale = f"×{number(change['inner_lr_scale'])}"
        said = WORDS[focus.lang]["forget"] if change["forget"] else scale
        label = {"text": said, "textposition": "end", "textangle": -90, "xanchor": "right", "font": {"size": 10}}
        found.append(_upright(change["index"] - 0.5, theme.INK, "dash", 1.2) | {"label": label})
    size = meta["mini_batch"]
    return found + [_upright(x - 0.5, theme.FAINT, "dot", 1) for x in range(size, n, size)[-MOST_ENDS:]]


def layout(height: int, title: str, **more: Any) -> dict[str, Any]:
    """What the layouts share."""
    return {
        "height": height,
        "margin": dict(MARGIN),
        "title": {"text": labels.escape(title), "y": 1 - 16 / height},
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "meta": {"select": {"token": "x"}},
        **more,
    }


def line(
    name: str, x: Sequence[float], y: Sequence[float], colour: str, dash: str = "solid", **more: Any
) -> dict[str, Any]:
    """A curve."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2, "dash": dash},
        **more,
    }


def matrix(
    trace: Trace,
    first: int,
    rows: Sequence[Sequence[float | None]],
    scale: Sequence[Sequence[Any]],
    ends: tuple[float, float],
    said: str,
    words: Mapping[str, str],
) -> dict[str, Any]:
    """The figure of a mini-batch's words by its words, where a word has nothing of later ones.

    Args:
        first: position of the mini-batch's first word.
        rows: by word that reads, `[K][K]`; None where there is nothing.
        scale, ends: colours, and the values of the first and last of them.
        said: its title; `words`: the panel's, of axes, hover and colour bar.
    """
    names = [f"{first + i} {shown(frame['text'])}" for i, frame in enumerate(trace.frames[first : first + len(rows)])]
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": rows,
        "zmin": ends[0],
        "zmax": ends[1],
        "colorscale": scale,
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": words["hover"] + "<extra></extra>",
        "colorbar": {"title": {"text": words["bar"]}, "thickness": 10, "len": 0.9, "outlinewidth": 0},
    }
    axes = {
        "xaxis": {"type": "category", "title": {"text": words["written"]}, "showgrid": False, "tickangle": -60},
        "yaxis": {"type": "category", "title": {"text": words["reads"]}, "autorange": "reversed", "showgrid": False},
        "showlegend": False,
        "meta": {"select": {"token": "y"}},  # a row's word
    }
    return {"data": [heat], "layout": layout(MATRIX_HEIGHT, said) | axes}


def checked(data: Data) -> Callable[[Trace, TTTFocus], go.Figure]:
    """A panel's `figure`: its `data`, every value checked by plotly."""

    def figure(trace: Trace, focus: TTTFocus) -> go.Figure:
        return go.Figure(data(trace, focus))

    figure.__module__, figure.__doc__ = data.__module__, data.__doc__
    return figure


def patched(data: Data) -> Callable[[Trace, Frame, TTTFocus], list[Op]]:
    """A panel's `patch`: what differs when a frame has come."""

    def patch(trace: Trace, frame: Frame, focus: TTTFocus) -> list[Op]:
        return differences(data(trace, focus), data(Trace(trace.meta, [*trace.frames, frame]), focus))

    patch.__module__, patch.__doc__ = data.__module__, "The edits that `frame` brings."
    return patch
