"""Perplexity of a text by loops, past the trained count too, by one full pass and through the cache."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.checks import FieldError, check_counts, check_number
from loopviz.engine.work import NOTHING, Work
from loopviz.lab.headline import known, least, number, same, tied
from loopviz.lab.progress import Progress, layer_calls
from loopviz.lab.reading.cached import scoring
from loopviz.lab.reading.full_pass import fixed, score_full
from loopviz.lab.reading.intervals import draws_param, mean_interval, seed_param
from loopviz.lab.reading.windows import TextParams, TextWindows
from loopviz.lab.task import MOST_LOOPS, Row, Subject, Task, column, loop_param, param, register, titled
from loopviz.model import LoopLlamaForCausalLM

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "perplexity", 20
TITLE = {"en": "Perplexity by loops", "zh": "困惑度随循环次数的变化"}

PATHS = ("full", "cache")
CONFIDENCE = 0.95
CACHE_COST = 5.0  # of a token read through the cache, where one of a full pass is 1: only for the time left


@dataclass(frozen=True)
class PerplexityParams(TextParams):
    """Parameters of the task `perplexity`."""

    loops: tuple[int, ...] = param(
        (1, 2, 3, 4, 6, 8, 12, 16),
        "Loop counts, past the trained one too.",
        "循环次数，可超过训练时的次数。",
        low=1,
        high=MOST_LOOPS,
    )
    paths: tuple[str, ...] = param(
        PATHS,
        "full: one pass a window; cache: token by token through the KV cache.",
        "full：每个窗口一次前向；cache：逐词元经过 KV 缓存。",
        choices=PATHS,
    )
    dampings: tuple[float, ...] = param(
        (),
        "Values of loop_damping to compare (default: the setting's own).",
        "要比较的 loop_damping 值（默认：用设置本身的值）。",
        low=0,
        high=1,
    )
    loop: dict[str, Any] | None = loop_param()
    draws: int = draws_param()
    seed: int = seed_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("loops", self.loops)
        if not self.paths or not set(self.paths) <= set(PATHS) or len(set(self.paths)) < len(self.paths):
            raise FieldError("paths", self.paths, "one_or_both", choices=", ".join(PATHS))
        for value in self.dampings:
            if not 0 < value <= 1:
                raise FieldError("dampings", self.dampings, "damping_each")
        check_number("draws", self.draws, 0)


def _models(subject: Subject, params: PerplexityParams) -> list[LoopLlamaForCausalLM]:
    """A view for every damping; one for a model without a loop."""
    model = subject.view(params.loop)
    if not model.config.loop_blocks() or not params.dampings:
        return [model]
    return [model.with_loop(loop_damping=value) for value in params.dampings]


def _loops(model: LoopLlamaForCausalLM, params: PerplexityParams) -> tuple[int, ...]:
    return params.loops if model.config.loop_blocks() else (1,)


def _cells(subject: Subject, params: PerplexityParams) -> int:
    return sum(len(_loops(model, params)) * len(params.paths) for model in _models(subject, params))


def _work(subject: Subject, params: PerplexityParams) -> Work:
    models, reach = _models(subject, params), params.reach(subject)
    shape, loops = subject.shape(models[0]), _loops(models[0], params)
    found = NOTHING
    if "full" in params.paths:
        found += reach.exits(shape, loops)
    if "cache" in params.paths:  # what a count costs grows with it in a straight line
        found += reach.cached(shape.at(sum(loops) / len(loops))).times(len(loops))
    rows = len(models) * len(loops) * len(params.paths)
    return found.times(len(models)) + reach.text + reach.intervals(rows, params.draws)


def _costs(model: LoopLlamaForCausalLM, params: PerplexityParams) -> dict[str, list[float]]:
    """By path, what each part of the work costs: the full pass is one, through the cache every loop count is."""
    loops = _loops(model, params)
    costs = {
        "full": [float(layer_calls(model, loops[-1]))],
        "cache": [CACHE_COST * layer_calls(model, count) for count in loops],
    }
    return {path: costs[path] for path in params.paths}


def _run(subject: Subject, params: PerplexityParams) -> Iterator[Row | float]:
    windows, models = params.windows(subject), _models(subject, params)
    # Everything that may be refused is refused now, and not after an hour.
    fixed_views = [{count: fixed(model, count) for count in _loops(model, params)} for model in models]
    progress = Progress(sum(sum(cost) for model in models for cost in _costs(model, params).values()))
    for model, views in zip(models, fixed_views, strict=True):
        loops, costs = tuple(views), _costs(model, params)
        for path in params.paths:
            if path == "full":
                started = time.perf_counter()
                (cost,) = costs[path]
                found: dict[int, Any] = yield from progress.part(
                    cost, by_full_pass(model, windows, loops, params.batch)
                )
                seconds = time.perf_counter() - started
                for count in loops:
                    yield _row(path, model, count, windows, found[count], seconds, params)
                continue
            for (count, view), cost in zip(views.items(), costs[path], strict=True):
                started = time.perf_counter()
                sums = yield from progress.part(cost, by_cache(view, windows, params.batch))
                yield _row(path, model, count, windows, sums, time.perf_counter() - started, params)


def by_full_pass(
    model: LoopLlamaForCausalLM, windows: TextWindows, loops: tuple[int, ...], batch: int
) -> Generator[float, None, dict[int, np.ndarray]]:
    """Summed loss of each window, `[W]` nats, at every loop count, by whole passes of `batch` windows.

    Yields:
        How much is done, in 0..1. Returns the sums.
    """
    found: dict[int, list[float]] = {count: [] for count in loops}
    for part in windows.batches(batch):
        for count, losses in score_full(model, part.ids, loops).items():
            found[count] += losses.masked_fill(~part.counted, 0.0).sum(1).tolist()
        yield len(found[loops[0]]) / len(windows)
    return {count: np.array(sums) for count, sums in found.items()}


def by_cache(model: LoopLlamaForCausalLM, windows: TextWindows, batch: int) -> Generator[float, None, np.ndarray]:
    """Summed loss of each window, `[W]` nats, token by token through the cache, `batch` windows a pass.

    Yields:
        How much is done, in 0..1. Returns the sums.
    """
    sums: list[float] = []
    progress = Progress(len(windows))
    for part in windows.batches(batch):
        scores = yield from progress.part(len(part), scoring(model, part.ids))
        sums += scores.nats.masked_fill(~part.counted, 0.0).sum(1).tolist()
    return np.array(sums)


def _row(
    path: str,
    model: LoopLlamaForCausalLM,
    count: int,
    windows: TextWindows,
    sums: np.ndarray,
    seconds: float,
    params: PerplexityParams,
) -> Row:
    counts = windows.counts
    mean = float(sums.sum() / counts.sum())
    low, high = mean_interval(sums, counts, params.draws, params.seed, CONFIDENCE)
    damping = model.config.loop_damping if model.config.loop_blocks() else None
    return {
        "path": path,
        "damping": str(damping) if isinstance(damping, list) else damping,
        "loops": count,
        "tokens": windows.tokens,
        "windows": len(windows),
        "nats": mean,
        "perplexity": math.exp(mean),
        "low": None if low is None else math.exp(low),
        "high": None if high is None else math.exp(high),
        "seconds": round(seconds, 3),
    }


COLUMNS = (
    column(
        "path",
        "",
        "path: full = one pass a window; cache = token by token through the KV cache",
        "路径：full 为每个窗口一次前向；cache 为逐词元经过 KV 缓存",
    ),
    column(
        "damping",
        "",
        "damping: part of each step that is taken; empty without a loop",
        "阻尼：每步采用的比例；无循环时为空",
    ),
    column("loops", "steps", "loops: steps of every looped block", "循环：每个循环块的步数"),
    column("tokens", "tokens", "tokens: how many were predicted", "词元：预测的数量"),
    column(
        "windows",
        "windows",
        "windows: stretches of the text, each from an empty cache",
        "窗口：文本分成的段数，每段从空缓存开始",
    ),
    column("nats", "nats", "loss: mean -log p of a token", "损失：每个词元 -log p 的平均值"),
    column("perplexity", "", "perplexity: exp of the loss", "困惑度：损失的指数"),
    column(
        "low",
        "",
        "low: lower end of the 95 % bootstrap interval over windows; empty under 6 windows, too few to tell",
        "下限：按窗口自助法 95 % 区间的下端；少于 6 个窗口时为空，不足以判断",
    ),
    column("high", "", "high: upper end of it", "上限：该区间的上端"),
    column(
        "seconds",
        "s",
        "seconds: of the measurement; one full pass measures all its loop counts together",
        "秒：测量用时；完整前向一次测完所有循环次数",
    ),
)

WORDS = {
    "en": {
        "question": "Does thinking longer help on this text, and does it hold past the trained number of loops?",
        "how": (
            "The text is cut into windows; every token but the first is predicted once. Path full reads a window in "
            "one pass and takes every loop count from it by the exit lens. Path cache feeds token by token through "
            "the KV cache, as generation does: only there do cache modes differ. Intervals: bootstrap over windows, widened where windows are few; fewer than 6 "
            "say too little of other text for one."
        ),
        "cost": (
            "Path full: one pass of the largest count. Path cache: a pass per token of a window and loop count; "
            "windows go through side by side."
        ),
        "x": "loops",
        "y": "perplexity",
        "damped": "damping",
    },
    "zh": {
        "question": "在这段文本上多想几步有帮助吗？超过训练时的循环次数还成立吗？",
        "how": (
            "文本被切成窗口，除第一个外每个词元都预测一次。full 路径一次前向读完一个窗口，用出口透镜得到每个循环次数的结果；"
            "cache 路径像生成时那样逐词元经过 KV 缓存：只有在那里缓存模式才会不同。"
            "区间按窗口用自助法计算，窗口少时相应加宽；少于 6 个窗口对其他文本说明太少，不给出区间。"
        ),
        "cost": "full 路径：按最大循环次数做一次前向。cache 路径：每个循环次数、窗口内每个词元一次前向，多个窗口并行。",
        "x": "循环次数",
        "y": "困惑度",
        "damped": "阻尼",
    },
}


def plot(table: pd.DataFrame, lang: str = "en") -> go.Figure:
    """Perplexity over loops, a line a path and damping, with its interval."""
    from loopviz.figures.line_styles import line_styles
    from loopviz.figures.table_figures import arms
    from loopviz.figures.table_figures import figure as drawn

    words = WORDS[lang]
    figure = drawn([], x=words["x"], y=words["y"])
    groups = list(table.groupby(["path", "damping"], dropna=False, sort=False))
    for ((path, damping), part), style in zip(groups, line_styles(len(groups)), strict=True):
        name = path if damping is None or damping != damping else f"{path}, {words['damped']} {damping}"
        figure.add_scatter(
            x=part["loops"].tolist(),
            y=part["perplexity"].tolist(),
            error_y=arms(part["perplexity"], part["low"], part["high"]),
            mode="lines+markers",
            name=name,
            hovertemplate=f"{name}<br>{words['x']} %{{x}}<br>{words['y']} %{{y:.4g}}<extra></extra>",
            **style,
        )
    figure.update_xaxes(type="log", tickvals=sorted({int(x) for x in table["loops"]}))
    return figure


def settings(subject: Subject, row: Row, params: PerplexityParams) -> dict[str, Any] | None:
    """The loop fields of the model that a row speaks of; None for the model without a loop."""
    view = subject.view(params.loop)
    if not view.config.loop_blocks():
        return None
    config = fixed(view, row["loops"]).config
    counts = {name: getattr(config, name) for name in ("loop_strategy", "loop_count", "max_loop_count")}
    damping = {"loop_damping": row["damping"]} if params.dampings else {}
    return {**(params.loop or {}), **counts, **damping}


_HEADLINE = {
    "en": {
        "best": "Best at {at}: {best}. {other}: {rest}.",
        "same": "The same at every number of loops tried: {best}.",
        "alone": "Perplexity {best} at {at}.",
        "plain": "Perplexity {best}, without a loop.",
        "one": "one loop",
        "loops": "{n} loops",
        "damped": " with damping {damping}",
        "cache": " (through the cache)",
    },
    "zh": {
        "best": "最好的是{at}：{best}。{other}：{rest}。",
        "same": "试过的各循环次数都一样：{best}。",
        "alone": "{at}时的困惑度：{best}。",
        "plain": "不循环时的困惑度：{best}。",
        "one": "循环 1 次",
        "loops": "循环 {n} 次",
        "damped": "（阻尼 {damping}）",
        "cache": "（经过缓存）",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """Where the perplexity is best, and what the fewest loops give: of full passes, where there are any."""
    words, found = _HEADLINE[lang], known(rows, "perplexity")
    if not found:
        return ""
    found = [row for row in found if row["path"] == "full"] or found
    best = least(found, lambda row: row["perplexity"], lambda row: row["loops"])
    fewest = min(found, key=lambda row: row["loops"])
    several = len({row["damping"] for row in found}) > 1

    def at(row: Row) -> str:
        count = words["one"] if row["loops"] == 1 else words["loops"].format(n=row["loops"])
        damped = words["damped"].format(damping=row["damping"]) if several else ""
        return count + damped

    cached = words["cache"] if best["path"] == "cache" else ""
    said = {"best": number(best["perplexity"]) + cached, "rest": number(fewest["perplexity"]), "at": at(best)}
    if all(row["damping"] is None for row in found):
        return words["plain"].format(**said)
    if len(found) == 1:
        return words["alone"].format(**said)
    if all(same(row["perplexity"], best["perplexity"]) for row in found):
        return words["same"].format(**said)
    as_few = [row for row in found if row["loops"] == best["loops"]]
    said["best"] += tied(as_few, lambda row: row["perplexity"], best, lang)
    if best is fewest:
        fewest = max(found, key=lambda row: row["loops"])
        said["rest"] = number(fewest["perplexity"])
    other = at(fewest)
    return words["best"].format(**said, other=other[:1].upper() + other[1:])


# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"limit_tokens": 512, "window": 64, "paths": ("full",)}
PERPLEXITY = register(
    Task(
        NAME,
        PerplexityParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        settings,
        first=FIRST,
        work=_work,
        headline=headline,
        asks=("loops",),
        over_loops=True,
        intervals=True,
    )
)
