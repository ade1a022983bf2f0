"""Convergence: how far the state and the prediction of one token still move at every loop step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, apply, fill, splice
from loopviz.panels.kit import follower, parts

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "convergence"
GROUP = "thinking"
ORDER = 10
CODE: tuple[str, ...] = (
    "loopviz.model.measures:cosine",
    "loopviz.model.measures:kl",
    "loopviz.trace.recording.recorder:Reading._columns",
    "loopviz.model.criteria:CriterionContext.cosine_holds",
    "loopviz.model.criteria:CriterionContext.kl_holds",
)  # what computes it; the page links there
HEIGHT = 322
CURVES = 24  # earlier tokens kept on screen: what a redraw costs grows with them
POINTS = 768  # and at most so many points of them a subplot, for blocks of many steps

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Does the loop settle?",
        "question": "After how many loop steps does the selected token's state, and what it predicts, stop changing?",
        "how": "Left to right: the loop steps of one token. Above: how much the direction of the state turned in that "
        "step (1 − cosine similarity). In the middle: how much the predicted next word changed (KL divergence). Below: how "
        "long the step was, beside the state itself (‖Δ‖/‖s‖): unlike an angle, it also sees a state that only grows. "
        "Lower is calmer; a straight fall is a loop that settles at a steady rate (geometric convergence). The line across is "
        "where the loop may stop (loop_count, thresholds and the like may be changed while a run is made: the line is the one "
        "that held for this token); if it is dotted grey, this run does not use it. A dotted line below: what this run's numbers are rounded "
        "to, where its model is held in a half; no step gets much shorter than that, unless the state stands still. Grey curves are up to the last 24 "
        "tokens before (fewer when a block may run over 31 steps). When several tokens are read in one pass, as the "
        "prompt is, the stop is decided on their mean, so one token's curve may stop above or below the line.",
        "formula": r"1-\cos(s_r, s_{r-1}) = 1-\frac{s_r\cdot s_{r-1}}{\lVert s_r\rVert\,\lVert s_{r-1}\rVert},\qquad "
        r"\mathrm{KL}(p_{r-1}\,\Vert\,p_r)=\sum_v p_{r-1}(v)\ln\frac{p_{r-1}(v)}{p_r(v)},\qquad "
        r"p_r=\mathrm{softmax}(W_{\text{head}}\,\mathrm{norm}(s_r)),\qquad "
        r"\frac{\lVert s_r-s_{r-1}\rVert}{\lVert s_r\rVert}",
        "units": "1 − cosine and ‖Δ‖/‖s‖: no unit, the first from 0 to 2. KL: nats. All on log axes whose lowest drawn value is 1e-8.",
        "source": "Recorded in this run, in float32, after every loop step (s_r is the state after step r, s_0 enters "
        "the block); thresholds from the model's configuration.",
        "cost": "Nothing beyond what every run records.",
        "no_data": "Nothing read yet: the curves appear with the first token",
        "curve_cosine": "1 − cos",
        "curve_kl": "KL",
        "curve_rel_delta": "‖Δ‖/‖s‖",
        "earlier": "earlier tokens (last {count})",
        "seeds": "Overlay other random starts",
        "stop": "stopped here",
        "step": "loop step r",
        "kl": "KL, nats",
        "hover_cosine": "step r = %{x}<br>1 − cos = %{text}",
        "hover_kl": "step r = %{x}<br>KL(p<sub>r−1</sub> ‖ p<sub>r</sub>) = %{text}",
        "hover_rel_delta": "step r = %{x}<br>‖Δ‖/‖s‖ = %{text}",
        "says": "straight from the state it says “{text}” (direct lens)",
        "nats": "{value} nats",
        "stopped": "stopped here, by {why}",
        "used": "stops at ≤ {value}",
        "unused": "{value}, not used by {what}",
        "own": "{value}, if {what} uses it",
        "zero": "{value}, below the axis",
        "unchecked": "not checked",
        "rounding": "{value}, to which {dtype} rounds",
        "head": "{token}{many}<br>{steps} loops, stopped by {why} · next: “{text}”",
        "pass": " · pass of {count} tokens",
        "summary": "{token}, {block}: {steps} loop steps, stopped by {why}; at the last step 1 − cosine is {cosine}, "
        "KL is {kl} nats and ‖Δ‖/‖s‖ is {rel_delta}.",
    },
    "zh": {
        "title": "循环稳定下来了吗？",
        "question": "所选词元的状态以及它的预测，在循环多少步之后不再变化？",
        "how": "从左到右是同一个词元的各循环步。上图：这一步里状态的方向转动了多少（1 − 余弦相似度）。中图：对下一个词的预测改变了多少"
        "（KL 散度）。下图：这一步相对于状态本身有多长（‖Δ‖/‖s‖）；与角度不同，它也能看出只在变长的状态。越低越平静；直线下降表示循环以固定的比例稳定下来（几何收敛）。横线是允许停止的阈值（loop_count、阈值等可在运行中更改，所画的是该词元读入时的值）；若为灰色点线，则本次运行不使用它。下图的点线（模型以半精度保存时）是数字舍入的程度：除非状态完全不动，步长不会再短多少。"
        "灰色曲线是之前最多 24 个词元（块的步数上限超过 31 时更少）。一次前向读入多个词元时（例如提示词），是否停止由它们的平均值决定，"
        "因此单个词元的曲线可能停在线的上方或下方。",
        "formula": r"1-\cos(s_r, s_{r-1}) = 1-\frac{s_r\cdot s_{r-1}}{\lVert s_r\rVert\,\lVert s_{r-1}\rVert},\qquad "
        r"\mathrm{KL}(p_{r-1}\,\Vert\,p_r)=\sum_v p_{r-1}(v)\ln\frac{p_{r-1}(v)}{p_r(v)},\qquad "
        r"p_r=\mathrm{softmax}(W_{\text{head}}\,\mathrm{norm}(s_r)),\qquad "
        r"\frac{\lVert s_r-s_{r-1}\rVert}{\lVert s_r\rVert}",
        "units": "1 − 余弦与 ‖Δ‖/‖s‖：无单位，前者 0 到 2。KL：奈特（nat）。均为对数坐标，画出的最小值为 1e-8。",
        "source": "本次运行中每个循环步之后以 float32 记录（s_r 是第 r 步之后的状态，s_0 是进入块的状态）；阈值来自模型配置。",
        "cost": "除每次运行本来就记录的内容外，没有额外开销。",
        "no_data": "尚未读入词元：读入第一个词元后曲线出现",
        "curve_cosine": "1 − cos",
        "curve_kl": "KL",
        "curve_rel_delta": "‖Δ‖/‖s‖",
        "earlier": "之前的词元（最近 {count} 个）",
        "seeds": "叠加其他随机起点",
        "stop": "在此停止",
        "step": "循环步 r",
        "kl": "KL（nat）",
        "hover_cosine": "第 %{x} 步<br>1 − cos = %{text}",
        "hover_kl": "第 %{x} 步<br>KL(p<sub>r−1</sub> ‖ p<sub>r</sub>) = %{text}",
        "hover_rel_delta": "第 %{x} 步<br>‖Δ‖/‖s‖ = %{text}",
        "says": "直接从状态读出“{text}”（直接透镜）",
        "nats": "{value} nat",
        "stopped": "在此停止：{why}",
        "used": "≤ {value} 时停止",
        "unused": "{value}，不使用（{what}）",
        "own": "{value}，是否使用由 {what} 决定",
        "zero": "{value}，低于坐标轴",
        "unchecked": "不检查",
        "rounding": "{value}，{dtype} 的舍入",
        "head": "{token}{many}<br>循环 {steps} 步，停止原因：{why} · 下一个：“{text}”",
        "pass": " · 一次读入 {count} 个词元",
        "summary": "{token}，{block}：循环 {steps} 步，停止原因：{why}；最后一步 1 − 余弦为 {cosine}，KL 为 {kl} nat，‖Δ‖/‖s‖ 为 {rel_delta}。",
    },
}

# Places of the traces: each quantity has one of every kind, in this order.
QUANTITIES = ("cosine", "kl", "rel_delta")
ALL = range(len(QUANTITIES))
FADED, CHOSEN, STOP = ([len(QUANTITIES) * kind + i for i in ALL] for kind in range(3))
AXES = ("y", "y2", "y3")
ROUNDING = {"float16": 2**-11, "bfloat16": 2**-8}  # half of the eps: how far a number may be off, as a share of itself
_FOLLOWER = follower.Follower()


def faded_curves(max_steps: int) -> int:
    """How many earlier tokens are drawn for a block of ``max_steps`` steps."""
    return max(1, min(CURVES, POINTS // (max_steps + 1)))


def _values(quantity: str, block: Mapping[str, Any]) -> list[float | None]:
    """The raw values drawn, one a step: ``1 - cos``, KL or ``|Delta| / |s|``; rounding may make them negative by float noise."""
    column = block["steps"][quantity]
    return [None if v is None else 1 - v for v in column] if quantity == "cosine" else list(column)


def _texts(quantity: str, block: Mapping[str, Any], lang: str) -> list[str]:
    """Hover texts of one curve: the exact value (even where the axis floors it), and at the end why it stopped.

    The predictions' curve says as well what each step would say.
    """
    words = TEXTS[lang]
    out = []
    for r, value in enumerate(_values(quantity, block)):
        text = labels.number(value, lang, labels.FLOOR)
        if quantity == "kl" and value is not None:
            text = words["nats"].format(value=text)
        best = block["steps"]["topk_texts"][r] if quantity == "kl" and block["steps"]["topk_texts"] else []
        out.append(f"{text}<br>{words['says'].format(text=labels.show_token(best[0]))}" if best else text)
    if out:
        out[-1] += f"<br>{words['stopped'].format(why=labels.stop_label(block['stop_reason'], lang))}"
    return out


def _head(frame: Mapping[str, Any], block: Mapping[str, Any], lang: str) -> str:
    words = TEXTS[lang]
    return labels.fill(
        words["head"],
        token=labels.token_label(frame, lang),
        many=labels.fill(words["pass"], count=frame["pass_tokens"]) if frame["pass_tokens"] > 1 else "",
        steps=block["n_steps"],
        why=labels.stop_label(block["stop_reason"], lang),
        text=labels.show_token(frame["next_text"], width=12),
    )


def _chosen(meta: Mapping[str, Any], frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on which token is selected, by path; ``frame`` is that token's, None when there is none."""
    lang = focus.lang
    block = None if frame is None else frame["blocks"][focus.block]
    missing = ""
    if frame is None:
        missing = follower.unread(frames, focus, TEXTS[lang]["no_data"])
    elif block is not None and not block["steps"]["cosine"]:
        missing = follower.skipped(block, focus) or labels.COMMON[lang]["not_recorded"]
    out: dict[Path, Any] = {
        ("layout", "title", "text"): " " if frame is None or block is None else _head(frame, block, lang),
        **parts.notice(missing),
    }
    kind = theme.stop_kind(block["stop_reason"]) if block else "count"
    for i, quantity in enumerate(QUANTITIES):
        drawn = [labels.log_y(v) for v in _values(quantity, block)] if block else []
        out["data", CHOSEN[i], "y"] = drawn
        out["data", CHOSEN[i], "text"] = _texts(quantity, block, lang) if block else []
        out["data", STOP[i], "x"] = [len(drawn)] if drawn else []
        out["data", STOP[i], "y"] = drawn[-1:]
        out["data", STOP[i], "marker", "color"] = theme.COLOURS[f"stop_{kind}"]
        out["data", STOP[i], "marker", "symbol"] = theme.STOP_SYMBOLS[kind]
    return out


def _faded_values(quantity: str, spec: Mapping[str, Any], block: Mapping[str, Any]) -> list[float | None]:
    """One earlier token's curve, padded with gaps to the block's maximum and one more, which separates curves.

    To three digits: faint lines are read by their shape.
    """
    drawn = [labels.log_y(v, 3) for v in _values(quantity, block)][: spec["room"]]
    return drawn + [None] * (spec["room"] + 1 - len(drawn))


def _threshold(i: int, spec: Mapping[str, Any], lang: str) -> dict[str, Any]:
    """The line of one threshold: coloured where it may stop the loop, dotted grey with the reason where it may not, or nobody says."""
    words, quantity = TEXTS[lang], QUANTITIES[i]
    value = 1 - spec["cosine_threshold"] if quantity == "cosine" else spec["kl_threshold"]
    dynamic = spec["strategy"] == "dynamic_stop"
    used = dynamic and spec["criterion"] in (quantity, "either", "both")
    own = dynamic and spec["criterion"] not in (
        *QUANTITIES[:2],
        "either",
        "both",
    )  # what somebody registered reads, only it knows
    what = labels.escape(spec["criterion"] if dynamic else spec["strategy"])
    text = words["used" if used else "own" if own else "unused"].format(value=f"{value:.3g}", what=what)
    if value < labels.FLOOR:
        text = words["zero"].format(value=text)
    return _across(i, value, text, theme.COLOURS[quantity] if used else None)


def _rounding(meta: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    """The line near which a run ends whose numbers are rounded to a half; none of any other."""
    dtype = meta.get("provenance", {}).get("dtype")
    if dtype not in ROUNDING:
        return []
    words = TEXTS[lang]["rounding"].format(value=f"{ROUNDING[dtype]:.1e}", dtype=dtype)
    return [_across(QUANTITIES.index("rel_delta"), ROUNDING[dtype], words)]


def _across(i: int, value: float, text: str, colour: str | None = None) -> dict[str, Any]:
    """A line at a value, dashed in its colour; dotted grey without one."""
    y = labels.log_y(value)
    return {
        "type": "line",
        "xref": "x domain",
        "yref": AXES[i],
        "x0": 0,
        "x1": 1,
        "y0": y,
        "y1": y,
        "line": {"color": colour or theme.INK, "width": 1.5 if colour else 1, "dash": "dash" if colour else "dot"},
        "label": {
            "text": text,
            "textposition": "end",
            "yanchor": "bottom",
            "padding": 2,
            "font": {"size": 11},
        },
    }


def _unchecked(i: int, spec: Mapping[str, Any], lang: str) -> dict[str, Any]:
    """A shade over the steps before the floor, at which the criterion is not asked."""
    return {
        "type": "rect",
        "layer": "below",
        "xref": "x",
        "yref": f"{AXES[i]} domain",
        "x0": 0.5,
        "x1": spec["floor"] - 0.5,
        "y0": 0,
        "y1": 1,
        "line": {"width": 0},
        "fillcolor": "rgba(127,127,127,0.10)",
        "label": {"text": TEXTS[lang]["unchecked"], "textposition": "bottom left", "padding": 3, "font": {"size": 10}},
    }


def _step_line(i: int, step: int) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "yref": f"{AXES[i]} domain",
        "x0": step,
        "x1": step,
        "y0": 0,
        "y1": 1,
        "line": {"color": theme.SELECTED, "width": 1},
    }


def _shapes(meta: Mapping[str, Any], focus: Focus) -> list[dict[str, Any]]:
    spec = meta["blocks"][focus.block]
    shapes = [_threshold(i, spec, focus.lang) for i in (0, 1)]  # no rule stops a loop by the third
    shapes += _rounding(meta, focus.lang)
    if spec["strategy"] == "dynamic_stop" and spec["floor"] > 1:
        shapes += [_unchecked(i, spec, focus.lang) for i in ALL]
    if focus.step is not None and focus.step <= spec["room"]:
        shapes += [_step_line(i, focus.step) for i in ALL]
    return shapes


def _data(spec: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    words, count = TEXTS[lang], faded_curves(spec["room"])
    axes = [{"xaxis": "x", "yaxis": axis} for axis in AXES]
    faded_x = [*range(1, spec["room"] + 1), None] * count
    faded = [
        {
            "type": "scatter",
            "mode": "lines",
            **axes[i],
            "name": words["earlier"].format(count=count),
            "legendgroup": "earlier",
            "showlegend": i == 0,
            "x": list(faded_x),
            "y": [None] * len(faded_x),
            "line": {"color": theme.FAINT, "width": 1},
            "hoverinfo": "skip",
        }
        for i in ALL
    ]
    chosen = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            **axes[i],
            "name": words[f"curve_{quantity}"],
            "showlegend": False,  # its axis says it
            "x0": 1,
            "dx": 1,
            "y": [],
            "text": [],
            "line": {"color": theme.COLOURS[quantity], "width": 3},
            "marker": {"size": 7},
            "hovertemplate": words[f"hover_{quantity}"] + "<extra></extra>",
        }
        for i, quantity in enumerate(QUANTITIES)
    ]
    stops = [
        {
            "type": "scatter",
            "mode": "markers",
            **axes[i],
            "name": words["stop"],
            "legendgroup": "stop",
            "showlegend": i == 0,
            "x": [],
            "y": [],
            "marker": {
                "size": 14,
                "color": theme.COLOURS["stop_count"],
                "symbol": theme.STOP_SYMBOLS["count"],
                "line": {"color": theme.MARK_EDGE, "width": 1.5},
            },
            "hoverinfo": "skip",  # the point under it says it
        }
        for i in ALL
    ]
    return faded + chosen + stops


def _axis(title: str, low: float, high: float) -> dict[str, Any]:
    return {
        "type": "log",
        "domain": [low, high],
        "title": {"text": title},
        "exponentformat": "power",
        "nticks": 3,
    }


def _starts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the Lab's measurement of starts is asked for this run: its own prompt and loop, from several seeds of its start."""
    steps = max(spec["max_steps"] for spec in meta["blocks"])
    loop = json.dumps(meta["loop"])  # as its form holds them
    return {"text": meta["prompt"], "loop": loop, "loops": steps, "noise": "", "random": False, "zeros": False}


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 52, "r": 12, "t": 52, "b": 10}
    asks = follower.asks(meta, focus, {"step": "x"})
    if any(spec["init"] == "random" and spec["init_std"] for spec in meta["blocks"]):
        asks["act"] = {"label": words["seeds"], "task": "starts", "values": _starts(meta)}
    layout, there = parts.block_layout(meta, focus, words, HEIGHT, margin, asks)
    layout["title"]["y"] = 1 - 20 / HEIGHT
    layout["annotations"][0]["y"] = 0.65
    if not there:
        return {"data": [], "layout": layout}
    spec = meta["blocks"][focus.block]
    layout |= {
        "xaxis": {
            "anchor": "y3",
            "title": {"text": words["step"]},
            "range": [0.5, spec["room"] + 0.5],
            "tick0": 1,
            "dtick": -(-spec["room"] // 12),
        },
        "yaxis": _axis(words["curve_cosine"], 0.7, 1),
        "yaxis2": _axis(words["kl"], 0.35, 0.65),
        "yaxis3": _axis(words["curve_rel_delta"], 0, 0.3),
        "shapes": _shapes(meta, focus),
        "showlegend": True,
        "legend": {"y": -0.2, "yanchor": "top", "x": 0},
    }
    return {"data": _data(spec, focus.lang), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: 1 − cosine, KL and ‖Δ‖/‖s‖ by loop step of the selected token, over earlier tokens."""
    meta, frames = follower.settled(trace, focus), trace.frames
    shown = _skeleton(meta, focus)
    if shown["data"]:
        spec, at = meta["blocks"][focus.block], focus.selected(len(frames))
        end = len(frames) if at is None else at
        last = end if focus.token is None else focus.token
        for frame in frames[max(0, last - faded_curves(spec["room"])) : end]:
            apply(shown, _fade(spec, frame, focus))
        fill(shown, _chosen(meta, len(frames), None if at is None else frames[at], focus))
    return shown


figure = follower.checked(data)


def _fade(spec: Mapping[str, Any], frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits that draw an earlier token. Its place is reused once ``faded_curves`` more tokens have come."""
    start = frame["index"] % faded_curves(spec["room"]) * (spec["room"] + 1)
    block = frame["blocks"][focus.block]
    return [
        splice(("data", FADED[i], "y"), start, _faded_values(quantity, spec, block))
        for i, quantity in enumerate(QUANTITIES)
    ]


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its curve when it is selected, a faint one when it comes before the selected token."""
    meta, frames = follower.settled(trace, focus, frame), trace.frames
    if labels.missing_block(meta, focus.block, focus.lang):
        return []
    spec = meta["blocks"][focus.block]
    fading: Mapping[str, Any] | None = None  # the token that joins the faint ones
    if focus.token is None:
        fading = frames[-1] if frames else None
    elif focus.token - faded_curves(spec["room"]) <= frame["index"] < focus.token:
        fading = frame
    ops = [] if fading is None else _fade(spec, fading, focus)
    return ops + _FOLLOWER.patch(trace, frame, focus, lambda count, chosen: _chosen(meta, count, chosen, focus))


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: the selected token, its loops, why it stopped, and the last values."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    at = focus.selected(len(trace))
    words, common = TEXTS[focus.lang], labels.COMMON[focus.lang]
    if absent:
        return absent
    if at is None:
        return follower.unread(len(trace), focus, words["no_data"])
    frame = trace.frames[at]
    block = frame["blocks"][focus.block]
    last = [_values(quantity, block)[-1:] for quantity in QUANTITIES]
    if not all(last):
        return follower.skipped(block, focus) or common["not_recorded"]
    shown = labels.fill(
        words["summary"],
        token=labels.token_label(frame, focus.lang),
        block=labels.block_label(trace.meta["blocks"][focus.block], focus.block, focus.lang),
        steps=block["n_steps"],
        why=labels.stop_label(block["stop_reason"], focus.lang),
        cosine=labels.number(last[0][0], focus.lang, None),
        kl=labels.number(last[1][0], focus.lang, None),
        rel_delta=labels.number(last[2][0], focus.lang, None),
    )
    return labels.plain(shown)
