"""Instrument check: what was measured on the built model `glassbox`, beside what is known about it exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, fill
from loopviz.panels.kit import follower, parts

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "instrument"
GROUP = "cost"
ORDER = 5
CODE: tuple[str, ...] = (
    "loopviz.panels.loop.instrument:exact_gap",
    "loopviz.panels.loop.instrument:exact_rate",
    "loopviz.model.measures:cosine",
)  # what computes it; the page links there
USUAL = False  # it speaks of one model only
MODEL, RATE = "glassbox", 0.75  # its rho; the builder (loopviz.train.glassbox) is tested against it
UNKNOWN = 0  # the symbol that stays where it is

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Can the instrument be trusted?",
        "question": "Is what this page measures on a model with known answers what it must be?",
        "how": "The model glassbox was not trained but built: each loop step goes a known share of the way that is left to "
        "a known point. So every curve has an exact value, drawn as a line; what this page measured is drawn as marks. "
        "Above: how far the state turned. Below: how much of the step before each step is (the rate). At very small "
        "values marks leave the line: numbers have about seven digits (float32).",
        "formula": r"s_r=\rho^r e+(1-\rho^r)Me,\quad c=\rho^r,\ d=1-c:\quad \cos(s_r,s_{r-1})="
        r"\frac{cc'+dd'}{\sqrt{(c^2+d^2)(c'^2+d'^2)}},\qquad \frac{\lVert\Delta_{r+1}\rVert}{\lVert\Delta_r\rVert}=\rho,"
        r"\qquad \rho=1-\eta\,(1-0.75)",
        "units": "1 − cos and rate: no unit. η: step size (damping). A prime is the step before.",
        "source": "Exact: the weights of glassbox, by induction over its steps. Measured: cos, ‖Δ‖/‖s‖ and ‖s‖ as this run "
        "recorded them, by the same code as for every other model.",
        "no_data": "Nothing read yet",
        "other": "Only the model glassbox has known answers, and this run is of another",
        "act": "Run glassbox and check it",
        "changed": "Known answers hold for glassbox as it was built: one block, learned mix (linear), no loop norm",
        "cost": "Nothing beyond what every run records.",
        "step": "loop step r",
        "gap": "1 − cos(s<sub>r</sub>,s<sub>r−1</sub>)",
        "rate": "rate ‖Δ<sub>r+1</sub>‖/‖Δ<sub>r</sub>‖",
        "exact": "exact",
        "measured": "measured",
        "hover_exact": "step %{x}<br>exact: %{y:.6g}",
        "hover_measured": "step %{x}<br>measured: %{y:.6g}",
        "head": "{token}<br>rate: exact {rate:.4f}, measured {measured}<br>largest difference of cos: {gap}",
        "stays": "{token}<br>glassbox does not know this symbol:<br>its state must not move · largest turn {gap}",
        "summary": "{token}: the rate is exactly {rate:.4f}; measured {measured}. The cosines differ from the exact ones by "
        "at most {gap}.",
    },
    "zh": {
        "title": "这台仪器可信吗？",
        "question": "在答案已知的模型上，本页测得的值是否正是它应有的值？",
        "how": "模型 glassbox 不是训练出来的，而是构造出来的：每个循环步走完到一个已知点的剩余路程的已知比例。因此每条曲线都有精确值，"
        "画成线；本页测得的值画成点。上图：状态转动了多少。下图：每一步是前一步的多少（收缩率）。数值极小时点会离开线："
        "数字只有约七位有效数字（float32）。",
        "formula": r"s_r=\rho^r e+(1-\rho^r)Me,\quad c=\rho^r,\ d=1-c:\quad \cos(s_r,s_{r-1})="
        r"\frac{cc'+dd'}{\sqrt{(c^2+d^2)(c'^2+d'^2)}},\qquad \frac{\lVert\Delta_{r+1}\rVert}{\lVert\Delta_r\rVert}=\rho,"
        r"\qquad \rho=1-\eta\,(1-0.75)",
        "units": "1 − cos 与收缩率：无单位。η：步长（阻尼）。撇号表示前一步。",
        "source": "精确值：由 glassbox 的权重对循环步归纳得出。测量值：本次运行记录的 cos、‖Δ‖/‖s‖ 与 ‖s‖，与其他模型用的是同一段代码。",
        "no_data": "尚未读入词元",
        "other": "只有模型 glassbox 的答案是已知的，而这次运行用的是另一个模型",
        "act": "运行 glassbox 并检验",
        "changed": "已知答案只适用于构造时的 glassbox：一个块，学习得到的混合（linear），没有循环归一化",
        "cost": "除每次运行本来就记录的内容之外，没有额外开销。",
        "step": "循环步 r",
        "gap": "1 − cos(s<sub>r</sub>,s<sub>r−1</sub>)",
        "rate": "收缩率 ‖Δ<sub>r+1</sub>‖/‖Δ<sub>r</sub>‖",
        "exact": "精确",
        "measured": "测量",
        "hover_exact": "第 %{x} 步<br>精确值：%{y:.6g}",
        "hover_measured": "第 %{x} 步<br>测量值：%{y:.6g}",
        "head": "{token}<br>收缩率：精确 {rate:.4f}，测得 {measured}<br>cos 的最大差：{gap}",
        "stays": "{token}<br>glassbox 不认识这个符号：<br>它的状态不应移动 · 最大转动 {gap}",
        "summary": "{token}：收缩率的精确值为 {rate:.4f}，测得 {measured}；余弦与精确值最多相差 {gap}。",
    },
}
EXACT_GAP, GAP, EXACT_RATE, MEASURED_RATE = range(4)
HEIGHT = 440
_FOLLOWER = follower.Follower()


def applies(meta: Mapping[str, Any]) -> bool:
    """Whether this run's model is the one with known answers; a page need not show the panel for others."""
    return meta["model"] == MODEL


def tells_of(meta: Mapping[str, Any]) -> bool:
    """Whether it is on by itself: for a run of its model."""
    return applies(meta)


def _refusal(meta: Mapping[str, Any], lang: str) -> str | None:
    """Why there are no exact values for this run."""
    if not applies(meta):
        return TEXTS[lang]["other"]
    spec = meta["blocks"][0] if len(meta["blocks"]) == 1 else None
    if spec is None or spec["injection"] != "linear" or spec["norm"]:
        return TEXTS[lang]["changed"]
    return None


def exact_rate(damping: float) -> float:
    """rho with a step size: `s_r = s_{r-1} + eta (f(s_{r-1}) - s_{r-1})` shrinks the way left by `1 - eta (1 - rho)`."""
    return 1 - damping * (1 - RATE)


def exact_gap(rate: float, step: int) -> float:
    """`1 - cos(s_r, s_{r-1})` in closed form, without cancellation: `sin^2 / (1 + cos)` of the angle between them."""
    (c, d), (old_c, old_d) = ((k, 1 - k) for k in (rate**step, rate ** (step - 1)))
    size = math.sqrt((c * c + d * d) * (old_c * old_c + old_d * old_d))
    cosine, sine = (c * old_c + d * old_d) / size, (c * old_d - d * old_c) / size
    return sine * sine / (1 + cosine)


def _difference(block: Mapping[str, Any], rate: float | None) -> float | None:
    """Largest |measured cos - exact|; of a symbol that stays (`rate` None) the exact cos is 1."""
    gaps = [
        abs(cosine - (1 - (0 if rate is None else exact_gap(rate, r))))
        for r, cosine in enumerate(block["steps"]["cosine"], start=1)
        if cosine is not None
    ]
    return max(gaps, default=None)


def largest_differences(trace: Trace) -> tuple[float, float]:
    """How far a run of glassbox is from exact at most, over all its tokens: of cosines, and of the rate.

    A rate is a quotient of two steps: looked at as long as the step is more than a thousandth of the state, below which float32 has
    not the digits for it.

    Raises:
        ValueError: a run of another model, or under other settings than the known answers hold for.
    """
    if (refusal := _refusal(trace.meta, "en")) is not None:
        raise ValueError(f"trace: {refusal}")
    rate = exact_rate(trace.meta["blocks"][0]["damping"])
    cosines, rates = [], []
    for frame in trace.frames:
        block, stays = frame["blocks"][0], frame["token_id"] == UNKNOWN
        if (gap := _difference(block, None if stays else rate)) is not None:
            cosines.append(gap)
        if stays:
            continue
        measured, steps = follower.contraction(block), block["steps"]["rel_delta"]
        rates += [
            abs(m - rate)
            for m, step in zip(measured, steps[1:], strict=False)
            if m is not None and step and step > 1e-3
        ]
    return max(cosines, default=0.0), max(rates, default=0.0)


def _measured(rates: list[float | None], lang: str) -> str:
    known = [rate for rate in rates if rate is not None]
    if not known:
        return labels.COMMON[lang]["undefined"]
    return f"{min(known):.6f}–{max(known):.6f}"


def _words(meta: Mapping[str, Any], frame: Mapping[str, Any], lang: str, kind: str) -> str:
    block, rate = frame["blocks"][0], exact_rate(meta["blocks"][0]["damping"])
    stays = frame["token_id"] == UNKNOWN
    return TEXTS[lang]["stays" if stays else kind].format(
        token=labels.token_label(frame, lang),
        rate=rate,
        measured=_measured(follower.contraction(block), lang),
        gap=labels.number(_difference(block, None if stays else rate), lang),
    )


def _chosen(meta: Mapping[str, Any], focus: Focus, frames: int, frame: Mapping[str, Any] | None) -> dict[Path, Any]:
    lang, block = focus.lang, None if frame is None else frame["blocks"][0]
    missing = ""
    if frame is None:
        missing = follower.unread(frames, focus, TEXTS[lang]["no_data"])
    elif block is not None and not block["steps"]["cosine"]:
        missing = follower.skipped(block, focus) or labels.COMMON[lang]["not_recorded"]
    drawn = None if frame is None or frame["token_id"] == UNKNOWN or missing else frame["blocks"][0]
    steps = range(1, drawn["n_steps"] + 1) if drawn else range(0)
    rate = exact_rate(meta["blocks"][0]["damping"])
    measured = [None if cosine is None else 1 - cosine for cosine in drawn["steps"]["cosine"]] if drawn else []
    return {
        ("layout", "title", "text"): " " if frame is None or missing else _words(meta, frame, lang, "head"),
        **parts.notice(missing),
        ("data", EXACT_GAP, "y"): [labels.log_y(exact_gap(rate, r)) for r in steps],
        ("data", GAP, "y"): [labels.log_y(value) for value in measured],
        ("data", EXACT_RATE, "y"): [rate for _ in steps[1:]],
        ("data", MEASURED_RATE, "y"): [labels.sig(value, 7) for value in follower.contraction(drawn)] if drawn else [],
    }


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    words, refusal = TEXTS[focus.lang], _refusal(meta, focus.lang)
    layout: dict[str, Any] = {
        "template": theme.template(),
        "height": HEIGHT,
        "margin": {"l": 58, "r": 12, "t": 72, "b": 10},
        "title": {"text": " ", "y": 1 - 20 / HEIGHT},
        "annotations": [labels.message(refusal or words["no_data"])],
        "meta": {"select": {"step": "x"}},
    }
    if refusal:
        layout["meta"]["act"] = {"label": words["act"], "model": MODEL}
        hidden = {"visible": False, "title": {"text": words["gap"]}}
        return {"data": [], "layout": layout | {"xaxis": hidden | {"title": {"text": words["step"]}}, "yaxis": hidden}}
    layout |= {
        "xaxis": {"anchor": "y2", "title": {"text": words["step"]}, "rangemode": "tozero"},
        "yaxis": {
            "type": "log",
            "domain": [0.54, 1],
            "title": {"text": words["gap"]},
            "exponentformat": "power",
            "nticks": 4,
        },
        "yaxis2": {"domain": [0, 0.4], "title": {"text": words["rate"]}, "range": [0, 1]},
        "showlegend": True,
        "legend": {"y": -0.2, "yanchor": "top", "x": 0},
    }
    lines = []
    for axis, quantity in (("y", "cosine"), ("y2", "rel_delta")):
        for kind in ("exact", "measured"):
            look = (
                {"mode": "lines", "line": {"color": theme.INK, "width": 2}}
                if kind == "exact"
                else {"mode": "markers", "marker": {"color": theme.COLOURS[quantity], "size": 7}}
            )
            lines.append(
                {
                    "type": "scatter",
                    "yaxis": axis,
                    "name": words[kind],
                    "legendgroup": kind,
                    "showlegend": axis == "y",
                    "x0": 1,
                    "dx": 1,
                    "y": [],
                    "hovertemplate": words[f"hover_{kind}"] + "<extra></extra>",
                    **look,
                }
            )
    return {"data": lines, "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: 1 − cos above, the rate below, by step of the selected token; lines exact, marks measured."""
    meta = follower.settled(trace, focus)
    shown = _skeleton(meta, focus)
    if shown["data"]:
        at = focus.selected(len(trace))
        fill(shown, _chosen(meta, focus, len(trace), None if at is None else trace.frames[at]))
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings, when it is the selected one."""
    meta = follower.settled(trace, focus, frame)
    if _refusal(meta, focus.lang):
        return []
    return _FOLLOWER.patch(trace, frame, focus, lambda count, chosen: _chosen(meta, focus, count, chosen))


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: the selected token's rate and cosines, measured against exact."""
    meta, at = follower.settled(trace, focus), focus.selected(len(trace))
    refusal = _refusal(meta, focus.lang)
    if refusal:
        return refusal
    if at is None:
        words = TEXTS[focus.lang]["no_data"]
        return labels.COMMON[focus.lang]["not_yet"].format(token=focus.token) if len(trace) else words
    if not trace.frames[at]["blocks"][0]["steps"]["cosine"]:
        return labels.COMMON[focus.lang]["not_recorded"]
    return labels.plain(_words(meta, trace.frames[at], focus.lang, "summary"))
