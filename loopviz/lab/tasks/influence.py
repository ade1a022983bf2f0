"""Block influence: how much each layer changes the state that passes through it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from loopviz.engine.work import Work
from loopviz.lab.headline import known, number, same, tied
from loopviz.lab.reading.full_pass import fixed
from loopviz.lab.reading.windows import CorpusParams
from loopviz.lab.task import Row, Subject, Task, column, register, titled
from loopviz.model.choosers import NO_CHOOSER
from loopviz.model.watching import shallow
from loopviz.trace import metrics

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "influence", 60
TITLE = {"en": "Block influence", "zh": "层的影响"}


COSINE_BYTES = 4 + 3 * 8  # of a layer and token: as measured, and in double, sorted


@dataclass(frozen=True)
class InfluenceParams(CorpusParams):
    """Parameters of the block-influence curve."""


@torch.no_grad()
def layer_cosines(subject: Subject, ids: Tensor) -> Tensor:
    """cos(X_i, X_{i+1}) of every layer's input and output, ``[L, B, T]`` float32, each layer run once, as the model runs it.

    Args:
        ids: ``[B, T]`` int64.
    """
    view = fixed(subject.model.with_loop(layer_chooser=NO_CHOOSER), 1)
    found: list[Tensor] = []

    def watch(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        found.append(metrics.cosine(made, given[0]))

    view.model.layers = nn.ModuleList(_told(layer, watch) for layer in view.model.layers)
    view.model(ids.to(view.device), use_cache=False)
    return torch.stack(found).cpu()


def _told(layer: nn.Module, watch: Callable[..., None]) -> nn.Module:
    """The layer as a module object of this measurement alone, whose passes ``watch`` is told of."""
    twin = shallow(layer)
    twin._forward_hooks = OrderedDict()
    twin.register_forward_hook(watch)
    return twin


def _cells(subject: Subject, params: InfluenceParams) -> int:
    return subject.model.config.num_hidden_layers


def _work(subject: Subject, params: InfluenceParams) -> Work:
    reach, plain = params.reach(subject), subject.shape().plain
    cosines = reach.tokens * plain.layers * COSINE_BYTES
    return reach.whole(plain, heads=0) + reach.text + Work(kept=cosines)


def _run(subject: Subject, params: InfluenceParams) -> Iterator[Row | None]:
    parts = []
    for part in params.windows(subject).batches(params.batch, unpadded=True):
        parts.append(layer_cosines(subject, part.ids).flatten(1))
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


COLUMNS = tuple(
    column(name, "", en, zh)
    for name, en, zh in (
        ("layer", "Layer: from 0", "层：从 0 起"),
        (
            "influence",
            "Influence: 1 - mean cos of the layer's input and output, in a block at its first loop step",
            "影响：1 − 该层输入与输出的平均余弦；块内取第一个循环步",
        ),
        ("low", "Low: 5 % of the tokens are below", "低：5 % 的词元低于此值"),
        ("high", "High: 5 % of the tokens are above", "高：5 % 的词元高于此值"),
        ("tokens", "Tokens: read", "词元数：读入的"),
    )
)

WORDS = {
    "en": {
        "question": "How much does each layer change the state that passes through it?",
        "how": "BI_i = 1 - E[cos(X_i, X_{i+1})]: X_i enters layer i, X_{i+1} leaves it, the mean is over tokens (ShortGPT, "
        "arXiv 2403.03853). Full passes, every layer once and as the model runs it: in a looped block the first loop step, with "
        "what is injected and the norm before it. A low value is a layer that turns the state little: a candidate "
        "for looping that may do little harm; whether it does is what the map of ranges measures.",
        "cost": "One pass over the text.",
    },
    "zh": {
        "question": "每一层对经过它的状态改变了多少？",
        "how": "BI_i = 1 − E[cos(X_i, X_{i+1})]：X_i 进入第 i 层，X_{i+1} 离开它，对词元取平均（ShortGPT，arXiv 2403.03853）。"
        "整段前向，每层运行一次，且与模型实际运行时相同：循环块内为第一个循环步，包含其注入和步前的归一化。数值低的层对状态转动很小：循环它可能害处不大；是否如此由范围图来测量。",
        "cost": "对文本做一次前向。",
    },
}

_PLOT = {
    "en": {"x": "layer", "y": "1 - mean cos(input, output)", "band": "5 to 95 % of tokens", "mean": "mean"},
    "zh": {"x": "层", "y": "1 − 平均 cos(输入, 输出)", "band": "词元的 5 到 95 %", "mean": "平均"},
}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Influence by layer, with the spread over tokens."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, style = _PLOT[lang], table_figures.series(0)
    x = table["layer"].tolist()
    bars = table_figures.arms(table["influence"], table["low"], table["high"])
    hover = "%{x}: %{y:.4f}<extra></extra>"
    line = go.Scatter(
        x=x, y=table["influence"].tolist(), error_y=bars, mode="lines+markers", hovertemplate=hover, **style
    )
    title = f"{words['mean']}, {words['band']}"
    few = {"dtick": 1} if len(x) <= 12 else {}
    return table_figures.figure([line], x=words["x"], y=words["y"], title=title, xaxis=few, showlegend=False)


_HEADLINE = {
    "en": {
        "both": "Layer {low} turns the state least: {least}{as_low}. Layer {high} most: {most}{as_high}.",
        "same": "All {n} layers turn the state alike: {least}.",
        "one": "Its one layer turns the state by {least}.",
    },
    "zh": {
        "both": "第 {low} 层对状态转动最小：{least}{as_low}。第 {high} 层最大：{most}{as_high}。",
        "same": "全部 {n} 层对状态的转动相同：{least}。",
        "one": "唯一的一层对状态的转动：{least}。",
    },
}


def _influence(row: Row) -> float:
    return float(row["influence"])


def headline(rows: Sequence[Row], lang: str) -> str:
    """The layer that turns the state least, and the one that turns it most."""
    found = known(rows, "influence")
    if not found:
        return ""
    low, high = (choose(found, key=_influence) for choose in (min, max))
    alike = same(low["influence"], high["influence"])
    key = "one" if len(found) == 1 else "same" if alike else "both"
    said = {"least": number(low["influence"]), "most": number(high["influence"]), "n": len(found)}
    said |= {f"as_{end}": tied(found, _influence, row, lang) for end, row in (("low", low), ("high", high))}
    return _HEADLINE[lang][key].format(low=low["layer"], high=high["layer"], **said)


# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"window": 64}
register(
    Task(
        "influence",
        InfluenceParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        work=_work,
        headline=headline,
    )
)
