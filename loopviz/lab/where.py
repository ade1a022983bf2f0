"""Where to loop: how much each layer changes the state, and what looping each range of layers does to perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.model import LOOP_FIELDS, LoopLlamaConfig
from loopviz.trace import metrics

from .corpus import CorpusParams, batches, check_whole, token_ids
from .full import nats
from .tasks import Column, Row, Subject, Task, check_number, param, register
from .windows import TextParams, Windows

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.model import LoopLlamaForCausalLM, LoopStep

COARSE_STARTS = 4  # the first round of the map tries at least so many starts
FULL_COLOUR = 1.0  # nats at which the map's colours end


def stock_view(subject: Subject, layers: Any, **settings: Any) -> LoopLlamaForCausalLM:
    """The model looped over ``layers`` and nothing else: every other loop field has its default.

    Serial attention: in one full pass, as here, it is what an unrolled model computes.
    """
    defaults = {name: LoopLlamaConfig.__dataclass_fields__[name].default for name in LOOP_FIELDS}
    return subject.model.with_loop(
        **{**defaults, "virtual_attention_mode": "serial", "loop_layers": layers, **settings}
    )


# -- block influence ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InfluenceParams(CorpusParams):
    """Parameters of the block-influence curve."""


@torch.no_grad()
def layer_cosines(subject: Subject, ids: Tensor) -> Tensor:
    """cos(X_i, X_{i+1}) of every layer's input and output, ``[L, B, T]`` float32, each layer run once.

    Args:
        ids: ``[B, T]`` int64.
    """
    layers = range(subject.model.config.num_hidden_layers)
    # Every layer a block of its own that runs once: its loop hook is told what enters it and what leaves it.
    view = stock_view(subject, [(i, i) for i in layers], loop_count=1)
    found: list[Tensor] = []

    def watch(event: LoopStep) -> None:
        found.append(metrics.cosine(event.state, event.previous))

    handle = view.register_loop_hook(watch)
    try:
        view.model(ids.to(view.device), use_cache=False)
    finally:
        handle.remove()
    return torch.stack(found).cpu()


def _influence_cells(subject: Subject, params: InfluenceParams) -> int:
    return subject.model.config.num_hidden_layers


def _influence_run(subject: Subject, params: InfluenceParams) -> Iterator[Row | None]:
    ids = token_ids(subject, params)
    parts = []
    for _, rows in batches(ids, params.window, params.batch):
        parts.append(layer_cosines(subject, rows).flatten(1))
        yield None
    influence = 1 - torch.cat(parts, dim=1).double()  # [L, M]
    low, high = influence.quantile(torch.tensor([0.05, 0.95], dtype=influence.dtype), dim=1)
    for layer, values in enumerate(influence):
        yield {
            "layer": layer,
            "influence": float(values.mean()),
            "low": float(low[layer]),
            "high": float(high[layer]),
            "tokens": len(values),
        }


INFLUENCE_COLUMNS = tuple(
    Column(name, "", {"en": en, "zh": zh})
    for name, en, zh in (
        ("layer", "Layer: from 0", "层：从 0 起"),
        ("influence", "Influence: 1 - mean cos of the layer's input and output", "影响：1 − 该层输入与输出的平均余弦"),
        ("low", "Low: 5 % of the tokens are below", "低：5 % 的词元低于此值"),
        ("high", "High: 5 % of the tokens are above", "高：5 % 的词元高于此值"),
        ("tokens", "Tokens: read", "词元数：读入的"),
    )
)

INFLUENCE_WORDS = {
    "en": {
        "title": "Block influence",
        "question": "How much does each layer change the state that passes through it?",
        "how": "BI_i = 1 - E[cos(X_i, X_{i+1})]: X_i enters layer i, X_{i+1} leaves it, the mean is over tokens (ShortGPT, "
        "arXiv 2403.03853). Full passes, every layer once. A low value is a layer that turns the state little: a candidate "
        "for looping that may do little harm; whether it does is what the map of ranges measures.",
        "cost": "One pass over the text.",
    },
    "zh": {
        "title": "层的影响",
        "question": "每一层对经过它的状态改变了多少？",
        "how": "BI_i = 1 − E[cos(X_i, X_{i+1})]：X_i 进入第 i 层，X_{i+1} 离开它，对词元取平均（ShortGPT，arXiv 2403.03853）。"
        "整段前向，每层运行一次。数值低的层对状态转动很小：循环它可能害处不大；是否如此由范围图来测量。",
        "cost": "对文本做一次前向。",
    },
}

_INFLUENCE_PLOT = {
    "en": {"x": "layer", "y": "1 - mean cos(input, output)", "band": "5 to 95 % of tokens", "mean": "mean"},
    "zh": {"x": "层", "y": "1 − 平均 cos(输入, 输出)", "band": "词元的 5 到 95 %", "mean": "平均"},
}


def influence_plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Influence by layer, with the spread over tokens."""
    import plotly.graph_objects as go

    from . import drawing

    if table.empty:
        return drawing.empty(lang)
    words, style = _INFLUENCE_PLOT[lang], drawing.series(0)
    x = table["layer"].tolist()
    bars = {
        "type": "data",
        "symmetric": False,
        "array": (table["high"] - table["influence"]).clip(lower=0).tolist(),
        "arrayminus": (table["influence"] - table["low"]).clip(lower=0).tolist(),
        "thickness": 1,
    }
    hover = "%{x}: %{y:.4f}<extra></extra>"
    line = go.Scatter(
        x=x, y=table["influence"].tolist(), error_y=bars, mode="lines+markers", hovertemplate=hover, **style
    )
    title = f"{words['mean']}, {words['band']}"
    few = {"dtick": 1} if len(x) <= 12 else {}
    return drawing.figure([line], x=words["x"], y=words["y"], title=title, xaxis=few, showlegend=False)


register(
    Task(
        "influence",
        InfluenceParams,
        INFLUENCE_COLUMNS,
        _influence_cells,
        _influence_run,
        INFLUENCE_WORDS,
        influence_plot,
    )
)

# -- the map of ranges -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WhereParams(TextParams):
    """Parameters of the map of ranges."""

    limit_tokens: int = param(512, "Tokens to predict, at most.", "最多预测的词元数。")
    loops: int = param(2, "Times the range runs.", "该范围运行的次数。")
    damping: float = param(
        1.0,
        "loop_damping in (0, 1]: part of each step that is taken; 1 is the plain loop.",
        "loop_damping，(0, 1]：每步采用的比例；1 为普通循环。",
    )
    coarsest: int = param(
        0,
        "Layers between the starts tried first; 0: so that there are at least four.",
        "最先尝试的起点之间的层数；0 表示至少有四个起点。",
    )
    finest: int = param(
        1, "Layers between the starts tried last; 1: every range.", "最后尝试的起点之间的层数；1 表示全部范围。"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("loops", self.loops, 2)
        check_number("damping", self.damping, 0.0, 1.0)
        if self.damping == 0:
            raise ValueError("damping=0: must be in (0, 1]; at 0 a step changes nothing")
        check_whole("coarsest", self.coarsest, 0)
        check_whole("finest", self.finest, 1)
        if self.coarsest and self.coarsest < self.finest:
            raise ValueError(f"coarsest={self.coarsest}: must be >= finest={self.finest}, or 0")

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
def text_nats(view: LoopLlamaForCausalLM, windows: Windows, batch: int) -> float:
    """Mean loss of the windows' counted predictions, nats, by full passes."""
    total = 0.0
    for part in windows.batches(batch):
        ids = part.ids.to(view.device)
        hidden = view.model(ids[:, :-1], use_cache=False).last_hidden_state
        total += float(nats(view, hidden, ids[:, 1:]).cpu().masked_fill(~part.counted, 0.0).sum())
    return total / windows.tokens


def _where_cells(subject: Subject, params: WhereParams) -> int:
    return len(params.order(subject))


def _where_run(subject: Subject, params: WhereParams) -> Iterator[Row]:
    windows = params.windows(subject)
    settings = {"loop_count": params.loops, "max_loop_count": params.loops, "loop_damping": float(params.damping)}
    plain = text_nats(stock_view(subject, None), windows, params.batch)
    for grid, start, end in params.order(subject):
        loss = text_nats(stock_view(subject, (start, end), **settings), windows, params.batch)
        yield {
            "start": start,
            "end": end,
            "layers": end - start + 1,
            "grid": grid,
            "nats": loss,
            "delta_nats": loss - plain,
            "perplexity": _exp(loss),
            "delta_perplexity": _exp(loss) - _exp(plain),
            "plain_perplexity": _exp(plain),
        }


def _exp(loss: float) -> float:
    """exp, infinite where it leaves float64."""
    return math.exp(loss) if loss < 700 else math.inf


WHERE_COLUMNS = tuple(
    Column(name, unit, {"en": en, "zh": zh})
    for name, unit, en, zh in (
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
        ("perplexity", "", "Perplexity: exp of the loss", "困惑度：损失的指数"),
        ("delta_perplexity", "", "Perplexity, change: against the plain model", "困惑度变化：相对不循环的模型"),
        ("plain_perplexity", "", "Plain: perplexity without a loop", "不循环：不循环时的困惑度"),
    )
)

WHERE_WORDS = {
    "en": {
        "title": "Where to loop",
        "question": "Which range of layers can run again without spoiling what the model predicts?",
        "how": "Each range (start, end) of the model's layers runs the given number of times, everything else once, nothing "
        "injected; perplexity of the text by full passes, minus that of the plain model. Coarse ranges first, then finer "
        "ones: stop whenever the picture is good enough. A model that was not trained to loop usually gets worse; damping "
        "limits it: s_r = s_{r-1} + damping (g(s_{r-1}) - s_{r-1}).",
        "cost": "One run of the text a range, L (L + 1) / 2 ranges in an L-layer model at the finest grid.",
    },
    "zh": {
        "title": "在哪里循环",
        "question": "哪一段层可以再运行一遍而不破坏模型的预测？",
        "how": "每个范围（起点，终点）的层运行给定次数，其余各层一次，不注入任何东西；用整段前向测文本的困惑度，再减去不循环时的困惑度。"
        "先测粗的范围，再逐步变细：画面够清楚时随时可以停止。没有为循环训练过的模型通常会变差；阻尼可以限制它："
        "s_r = s_{r−1} + damping (g(s_{r−1}) − s_{r−1})。",
        "cost": "每个范围运行一遍文本；L 层模型在最细的网格上有 L (L + 1) / 2 个范围。",
    },
}

_WHERE_PLOT = {
    "en": {
        "x": "last layer of the range",
        "y": "first layer",
        "bar": "Δ loss, nats<br>(colour ends<br>at {most:g})",
        "better": "better than plain",
        "worse": "not better",
        "hover": "layers {a} to {b}<br>Δ loss {nats:+.4f} nats<br>Δ perplexity {change:+.4g}<br>grid {grid}",
    },
    "zh": {
        "x": "范围的最后一层",
        "y": "第一层",
        "bar": "Δ 损失，nat<br>（颜色止于 {most:g}）",
        "better": "优于不循环",
        "worse": "不优于",
        "hover": "第 {a} 到 {b} 层<br>Δ 损失 {nats:+.4f} nat<br>Δ 困惑度 {change:+.4g}<br>网格 {grid}",
    },
}


def where_plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """A square a measured range, larger where the grid is coarser; ranges that beat the plain model are stars."""
    import plotly.graph_objects as go

    from loopviz.panels import theme

    from . import drawing

    if table.empty:
        return drawing.empty(lang)
    words = _WHERE_PLOT[lang]
    low = min(0.0, float(table["delta_nats"].min()))
    traces = []
    for name, rows in (("worse", table[table["delta_nats"] >= 0]), ("better", table[table["delta_nats"] < 0])):
        hover = [
            words["hover"].format(a=x.start, b=x.end, nats=x.delta_nats, change=x.delta_perplexity, grid=x.grid)
            for x in rows.itertuples()
        ]
        marker = {
            "symbol": "square" if name == "worse" else "star",
            "size": [(8 if name == "worse" else 13) + 4 * math.log2(grid) for grid in rows["grid"].astype(int)],
            "color": rows["delta_nats"].tolist(),
            "colorscale": theme.SCALE,
            "cmin": low,
            "cmax": FULL_COLOUR,
            "showscale": name == "worse",
            "colorbar": {"title": {"text": words["bar"].format(most=FULL_COLOUR)}, "thickness": 12},
        }
        traces.append(
            go.Scatter(
                x=rows["end"].tolist(),
                y=rows["start"].tolist(),
                mode="markers",
                name=words[name],
                marker=marker,
                text=hover,
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return drawing.figure(traces, x=words["x"], y=words["y"], legend={"orientation": "h", "y": 1.08})


register(Task("where", WhereParams, WHERE_COLUMNS, _where_cells, _where_run, WHERE_WORDS, where_plot))
