"""Dual form: which tokens of its mini-batch a token reads, as the masked matrix that stands where attention's stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.figures import theme
from loopviz.panels.ttt import parts

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "dual"
CODE: tuple[str, ...] = ("loopviz.ttt.inner_step:dual", "loopviz.ttt.observe:InnerStep.dual_matrices")
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Which words does a word read, in this form?",
        "question": "Inside one group of words (mini-batch), how strongly does each word read what the others wrote?",
        "how": "Learning within a group can be computed as one matrix, as attention is: a row is a word that reads, a column a word "
        "that was written, and the number says with which weight the row reads the column's gradient (the correction that word "
        "asked for). Orange adds, blue takes away; a word reads no later one (masked). It is not a share: rows do not sum to 1, for "
        "there is no softmax. It shows the group of the word you look at. What was forgotten is 0.",
        "formula": r"\eta\odot\mathrm{tril}(QK^\top),\qquad \eta_{ij}=s_i\,\eta_j,\qquad \bar Z=QW-\big(\eta\odot\mathrm{tril}(QK^\top)\big)G",
        "source": "TTT, arXiv 2407.04620, section 2.5 (dual form).",
        "reads": "the word that reads",
        "written": "the word that was written",
        "hover": "%{y} reads %{x}: %{z}",
        "bar": "weight",
        "no_data": "Nothing read yet: the matrix grows with the first words.",
        "head": "{place}, words {first} to {last}: the largest is {largest}, where “{row}” reads “{column}”",
        "summary": "Matrix of the dual form, {place}, words {first} to {last}: the largest weight is {largest}, where “{row}” reads “{column}”.",
    },
    "zh": {
        "title": "在这种形式里，一个词读了哪些词？",
        "question": "在一个小批（mini-batch）之内，每个词以多大的权重读其他词写下的内容？",
        "how": "小批内的学习可以像注意力那样作为一个矩阵来算：一行是在读的词，一列是被写入的词，数值是该行以多大权重读该列的梯度（那个词要求的修正）。"
        "橙色为加，蓝色为减；不读之后的词（遮蔽）。它不是份额：没有 softmax，一行之和不为 1。显示的是你所看的词所在的小批。被遗忘的为 0。",
        "formula": r"\eta\odot\mathrm{tril}(QK^\top),\qquad \eta_{ij}=s_i\,\eta_j,\qquad \bar Z=QW-\big(\eta\odot\mathrm{tril}(QK^\top)\big)G",
        "source": "TTT，arXiv 2407.04620，第 2.5 节（对偶形式）。",
        "reads": "在读的词",
        "written": "被写入的词",
        "hover": "%{y} 读 %{x}：%{z}",
        "bar": "权重",
        "no_data": "尚未读入词：矩阵随第一批词出现。",
        "head": "{place}，第 {first} 至 {last} 个词：最大为 {largest}，“{row}”读“{column}”",
        "summary": "对偶形式的矩阵，{place}，第 {first} 至 {last} 个词：最大权重为 {largest}，“{row}”读“{column}”。",
    },
}
MOST_WORDS = 64  # of a mini-batch that are drawn: a published one has 16
SCALE = [[0.0, theme.SIGNS["below"]], [0.5, "rgba(127,127,127,0.06)"], [1.0, theme.SIGNS["above"]]]


Matrix = tuple[int, list[list[float | None]]]


def matrix(trace: Trace, focus: TTTFocus) -> Matrix:
    """The first token that is shown of the mini-batch that is looked at, and its matrix so far; None where a word reads no later one.

    Of a longer mini-batch than `MOST_WORDS` those around the token that is looked at.
    """
    at = focus.selected(len(trace))
    if at is None:
        return 0, []
    size = trace.meta["ttt"]["mini_batch"]
    begin = at - at % size
    end = min(begin + size, len(trace))
    first = max(begin, min(at - MOST_WORDS // 2, end - MOST_WORDS))
    frames = trace.frames[first : min(end, first + MOST_WORDS)]
    rows = [parts.reads(frame, trace.meta["ttt"], focus)[first - begin :] for frame in frames]
    shown: list[list[float | None]] = []
    for row in rows:
        known: list[float | None] = [parts.short(value) for value in row]
        shown.append(known + [None] * (len(frames) - len(row)))
    return first, shown


def _said(trace: Trace, focus: TTTFocus, found: Matrix, key: str) -> str:
    first, rows = found
    if not rows:
        return TEXTS[focus.lang]["no_data"]
    values = np.array([[value or 0.0 for value in row] for row in rows])
    i, j = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    return TEXTS[focus.lang][key].format(
        place=parts.place(focus, trace.meta["ttt"]),
        first=first,
        last=first + len(rows) - 1,
        largest=parts.number(float(values[i, j])),
        row=trace.frames[first + int(i)]["text"].strip(),
        column=trace.frames[first + int(j)]["text"].strip(),
    )


def data(trace: Trace, focus: TTTFocus) -> dict[str, Any]:
    """The figure of `trace`: the matrix of the mini-batch that is looked at."""
    words = TEXTS[focus.lang]
    first, rows = found = matrix(trace, focus)
    most = max((abs(value) for row in rows for value in row if value is not None), default=1.0) or 1.0
    return parts.matrix(trace, first, rows, SCALE, (-most, most), _said(trace, focus, found, "head"), words)


figure, patch = parts.checked(data), parts.patched(data)


def summary(trace: Trace, focus: TTTFocus) -> str:
    """One sentence: the largest weight."""
    return _said(trace, focus, matrix(trace, focus), "summary")
