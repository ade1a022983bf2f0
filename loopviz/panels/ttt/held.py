"""Held: what the memory still says right of every earlier token, by how long ago it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.panels.ttt import parts
from loopviz.trace.schema import AGES

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "held"
CODE: tuple[str, ...] = ("loopviz.trace.recording.ttt:TTTRecorder", "loopviz.ttt.observe:reconstruction")
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What does the memory still hold?",
        "question": "How wrong is the memory, as it is now, about each earlier word, and is that better than having learned nothing?",
        "how": "The weights after the word you look at (the newest, unless you choose one) are asked about every word before it: "
        "blue is how far off they are, by how many words ago it was read (0 is the word itself). Grey, dashed: the same question to "
        "the weights that the text began with. Where blue lies below grey, something of that word is still held; where they meet it "
        "is gone, or was never learned. Of a run too "
        f"long to record that of all words, the last ones are asked about, {AGES} at least.",
        "formula": r"\ell_j(W_t)=\tfrac12\left\|\mathrm{LN}(f(k_j;W_t))-(v_j-k_j)\right\|^2\ \text{ by }\ t-j",
        "source": "Its own question, asked with the loss of TTT, arXiv 2407.04620, section 2.3; the paper shows the loss of the newest "
        "word alone (its figure 4).",
        "now": "with the weights now",
        "start": "with the weights of the beginning",
        "axis": "inner loss ℓ",
        "age": "words ago",
        "hover": "%{x} ago, %{text}: %{y}",
        "no_data": "Nothing read yet: the curves come with the first words.",
        "head": "{place}, after word {at} “{token}”: of the last {n} words {better} are said better than at the beginning; mean {now}, then {start}",
        "summary": "What is held, {place}, after word {at} “{token}”: of the last {n} words {better} have a lower inner loss than under the first weights; on average {now} where it was {start}.",
    },
    "zh": {
        "title": "记忆里还留着什么？",
        "question": "现在的记忆对之前每个词错多少？是否好过什么也没学？",
        "how": "用你所看的词（未选时为最新的词）之后的权重去问它之前的每个词：蓝色是差多少，横轴是多少个词之前读入（0 是该词自己）。"
        "灰色虚线：用开始读文本时的权重问同样的问题。蓝线低于灰线处，那个词还有所保留；相遇处则已消失，或从未学到。运行过长、"
        f"无法全部记录时，只问最近的词，至少 {AGES} 个。",
        "formula": r"\ell_j(W_t)=\tfrac12\left\|\mathrm{LN}(f(k_j;W_t))-(v_j-k_j)\right\|^2,\qquad t-j",
        "source": "这是本页自己的问题，用 TTT（arXiv 2407.04620，第 2.3 节）的损失来问；论文只给出最新一个词的损失（其图 4）。",
        "now": "用现在的权重",
        "start": "用开始时的权重",
        "axis": "内层损失 ℓ",
        "age": "多少个词之前",
        "hover": "%{x} 个词之前，%{text}：%{y}",
        "no_data": "尚未读入词：曲线随第一批词出现。",
        "head": "{place}，在第 {at} 个词“{token}”之后：最近 {n} 个词中有 {better} 个比开始时说得更准；平均 {now}，当时 {start}",
        "summary": "保留的内容，{place}，在第 {at} 个词“{token}”之后：最近 {n} 个词中有 {better} 个的内层损失低于初始权重；平均 {now}，当时 {start}。",
    },
}


def _pairs(trace: Trace, focus: TTTFocus) -> tuple[list[float], list[float], list[str]]:
    """By age: the loss now, the loss under W_0, the token."""
    at = focus.selected(len(trace))
    if at is None:
        return [], [], []
    now = parts.held(trace.frames[at], trace.meta["ttt"], focus)[::-1]
    start, names = parts.curve(trace, focus, "loss_start"), parts.names(trace)
    ages = range(len(now))
    return [parts.short(one) for one in now], [start[at - age] for age in ages], [names[at - age] for age in ages]


def _said(trace: Trace, focus: TTTFocus, key: str) -> str:
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if at is None:
        return words["no_data"]
    now, start, _ = _pairs(trace, focus)
    return words[key].format(
        place=parts.place(focus, trace.meta["ttt"]),
        at=at,
        token=trace.frames[at]["text"].strip(),
        n=len(now),
        better=sum(new < old for new, old in zip(now, start, strict=True)),
        now=parts.number(float(np.mean(now))),
        start=parts.number(float(np.mean(start))),
    )


def data(trace: Trace, focus: TTTFocus) -> dict[str, Any]:
    """The figure of `trace`: reconstruction error of earlier tokens by age, under the weights now and at the beginning."""
    words = TEXTS[focus.lang]
    now, start, names = _pairs(trace, focus)
    hover: dict[str, Any] = {"hovertemplate": words["hover"], "text": names}
    ages = list(range(len(now)))
    axes = {
        "xaxis": {"title": {"text": words["age"]}, "showgrid": False},
        "yaxis": {"title": {"text": words["axis"]}, "rangemode": "tozero"},
        "meta": {"select": {}},
    }
    return {
        "data": [
            parts.line(words["start"], ages, start, parts.BEFORE, "dash", **hover),
            parts.line(words["now"], ages, now, parts.LEARNED, **hover),
        ],
        "layout": parts.layout(320, _said(trace, focus, "head")) | axes,
    }


figure, patch = parts.checked(data), parts.patched(data)


def summary(trace: Trace, focus: TTTFocus) -> str:
    """One sentence: how many words are still said better than at the beginning."""
    return _said(trace, focus, "summary")
