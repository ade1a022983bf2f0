"""Token x loop map: one quantity for every token and every loop step, and where each token stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, append, extend, fill
from loopviz.panels.kit import follower, parts
from loopviz.panels.kit.focus import METRICS

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "token_loop_map"
GROUP = "thinking"
ORDER = 20
USUAL = False  # a page opens with two pictures of its first group, and this is a switch away
CODE: tuple[str, ...] = (
    "loopviz.model.measures:cosine",
    "loopviz.model.measures:kl",
    "loopviz.trace.metrics:rel_delta",
    "loopviz.trace.metrics:entropy",
    "loopviz.trace.metrics:rank",
    "loopviz.trace.metrics:norm",
    "loopviz.trace.recording.recorder:Reading._columns",
)  # what computes it; the page links there

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Which tokens need more loops?",
        "question": "Where along the text does the loop keep working, and where does it settle at once?",
        "how": "A column is a token, a row is a loop step, from the bottom up. The colour is the quantity chosen: how far "
        "the state or the prediction moved in that step (1 − cosine, KL, relative step), how much shorter the step was than "
        "the one before (contraction: below 1 the loop closes in, above 1 it runs away; the first step has none), how unsure the prediction is "
        "(entropy), how high the word that really came next is ranked (rank), or how long the state is (norm). A mark "
        "shows where a token stopped and why; steps that were not run stay empty. The outlined column is the "
        "selected token.",
        "formula": r"1-\cos(s_r, s_{r-1}),\quad \mathrm{KL}(p_{r-1}\,\Vert\,p_r),\quad "
        r"\frac{\lVert s_r-s_{r-1}\rVert}{\lVert s_r\rVert},\quad "
        r"\frac{\lVert s_r-s_{r-1}\rVert}{\lVert s_{r-1}-s_{r-2}\rVert},\quad H(p_r)=-\sum_v p_r(v)\ln p_r(v),\quad "
        r"\mathrm{rank}_{p_r}(\text{next}),\quad \lVert s_r\rVert",
        "units": "1 − cosine, relative step and contraction: no unit. KL and entropy: nats. Rank: a place, 1 is the top. Norm: units of "
        "the state. Colours are logarithmic, but for entropy; the lowest colour is 1e-8.",
        "source": "Recorded in this run, in float32, after every loop step; p_r is read from s_r by the model's final norm "
        "and head (direct lens).",
        "cost": "Nothing beyond what every run records.",
        "no_data": "Nothing read yet: a column appears with every token",
        "x": "token: position and text",
        "y": "loop step r",
        "blank": "steps not run are blank",
        "cosine": "1 − cos(s<sub>r</sub>, s<sub>r−1</sub>)",
        "kl": "KL(p<sub>r−1</sub> ‖ p<sub>r</sub>)",
        "rel_delta": "‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖",
        "contraction": "‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r−1</sub> − s<sub>r−2</sub>‖",
        "entropy": "entropy of p<sub>r</sub>",
        "rank": "rank of the next token in p<sub>r</sub>",
        "norm": "‖s<sub>r</sub>‖",
        "choose": "Quantity shown",
        "choose_cosine": "turn of the state (1 − cos)",
        "choose_kl": "change of the prediction (KL)",
        "choose_rel_delta": "size of the step (‖Δ‖/‖s‖)",
        "choose_contraction": "step beside the one before (contraction)",
        "choose_entropy": "unsureness (entropy)",
        "choose_rank": "rank of the word that came",
        "choose_norm": "size of the state (‖s‖)",
        "bar_cosine": "1 − cos",
        "bar_kl": "KL, nats",
        "bar_rel_delta": "‖Δ‖/‖s‖",
        "bar_contraction": "‖Δ′‖/‖Δ‖",
        "bar_entropy": "nats",
        "bar_rank": "rank",
        "bar_norm": "‖s‖",
        "unit_kl": " nats",
        "unit_entropy": " nats",
        "hover": "token %{{x}}<br>step r = %{{y}}<br>{metric} = %{{text}}",
        "says": "straight from the state it says “{text}” (direct lens)",
        "stopped": "stopped here, by {why}",
        "stop": "stop: {why}",
        "head": "{metric}<br>{token}: {steps} loops, stopped by {why}",
        "summary": "{metric} for {tokens} tokens in {block}; loops per token from {least} to {most}, {mean} on average. "
        "Selected: {token}, {steps} loops, stopped by {why}.",
    },
    "zh": {
        "title": "哪些词元需要更多循环？",
        "question": "在文本的哪些位置循环仍在起作用，哪些位置立刻就稳定下来？",
        "how": "一列是一个词元，一行是一个循环步，自下而上。颜色是所选的量：这一步里状态或预测移动了多少（1 − 余弦、KL、相对步长），"
        "这一步比前一步短了多少（收缩率：小于 1 则循环在收拢，大于 1 则在发散；第一步没有），"
        "预测有多不确定（熵），真正的下一个词排在第几位（排名），或状态向量有多长（范数）。标记表示该词元在哪一步停止及其原因；"
        "没有运行的步留空。带框的列是所选词元。",
        "formula": r"1-\cos(s_r, s_{r-1}),\quad \mathrm{KL}(p_{r-1}\,\Vert\,p_r),\quad "
        r"\frac{\lVert s_r-s_{r-1}\rVert}{\lVert s_r\rVert},\quad "
        r"\frac{\lVert s_r-s_{r-1}\rVert}{\lVert s_{r-1}-s_{r-2}\rVert},\quad H(p_r)=-\sum_v p_r(v)\ln p_r(v),\quad "
        r"\mathrm{rank}_{p_r}(\text{next}),\quad \lVert s_r\rVert",
        "units": "1 − 余弦、相对步长与收缩率：无单位。KL 与熵：奈特（nat）。排名：名次，1 为最高。范数：状态本身的单位。"
        "除熵以外颜色均为对数；最低的颜色为 1e-8。",
        "source": "本次运行中每个循环步之后以 float32 记录；p_r 由模型最后的归一化与输出头从 s_r 读出（直接透镜）。",
        "cost": "除每次运行本来就记录的内容外，没有额外开销。",
        "no_data": "尚未读入词元：每读入一个词元出现一列",
        "x": "词元：位置与文本",
        "y": "循环步 r",
        "blank": "空白：该步未运行",
        "cosine": "1 − cos(s<sub>r</sub>, s<sub>r−1</sub>)",
        "kl": "KL(p<sub>r−1</sub> ‖ p<sub>r</sub>)",
        "rel_delta": "‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖",
        "contraction": "‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r−1</sub> − s<sub>r−2</sub>‖",
        "entropy": "p<sub>r</sub> 的熵",
        "rank": "下一个词元在 p<sub>r</sub> 中的排名",
        "norm": "‖s<sub>r</sub>‖",
        "choose": "显示的量",
        "choose_cosine": "状态方向的变化（1 − cos）",
        "choose_kl": "预测的变化（KL）",
        "choose_rel_delta": "步长（‖Δ‖/‖s‖）",
        "choose_contraction": "与前一步之比（收缩率）",
        "choose_entropy": "不确定程度（熵）",
        "choose_rank": "实际下一个词的排名",
        "choose_norm": "状态的大小（‖s‖）",
        "bar_cosine": "1 − cos",
        "bar_kl": "KL, nat",
        "bar_rel_delta": "‖Δ‖/‖s‖",
        "bar_contraction": "‖Δ′‖/‖Δ‖",
        "bar_entropy": "nat",
        "bar_rank": "排名",
        "bar_norm": "‖s‖",
        "unit_kl": " nat",
        "unit_entropy": " nat",
        "hover": "词元 %{{x}}<br>第 %{{y}} 步<br>{metric} = %{{text}}",
        "says": "直接从状态读出“{text}”（直接透镜）",
        "stopped": "在此停止：{why}",
        "stop": "停止：{why}",
        "head": "{metric}<br>{token}：循环 {steps} 步，停止原因：{why}",
        "summary": "{block} 中 {tokens} 个词元的 {metric}；每个词元循环 {least} 到 {most} 步，平均 {mean} 步。"
        "所选：{token}，循环 {steps} 步，停止原因：{why}。",
    },
}

LINEAR = {"entropy"}  # the rest spans decades
FLOORED = {"cosine", "kl", "rel_delta", "contraction"}
MAP, MARKS = 0, {kind: 1 + i for i, kind in enumerate(theme.STOPS)}
COLUMN, CELL = 0, 1  # shapes
_FOLLOWER = follower.Follower()
MARK_SIZES = ((48, 9), (120, 6), (300, 4))  # up to so many tokens: mark size, px; else 3
EDGED = 200  # up to so many tokens marks have an edge; more crowded, edges would hide them


def _recorded(metric: str, block: Mapping[str, Any]) -> bool:
    return bool(block["steps"]["rel_delta" if metric == "contraction" else metric])


def _raw(metric: str, block: Mapping[str, Any]) -> list[float | None]:
    """The metric at every step that ran, None where it is undefined or was not recorded."""
    if metric == "contraction":
        column = [None, *follower.contraction(block)] if _recorded(metric, block) else []
    else:
        column = block["steps"][metric]
    column = column or [None] * block["n_steps"]
    return [None if v is None else 1 - v for v in column] if metric == "cosine" else column


def _colour(metric: str, value: float | None) -> float | None:
    return labels.sig(value) if metric in LINEAR else labels.log_z(value)


def _texts(metric: str, block: Mapping[str, Any], lang: str) -> list[str]:
    """Hover texts of a column: the value, what the step would say, and in the last one why it stopped."""
    words, steps = TEXTS[lang], block["steps"]
    floor = labels.FLOOR if metric in FLOORED else None
    out = []
    for r, value in enumerate(_raw(metric, block)):
        text = labels.number(value, lang, floor) if metric != "rank" or value is None else str(value)
        text += words.get(f"unit_{metric}", "") if value is not None else ""
        best = steps["topk_texts"][r] if steps["topk_texts"] else []
        if best:
            text += f"<br>{words['says'].format(text=labels.show_token(best[0]))}"
        out.append(text)
    if out:
        out[-1] += f"<br>{words['stopped'].format(why=labels.stop_label(block['stop_reason'], lang))}"
    return out


def _mark_size(tokens: int) -> int:
    return next((size for limit, size in MARK_SIZES if tokens <= limit), 3)


def _chosen(meta: Mapping[str, Any], frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on how many tokens there are and which is selected, by path."""
    words = TEXTS[focus.lang]
    missing = "" if frames else words["no_data"]
    if frame is not None:
        head = _head(frame, focus)
    elif frames:
        head = f"{words[focus.metric]}<br>{labels.COMMON[focus.lang]['not_yet'].format(token=focus.token)}"
    else:
        head = words[focus.metric]
    at = -1 if frame is None else frame["index"]
    out: dict[Path, Any] = {
        ("layout", "title", "text"): head,
        **parts.notice(missing),
    }
    step = focus.step is not None and focus.step <= meta["blocks"][focus.block]["room"]
    for shape, shown in ((COLUMN, True), (CELL, step)):
        out["layout", "shapes", shape, "visible"] = shown and frame is not None
        out["layout", "shapes", shape, "x0"] = at - 0.5
        out["layout", "shapes", shape, "x1"] = at + 0.5
    for place in MARKS.values():
        out["data", place, "marker", "size"] = _mark_size(frames)
        out["data", place, "marker", "line", "width"] = 1 if frames <= EDGED else 0
    return out


def _head(frame: Mapping[str, Any], focus: Focus) -> str:
    words, block = TEXTS[focus.lang], frame["blocks"][focus.block]
    head = labels.fill(
        words["head"],
        metric=words[focus.metric],
        token=labels.token_label(frame, focus.lang, width=12),
        steps=block["n_steps"],
        why=labels.stop_label(block["stop_reason"], focus.lang),
    )
    recorded = _recorded(focus.metric, block) or not block["n_steps"]
    return head if recorded else f"{head}<br>{labels.COMMON[focus.lang]['not_recorded']}"


def _bar(metric: str, words: dict[str, str]) -> dict[str, Any]:
    bar: dict[str, Any] = {
        "thickness": 10,
        "outlinewidth": 0,
        "title": {"text": words[f"bar_{metric}"], "side": "top", "font": {"size": 11}},
        "tickfont": {"size": 11},
        "xpad": 4,
    }
    if metric not in LINEAR:  # the colour is a power of ten; 3 between the upper decades, for ranges shorter than one
        values = [10.0**k for k in range(-8, 7)] + [3 * 10.0**k for k in range(-3, 6)]
        ticks = [(v, math.log10(v)) for v in sorted(values)]
        bar |= {
            "tickvals": [round(at, 3) for _, at in ticks],
            "ticktext": [f"{v:.0e}".replace("e-0", "e-") if v < 0.01 else f"{v:g}" for v, _ in ticks],
        }
    return bar


def _data(focus: Focus) -> list[dict[str, Any]]:
    words = TEXTS[focus.lang]
    grid = {
        "type": "heatmap",
        "x": [],
        "y": [],
        "z": [],
        "text": [],
        "colorscale": theme.SCALE,
        "colorbar": _bar(focus.metric, words),
        "hoverongaps": False,
        "hovertemplate": words["hover"].format(metric=words[focus.metric]) + "<extra></extra>",
    }
    marks = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": words["stop"].format(why=labels.COMMON[focus.lang][f"stopped_{kind}"]),
            "x": [],
            "y": [],
            "marker": {
                "color": theme.COLOURS[f"stop_{kind}"],
                "symbol": theme.STOP_SYMBOLS[kind],
                "size": _mark_size(0),
                "line": {"color": theme.MARK_EDGE, "width": 1},
            },
            "hoverinfo": "skip",  # the cell under it says it
        }
        for kind in theme.STOPS
    ]
    return [grid, *marks]


def _choice(focus: Focus) -> dict[str, Any]:
    """What the reader may have shown here instead."""
    words = TEXTS[focus.lang]
    return follower.choice(words["choose"], ((metric, words[f"choose_{metric}"]) for metric in METRICS), focus.metric)


def _outline(y0: float, y1: float, width: float) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "x",
        "yref": "y",
        "x0": -1.5,
        "x1": -0.5,
        "y0": y0,
        "y1": y1,
        "visible": False,
        "line": {"color": theme.SELECTED, "width": width},
    }


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 40, "r": 8, "t": 76, "b": 10}
    layout, there = parts.block_layout(
        meta, focus, words, 300, margin, follower.asks(meta, focus, {"token": "x", "step": "y"}, metric=_choice(focus))
    )
    if not there:
        return {"data": [], "layout": layout}
    layout["title"]["text"] = words[focus.metric]
    spec = meta["blocks"][focus.block]
    rows, step = spec["room"], focus.step or 1
    height = 240 + max(90, min(16 * rows, 320))
    layout["title"]["y"] = 1 - 20 / height
    layout |= {
        "height": height,
        "xaxis": {"type": "category", "title": {"text": words["x"]}, "showgrid": False, "tickangle": -90},
        "yaxis": {
            "title": {"text": words["y"]},
            "range": [0.5, rows + 0.5],
            "tick0": 1,
            "dtick": -(-rows // 12),
            "showgrid": False,
        },
        "showlegend": True,
        "legend": {
            "y": 1,
            "yanchor": "bottom",
            "x": 0,
            "title": {"text": words["blank"] + " · ", "font": {"size": 11}},
        },
        "shapes": [_outline(0.5, rows + 0.5, 2), _outline(step - 0.5, step + 0.5, 2)],
    }
    return {"data": _data(focus), "layout": layout}


def _added(frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """What one token appends: its cells, in column form (a cell that is not there is blank), and its mark."""
    block = frame["blocks"][focus.block]
    name, values = parts.column_name(frame), _raw(focus.metric, block)
    mark = MARKS[theme.stop_kind(block["stop_reason"])]
    return [
        append(("data", MAP, "x"), [name] * len(values)),
        append(("data", MAP, "y"), list(range(1, len(values) + 1))),
        append(("data", MAP, "z"), [_colour(focus.metric, v) for v in values]),
        append(("data", MAP, "text"), _texts(focus.metric, block, focus.lang)),
        append(("data", mark, "x"), [name]),
        append(("data", mark, "y"), [block["n_steps"] or 0.5]),  # a skipped token's mark stands on the axis
    ]


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: ``focus.metric`` by token and loop step of ``focus.block``, with stop marks."""
    meta, frames = follower.settled(trace, focus), trace.frames
    shown = _skeleton(meta, focus)
    if shown["data"]:
        extend(shown, (op for frame in frames for op in _added(frame, focus)))
        at = focus.selected(len(frames))
        fill(shown, _chosen(meta, len(frames), None if at is None else frames[at], focus))
        shown["layout"]["shapes"] += parts.change_marks(meta, len(frames))
    return shown


figure = follower.checked(data)


@follower.redrawn(data, layout_only=True)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: one more column and mark; the outline moves when the newest token is followed."""
    meta = follower.settled(trace, focus, frame)
    if labels.missing_block(meta, focus.block, focus.lang):
        return []
    follow = _FOLLOWER.patch(
        trace, frame, focus, lambda count, chosen: _chosen(meta, count, chosen, focus), always=True
    )
    return _added(frame, focus) + follow


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: the metric, how many tokens, their loops, and the selected token."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    if not len(trace):
        return words["no_data"]
    if at is None:
        return labels.COMMON[focus.lang]["not_yet"].format(token=focus.token)
    loops = [frame["blocks"][focus.block]["n_steps"] for frame in trace.frames]
    block = trace.frames[at]["blocks"][focus.block]
    shown = labels.fill(
        words["summary"],
        metric=words[focus.metric],
        tokens=len(loops),
        block=labels.block_label(trace.meta["blocks"][focus.block], focus.block, focus.lang),
        least=min(loops),
        most=max(loops),
        mean=f"{sum(loops) / len(loops):.2f}",
        token=labels.token_label(trace.frames[at], focus.lang),
        steps=block["n_steps"],
        why=labels.stop_label(block["stop_reason"], focus.lang),
    )
    return labels.plain(shown)
