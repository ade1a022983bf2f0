"""Inner loss: how badly the memory says each token's value, before and after that token's own update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopviz.panels.ttt import parts

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "inner_loss"
CODE: tuple[str, ...] = ("loopviz.ttt.observe:InnerStep", "loopviz.ttt.norm_loss:loss")
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Does the memory learn each word?",
        "question": "How wrong is the memory about a word just before it learns that word, and just after?",
        "how": "The memory is a small model inside the layer. For every word it is asked to make the word's value from its key, "
        "and how far off it is, is the inner loss. Grey, dashed: under the weights that the word's group of words (mini-batch) "
        "began with. Blue: under the weights after this word's own step. Where blue lies below grey the word was learned; how "
        "much of it stays later, another picture shows. Dotted uprights: a new group begins.",
        "formula": r"\ell_t(W)=\tfrac12\left\|\mathrm{LN}(f(k_t;W))-(v_t-k_t)\right\|^2,\qquad "
        r"\ell_t(W_{\lfloor t/M\rfloor M})\ \to\ \ell_t(W_t)",
        "source": "TTT, arXiv 2407.04620, section 2.3 (the task), 2.4 (mini-batches) and 2.7 (LayerNorm and residual).",
        "before": "before its own update",
        "after": "after its own update",
        "axis": "inner loss ℓ",
        "hover": "%{x} %{text}: %{y}",
        "no_data": "Nothing read yet: the curves grow with the first words.",
        "head": "{place}: {before} → {after} on average; {share} of {n} words lie lower after",
        "summary": "Inner loss, {place}: on average {before} before and {after} after a word's own update; for {share} of {n} words it is lower after.",
    },
    "zh": {
        "title": "记忆学会了每个词吗？",
        "question": "在学习一个词之前与之后，记忆对它错得有多少？",
        "how": "记忆是层内的一个小模型。对每个词，要它由该词的键给出该词的值，差多少就是内层损失。灰色虚线：用该词所在小批（mini-batch）开始时的权重；"
        "蓝色：用这个词自己的一步之后的权重。蓝线低于灰线，说明学到了这个词；之后还留下多少，见另一张图。竖点线：新的小批开始。",
        "formula": r"\ell_t(W)=\tfrac12\left\|\mathrm{LN}(f(k_t;W))-(v_t-k_t)\right\|^2,\qquad "
        r"\ell_t(W_{\lfloor t/M\rfloor M})\ \to\ \ell_t(W_t)",
        "source": "TTT，arXiv 2407.04620，第 2.3 节（任务）、2.4 节（小批）、2.7 节（LayerNorm 与残差）。",
        "before": "自身更新之前",
        "after": "自身更新之后",
        "axis": "内层损失 ℓ",
        "hover": "%{x} %{text}：%{y}",
        "no_data": "尚未读入词：曲线随第一批词出现。",
        "head": "{place}：平均 {before} → {after}；{n} 个词中 {share} 在更新后更低",
        "summary": "内层损失，{place}：自身更新前平均 {before}，之后 {after}；{n} 个词中 {share} 在更新后更低。",
    },
}


def _said(trace: Trace, focus: TTTFocus, key: str) -> str:
    words = TEXTS[focus.lang]
    if not len(trace):
        return words["no_data"]
    before, after = parts.curve(trace, focus, "loss_before"), parts.curve(trace, focus, "loss_after")
    n = len(before)
    lower = sum(new < old for old, new in zip(before, after, strict=True))
    return words[key].format(
        place=parts.place(focus, trace.meta["ttt"]),
        before=parts.number(sum(before) / n),
        after=parts.number(sum(after) / n),
        share=f"{lower / n:.0%}",
        n=n,
    )


def data(trace: Trace, focus: TTTFocus) -> dict[str, Any]:
    """The figure of `trace`: inner loss by token before and after its own update."""
    words, x, texts = TEXTS[focus.lang], list(range(len(trace))), parts.names(trace)
    hover: dict[str, Any] = {"hovertemplate": words["hover"], "text": texts}
    before = parts.line(words["before"], x, parts.curve(trace, focus, "loss_before"), parts.BEFORE, "dash", **hover)
    after = parts.line(words["after"], x, parts.curve(trace, focus, "loss_after"), parts.LEARNED, **hover)
    axes = {
        "xaxis": {"title": {"text": parts.WORDS[focus.lang]["token"]}, "showgrid": False},
        "yaxis": {"title": {"text": words["axis"]}, "rangemode": "tozero"},
    }
    shown = parts.layout(320, _said(trace, focus, "head"), shapes=parts.marks(trace, focus), **axes)
    return {"data": [before, after], "layout": shown}


figure, patch = parts.checked(data), parts.patched(data)


def summary(trace: Trace, focus: TTTFocus) -> str:
    """One sentence: the two means."""
    return _said(trace, focus, "summary")
