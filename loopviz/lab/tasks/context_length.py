"""Perplexity by context length: models side by side on one text, by place in the context and at several lengths, also past what
each was made for; of a TTT model, whose memory does not grow, beside attention and loops."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loopviz.checks import FieldError, check_counts, check_whole
from loopviz.engine import context_length
from loopviz.engine.work import NOTHING, Work
from loopviz.lab.experiment import read_file
from loopviz.lab.fellows import TTTSubject, fellow, learns, shape_beside
from loopviz.lab.headline import known, number
from loopviz.lab.reading.positions import PositionsResult, evaluate_positions, groups
from loopviz.lab.reading.reach import ROW_BYTES, Reach
from loopviz.lab.reading.windows import encode
from loopviz.lab.task import MOST_TOKENS, MOST_WINDOW, Row, Subject, Task, check_text, column, param, register, titled
from loopviz.trace.recording.ttt import state_bytes

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "context_length", 25
TITLE = {"en": "Perplexity by context length", "zh": "困惑度与上下文长度"}

BATCH = 16  # windows of 256 tokens a pass; longer ones are fewer
BESIDE = ("stories-ttt", "stories-attention")


@dataclass(frozen=True)
class ContextParams:
    """Which text, how far it is read at once, and by which models."""

    text: str = param("", "Text to measure on.", "用于测量的文本。", kind="text")
    file: str = param(
        "", "UTF-8 text file to measure on, instead of a text.", "用于测量的 UTF-8 文本文件（代替文本）。", kind="file"
    )
    tokens: int = param(16_384, "Tokens read at most.", "最多读入的词元数。", low=2, high=MOST_TOKENS)
    lengths: tuple[int, ...] = param(
        (256, 512, 1024),
        "Context lengths, in tokens, ascending; one that the text is too short for is left out.",
        "上下文长度（词元数），依次递增；文本不够长的会略去。",
        low=2,
        high=MOST_WINDOW,
        most=12,
    )
    beside: tuple[str, ...] = param(
        (),
        "Models to measure beside it, by name: looped, plain or TTT, with the same tokenizer.",
        "同时测量的其他模型（按名称）：循环、普通或 TTT 模型，分词器须相同。",
        kind="models",
        most=6,
    )

    def __post_init__(self) -> None:
        check_text(self.text, self.file)
        check_whole("tokens", self.tokens, 2)
        check_counts("lengths", self.lengths)
        if len(set(self.beside)) < len(self.beside):
            raise FieldError("beside", self.beside, "two_names_same")

    def read(self) -> str:
        """The text."""
        return self.text or read_file(self.file)

    def ids(self, subject: Subject) -> np.ndarray:
        """The tokens that are read, `[n]` int64.

        Raises:
            FieldError: too few for one window of any length.
        """
        found = np.asarray(encode(subject.tokenizer, self.read(), self.tokens + 1))
        if len(found) <= self.lengths[0]:
            raise FieldError("lengths", self.lengths, "lengths_over_text", n=f"{len(found):,}")
        return found

    def names(self, subject: Subject) -> list[str]:
        """The models: the subject, then those beside it, each once."""
        return [*dict.fromkeys([subject.name, *self.beside])]

    def fitting(self, tokens: int) -> list[int]:
        """The lengths that a text of so many tokens has a window of."""
        return [length for length in self.lengths if length < tokens]


def _cells(subject: Subject, params: ContextParams) -> int:
    lengths = params.fitting(len(params.ids(subject)))
    return len(params.names(subject)) * sum(len(groups(length)) for length in lengths)


def _work(subject: Subject, params: ContextParams) -> Work:
    tokens, found = min(params.tokens, subject.tokens_in(params.read())), NOTHING
    for name in params.names(subject):
        shape = shape_beside(subject, name)
        for length in params.fitting(tokens + 1) or [params.lengths[0]]:
            reach = Reach.of(tokens, length, 0, max(1, BATCH * 256 // length))
            found += reach.whole(shape) + reach.text + Work(kept=len(groups(length)) * ROW_BYTES)
    return found


def _run(subject: Subject, params: ContextParams) -> Iterator[Row | float]:
    """Every model at every length; what cannot be had is refused before anything is measured."""
    ids, names = params.ids(subject), params.names(subject)
    subjects = [fellow(subject, name, "beside") for name in names]
    lengths, done = params.fitting(len(ids)), 0
    for name, each in zip(names, subjects, strict=True):
        for length in lengths:
            found = evaluate_positions(each.model, ids, length, BATCH)
            done += 1
            yield from _rows(name, each, found)
            yield done / (len(names) * len(lengths))


def _rows(name: str, subject: Subject, found: PositionsResult) -> Iterator[Row]:
    made = context_length(subject.model)
    for start, end, loss, tokens in zip((0, *found.until), found.until, found.loss, found.tokens, strict=False):
        yield {
            "model": name,
            "memory": "state" if learns(subject) else "kv",
            "memory_bytes": held(subject, found.length),
            "context": found.length,
            "made_for": made,
            "first": start,
            "last": end - 1,
            "beyond": start >= made,
            "tokens": tokens,
            "nats": loss,
            "perplexity": _exp(loss),
            "context_nats": found.mean,
            "context_perplexity": _exp(found.mean),
        }


def held(subject: Subject, tokens: int) -> int:
    """Bytes that a model keeps of so many tokens of one text: of a TTT model its state, else keys and values."""
    if isinstance(subject, TTTSubject):
        return state_bytes(subject.model)
    return round(subject.shape().kv_bytes * tokens)


def _exp(loss: float) -> float | None:
    return math.exp(loss) if loss <= 700 else None  # no more than a float holds; of NaN None


COLUMNS = tuple(
    column(*told)
    for told in (
        ("model", "", "Model: its name", "模型：名称"),
        ("memory", "", "Memory: kv, keys and values that grow with the text; state, a TTT model’s weights, which learn and do not grow", "记忆：“kv”为随文本增长的键值；“state”为 TTT 模型边读边学、不增长的权重"),
        ("memory_bytes", "bytes", "Memory held: after the whole context, of one text", "记忆大小：读完整个上下文之后，每段文本所占"),
        ("context", "tokens", "Context: tokens read at once", "上下文：一次读入的词元数"),
        ("made_for", "tokens", "Made for: tokens at once that it was trained at", "设计长度：训练时一次读入的词元数"),
        ("first", "", "From: first place in the context of this stretch", "自：该段在上下文中的第一个位置"),
        ("last", "", "To: last place of it", "至：该段的最后一个位置"),
        ("beyond", "", "Beyond: whether the stretch begins past what it was made for", "超出：该段是否始于设计长度之后"),
        ("tokens", "tokens", "Tokens: predicted there", "词元：在该段预测的"),
        ("nats", "nats", "Loss: mean -log p of a token there", "损失：该段每个词元 −log p 的平均值"),
        ("perplexity", "", "Perplexity: exp of it", "困惑度：其指数"),
        ("context_nats", "nats", "Loss of the context: mean over all its places", "整个上下文的损失：所有位置的平均"),
        ("context_perplexity", "", "Perplexity of the context: exp of it", "整个上下文的困惑度：其指数"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "Does a longer context help a model, and what becomes of it past the length it was trained at?",
        "how": "The text is cut into windows of each length that share no token, and what is left after the last whole window is not "
        "measured. Every model reads the same windows from an empty memory, a looped one at its own number of loops, a TTT model "
        "with its inner learning on. Loss is told by how much of the window a prediction has read (16 tokens, 32, 64 and so on), "
        "and over the whole window.",
        "cost": "The whole text once for each model and length.",
    },
    "zh": {
        "question": "更长的上下文对模型有帮助吗？超出训练长度后又会怎样？",
        "how": "文本按每种长度切成互不重叠的窗口，末尾不足一个窗口的部分不测量。每个模型都从空的记忆开始读同样的窗口："
        "循环模型按自带的循环次数，TTT 模型开着内部学习。损失按预测时已读的长度（16、32、64……个词元）分段给出，也给出整个窗口的平均。",
        "cost": "每个模型、每种长度各读一遍全文。",
    },
}
_PLOT = {
    "en": {"x": "tokens of the context read before (log)", "y": "perplexity (log)", "whole": "over the whole context",
           "made": "made for {n}", "stretch": "{a}–{b} of {n}", "of": "all of {n}"},
    "zh": {"x": "此前已读的词元数（对数）", "y": "困惑度（对数）", "whole": "整个上下文",
           "made": "设计长度 {n}", "stretch": "{n} 中的 {a}–{b}", "of": "整个 {n}"},
}  # fmt: skip


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Perplexity by place in each model's longest context, as lines; over whole contexts, as marks; what they were made for."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures, theme

    if table.empty:
        return table_figures.empty(lang)
    words, lines = _PLOT[lang], []
    for i, name in enumerate(dict.fromkeys(table["model"])):
        own, style = table[table["model"] == name], table_figures.series(i)
        longest = own[own["context"] == own["context"].max()]
        spans = zip(longest["first"], longest["last"], longest["context"], strict=True)
        lines.append(
            go.Scatter(
                x=(longest["last"] + 1).tolist(),
                y=longest["perplexity"].tolist(),
                text=[words["stretch"].format(a=a, b=b, n=n) for a, b, n in spans],
                name=name,
                mode="lines+markers",
                hovertemplate=f"{name}<br>%{{text}}: %{{y:.4g}}<extra></extra>",
                **style,
            )
        )
        whole = own.drop_duplicates("context")
        lines.append(
            go.Scatter(
                x=whole["context"].tolist(),
                y=whole["context_perplexity"].tolist(),
                text=[words["of"].format(n=n) for n in whole["context"]],
                name=words["whole"],
                showlegend=i == 0,  # one entry for all: six do not fit under a phone's figure
                mode="markers",
                marker={"symbol": "diamond-open", "size": 11, "color": style["line"]["color"], "line": {"width": 2}},
                hovertemplate=f"{name}<br>%{{text}}: %{{y:.4g}}<extra></extra>",
            )
        )
    made = table_figures.figure(lines, x=words["x"], y=words["y"], xaxis={"type": "log"}, yaxis={"type": "log"})
    for length in sorted(set(table["made_for"])):
        if length < table["context"].max():
            made.add_vline(
                x=length,
                line={"dash": "dash", "width": 1, "color": theme.COLOURS["plain"]},
                annotation={
                    "text": words["made"].format(n=f"{length:,}"),
                    "showarrow": False,
                    "yanchor": "bottom",
                    "x": math.log10(length),  # an annotation on a log axis stands at the logarithm
                },
            )
    return made


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A line a model and context: perplexity of all of it and of its last stretch, and what is held after it."""
    rows = table.groupby(["model", "context"], sort=False).tail(1)
    shown = rows[["model", "context", "made_for", "context_perplexity", "perplexity", "memory", "memory_bytes"]]
    return shown.set_axis([*shown.columns[:4], "last_stretch_perplexity", *shown.columns[5:]], axis=1).reset_index(
        drop=True
    )


_HEADLINE = {
    "en": {
        "at": "Perplexity at {n} tokens: {each}.",
        "one": "{name} {value}",
        "past": "{name} {value} (made for {made})",
        "and": ", ",
    },
    "zh": {
        "at": "上下文为 {n} 个词元时的困惑度：{each}。",
        "one": "{name} {value}",
        "past": "{name} {value}（设计长度 {made}）",
        "and": "，",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """Every model at the longest context that all have, least perplexity first."""
    words, found = _HEADLINE[lang], known(rows, "context_perplexity")
    by_context: dict[int, dict[str, Row]] = {}
    for row in found:
        by_context.setdefault(row["context"], {})[row["model"]] = row
    models = {row["model"] for row in found}
    whole = [length for length, have in by_context.items() if have.keys() == models]
    if not whole:
        return ""
    longest = max(whole)
    least = sorted(by_context[longest].values(), key=lambda row: row["context_perplexity"])
    said = [
        words["past" if longest > row["made_for"] else "one"].format(
            name=row["model"], value=number(row["context_perplexity"]), made=f"{row['made_for']:,}"
        )
        for row in least
    ]
    return words["at"].format(n=f"{longest:,}", each=words["and"].join(said))


register(
    Task(
        NAME,
        ContextParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        summary=summary,
        first={"tokens": 4096, "lengths": (256, 512, 1024), "beside": BESIDE},
        fits=(),  # fewer tokens would leave out the long contexts, which are what it is about
        work=_work,
        headline=headline,
        asks=("lengths", "beside"),
        learns=True,
    )
)
