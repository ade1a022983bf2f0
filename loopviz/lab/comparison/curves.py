"""The curves of a comparison, one line a configuration: convergence, loops a token, cache bytes; and how they grow.

As with a panel: a figure is plain plotly data, and edits (:mod:`loopviz.figures.edits`) take it from one token to the next.
Law: folding the edits of a comparison over its empty figures gives :func:`figures` of the whole.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loopviz.figures import theme
from loopviz.figures.edits import Op, append, put
from loopviz.figures.labels import FLOOR, escape, sig

if TYPE_CHECKING:
    from loopviz.lab.comparison.result import Result

HEIGHT = 300
VIEWS = ("cosine", "kl", "rel_delta")
# Steps are whole: an axis of fewer than these would have ticks between them.
_WHOLE = {"tickformat": "d", "autorangeoptions": {"include": [1, 5]}}
TEXTS: dict[str, dict[str, Any]] = {
    "en": {
        "titles": {"convergence": "Does the loop settle?", "loops": "Loops a token", "kv": "KV cache"},
        "questions": {
            "convergence": "How much does a loop step still change? The median over the tokens chosen, by loop step.",
            "loops": "How many loop steps did the pass that chose each token take?",
            "kv": "How many bytes of cache are in use as the text grows? Of a TTT model: of its state, which does not grow.",
        },
        "views": {"cosine": "1 − cos(s<sub>r</sub>, s<sub>r−1</sub>)", "kl": "KL(p<sub>r−1</sub> ‖ p<sub>r</sub>), nats",
                  "rel_delta": "‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖"},
        "choices": {"cosine": "direction: 1 − cos", "kl": "prediction: KL", "rel_delta": "size of the step: ‖Δ‖/‖s‖"},
        "choose": "Quantity",
        "step": "loop step r",
        "token": "new token",
        "steps": "loop steps",
        "bytes": "bytes",
        "no_loop": "{names}: a TTT model has no loop, so no line here",
        "state": "{names}: bytes of its state, not of keys and values",
    },
    "zh": {
        "titles": {"convergence": "循环稳定下来了吗？", "loops": "每个词元的循环次数", "kv": "KV 缓存"},
        "questions": {
            "convergence": "每一步循环还改变多少？按循环步，取所选各词元的中位数。",
            "loops": "选出每个词元的那次前向循环了多少步？",
            "kv": "随着文本变长，缓存占用多少字节？TTT 模型则为其状态的字节数，它不随文本增长。",
        },
        "views": {"cosine": "1 − cos(s<sub>r</sub>, s<sub>r−1</sub>)", "kl": "KL(p<sub>r−1</sub> ‖ p<sub>r</sub>)，奈特",
                  "rel_delta": "‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖"},
        "choices": {"cosine": "方向：1 − cos", "kl": "预测：KL", "rel_delta": "步长：‖Δ‖/‖s‖"},
        "choose": "显示的量",
        "step": "循环步 r",
        "token": "新词元",
        "steps": "循环步数",
        "bytes": "字节",
        "no_loop": "{names}：TTT 模型没有循环，因此这里没有它的曲线",
        "state": "{names}：为其状态的字节数，而非键值缓存",
    },
}  # fmt: skip


def _line(name: str, place: int, *, step: bool = False, marks: bool = False) -> dict[str, Any]:
    """An empty line of the configuration at `place`."""
    colour, symbol = theme.SETUP_COLOURS[place], theme.SETUP_SYMBOLS[place]
    return {
        "type": "scatter",
        "mode": "lines+markers" if marks else "lines",
        "name": escape(name),
        "x": [],
        "y": [],
        "line": {"color": colour, "dash": theme.SETUP_DASHES[place], "width": 2, "shape": "hv" if step else "linear"},
        "marker": {"color": colour, "symbol": symbol, "size": 6},
        "hovertemplate": f"{escape(name)}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
    }


def _layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    return {
        "height": HEIGHT,
        "margin": {"l": 58, "r": 14, "t": 10, "b": 44},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}, **more},
        "showlegend": False,
    }


def _note(text: str, learning: Sequence[str]) -> dict[str, Any]:
    """What a figure says of the TTT models among its configurations, over it; nothing where there are none."""
    if not learning:
        return {}
    said = text.format(names=", ".join(map(escape, learning)))
    at = {"xref": "paper", "yref": "paper", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}
    return {"annotations": [{"text": said, "showarrow": False, "font": {"size": 11}, **at}]}


def empty(
    names: Sequence[str],
    lang: str,
    view: str = "cosine",
    places: Sequence[int] | None = None,
    learning: Sequence[str] = (),
) -> dict[str, Any]:
    """The figures before the first token: `{"convergence", "loops", "kv"}`, line `i` of each the configuration `i`.

    Args:
        view: what the convergence lines show, one of `VIEWS`.
        places: which colour and dash each has; None: their order.
        learning: the names of those that are TTT models.
    """
    words, places = TEXTS[lang], places or range(len(names))
    pairs = list(zip(names, places, strict=True))
    convergence = _layout(words["step"], words["views"][view], type="log", exponentformat="e", dtick=1)
    convergence["meta"] = {"view": view}
    convergence["xaxis"] |= _WHOLE
    no_loop, state = (_note(words[key], learning) for key in ("no_loop", "state"))
    margin = {"margin": {"l": 58, "r": 14, "t": 26, "b": 44}} if learning else {}
    made: dict[str, dict[str, Any]] = {
        "convergence": {"data": [_line(*pair, marks=True) for pair in pairs], "layout": convergence},
        "loops": {
            "data": [_line(*pair, step=True) for pair in pairs],
            "layout": _layout(words["token"], words["steps"], rangemode="tozero", **_WHOLE),
        },
        "kv": {
            "data": [_line(*pair) for pair in pairs],
            "layout": _layout(words["token"], words["bytes"], rangemode="tozero"),
        },
    }
    for called, note in (("convergence", no_loop), ("loops", no_loop), ("kv", state)):
        made[called]["layout"] |= note | margin
    return made


def curve(result: Result, view: str) -> list[float | None]:
    """The median of a quantity at each loop step, as drawn on a log axis; None where no token has it."""
    medians = [statistics.median(values) if values else None for values in result.curves[view]]
    return [None if value is None else sig(max(value, FLOOR)) for value in medians]


def edits(i: int, result: Result, known: int, view: str = "cosine") -> dict[str, list[Op]]:
    """What takes the figures from configuration `i`'s first `known` tokens to all it has now."""
    n = len(result.ids)
    if n == known:
        return {}
    settled = curve(result, view)
    places = list(range(known + 1, n + 1))

    def grow(values: list[int]) -> list[Op]:
        return [append(["data", i, "x"], places), append(["data", i, "y"], values[known:])]

    if result.learns:
        return {"kv": grow(result.kv_bytes)}
    return {
        "convergence": [
            put(["data", i, "x"], list(range(1, len(settled) + 1))),
            put(["data", i, "y"], settled),
        ],
        "loops": grow(result.loops),
        "kv": grow(result.kv_bytes),
    }


def figures(
    names: Sequence[str],
    results: Sequence[Result],
    lang: str,
    view: str = "cosine",
    places: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The figures of everything known."""
    learning = [name for name, result in zip(names, results, strict=True) if result.learns]
    made = empty(names, lang, view, places, learning)
    for i, result in enumerate(results):
        steps = curve(result, view)
        tokens = list(range(1, len(result.ids) + 1))
        if not result.learns:
            made["convergence"]["data"][i] |= {"x": list(range(1, len(steps) + 1)), "y": steps}
            made["loops"]["data"][i] |= {"x": tokens, "y": list(result.loops)}
        made["kv"]["data"][i] |= {"x": tokens, "y": list(result.kv_bytes)}
    return made
