"""Drift: how far the memory's weights have moved from those it began with, and the saw-tooth of mini-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.panels.ttt import parts

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "drift"
CODE: tuple[str, ...] = ("loopviz.ttt.observe:InnerStep", "loopviz.ttt.inner_step:weights_by_token")
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "How far has the memory moved?",
        "question": "How different are the memory's weights now from those it began the text with?",
        "how": "The memory's weights change with every word. The curve is the length of that change, all numbers of the small "
        "model together. Within a group of words (mini-batch) all steps start at the same weights, are added up, and are scaled by "
        "the place in the group (1/(i+1) and what was learned on top, another picture). After the group's last word the weights are "
        "renewed, and the sum begins anew: a saw-tooth, its teeth at the dotted uprights.",
        "formula": r"\left\|W_t-W_0\right\|,\qquad W_t=W_{\lfloor t/M\rfloor M}-s_i\sum_{j\le i}\eta_j\nabla\ell_j",
        "source": "TTT, arXiv 2407.04620, section 2.1 (the state is a model's weights) and 2.4 (mini-batches).",
        "curve": "‖W_t − W_0‖",
        "axis": "‖W_t − W_0‖",
        "hover": "%{x} %{text}: %{y}",
        "no_data": "Nothing read yet: the curve grows with the first words.",
        "head": "{place}: now {now}, which is {share} of ‖W_0‖ = {start}",
        "summary": "Drift of the weights, {place}: after {n} words {now}, {share} of the length {start} that they began with; groups of {size} words.",
    },
    "zh": {
        "title": "记忆移动了多远？",
        "question": "现在记忆的权重与开始读文本时相差多少？",
        "how": "记忆的权重随每个词改变。曲线是这一改变的长度，小模型的全部数合在一起。在一个小批（mini-batch）内，所有步都从同样的权重出发，"
        "相加，并按在小批中的位置缩放（1/(i+1) 再加上学到的，见另一张图）。小批的最后一个词之后权重更新，累加重新开始：于是成锯齿，齿在竖点线处。",
        "formula": r"\left\|W_t-W_0\right\|,\qquad W_t=W_{\lfloor t/M\rfloor M}-s_i\sum_{j\le i}\eta_j\nabla\ell_j",
        "source": "TTT，arXiv 2407.04620，第 2.1 节（状态是一个模型的权重）与 2.4 节（小批）。",
        "curve": "‖W_t − W_0‖",
        "axis": "‖W_t − W_0‖",
        "hover": "%{x} %{text}：%{y}",
        "no_data": "尚未读入词：曲线随第一批词出现。",
        "head": "{place}：现在 {now}，为 ‖W_0‖ = {start} 的 {share}",
        "summary": "权重的漂移，{place}：读 {n} 个词后为 {now}，为初始长度 {start} 的 {share}；每 {size} 个词一小批。",
    },
}


def _said(trace: Trace, focus: TTTFocus, key: str) -> str:
    words, meta = TEXTS[focus.lang], trace.meta["ttt"]
    if not len(trace):
        return words["no_data"]
    now = parts.curve(trace, focus, "drift")[-1]
    start = float(parts.of_heads(np.array(meta["start_norm"]).reshape(-1, 1), meta, focus)[0])
    return words[key].format(
        place=parts.place(focus, meta),
        now=parts.number(now),
        start=parts.number(start),
        share=f"{now / start:.0%}" if start else "–",
        n=len(trace),
        size=meta["mini_batch"],
    )


def data(trace: Trace, focus: TTTFocus) -> dict[str, Any]:
    """The figure of `trace`: drift by token."""
    words = TEXTS[focus.lang]
    hover: dict[str, Any] = {"hovertemplate": words["hover"] + "<extra></extra>", "text": parts.names(trace)}
    drift = parts.line(words["curve"], range(len(trace)), parts.curve(trace, focus, "drift"), parts.LEARNED, **hover)
    axes = {
        "xaxis": {"title": {"text": parts.WORDS[focus.lang]["token"]}, "showgrid": False},
        "yaxis": {"title": {"text": words["axis"]}, "rangemode": "tozero"},
        "showlegend": False,
    }
    shown = parts.layout(320, _said(trace, focus, "head"), shapes=parts.marks(trace, focus)) | axes
    return {"data": [drift], "layout": shown}


figure, patch = parts.checked(data), parts.patched(data)


def summary(trace: Trace, focus: TTTFocus) -> str:
    """One sentence: how far it has moved, beside where it began."""
    return _said(trace, focus, "summary")
