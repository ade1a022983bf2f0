"""Learning while reading: what a TTT model's inner steps are worth on a text, by their rate, and what is lost when it forgets."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.checks import FieldError, check_finite, check_whole
from loopviz.engine.ttt_stream import MOST_LR_SCALE, MOST_TOKENS, read_under, shape_of
from loopviz.engine.work import Work, head, one_pass
from loopviz.lab.experiment import read_file
from loopviz.lab.fellows import TTTSubject, fellow, shape_beside
from loopviz.lab.headline import known, number
from loopviz.lab.reading.windows import encode
from loopviz.lab.task import Row, Subject, Task, check_text, column, param, register, titled
from loopviz.trace.recording.ttt import state_bytes
from loopviz.trace.schema import kv_bytes_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.trace.schema import TTTChange
    from loopviz.ttt import InnerStep, TTTForCausalLM

NAME, ORDER = "inner_learning", 26
TITLE = {"en": "Learning while reading", "zh": "边读边学"}
BUNDLED = "stories-ttt"
FEWEST = 4  # tokens: two before it forgets, and two after


@dataclass(frozen=True)
class LearningParams:
    """Which text, by which TTT model, at which rates; where it forgets."""

    text: str = param("", "Text to read.", "要读的文本。", kind="text")
    file: str = param(
        "", "UTF-8 text file to read, instead of a text.", "要读的 UTF-8 文本文件（代替文本）。", kind="file"
    )
    limit_tokens: int = param(1024, "Tokens read at most.", "最多读入的词元数。", low=FEWEST, high=MOST_TOKENS)
    rates: tuple[float, ...] = param(
        (0.0, 0.5, 1.0, 2.0),
        "Factors on the inner learning rate; 0 learns nothing, 1 is the model as it is, and always read.",
        "内层学习率的倍数；0 表示不学习，1 表示模型本来的样子（总会读）。",
        low=0,
        high=MOST_LR_SCALE,
        most=12,
    )
    forget_after: int = param(
        0,
        "Tokens after which it forgets, in a reading of its own at factor 1; 0: half of them.",
        "读多少个词元之后遗忘（另读一遍，倍数为 1）；0 表示读到一半时。",
        low=0,
        high=MOST_TOKENS,
    )
    learner: str = param(
        "",
        "The TTT model that reads, by name; empty: the model that is measured.",
        "读文本的 TTT 模型（名称）；留空则为被测量的模型。",
    )

    def __post_init__(self) -> None:
        check_text(self.text, self.file)
        check_whole("limit_tokens", self.limit_tokens, FEWEST)
        if not self.rates or len(set(self.rates)) < len(self.rates):
            raise FieldError("rates", self.rates, "all_different")
        for rate in self.rates:
            check_finite("rates", rate, 0, MOST_LR_SCALE)
        check_whole("forget_after", self.forget_after, 0)

    @property
    def ways(self) -> list[float]:
        """Factors in the order in which it is read: as the model is, which the others are held against, then these."""
        return [1.0, *(rate for rate in self.rates if rate != 1)]

    def ids(self, subject: Subject) -> list[int]:
        """The tokens that are read.

        Raises:
            FieldError: too few.
        """
        found = [int(one) for one in encode(subject.tokenizer, self.text or read_file(self.file), self.limit_tokens)]
        if len(found) < FEWEST:
            raise FieldError("text", self.text or self.file, "tokens_fewer", n=len(found), least=FEWEST)
        return found

    def forgets(self, tokens: int) -> int:
        """How many of so many tokens are read before it forgets.

        Raises:
            FieldError: none, or all but one.
        """
        at = self.forget_after or tokens // 2
        if not 2 <= at <= tokens - 2:
            raise FieldError("forget_after", self.forget_after, "within", low=2, high=tokens - 2)
        return at

    def subject(self, subject: Subject) -> TTTSubject:
        """The TTT model that reads.

        Raises:
            FieldError: it is none, or reads other tokens.
            CheckpointError: it cannot be had.
        """
        found = fellow(subject, self.learner, "learner")
        if not isinstance(found, TTTSubject):
            raise FieldError("learner", self.learner or subject.name, "ttt_alone", known=BUNDLED)
        return found


class _Inner:
    """What the inner loops of one reading did, by layer: sums over tokens and heads, and the last drift."""

    def __init__(self, layers: int) -> None:
        self.sums = np.zeros((layers, 3))
        self.numbers = np.zeros(layers)
        self.drift = np.zeros(layers)

    def take(self, step: InnerStep) -> None:
        """A pass of a layer."""
        before, after = step.loss_before[0], step.loss_after[0]  # [H, T]
        self.sums[step.layer] += [float(before.sum()), float(after.sum()), float(step.lr[0].sum())]
        self.numbers[step.layer] += before.numel()
        self.drift[step.layer] = float((step.drift[0, :, -1] / step.start_norm).mean())

    def of(self, layer: int) -> Row:
        """A layer's means."""
        before, after, rate = (self.sums[layer] / self.numbers[layer]).tolist()
        left = after / before if before else None
        drift = float(self.drift[layer])
        return {"inner_before": before, "inner_after": after, "inner_left": left, "inner_rate": rate, "drift": drift}


def _cells(subject: Subject, params: LearningParams) -> int:
    return (len(params.ways) + 1) * params.subject(subject).model.config.num_hidden_layers


def _work(subject: Subject, params: LearningParams) -> Work:
    shape = shape_beside(subject, params.learner)
    tokens = min(params.limit_tokens, subject.tokens_in(params.text or read_file(params.file)))
    one = one_pass(shape, tokens, cached=False) + head(shape, tokens)
    return one.times(len(params.ways) + 1)


def _run(subject: Subject, params: LearningParams) -> Iterator[Row | float]:
    learner = params.subject(subject)
    model, ids = learner.model, params.ids(learner)
    at = params.forgets(len(ids))
    own = 0.0
    for rate, forgets in [(rate, 0) for rate in params.ways] + [(1.0, at)]:
        for row in _reading(model, ids, rate, forgets, at):
            own = own or row["later_nats"]  # of the first of them
            yield {**row, "later_more": row["later_nats"] - own}


def _reading(model: TTTForCausalLM, ids: list[int], rate: float, forgets: int, at: int) -> Iterator[Row]:
    """The rows of one reading; `forgets`: tokens after which its memory is set back, 0: never; `at`: from where on the later ones count."""
    change: TTTChange = {"index": forgets, "forget": True, "inner_lr_scale": rate}
    inner = _Inner(model.config.num_hidden_layers)
    said = np.array(read_under(model, ids, [change] if forgets else [], rate, threading.Event(), inner.take))
    nats, later = (
        -float(said.mean()),
        -float(said[at:].mean()),
    )  # said[t] is of token t + 1, told by t: told after `at` tokens
    for layer in range(model.config.num_hidden_layers):
        yield {
            "rate": rate,
            "forgets": forgets,
            "layer": layer,
            "tokens": len(said),
            "nats": nats,
            "perplexity": math.exp(nats) if nats <= 700 else None,
            "later_tokens": len(said) - at,
            "later_nats": later,
            **inner.of(layer),
            "state_bytes": state_bytes(model),
            "kv_bytes": kv_bytes_of(shape_of(model)) * len(ids),
        }


COLUMNS = tuple(
    column(*told)
    for told in (
        ("rate", "", "Factor: on the inner learning rate; 0 learns nothing", "倍数：内层学习率的倍数，0 为不学习"),
        ("forgets", "tokens", "Forgets: tokens after which the memory is set back; 0: never", "遗忘：读多少个词元之后重置记忆；0 为从不"),
        ("layer", "", "Layer: whose inner loop the numbers after this speak of", "层：内层各数属于哪一层"),
        ("tokens", "tokens", "Tokens: predicted", "词元：预测的词元数"),
        ("nats", "nats", "Loss: mean -log p of a token, of the whole model", "损失：整个模型每个词元 −log p 的平均值"),
        ("perplexity", "", "Perplexity: exp of it", "困惑度：其指数"),
        ("later_tokens", "tokens", "Later: tokens predicted after the place where one reading forgets", "之后：在遗忘处之后预测的词元数"),
        ("later_nats", "nats", "Loss later: over these alone", "之后的损失：仅这些词元的平均"),
        ("later_more", "nats", "More later: than as the model is", "之后多出的损失：与模型本来的样子相比"),
        ("inner_before", "", "Inner loss before: of a token, under the weights its mini-batch found; mean over tokens and heads", "更新前的内层损失：词元在所属小批开始时的权重下，按词元与头平均"),
        ("inner_after", "", "Inner loss after: under its own weights, its update included", "更新后的内层损失：在包含自身更新的权重下"),
        ("inner_left", "", "Left: share of the inner loss that a token's own update leaves", "剩余：自身更新之后剩下的内层损失的份额"),
        ("inner_rate", "", "Inner learning rate: mean over tokens and heads", "内层学习率：按词元与头平均"),
        ("drift", "", "Drift: |W_T - W_0| / |W_0| after the last token, mean over heads", "漂移：读完之后 |W_T − W_0| / |W_0|，按头平均"),
        ("state_bytes", "bytes", "State: kept between words, whatever was read", "状态：词与词之间保留的字节数，与读了多少无关"),
        ("kv_bytes", "bytes", "Keys and values: that attention of the same sizes keeps of this text", "键与值：同样大小的注意力为这段文本保留的字节数"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "What does a model gain by learning while it reads, and what is lost when it forgets in the middle?",
        "how": "The TTT model reads the same text once for each factor on its inner learning rate, from an empty memory (W_0), and once more "
        "at factor 1 with its memory set back to W_0 after so many tokens. Loss is that of every next token; the inner losses, of how "
        "well a layer's weights turn a key into its value, are means over all tokens and heads of the layer.",
        "cost": "The text once for each factor, and once more.",
    },
    "zh": {
        "question": "边读边学让模型得到什么？读到一半时遗忘又会失去什么？",
        "how": "TTT 模型从空的记忆（W_0）开始，对每个内层学习率倍数各读一遍同一文本，再以倍数 1 读一遍，并在读过若干词元之后把记忆重置为 W_0。"
        "损失是每个下一词元的损失；内层损失说的是一层的权重把键变成值的误差，按该层所有词元与头平均。",
        "cost": "每个倍数读一遍文本，再多读一遍。",
    },
}
_PLOT = {
    "en": {"y": "perplexity", "way": "× {rate}", "forgot": "× 1, forgets after {n}", "inner": "inner loss at × 1", "layer": "layer {n}",
           "before": "before its own update", "after": "after it", "whole": "perplexity of the text"},
    "zh": {"y": "困惑度", "way": "× {rate}", "forgot": "× 1，{n} 个词元后遗忘", "inner": "倍数 1 时的内层损失", "layer": "第 {n} 层",
           "before": "自身更新之前", "after": "更新之后", "whole": "文本的困惑度"},
}  # fmt: skip


def _way(row: Any, words: dict[str, str]) -> str:
    return words["forgot"].format(n=row["forgets"]) if row["forgets"] else words["way"].format(rate=f"{row['rate']:g}")


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Perplexity by factor, and with its memory set back; the layers' inner losses as the model is."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words = _PLOT[lang]
    ways = sorted(table[table["layer"] == 0].to_dict("records"), key=lambda row: (bool(row["forgets"]), row["rate"]))
    own = table[(table["rate"] == 1) & (table["forgets"] == 0)]
    colours = [table_figures.series(i)["line"]["color"] for i in range(3)]
    bars = go.Bar(
        x=[_way(row, words) for row in ways],
        y=[row["perplexity"] for row in ways],
        name=words["whole"],
        marker={"color": colours[0]},
        hovertemplate="%{x}: %{y:.4g}<extra></extra>",
    )
    inner = [
        go.Bar(
            x=[words["layer"].format(n=n) for n in own["layer"]],
            y=own[key].tolist(),
            name=words[said],
            marker={"color": colour},
            xaxis="x2",
            yaxis="y2",
            hovertemplate=f"%{{x}}, {words[said]}: %{{y:.4g}}<extra></extra>",
        )
        for key, said, colour in (("inner_before", "before", colours[1]), ("inner_after", "after", colours[2]))
    ]
    return table_figures.figure(
        [bars, *inner],
        x="",
        y=words["y"],
        xaxis={"domain": [0, 0.6], "type": "category"},
        xaxis2={"domain": [0.72, 1], "type": "category", "anchor": "y2"},
        yaxis2={"anchor": "x2", "title": {"text": words["inner"]}, "rangemode": "tozero"},
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A line a reading."""
    rows = table[table["layer"] == 0]
    return rows[["rate", "forgets", "tokens", "nats", "perplexity", "later_nats", "state_bytes"]].reset_index(drop=True)


_HEADLINE = {
    "en": {
        "off": "Read with what it learns, the text's perplexity is {own}; with the inner learning off it is {off}.",
        "forgets": " Set back after {n} tokens, the later words cost {more} nats each more.",
    },
    "zh": {
        "off": "边读边学时文本的困惑度为 {own}；关掉内部学习则为 {off}。",
        "forgets": "在 {n} 个词元之后重置，之后每个词多花 {more} nats。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """What learning is worth, and what forgetting costs."""
    words, found = _HEADLINE[lang], known(rows, "perplexity")
    by_way = {(row["rate"], bool(row["forgets"])): row for row in found}
    own, off, forgot = (by_way.get(way) for way in ((1.0, False), (0.0, False), (1.0, True)))
    if own is None:
        return ""
    said = "" if off is None else words["off"].format(own=number(own["perplexity"]), off=number(off["perplexity"]))
    if forgot is not None:
        said += words["forgets"].format(n=f"{forgot['forgets']:,}", more=number(forgot["later_more"]))
    return said.strip()


register(
    Task(
        NAME,
        LearningParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        summary=summary,
        first={"limit_tokens": 512, "learner": BUNDLED},
        work=_work,
        headline=headline,
        asks=("rates", "forget_after", "learner"),
        learns=True,
    )
)
