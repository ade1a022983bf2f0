"""LoRA's count of parameters: the article's example, and the loaded model's projections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopviz.anatomy import families
from loopviz.checks import check_counts
from loopviz.engine.work import NOTHING, Work
from loopviz.lab.headline import known, number, percent
from loopviz.lab.task import Row, Subject, Task, column, param, register, titled
from loopviz.lab.walk import Walk
from loopviz.model.precision import weight_count

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "lora_count", 260
TITLE = {"en": "LoRA: how few numbers", "zh": "LoRA：只需多少个数"}

ARTICLE = (100, 500)  # the article's matrix
ARTICLE_RANK = 5
MOST_RANK = 1_000_000


@dataclass(frozen=True)
class LoraParams:
    """Parameters of LoRA's count."""

    ranks: tuple[int, ...] = param(
        (1, 2, 4, 5, 8, 16, 32, 64), "Ranks of the two thin matrices.", "两个细长矩阵的秩。", low=1, high=MOST_RANK
    )

    def __post_init__(self) -> None:
        check_counts("ranks", self.ranks)


def _cells(subject: Subject, params: LoraParams) -> int:
    return 2 * len(params.ranks)


def _work(subject: Subject, params: LoraParams) -> Work:
    return NOTHING


def _run(subject: Subject, params: LoraParams) -> Iterator[Row]:
    config = subject.model.config
    all_weights = weight_count(subject.model)
    rows, columns = ARTICLE
    for rank in params.ranks:
        made = families.lora_parameters(rows, columns, rank)
        yield _row("article", rank, made, rows * columns, rows, columns)
        yield _row("model", rank, families.lora_total(config, rank), all_weights)


def _row(of: str, rank: int, made: int, weights: int, rows: int | None = None, columns: int | None = None) -> Row:
    return {
        "of": of, "rank": rank, "trained": made, "weights": weights, "share": made / weights, "rows": rows, "columns": columns
    }  # fmt: skip


COLUMNS = tuple(
    column(*told)
    for told in (
        ("of", "", "Of: the article's matrix, or the model's q, k, v and o projections", "对象：文章中的矩阵，或模型的 q、k、v、o 投影"),
        ("rank", "", "Rank: of the two thin matrices", "秩：两个细长矩阵的秩"),
        ("trained", "", "Trained: numbers in them", "训练：其中的数的个数"),
        ("weights", "", "Weights: of the matrix, or of the whole model", "权重：矩阵的，或整个模型的"),
        ("share", "share", "Share: of them that is trained", "占比：其中需要训练的"),
        ("rows", "", "Rows: of the article's matrix", "行数：文章中的矩阵"),
        ("columns", "", "Columns: of it", "列数：该矩阵的"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "How many numbers does one train to teach a model something new by LoRA?",
        "how": "In place of a change of a whole matrix, LoRA trains two thin ones whose product it is: rank × (rows + columns) "
        "numbers. The article's example is a matrix of 100 by 500; of the model, the four projections of attention in every "
        "layer, as Alpaca-LoRA trains them, against all its weights. Counted from shapes, nothing is trained.",
        "cost": "Arithmetic.",
        "seen": "The count rises in a straight line with the rank, and stays a small share of the weights for small ranks.",
        "why": "Rows and columns are added where the whole matrix multiplies them; from rank rows × columns / (rows + columns) "
        "on nothing is saved.",
        "looping": "A looped layer is one layer however often it runs, so one small pair of matrices teaches every loop; a "
        "model as deep without sharing needs a pair for each of its layers.",
    },
    "zh": {
        "question": "用 LoRA 教会模型一点新东西，要训练多少个数？",
        "how": "LoRA 不训练整个矩阵的改变量，而是训练乘积等于它的两个细长矩阵：秩 ×（行数 + 列数）个数。文章的例子是 100 乘 500 的矩阵；"
        "对模型则按 Alpaca-LoRA 的做法取每层注意力的四个投影，与全部权重相比。只按形状计数，不做训练。",
        "cost": "只有算术。",
        "seen": "个数随秩直线上升；秩较小时，只占权重的一小部分。",
        "why": "整个矩阵是行数乘列数，而这里只是相加；秩达到 行数 × 列数 /（行数 + 列数）时便不再节省。",
        "looping": "循环的层无论运行多少次都是同一层，所以一对小矩阵就教会了每一次循环；同样深而不共享的模型，每层都要一对。",
    },
}

_PLOT = {
    "en": {
        "x": "rank",
        "y": "trained, % of the weights",
        "article": "the article's matrix",
        "model": "the model's q, k, v, o",
    },
    "zh": {"x": "秩", "y": "训练的数占权重的 %", "article": "文章中的矩阵", "model": "模型的 q、k、v、o"},
}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Share of the weights that is trained, over the rank."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, lines = _PLOT[lang], []
    for i, of in enumerate(("article", "model")):
        part = table[table["of"] == of]
        lines.append(
            go.Scatter(
                x=part["rank"].tolist(),
                y=(100 * part["share"]).tolist(),
                customdata=part["trained"].tolist(),
                name=words[of],
                mode="lines+markers",
                hovertemplate=f"{words[of]}<br>{words['x']} %{{x}}: %{{customdata:,}} (%{{y:.3g}} %)<extra></extra>",
                **table_figures.series(i),
            )
        )
    ranks = sorted({int(rank) for rank in table["rank"]})
    return table_figures.figure(
        lines, x=words["x"], y=words["y"], xaxis={"type": "log", "tickvals": ranks}, yaxis={"type": "log"}
    )


_HEADLINE = {
    "en": {
        "article": "At rank {rank} the article's matrix of {rows} by {columns} takes {trained} numbers instead of {weights}: {share}.",
        "model": " This model's projections take {trained} at rank {rank}: {share} of its weights, however often it loops.",
    },
    "zh": {
        "article": "秩为 {rank} 时，文章中 {rows} 乘 {columns} 的矩阵只需 {trained} 个数，而不是 {weights} 个：{share}。",
        "model": "本模型的投影在秩 {rank} 时需要 {trained} 个：占权重的 {share}，无论循环多少次。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The article's rank if it is there, and the highest tried of the model."""
    found, said = known(rows, "trained", "share"), ""
    article = [row for row in found if row["of"] == "article"]
    model = [row for row in found if row["of"] == "model"]
    chosen = next((row for row in article if row["rank"] == ARTICLE_RANK), article[-1] if article else None)
    for row in (chosen, model[-1] if model else None):
        if row is not None:
            told = {
                "rank": row["rank"],
                "rows": row["rows"],
                "columns": row["columns"],
                "trained": number(row["trained"]),
            }
            told |= {"weights": number(row["weights"]), "share": percent(row["share"])}
            said += _HEADLINE[lang][row["of"]].format(**told)
    return said


FIRST = {"ranks": (1, 2, 4, 5, 8, 16)}
register(
    Task(
        NAME,
        LoraParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        fits=(),
        work=_work,
        headline=headline,
        walk=Walk("rank", {"en": "Rank", "zh": "秩"}, lambda row: row["rank"], headline),
        asks=("ranks",),
        group="anatomy",
    )
)
