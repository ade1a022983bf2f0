"""Inner rules: the same keys and values written by linear attention, DeltaNet, Gated DeltaNet and TTT-Linear, and what each holds.

No panel of a running Trace: the run's text is read once more, and every rule writes the layer's own keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.panels.ttt import parts

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "rules"
RULES = ("linear_attention", "deltanet", "gated_deltanet", "ttt_linear")  # as of loopviz.ttt.inner_rules, in this order
NEAR = 16  # words that are called the last ones
CODE: tuple[str, ...] = ("loopviz.ttt.inner_rules:run_rule", "loopviz.ttt.inner_rules:InnerRule")
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What if it learned by another rule?",
        "question": "The same keys and values, written by four rules: how much of each word's error is left at the end of the text?",
        "how": "Every rule keeps one matrix a head and writes this layer's own keys and values of this run, from the beginning of the text "
        "on (at most {most} words, without what was changed by hand). TTT-Linear writes as the model does. The three others write as DeltaNet "
        "was published: each key cut or stretched to length 1 (k̂), and a strength β between 0 and 1, for which the layer's own learned gate "
        "is taken; without that their steps would overshoot. Shown is the share of a word's "
        "error that is left, beside weights that have learned nothing: 0, it is said exactly; 1, as if it had never been read; more, what "
        "was written since speaks over it. Dotted: right after the word was written. Blue: at the end of the text. The model was trained "
        "for the last rule alone, so this compares what rules do to given keys, and not how well models trained for each would do.",
        "formula": r"\text{linear: } W_t=W_{t-1}+\beta_t v_t \hat k_t^\top\qquad \text{DeltaNet: } W_t=W_{t-1}+\beta_t(v_t-W_{t-1}\hat k_t)\hat k_t^\top\qquad "
        r"\text{Gated: } W_t=\alpha W_{t-1}+\beta_t(v_t-\alpha W_{t-1}\hat k_t)\hat k_t^\top\qquad \text{TTT: } W_t=W_{0}-s_i\sum_{j\le i}\eta_j\nabla\ell_j(W_0)",
        "source": "Linear attention: arXiv 2006.16236. DeltaNet: 2102.11174, 2406.06484. Gated DeltaNet: 2412.06464, equation of its "
        "section 3. TTT-Linear: 2407.04620, sections 2.4 and 2.7; that linear attention is TTT with its gradient at W = 0: its theorem 1.",
        "linear_attention": "Linear attention",
        "deltanet": "DeltaNet",
        "gated_deltanet": "Gated DeltaNet",
        "ttt_linear": "TTT-Linear",
        "what_linear_attention": "adds every word's value under its key. Nothing is looked up first, so words with similar keys pile up.",
        "what_deltanet": "first asks what the key already says, and writes only what is lacking: the new value takes the place of the old.",
        "what_gated_deltanet": "does the same after letting all that is held fade by α = {fade}: old words go, and make room.",
        "what_ttt_linear": "has a bias, a LayerNorm in the error, aims at v − k instead of v, and takes the steps of a whole group of words at the "
        "same weights, each scaled by its place.",
        "now": "left at the end",
        "after": "left right after it was written",
        "axis": "share of the error that is left",
        "age": "words ago",
        "hover": "%{x} ago, %{text}: %{y}",
        "head": "{rule}, {place}: right after its writing {after} of a word's error is left; at the end {near} of the last {few} words' and {all} of all {n} words'",
        "none": "The inner model of this TTT model is an MLP, and these rules write matrices: choose a TTT-Linear model.",
    },
    "zh": {
        "title": "如果它按另一种规则学习？",
        "question": "同样的键与值，按四种规则写入：到文本结尾，每个词的误差还剩多少？",
        "how": "每种规则每个头保留一个矩阵，写入本次运行中这一层自己的键与值，从文本开头起（最多 {most} 个词，不含手动的改变）。TTT-Linear 按模型自己的方式写入；"
        "另外三种按 DeltaNet 论文的方式写入：每个键缩放到长度 1（k̂），写入强度 β 在 0 与 1 之间，取这一层自己学到的门；否则它们的步子会过头。"
        "图中是一个词的误差与什么也没学的权重相比还剩的份额：0 表示说得完全准确，1 表示如同从未读过，更大则表示后来写入的盖过了它。点线：该词刚写入之后；蓝线：文本结尾。"
        "模型只为最后一种规则训练过，所以这里比较的是规则对给定的键做了什么，而不是为各规则训练的模型有多好。",
        "formula": r"\text{linear: } W_t=W_{t-1}+\beta_t v_t \hat k_t^\top\qquad \text{DeltaNet: } W_t=W_{t-1}+\beta_t(v_t-W_{t-1}\hat k_t)\hat k_t^\top\qquad "
        r"\text{Gated: } W_t=\alpha W_{t-1}+\beta_t(v_t-\alpha W_{t-1}\hat k_t)\hat k_t^\top\qquad \text{TTT: } W_t=W_{0}-s_i\sum_{j\le i}\eta_j\nabla\ell_j(W_0)",
        "source": "线性注意力：arXiv 2006.16236。DeltaNet：2102.11174、2406.06484。Gated DeltaNet：2412.06464，第 3 节。TTT-Linear：2407.04620，第 2.4 与 2.7 节；"
        "线性注意力即在 W = 0 处取梯度的 TTT：其定理 1。",
        "linear_attention": "线性注意力",
        "deltanet": "DeltaNet（增量规则）",
        "gated_deltanet": "Gated DeltaNet（带门的增量规则）",
        "ttt_linear": "TTT-Linear（测试时训练）",
        "what_linear_attention": "把每个词的值加到它的键下。不先查询，所以键相近的词会堆在一起。",
        "what_deltanet": "先问这个键已经说出什么，只写入所缺的：新值取代旧值。",
        "what_gated_deltanet": "同上，但写入之前让已有的一切按 α = {fade} 衰减：旧词渐去，腾出位置。",
        "what_ttt_linear": "带偏置，误差中有 LayerNorm，目标是 v − k 而不是 v，并且一个小批的各步都在同样的权重处取，再按位置缩放。",
        "now": "结尾时还剩",
        "after": "刚写入之后还剩",
        "axis": "误差还剩的份额",
        "age": "多少个词之前",
        "hover": "%{x} 个词之前，%{text}：%{y}",
        "head": "{rule}，{place}：刚写入之后，一个词的误差还剩 {after}；结尾时最近 {few} 个词还剩 {near}，全部 {n} 个词还剩 {all}",
        "none": "这个 TTT 模型的内层模型是 MLP，而这些规则写入的是矩阵：请选择 TTT-Linear 模型。",
    },
}

Told = Mapping[str, Sequence[float]]  # of a rule: `start`, `after`, `held` by token


def _shares(told: Told, of: str) -> np.ndarray:
    return np.array(told[of]) / np.maximum(np.array(told["start"]), 1e-12)


def _mean(told: Told, of: str, last: int) -> str:
    """Of all error there was of the last words, what is left."""
    return f"{sum(told[of][-last:]) / max(sum(told['start'][-last:]), 1e-12):.0%}"


def what(rule: str, fade: float, lang: str) -> str:
    """What a rule does, in a sentence."""
    return f"{TEXTS[lang][rule]}: {TEXTS[lang][f'what_{rule}'].format(fade=parts.number(fade))}"


def summary(trace: Trace, focus: TTTFocus, rule: str, told: Told) -> str:
    """One sentence: what is left right after writing, and at the end."""
    n = len(told["start"])
    return TEXTS[focus.lang]["head"].format(
        rule=TEXTS[focus.lang][rule],
        place=parts.place(focus, trace.meta["ttt"]),
        after=_mean(told, "after", n),
        near=_mean(told, "held", NEAR),
        few=min(NEAR, n),
        all=_mean(told, "held", n),
        n=n,
    )


def data(trace: Trace, focus: TTTFocus, rule: str, told: Told) -> dict[str, Any]:
    """The figure of one rule: by age, the share of the error that is left."""
    words, n = TEXTS[focus.lang], len(told["start"])
    names = parts.names(trace)[:n][::-1]
    hover: dict[str, Any] = {"hovertemplate": words["hover"], "text": names}
    lines = [
        parts.line(words[key], range(n), [parts.short(one) for one in _shares(told, of)[::-1]], colour, dash, **hover)
        for key, of, colour, dash in (("after", "after", parts.BESIDE, "dot"), ("now", "held", parts.LEARNED, "solid"))
    ]
    level = {"type": "line", "xref": "x domain", "yref": "y", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    level["line"] = {"color": parts.BEFORE, "width": 1.5, "dash": "dash"}
    axes = {
        "xaxis": {"title": {"text": words["age"]}, "showgrid": False},
        "yaxis": {"title": {"text": words["axis"]}, "rangemode": "tozero", "tickformat": ".0%"},
        "meta": {"select": {}},
    }
    said = summary(trace, focus, rule, told)
    return {"data": lines, "layout": parts.layout(340, said, shapes=[level]) | axes}
