"""Attention of the control: which words of the same group a model of equal size with attention looks at.

No panel of a running Trace: the control reads the run's text by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.figures import theme
from loopviz.panels.ttt import parts

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "attention"
CODE: tuple[str, ...] = ("loopviz.engine.ttt_local:LocalTTT.attention_beside",)
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Which words would attention read?",
        "question": "A model of equal size that keeps every word: which words of the same group does it look at?",
        "how": "The control, {control}, was trained alike and has attention where the other has TTT. It reads the same text, and a row is "
        "how one word's attention is shared among the words of the group up to itself. These are shares between 0 and 1; what is "
        "lacking to 1 went to words before the group, which attention keeps and the matrix beside cannot have. At most the last words "
        "that fit into the control's context are read.",
        "formula": r"A=\mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{D}}+\text{mask}\right)",
        "source": "Attention: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1; beside the dual form of TTT, arXiv 2407.04620, section 2.5.",
        "reads": "the word that looks",
        "written": "the word that is looked at",
        "hover": "%{y} looks at %{x}: %{z:.1%}",
        "bar": "share",
        "head": "{control}, {place}, words {first} to {last}: {inside} of the attention stays inside the group, {outside} goes to words before it",
        "summary": "Attention of {control}, {place}, words {first} to {last}: {inside} of it stays inside the group, {outside} goes to words before it.",
    },
    "zh": {
        "title": "注意力会读哪些词？",
        "question": "一个同样大小、保留每个词的模型：它看同一小批中的哪些词？",
        "how": "对照模型 {control} 以同样方式训练，在 TTT 的位置上用注意力。它读同一文本；一行是一个词的注意力在该小批中直到自己为止的各词之间如何分配。"
        "这些是 0 到 1 之间的份额；不足 1 的部分给了小批之前的词，注意力保留它们，而旁边的矩阵不可能有。最多读对照模型上下文容得下的最后若干词。",
        "formula": r"A=\mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{D}}+\text{mask}\right)",
        "source": "注意力：Vaswani 等 2017，arXiv 1706.03762，第 3.2.1 节；与 TTT 的对偶形式（arXiv 2407.04620，第 2.5 节）并列。",
        "reads": "在看的词",
        "written": "被看的词",
        "hover": "%{y} 看 %{x}：%{z:.1%}",
        "bar": "份额",
        "head": "{control}，{place}，第 {first} 至 {last} 个词：{inside} 的注意力留在小批之内，{outside} 给了之前的词",
        "summary": "{control} 的注意力，{place}，第 {first} 至 {last} 个词：{inside} 留在小批之内，{outside} 给了之前的词。",
    },
}
HEIGHT = 430
SCALE = [[0.0, "rgba(127,127,127,0.06)"], [1.0, theme.SETUP_COLOURS[1]]]


def matrix(weights: list[Any], focus: TTTFocus) -> np.ndarray:
    """Of `[L][H][K][K]` the layer and head looked at, `[K, K]`."""
    found = np.array(weights[min(focus.layer, len(weights) - 1)])
    return found.mean(0) if focus.head is None or focus.head >= len(found) else found[focus.head]


def _said(trace: Trace, focus: TTTFocus, control: str, first: int, shares: np.ndarray, key: str) -> str:
    inside = float(shares.sum(1).mean())
    return TEXTS[focus.lang][key].format(
        control=control,
        place=parts.place(focus, trace.meta["ttt"]),
        first=first,
        last=first + len(shares) - 1,
        inside=f"{inside:.0%}",
        outside=f"{max(0.0, 1 - inside):.0%}",
    )


def summary(trace: Trace, focus: TTTFocus, control: str, first: int, weights: list[Any]) -> str:
    """One sentence: how much of the attention leaves the group."""
    return _said(trace, focus, control, first, matrix(weights, focus), "summary")


def data(trace: Trace, focus: TTTFocus, control: str, first: int, weights: list[Any]) -> dict[str, Any]:
    """The figure: the control's attention within the mini-batch that begins at `first`."""
    words, shares = TEXTS[focus.lang], matrix(weights, focus)
    K = len(shares)
    names = [f"{first + i} {name}" for i, name in enumerate(parts.names(trace)[first : first + K])]
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [[parts.short(float(shares[i, j])) if j <= i else None for j in range(K)] for i in range(K)],
        "zmin": 0,
        "zmax": float(shares.max()) or 1.0,
        "colorscale": SCALE,
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
    said = _said(trace, focus, control, first, shares, "head")
    return {"data": [heat], "layout": parts.layout(HEIGHT, said) | axes}
