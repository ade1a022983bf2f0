"""Rates: how strongly each token is written (inner learning rate), and the scale of each place in a mini-batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopviz.panels.ttt import parts

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "rates"
CODE: tuple[str, ...] = ("loopviz.ttt.layer:TTTLayer.learning_rate", "loopviz.ttt.layer:TTTLayer.token_scale")
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Which words are written strongly?",
        "question": "How large a step does the memory take for each word, and how is a place in the group scaled?",
        "how": "Above: the inner learning rate of every word, which the model decides from the word itself (and the slider "
        "multiplies). Below: the scale of each place in a group of words (mini-batch). Dashed is 1/(i+1), with which every model "
        "begins: the mean of the steps so far; solid is what this layer has learned on top. What a word's step comes to at a "
        "place is the product of both.",
        "formula": r"\eta_t=\frac{\eta_{\mathrm{base}}}{D}\,\sigma(w_h\cdot x_t+b_h),\qquad s_i=\max\!\left(\tfrac1{i+1}+\delta_i,\,0\right)",
        "source": "TTT, arXiv 2407.04620, section 2.7 (learnable learning rate); the scale s is of the published code "
        "(learnable_token_idx), not of the paper.",
        "lr": "inner learning rate η_t",
        "scale": "learned scale s_i",
        "usual": "1/(i+1)",
        "axis": "η_t",
        "axis2": "s_i",
        "slot": "place i in the mini-batch",
        "hover": "%{x} %{text}: %{y}",
        "hover_scale": "i = %{x}: %{y}",
        "no_data": "Nothing read yet: the rates come with the first words; the scale is the model's own.",
        "head": "{place}: η between {low} and {high}; most for “{most}”",
        "dead": ". The last place's scale is 0: after every group of {size} words the memory is back where it began",
        "summary": "Inner learning rate, {place}: from {low} to {high} over {n} words, the largest at “{most}”; the last place's scale is {last}, where 1/(i+1) is {usual_last}.",
    },
    "zh": {
        "title": "哪些词写得更重？",
        "question": "对每个词，记忆走多大的一步？小批中的位置又如何缩放？",
        "how": "上图：每个词的内层学习率，由模型根据该词自己决定（滑块再乘以一个倍数）。下图：小批（mini-batch）中每个位置的缩放。虚线是 1/(i+1)，"
        "每个模型都由此开始：到目前为止各步的平均；实线是这一层在其上学到的。一个词在某位置上的一步是两者之积。",
        "formula": r"\eta_t=\frac{\eta_{\mathrm{base}}}{D}\,\sigma(w_h\cdot x_t+b_h),\qquad s_i=\max\!\left(\tfrac1{i+1}+\delta_i,\,0\right)",
        "source": "TTT，arXiv 2407.04620，第 2.7 节（可学习的学习率）；缩放 s 出自公开代码（learnable_token_idx），论文中没有。",
        "lr": "内层学习率 η_t",
        "scale": "学到的缩放 s_i",
        "usual": "1/(i+1)",
        "axis": "η_t",
        "axis2": "s_i",
        "slot": "小批中的位置 i",
        "hover": "%{x} %{text}：%{y}",
        "hover_scale": "i = %{x}：%{y}",
        "no_data": "尚未读入词：学习率随第一批词出现；缩放是模型自己的。",
        "head": "{place}：η 在 {low} 与 {high} 之间；“{most}”最大",
        "dead": "。最后一个位置的缩放为 0：每 {size} 个词一小批之后，记忆就回到开始",
        "summary": "内层学习率，{place}：{n} 个词从 {low} 到 {high}，在“{most}”处最大；最后一个位置的缩放为 {last}，而 1/(i+1) 为 {usual_last}。",
    },
}
HEIGHT = 420


def _said(trace: Trace, focus: TTTFocus, key: str) -> str:
    words, meta = TEXTS[focus.lang], trace.meta["ttt"]
    if not len(trace):
        return words["no_data"]
    lr = parts.curve(trace, focus, "lr")
    most = max(range(len(lr)), key=lr.__getitem__)
    scales = meta["scales"][min(focus.layer, meta["layers"] - 1)]
    said = words[key].format(
        place=parts.place(focus, meta),
        low=parts.number(min(lr)),
        high=parts.number(max(lr)),
        most=trace.frames[most]["text"].strip() or trace.frames[most]["text"],
        n=len(lr),
        last=parts.number(scales[-1]),
        usual_last=parts.number(1 / len(scales)),
    )
    dead = "" if scales[-1] else words["dead"].format(size=len(scales))
    return said.rstrip(".。") + dead if dead else said


def data(trace: Trace, focus: TTTFocus) -> dict[str, Any]:
    """The figure of `trace`: learning rate by token, scale by place."""
    words, meta = TEXTS[focus.lang], trace.meta["ttt"]
    scales = [parts.short(value) for value in meta["scales"][min(focus.layer, meta["layers"] - 1)]]
    slots = list(range(len(scales)))
    hover: dict[str, Any] = {"hovertemplate": words["hover"], "text": parts.names(trace)}
    below: dict[str, Any] = {
        "xaxis": "x2",
        "yaxis": "y2",
        "hovertemplate": words["hover_scale"],
        "meta": {"select": {}},
    }
    rate = parts.line(words["lr"], range(len(trace)), parts.curve(trace, focus, "lr"), parts.LEARNED, **hover)
    learned = parts.line(words["scale"], slots, scales, parts.BESIDE, **below)
    usual = parts.line(words["usual"], slots, [parts.short(1 / (i + 1)) for i in slots], parts.BEFORE, "dash", **below)
    axes = {
        "xaxis": {"title": {"text": parts.WORDS[focus.lang]["token"]}, "showgrid": False},
        "yaxis": {"title": {"text": words["axis"]}, "domain": [0.58, 1], "rangemode": "tozero"},
        "xaxis2": {"title": {"text": words["slot"]}, "anchor": "y2", "showgrid": False},
        "yaxis2": {"title": {"text": words["axis2"]}, "domain": [0, 0.36], "rangemode": "tozero"},
    }
    shown = parts.layout(HEIGHT, _said(trace, focus, "head"), shapes=parts.marks(trace, focus), **axes)
    return {"data": [rate, learned, usual], "layout": shown}


figure, patch = parts.checked(data), parts.patched(data)


def summary(trace: Trace, focus: TTTFocus) -> str:
    """One sentence: the range of the rates, the last place's scale."""
    return _said(trace, focus, "summary")
