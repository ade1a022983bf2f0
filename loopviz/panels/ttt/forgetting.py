"""Forgetting: what the words after a place cost, with what was read before it and without.

No panel of a running Trace: its second curve is the same text read again with the memory set back (or not set back, where
the run itself had forgotten).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.figures import theme
from loopviz.panels.ttt import parts

if TYPE_CHECKING:
    from loopviz.trace.trace import Trace

NAME = "forgetting"
SAME = 1e-3  # nats: less is rounding
AFTER = 2  # words of a text that must follow: the first one that is read without the memory, and the one it says
CODE: tuple[str, ...] = ("loopviz.ttt.cache:TTTCache.forget", "loopviz.engine.ttt_stream:read_under")
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What does it lose when it forgets?",
        "question": "If the memory is set back to its beginning after one word, how much harder is every word that follows?",
        "how": "The same text is read twice. Blue: with everything that the weights learned before. Orange, dotted: the weights are "
        "set back to those of the beginning after the word that is marked, and learn on from there. What is compared is the loss of "
        "each word: −log p, how surprised the model is by it, in nats. Words that stand apart are those that it knew from before. "
        "Positions and convolutions are not forgotten: the model still has the last few words there, where it has convolutions.",
        "formula": r"-\log p(x_{t+1}\mid W_t),\qquad W_a\leftarrow W_0\ \text{ after }\ a",
        "source": "Its own question; that the state are weights W_t that begin at W_0: TTT, arXiv 2407.04620, section 2.1.",
        "kept": "remembered",
        "lost": "forgotten",
        "axis": "loss of the word, nats",
        "hover": "%{x} %{text}: %{y} nats",
        "same": "after word {at} “{token}”: the {n} words that follow cost the same without the memory: of what was read before, it held nothing that they need",
        "more": "after word {at} “{token}”: the {n} words that follow cost {more} nats more each without the memory (perplexity × {ratio}); most of all “{most}”, {worst} more",
        "less": "after word {at} “{token}”: the {n} words that follow cost {more} nats less each without the memory (perplexity × {ratio}): here it hindered; most of all “{most}” cost {worst} more",
    },
    "zh": {
        "title": "遗忘使它失去什么？",
        "question": "若在某个词之后把记忆恢复到开始，之后的每个词会难多少？",
        "how": "同一文本读两遍。蓝色：保留权重之前学到的一切。橙色点线：在标出的词之后把权重恢复为开始时的权重，再继续学习。"
        "比较的是每个词的损失 −log p，即模型对它有多意外，单位为纳特。相差大的词，是它靠之前的内容才知道的。位置与卷积不会被遗忘：若有卷积，最近几个词仍在那里。",
        "formula": r"-\log p(x_{t+1}\mid W_t),\qquad W_a\leftarrow W_0\ (t>a)",
        "source": "这是本页自己的问题；状态是从 W_0 开始的权重 W_t：TTT，arXiv 2407.04620，第 2.1 节。",
        "kept": "记得",
        "lost": "遗忘后",
        "axis": "词的损失，纳特",
        "hover": "%{x} %{text}：%{y} 纳特",
        "same": "在第 {at} 个词“{token}”之后：没有记忆时，其后的 {n} 个词代价相同：之前读过的，记忆里没有它们需要的东西",
        "more": "在第 {at} 个词“{token}”之后：没有记忆时，其后的 {n} 个词平均各多 {more} 纳特（困惑度 × {ratio}）；最多的是“{most}”，多 {worst}",
        "less": "在第 {at} 个词“{token}”之后：没有记忆时，其后的 {n} 个词平均各少 {more} 纳特（困惑度 × {ratio}）：这里记忆反而有碍；多得最多的是“{most}”，多 {worst}",
    },
}


def losses(trace: Trace, other: Sequence[float], forgot: bool) -> tuple[np.ndarray, np.ndarray]:
    """Loss of every word after the first, remembered and forgotten, nats.

    Args:
        other: log-probabilities of the same words where the run's own forgetting is turned round.
        forgot: whether the run itself had forgotten.
    """
    own = -np.array([frame["next_logprob"] or 0.0 for frame in trace.frames])
    again = -np.array(other)
    return (again, own) if forgot else (own, again)


def words_after(trace: Trace) -> list[str]:
    """The word that every frame's loss is of."""
    return [frame["next_text"] for frame in trace.frames]


def summary(trace: Trace, at: int, other: Sequence[float], forgot: bool, lang: str) -> str:
    """One sentence: how much more the words that follow cost."""
    kept, lost = (values[at + 1 :] for values in losses(trace, other, forgot))
    more = lost - kept
    worst = int(more.argmax())
    mean = float(more.mean())
    key = "same" if float(np.abs(more).max()) < SAME else "more" if mean >= 0 else "less"
    return TEXTS[lang][key].format(
        at=at,
        token=trace.frames[at]["text"].strip(),
        n=len(more),
        more=parts.number(abs(mean)),
        ratio=parts.number(float(np.exp(mean))),
        most=words_after(trace)[at + 1 + worst].strip(),
        worst=parts.number(float(more[worst])),
    )


def data(trace: Trace, at: int, other: Sequence[float], forgot: bool, lang: str) -> dict[str, Any]:
    """The figure: loss by word, remembered and forgotten."""
    said = TEXTS[lang]
    kept, lost = losses(trace, other, forgot)
    x = list(range(1, len(kept) + 1))
    hover: dict[str, Any] = {"hovertemplate": said["hover"], "text": [parts.shown(word) for word in words_after(trace)]}
    mark = {"type": "line", "xref": "x", "yref": "y domain", "x0": at + 0.5, "x1": at + 0.5, "y0": 0, "y1": 1}
    mark["line"] = {"color": theme.SELECTED, "width": 1.5}
    axes = {
        "xaxis": {"title": {"text": parts.WORDS[lang]["token"]}, "showgrid": False},
        "yaxis": {"title": {"text": said["axis"]}, "rangemode": "tozero"},
        "meta": {"select": {}},
    }
    return {
        "data": [
            parts.line(said["kept"], x, [parts.short(one) for one in kept], parts.LEARNED, **hover),
            parts.line(said["lost"], x, [parts.short(one) for one in lost], parts.BESIDE, "dot", **hover),
        ],
        "layout": parts.layout(340, summary(trace, at, other, forgot, lang), shapes=[mark]) | axes,
    }
