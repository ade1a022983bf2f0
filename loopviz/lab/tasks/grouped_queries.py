"""From multi-head over grouped-query to multi-query attention: what fewer key/value heads cost, and what they save."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loopviz.anatomy.grouped_heads import head_counts, with_kv_heads
from loopviz.checks import check_whole
from loopviz.engine.work import NOTHING, Work
from loopviz.lab.headline import byte_words, known, number, same
from loopviz.lab.progress import Progress
from loopviz.lab.reading.intervals import draws_param, mean_interval, seed_param
from loopviz.lab.reading.windows import TextParams
from loopviz.lab.task import MOST_TOKENS, Row, Subject, Task, column, loop_param, param, register, titled
from loopviz.lab.tasks.where import text_nats
from loopviz.lab.walk import Walk

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "grouped_queries", 230
TITLE = {"en": "Shared keys and values: MHA, GQA, MQA", "zh": "共用键和值：MHA、GQA、MQA"}


@dataclass(frozen=True)
class GroupedParams(TextParams):
    """Parameters of the shared keys and values."""

    limit_tokens: int = param(2048, "Tokens to predict, at most.", "最多预测的词元数。", low=1, high=MOST_TOKENS)
    loop: dict[str, Any] | None = loop_param()
    draws: int = draws_param()
    seed: int = seed_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("draws", self.draws, 0)


def _order(subject: Subject) -> list[int]:
    """The model's own number first, against which the others are held; then from the most to one."""
    own, counts = subject.model.config.num_key_value_heads, head_counts(subject.model.config)
    return [own, *(count for count in reversed(counts) if count != own)]


def _cells(subject: Subject, params: GroupedParams) -> int:
    return len(_order(subject))


def _work(subject: Subject, params: GroupedParams) -> Work:
    shape, reach, counts = subject.shape(subject.view(params.loop)), params.reach(subject), _order(subject)
    passes = sum((reach.whole(replace(shape, kv_heads=count)) for count in counts), NOTHING)
    projections = 2 * shape.layers * shape.hidden * shape.heads * shape.head_dim * shape.itemsize
    return passes + reach.text + reach.intervals(len(counts), params.draws) + Work(kept=projections)


def _run(subject: Subject, params: GroupedParams) -> Iterator[Row | float]:
    windows, model, order = params.windows(subject), subject.view(params.loop), _order(subject)
    config, progress = model.config, Progress(len(order))
    before = None
    for count in order:
        view = with_kv_heads(model, count)
        sums = yield from progress.part(1, text_nats(view, windows, params.batch))
        before = sums if before is None else before
        loss = float(sums.sum()) / windows.tokens
        low, high = mean_interval(sums - before, windows.counts, params.draws, params.seed)
        shape = subject.shape(view)
        yield {
            "kv_heads": count,
            "group": config.num_attention_heads // count,
            "own": count == config.num_key_value_heads,
            "nats": loss,
            "delta": float((sums - before).sum()) / windows.tokens,
            "low": low,
            "high": high,
            "perplexity": math.exp(loss) if loss < 700 else None,
            "kv_bytes": shape.plain.kv_bytes,
            "kv_bytes_loop": shape.kv_bytes,
            "tokens": windows.tokens,
        }


COLUMNS = tuple(
    column(*told)
    for told in (
        ("kv_heads", "", "K/V heads: keys and values of each layer", "键值头数：每层的键和值"),
        ("group", "", "Sharing: query heads that read one of them", "共用：读同一个键值头的查询头数"),
        ("own", "", "Own: whether the model has so many itself", "原有：模型自己是否就是这个数"),
        ("nats", "nats", "Loss: mean -log p of a token", "损失：每个词元 −log p 的平均值"),
        ("delta", "nats", "Loss, change: against the model's own number", "损失变化：相对模型自己的头数"),
        (
            "low",
            "nats",
            "Change, low: lower end of its 95 % bootstrap interval over windows; empty under 6 windows, too few to tell",
            "变化下限：其按窗口自助法 95 % 区间的下端；少于 6 个窗口时为空，不足以判断",
        ),
        ("high", "nats", "Change, high: upper end of it", "变化上限：该区间的上端"),
        ("perplexity", "", "Perplexity: exp of the loss", "困惑度：损失的指数"),
        ("kv_bytes", "bytes", "Cache: of a token, each layer run once", "缓存：每个词元，每层只运行一次"),
        (
            "kv_bytes_loop",
            "bytes",
            "Cache, looped: of a token, with all slots that the loop keeps",
            "循环时的缓存：每个词元，含循环保留的全部槽",
        ),
        ("tokens", "tokens", "Tokens: how many were predicted", "词元：预测的数量"),
    )
)

WORDS = {
    "en": {
        "question": "How many query heads can share one pair of keys and values before the model forgets how to read?",
        "how": "Neighbouring K/V heads of the loaded model become their mean (how GQA begins, arXiv 2305.13245, section 2.1), "
        "with no training after it; more heads than it has are copies, which change nothing. Loss of the text by full passes; "
        "bytes that a token leaves in the cache, once and with the loop's slots. Intervals: bootstrap over windows, of the "
        "change; fewer than 6 say too little of other text for one.",
        "cost": "A pass over the text for each number of heads.",
        "seen": "Each halving of the K/V heads halves the cache, and usually the loss grows the more heads are made one.",
        "why": "Every head has learned keys of its own, and their mean is none of them; a model that is trained with few heads "
        "learns keys that serve all its queries, and pays far less.",
        "looping": "A loop that keeps a slot a step multiplies the bytes by its loops, so sharing heads saves that many times "
        "as much: a looped model has the most reason for it.",
    },
    "zh": {
        "question": "多少个查询头可以共用一对键和值，模型才不至于忘记怎样读？",
        "how": "把所载入模型的相邻键值头取平均（GQA 的起点，arXiv 2305.13245 第 2.1 节），之后不再训练；比原有更多的头只是复制，"
        "什么也不改变。损失由整段前向测得；字节为一个词元留在缓存中的量，一次运行与含循环各槽。"
        "区间为变化量按窗口的自助法；少于 6 个窗口对其他文本说明太少，不给出区间。",
        "cost": "每个头数对文本做一次前向。",
        "seen": "键值头每减半，缓存就减半；合并的头越多，损失通常越大。",
        "why": "每个头学到的是自己的键，平均值不是其中任何一个；一开始就用少量头训练的模型会学到供所有查询使用的键，代价小得多。",
        "looping": "若循环每一步保留一个槽，字节数要乘以循环次数，共用键值头省下的也乘以同样的倍数：循环模型最有理由这样做。",
    },
}

_PLOT = {
    "en": {"x": "cache of a token, kB, with the loop's slots", "y": "loss, nats a token", "heads": "{n} K/V", "own": "{n} K/V (its own)"},
    "zh": {"x": "每个词元的缓存（kB，含循环各槽）", "y": "每个词元的损失（nat）", "heads": "{n} 个键值头", "own": "{n} 个键值头（原有）"},
}  # fmt: skip


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Loss against bytes, a point a number of heads."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words = _PLOT[lang]
    rows = table.sort_values("kv_heads").to_dict("records")
    texts = [words["own" if row["own"] else "heads"].format(n=row["kv_heads"]) for row in rows]
    line = go.Scatter(
        x=[row["kv_bytes_loop"] / 1e3 for row in rows],
        y=[row["nats"] for row in rows],
        text=texts,
        mode="lines+markers+text",
        textposition=["top right" if row is not rows[-1] else "top left" for row in rows],
        cliponaxis=False,
        hovertemplate="%{text}<br>%{x:.4g} kB<br>%{y:.4f}<extra></extra>",
        **table_figures.series(0),
    )
    axis = {"type": "log", "tickvals": sorted({row["kv_bytes_loop"] / 1e3 for row in rows})}
    return table_figures.figure([line], x=words["x"], y=words["y"], xaxis=axis, yaxis={"automargin": True})


_HEADLINE = {
    "en": {
        "cost": "With {n} K/V heads of {own} a token's cache is {few} instead of {many}, and perplexity goes from {before} to {after}.",
        "one": "With one K/V head of {own} a token's cache is {few} instead of {many}, and perplexity goes from {before} to {after}.",
        "same": "With {n} K/V heads perplexity is {before}, as with its own {own}: copies change nothing.",
        "own": "With its own {own} K/V heads: perplexity {before}, {many} of cache a token.",
    },
    "zh": {
        "cost": "键值头由 {own} 个减到 {n} 个：每个词元的缓存由 {many} 变为 {few}，困惑度由 {before} 变为 {after}。",
        "one": "键值头由 {own} 个减到 1 个：每个词元的缓存由 {many} 变为 {few}，困惑度由 {before} 变为 {after}。",
        "same": "键值头为 {n} 个时，困惑度为 {before}，与原有的 {own} 个相同：复制不改变任何东西。",
        "own": "原有的 {own} 个键值头：困惑度 {before}，每个词元的缓存 {many}。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The fewest heads tried against the model's own."""
    found = known(rows, "perplexity")
    own = next((row for row in found if row["own"]), None)
    if own is None:
        return ""
    least = min(found, key=lambda row: row["kv_heads"])
    most = max(found, key=lambda row: row["kv_heads"])
    said = {"own": own["kv_heads"], "before": number(own["perplexity"]), "many": byte_words(own["kv_bytes_loop"])}
    if least["kv_heads"] < own["kv_heads"]:
        few = {"n": least["kv_heads"], "few": byte_words(least["kv_bytes_loop"]), "after": number(least["perplexity"])}
        return _HEADLINE[lang]["one" if least["kv_heads"] == 1 else "cost"].format(**said, **few)
    if most is not own and same(most["perplexity"], own["perplexity"]):
        return _HEADLINE[lang]["same"].format(**said, n=most["kv_heads"])
    return _HEADLINE[lang]["own"].format(**said)


def _with_own(rows: Sequence[Row], column: str, value: object) -> list[Row]:
    """Those of one number of heads, and the model's own, against which they are told."""
    return [row for row in rows if row[column] == value or row["own"]]


FIRST = {"limit_tokens": 512, "window": 64}
register(
    Task(
        NAME,
        GroupedParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        work=_work,
        headline=headline,
        walk=Walk(
            "kv_heads",
            {"en": "K/V heads", "zh": "键值头数"},
            lambda row: row["kv_bytes_loop"] / 1e3,
            headline,
            _with_own,
        ),
        group="anatomy",
        intervals=True,
    )
)
