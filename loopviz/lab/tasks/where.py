"""Where to loop: what looping each range of layers does to perplexity."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from loopviz.checks import FieldError, check_number, check_whole
from loopviz.engine.work import Loop, Work
from loopviz.lab.headline import known, least, number, same, tied
from loopviz.lab.progress import Progress
from loopviz.lab.reading.full_pass import nats
from loopviz.lab.reading.intervals import draws_param, mean_interval, seed_param
from loopviz.lab.reading.windows import TextParams, TextWindows
from loopviz.lab.task import MOST_LOOPS, MOST_TOKENS, Row, Subject, Task, column, param, register, titled
from loopviz.model import LOOP_FIELDS, LoopLlamaConfig

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.model import LoopLlamaForCausalLM

NAME, ORDER = "where", 70
TITLE = {"en": "Where to loop", "zh": "在哪里循环"}

COARSE_STARTS = 4  # the first round of the map tries at least so many starts
FULL_COLOUR = 1.0  # nats at which the map's colours end: what is worse is as bad as it gets
MOST_LAYERS = 10_000  # apart
WRITTEN = 12  # layers up to which every cell says its value


def stock_fields(layers: Any, **settings: Any) -> dict[str, Any]:
    """Loop fields of a model looped over ``layers`` and nothing else: every other one has its default.

    Serial attention: in one full pass, as here, it is what an unrolled model computes.
    """
    defaults = {name: LoopLlamaConfig.__dataclass_fields__[name].default for name in LOOP_FIELDS}
    return {**defaults, "virtual_attention_mode": "serial", "loop_layers": layers, **settings}


@dataclass(frozen=True)
class WhereParams(TextParams):
    """Parameters of the map of ranges."""

    limit_tokens: int = param(512, "Tokens to predict, at most.", "最多预测的词元数。", low=1, high=MOST_TOKENS)
    loops: int = param(2, "Times the range runs.", "该范围运行的次数。", low=2, high=MOST_LOOPS)
    damping: float = param(
        1.0,
        "loop_damping in (0, 1]: part of each step that is taken; 1 is the plain loop.",
        "loop_damping，(0, 1]：每步采用的比例；1 为普通循环。",
        low=0,
        high=1,
    )
    coarsest: int = param(
        0,
        "Layers between the starts tried first; 0: so that there are at least four.",
        "最先尝试的起点之间的层数；0 表示至少有四个起点。",
        low=0,
        high=MOST_LAYERS,
    )
    finest: int = param(
        1,
        "Layers between the starts tried last; 1: every range.",
        "最后尝试的起点之间的层数；1 表示全部范围。",
        low=1,
        high=MOST_LAYERS,
    )
    draws: int = draws_param()
    seed: int = seed_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("loops", self.loops, 2)
        check_number("damping", self.damping, 0.0, 1.0)
        if self.damping == 0:
            raise FieldError("damping", self.damping, "damping_zero", shown="0")
        check_whole("coarsest", self.coarsest, 0)
        check_whole("finest", self.finest, 1)
        if self.coarsest and self.coarsest < self.finest:
            raise FieldError("coarsest", self.coarsest, "coarsest_under_finest", finest=self.finest)
        check_whole("draws", self.draws, 0)
        check_whole("seed", self.seed, 0)

    def order(self, subject: Subject) -> list[tuple[int, int, int]]:
        """The ranges as (grid, start, end), in the order in which they are run."""
        return range_order(subject.model.config.num_hidden_layers, self.coarsest, self.finest)


def range_order(layers: int, coarsest: int = 0, finest: int = 1) -> list[tuple[int, int, int]]:
    """Ranges of layers, coarse to fine: the grid's width is halved each round, down to ``finest``.

    Round ``g`` has the ranges that begin at a multiple of ``g`` and end just before one, or at the last layer; what an
    earlier round had is left out.

    Args:
        layers: L.
        coarsest: width of the first round; 0: the largest power of two that gives four starts or more.
        finest: width of the last round, >= 1.

    Returns:
        ``(g, start, end)``, ends inclusive.
    """
    width = coarsest or 2 ** max(0, int(math.log2(max(1, layers / COARSE_STARTS))))
    width = max(width, finest)
    found: dict[tuple[int, int], int] = {}
    while True:
        starts = range(0, layers, width)
        for start in starts:
            for end in (min(s + width, layers) - 1 for s in starts if s >= start):
                found.setdefault((start, end), width)
        if width == finest:
            return [(grid, *pair) for pair, grid in found.items()]
        width = max(width // 2, finest)


@torch.no_grad()
def text_nats(view: LoopLlamaForCausalLM, windows: TextWindows, batch: int) -> Generator[float, None, np.ndarray]:
    """Summed loss of each window's counted predictions, ``[W]`` nats, by full passes.

    Yields:
        How much is done, in 0..1. Returns the sums.
    """
    sums: list[float] = []
    for part in windows.batches(batch):
        ids = part.ids.to(view.device)
        hidden = view.model(ids[:, :-1], use_cache=False).last_hidden_state
        sums += nats(view, hidden, ids[:, 1:]).cpu().masked_fill(~part.counted, 0.0).sum(1).tolist()
        yield len(sums) / len(windows)
    return np.array(sums)


def _where_cells(subject: Subject, params: WhereParams) -> int:
    return len(params.order(subject))


def _where_work(subject: Subject, params: WhereParams) -> Work:
    """A reading of the text a range; all ranges of the finest grid, whose mean length is a third of the layers."""
    reach, plain = params.reach(subject), subject.shape().plain
    starts = math.ceil(plain.layers / params.finest)
    ranges = starts * (starts + 1) / 2
    mean = math.ceil(params.finest * (starts + 2) / 3)
    looped = replace(plain, loops=(Loop(mean, params.loops, 1, 1, 0),))
    return reach.whole(looped).times(ranges) + reach.whole(plain) + reach.text + reach.intervals(ranges, params.draws)


def _where_run(subject: Subject, params: WhereParams) -> Iterator[Row | float]:
    windows, order = params.windows(subject), params.order(subject)
    layers, counts = subject.model.config.num_hidden_layers, windows.counts
    costs = [layers + (params.loops - 1) * (end - start + 1) for _, start, end in order]
    progress = Progress(layers + sum(costs))
    unlooped = yield from progress.part(layers, text_nats(subject.view(stock_fields(None)), windows, params.batch))
    plain = float(unlooped.sum()) / windows.tokens
    for (grid, start, end), cost in zip(order, costs, strict=True):
        view = subject.view(_range_fields(start, end, params))
        sums = yield from progress.part(cost, text_nats(view, windows, params.batch))
        loss = float(sums.sum()) / windows.tokens
        low, high = mean_interval(sums - unlooped, counts, params.draws, params.seed)
        yield {
            "start": start,
            "end": end,
            "layers": end - start + 1,
            "grid": grid,
            "nats": loss,
            "delta_nats": loss - plain,
            "delta_low": low,
            "delta_high": high,
            "perplexity": _exp(loss),
            "delta_perplexity": _exp(loss) - _exp(plain),
            "plain_perplexity": _exp(plain),
        }


def _range_fields(start: int, end: int, params: WhereParams) -> dict[str, Any]:
    """Loop fields of the model looped over one range."""
    return stock_fields(
        (start, end), loop_count=params.loops, max_loop_count=params.loops, loop_damping=float(params.damping)
    )


def where_settings(subject: Subject, row: Row, params: WhereParams) -> dict[str, Any]:
    """The loop fields of the model looped over a row's range."""
    return _range_fields(row["start"], row["end"], params)


def _exp(loss: float) -> float:
    """exp, infinite where it leaves float64."""
    return math.exp(loss) if loss < 700 else math.inf


WHERE_COLUMNS = tuple(
    column(*told)
    for told in (
        ("start", "", "Start: first layer of the range", "起点：范围的第一层"),
        ("end", "", "End: last layer of the range", "终点：范围的最后一层"),
        ("layers", "", "Layers: in the range", "层数：范围内的"),
        ("grid", "", "Grid: width of the round that measured it", "网格：测量它的那一轮的宽度"),
        (
            "nats",
            "nats",
            "Loss: mean -log p of a token with the range looped",
            "损失：循环该范围后每个词元 −log p 的平均值",
        ),
        ("delta_nats", "nats", "Loss, change: against the plain model", "损失变化：相对不循环的模型"),
        (
            "delta_low",
            "nats",
            "Change, low: lower end of its 95 % bootstrap interval over windows; empty under 6 windows, too few to tell",
            "变化下限：其按窗口自助法 95 % 区间的下端；少于 6 个窗口时为空，不足以判断",
        ),
        ("delta_high", "nats", "Change, high: upper end of it", "变化上限：该区间的上端"),
        ("perplexity", "", "Perplexity: exp of the loss", "困惑度：损失的指数"),
        ("delta_perplexity", "", "Perplexity, change: against the plain model", "困惑度变化：相对不循环的模型"),
        ("plain_perplexity", "", "Plain: perplexity without a loop", "不循环：不循环时的困惑度"),
    )
)

WHERE_WORDS = {
    "en": {
        "question": "Which range of layers can run again without spoiling what the model predicts?",
        "how": "Each range (start, end) of the model's layers runs the given number of times, everything else once, nothing "
        "injected; perplexity of the text by full passes, minus that of the plain model. Coarse ranges first, then finer "
        "ones: stop whenever the picture is good enough. A model that was not trained to loop usually gets worse; damping "
        "limits it: s_r = s_{r-1} + damping (g(s_{r-1}) - s_{r-1}).",
        "cost": "One run of the text a range, L (L + 1) / 2 ranges in an L-layer model at the finest grid.",
    },
    "zh": {
        "question": "哪一段层可以再运行一遍而不破坏模型的预测？",
        "how": "每个范围（起点，终点）的层运行给定次数，其余各层一次，不注入任何东西；用整段前向测文本的困惑度，再减去不循环时的困惑度。"
        "先测粗的范围，再逐步变细：画面够清楚时随时可以停止。没有为循环训练过的模型通常会变差；阻尼可以限制它："
        "s_r = s_{r−1} + damping (g(s_{r−1}) − s_{r−1})。",
        "cost": "每个范围运行一遍文本；L 层模型在最细的网格上有 L (L + 1) / 2 个范围。",
    },
}

_WHERE_PLOT = {
    "en": {
        "x": "last layer of the range (from 0)",
        "y": "first layer of the range (from 0)",
        "bar": "Δ loss, nats",
        "ends": "{most:g} and more",
        "better": "★ better than without a loop",
        "title": "change of the loss against the model without a loop, in nats a token: below 0 is better<br>{best}",
        "best": "best: layers {a} to {b}, {nats:+.3f} nats{interval}",
        "none": "no range measured so far is better than no loop; least harm: layers {a} to {b}, {nats:+.3f} nats{interval}",
        "hover": "layers {a} to {b}<br>Δ loss {nats:+.4f} nats{interval}<br>Δ perplexity {change:+.4g}<br>grid {grid}",
        "interval": " ({low:+.4f} to {high:+.4f})",
    },
    "zh": {
        "x": "范围的最后一层（从 0 数起）",
        "y": "范围的第一层（从 0 数起）",
        "bar": "Δ 损失，nat",
        "ends": "{most:g} 及以上",
        "better": "★ 优于不循环",
        "title": "相对不循环的模型，每个词元损失的变化（nat）：小于 0 为更好<br>{best}",
        "best": "最好：第 {a} 到 {b} 层，{nats:+.3f} nat{interval}",
        "none": "目前测过的范围都不优于不循环；损害最小：第 {a} 到 {b} 层，{nats:+.3f} nat{interval}",
        "hover": "第 {a} 到 {b} 层<br>Δ 损失 {nats:+.4f} nat{interval}<br>Δ 困惑度 {change:+.4g}<br>网格 {grid}",
        "interval": "（{low:+.4f} 至 {high:+.4f}）",
    },
}


def where_plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """A map of ranges, first layer against last; a coarse one fills its grid's square until finer ones are measured.

    Ranges that beat the model without a loop have a star. Of small models every range says its value.
    """
    import plotly.graph_objects as go

    from loopviz.figures import table_figures, theme

    if table.empty:
        return table_figures.empty(lang)
    words = _WHERE_PLOT[lang]
    rows = table.to_dict("records")
    layers = int(table["end"].max()) + 1  # of every round, the first ranges end at the last layer
    shown, told = _map(rows, layers, words)
    low = float(table["delta_nats"].min())
    high = min(max(0.0, float(table["delta_nats"].max())), FULL_COLOUR)
    measured = go.Heatmap(
        z=shown,
        customdata=told,  # a cell's own text can only be its `text`
        text=[["" if value is None else f"{value:+.2f}" for value in line] for line in shown],
        texttemplate="%{text}" if layers <= WRITTEN else None,
        textfont={"color": theme.ON_SCALE, "size": 12},
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        colorscale=theme.LIGHT_SCALE,
        reversescale=True,  # what is good is bright
        zmin=min(low, 0.0),
        zmax=high if high > min(low, 0.0) else min(low, 0.0) + FULL_COLOUR,
        colorbar=_bar(high, words),
    )
    good = [row for row in rows if row["delta_nats"] < 0]
    stars = go.Scatter(
        x=[row["end"] - 0.32 for row in good],
        y=[row["start"] + 0.32 for row in good],
        mode="markers",
        name=words["better"],
        marker={"symbol": "star", "size": 10, "color": theme.ON_SCALE},
        text=[_hover(row, words) for row in good],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    best = min(rows, key=lambda row: row["delta_nats"])
    said = words["best" if good else "none"].format(**_said(best, words))
    title = words["title"].format(best=f"{said} · {words['better']}" if good else said)
    axis = {"range": [-0.5, layers - 0.5], "tickformat": "d", "dtick": max(1, round(layers / 10)), "tick0": 0}
    return table_figures.figure([measured, stars], x=words["x"], y=words["y"], title=title, xaxis=axis, yaxis=axis)


def _map(
    rows: list[dict[str, Any]], layers: int, words: dict[str, str]
) -> tuple[list[list[float | None]], list[list[str]]]:
    """Values and hover texts by first layer and last, ``[layers][layers]``; None and "" where nothing is known yet."""
    shown: list[list[float | None]] = [[None] * layers for _ in range(layers)]
    told = [[""] * layers for _ in range(layers)]
    for row in rows:  # coarse ones come first: finer ones lie over them
        for start in range(row["start"], min(row["start"] + row["grid"], layers)):
            for end in range(max(row["end"] - row["grid"] + 1, start), row["end"] + 1):
                shown[start][end], told[start][end] = row["delta_nats"], _hover(row, words)
    for row in rows:  # a range that was measured shows itself, whatever a later round's square would cover
        shown[row["start"]][row["end"]] = row["delta_nats"]
        told[row["start"]][row["end"]] = _hover(row, words)
    return shown, told


def _bar(high: float, words: dict[str, str]) -> dict[str, Any]:
    """The colour bar, with the unit; where colours end before the values do, it says so."""
    bar: dict[str, Any] = {"title": {"text": words["bar"]}, "thickness": 12}
    if high == FULL_COLOUR:
        ticks = [0, 0.25, 0.5, 0.75, FULL_COLOUR]
        bar |= {"tickvals": ticks, "ticktext": [*map(str, ticks[:-1]), words["ends"].format(most=FULL_COLOUR)]}
    return bar


def _said(row: dict[str, Any], words: dict[str, str]) -> dict[str, Any]:
    """What is said of a range: its layers, the change, the interval where there is one."""
    low, high = row["delta_low"], row["delta_high"]
    known = low is not None and low == low
    return {
        "a": row["start"],
        "b": row["end"],
        "nats": row["delta_nats"],
        "interval": words["interval"].format(low=low, high=high) if known else "",
    }


def _hover(row: dict[str, Any], words: dict[str, str]) -> str:
    return words["hover"].format(**_said(row, words), change=row["delta_perplexity"], grid=row["grid"])


_HEADLINE = {
    "en": {
        "better": "Looping layers {a} to {b} helps most: perplexity {plain} → {now} ({nats} nats a token){also}.",
        "even": "No range changes the perplexity of {plain} for the better; layers {a} to {b} leave it at {now}{also}.",
        "worse": "No range helps: the least harm is done by layers {a} to {b}, perplexity {plain} → {now}{also}.",
    },
    "zh": {
        "better": "循环第 {a} 到 {b} 层帮助最大：困惑度 {plain} → {now}（每个词元 {nats} nat）{also}。",
        "even": "没有哪个范围让困惑度（{plain}）变好；循环第 {a} 到 {b} 层时为 {now}{also}。",
        "worse": "没有哪个范围有帮助：损害最小的是第 {a} 到 {b} 层，困惑度 {plain} → {now}{also}。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The range that helps most, or harms least; of those that look the same, the shortest."""
    found = known(rows, "delta_nats", "perplexity", "plain_perplexity")
    if not found:
        return ""
    best = least(found, lambda row: row["perplexity"], lambda row: row["layers"])
    alike = same(best["perplexity"], best["plain_perplexity"])
    key = "even" if alike else "better" if best["delta_nats"] < 0 else "worse"
    shortest = [row for row in found if row["layers"] == best["layers"]]
    also = tied(shortest, lambda row: row["perplexity"], best, lang)
    said = {"also": also, "plain": number(best["plain_perplexity"]), "now": number(best["perplexity"])}
    return _HEADLINE[lang][key].format(a=best["start"], b=best["end"], nats=number(best["delta_nats"]), **said)


# Some seconds with a model of this project, on the story that the Lab offers.
WHERE_FIRST = {"window": 64}
register(
    Task(
        NAME,
        WhereParams,
        WHERE_COLUMNS,
        _where_cells,
        _where_run,
        titled(TITLE, WHERE_WORDS),
        where_plot,
        where_settings,
        first=WHERE_FIRST,
        work=_where_work,
        headline=headline,
        asks=("loops",),
        intervals=True,
    )
)
