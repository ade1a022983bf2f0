"""RMSNorm beside LayerNorm and BatchNorm, on the states that a loop really makes of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.anatomy import norms
from loopviz.checks import check_whole
from loopviz.engine.work import Work, one_pass
from loopviz.lab.headline import known, number
from loopviz.lab.reading.full_pass import fixed
from loopviz.lab.reading.one_pass import PassParams, watched_layers
from loopviz.lab.task import MOST_LOOPS, Row, Subject, Task, column, param, register, titled
from loopviz.lab.walk import Walk
from loopviz.model import LoopLlamaForCausalLM, LoopStep

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "norms", 210
TITLE = {"en": "RMSNorm, LayerNorm, BatchNorm", "zh": "三种归一化：RMSNorm、LayerNorm、BatchNorm"}

ROUNDING = 1e-9  # of a normed number, about 1 in size: less is another order of sums in float64


@dataclass(frozen=True)
class NormsParams(PassParams):
    """Parameters of the three norms."""

    loops: int = param(8, "Loops to follow.", "跟踪的循环次数。", low=1, high=MOST_LOOPS)
    loop: dict[str, Any] | None = param(
        {},
        "Loop fields to change; null follows the layers of the model without its loop.",
        "要更改的循环设置；null 表示不循环，逐层跟踪。",
        kind="loop",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("loops", self.loops, 1)


def _view(subject: Subject, params: NormsParams) -> LoopLlamaForCausalLM:
    return fixed(subject.view(params.loop), params.loops)


@torch.no_grad()
def states_of(view: LoopLlamaForCausalLM, ids: Tensor) -> list[Tensor]:
    """What enters the last block and what each of its steps leaves, `[T, H]` each; of a model without a loop, layer by layer.

    Args:
        view: as it is to be run.
        ids: `[1, T]`.
    """
    found: list[Tensor] = []
    blocks = view.config.loop_blocks()

    def step(event: LoopStep) -> None:
        if event.block == blocks[-1].index:
            found.extend([event.previous[0].clone()] * (event.step == 1) + [event.state[0].clone()])

    def layer(index: int, given: Tensor, made: Tensor) -> None:
        found.extend([given[0].clone()] * (index == 0) + [made[0].clone()])

    if blocks:
        own = view.with_loop()
        own.register_loop_hook(step)
    else:
        own = watched_layers(view, layer)
    own.model(ids, use_cache=False)
    return found


def _cells(subject: Subject, params: NormsParams) -> int:
    view = _view(subject, params)
    places = params.loops if view.config.loop_blocks() else view.config.num_hidden_layers
    return (places + 1) * len(norms.NORMS)


def _work(subject: Subject, params: NormsParams) -> Work:
    shape, tokens = subject.shape(_view(subject, params)), params.expected(subject)
    places = params.loops if shape.loops else shape.layers
    kept = (places + 1) * tokens * shape.hidden * shape.itemsize
    return one_pass(shape, tokens, cached=False, masked=True) + Work(kept=kept, states=8 * 8 * tokens * shape.hidden)


def _run(subject: Subject, params: NormsParams) -> Iterator[Row | None]:
    view, ids = _view(subject, params), params.ids(subject)
    yield None
    for place, states in enumerate(states_of(view, ids)):
        x = states.double()
        size = x.pow(2).mean(-1).sqrt()  # [T]
        offset = (x.mean(-1).abs() / size.clamp_min(torch.finfo(x.dtype).tiny)).mean()
        for found in norms.compare(states):
            yield {
                "of": "loop" if view.config.loop_blocks() else "layer",
                "place": place,
                "norm": found.norm,
                "angle": _degrees(found.to_rms),
                "alone": found.alone,
                "mean": found.mean,
                "std": found.std,
                "turned": _degrees(found.cosine),
                "size": float(size.mean()),
                "offset": float(offset),
                "tokens": len(states),
            }


def _degrees(cosine: float) -> float:
    """The angle of a cosine, which rounding may have put beyond 1; NaN of NaN, which `max` and `min` would take for 1."""
    return math.nan if math.isnan(cosine) else math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


COLUMNS = tuple(
    column(name, "", en, zh)
    for name, en, zh in (
        ("of", "Of: whether places are loop steps or layers", "对象：位置是循环步还是层"),
        ("place", "Place: loop step, or layer; 0 is what enters", "位置：循环步或层；0 为进入时"),
        ("norm", "Norm: rms, layer or batch", "归一化：三者之一（rms、layer、batch）"),
        (
            "angle",
            "Apart: degrees between what it makes of a token and what RMSNorm makes of it (of the mean cosine)",
            "相差：它与 RMSNorm 对同一词元的结果之间的角度（平均余弦对应的度数）",
        ),
        (
            "alone",
            "Neighbours: the largest change of a number when the second half of the text is left out",
            "邻居：去掉文本后一半时，数值的最大变化",
        ),
        ("mean", "Mean: size of the mean of a token's numbers afterwards", "均值：之后一个词元各数均值的大小"),
        ("std", "Spread: standard deviation of them", "离散：它们的标准差"),
        ("turned", "Turned: degrees by which it turns the state", "转动：它把状态转动的度数"),
        ("size", "Size: RMS of the state before", "大小：之前状态的均方根（RMS）"),
        ("offset", "Offset: mean of the state's numbers, as a share of its RMS", "偏移：状态各数均值占其均方根的比例"),
        ("tokens", "Tokens: read", "词元数：读入的"),
    )
)

WORDS = {
    "en": {
        "question": "A Llama only divides a state by its size. What would it lose, or gain, with another norm?",
        "how": "The states of the text, as the loop makes them, under the three norms without learned gain or offset, in "
        "float64: RMSNorm x / rms(x); LayerNorm takes a token's own mean away first; BatchNorm works down each feature, over "
        "the tokens. The angle is between what a norm makes of a token and what RMSNorm makes of it.",
        "cost": "One pass over the text.",
        "seen": "A line near zero is a norm that makes of each token nearly what RMSNorm makes, as LayerNorm usually does; "
        "BatchNorm's lies far above it.",
        "why": "A state has many features, and their mean is small against its size (the offset in the table), so taking it away hardly turns it; "
        "BatchNorm changes each feature by what other tokens have in it.",
        "looping": "A loop norms its own output again and again: what depends on which words stand beside, or on how many, "
        "would carry that into every step, and RMSNorm cannot.",
    },
    "zh": {
        "question": "Llama 只把状态除以它的大小。换一种归一化，会失去什么，又得到什么？",
        "how": "文本在循环中真实产生的状态，经过三种归一化（不带学到的增益和偏移，float64）：RMSNorm 为 x / rms(x)；"
        "LayerNorm 先减去词元自身的均值；BatchNorm 沿每个特征、跨词元计算。角度是某种归一化与 RMSNorm 对同一词元的结果之间的夹角。",
        "cost": "对文本做一次前向。",
        "seen": "靠近零的线表示该归一化与 RMSNorm 的结果几乎相同，LayerNorm 通常如此；BatchNorm 的线则高得多。",
        "why": "一个状态有许多特征，其均值相对于大小很小（见表中的偏移），减去它几乎不改变方向；而 BatchNorm 按其他词元在该特征上的值来改变每个特征。",
        "looping": "循环会一次又一次地归一化自己的输出：依赖旁边是哪些词、有多少词的做法，会把这种依赖带进每一步，而 RMSNorm 不会。",
    },
}

_PLOT = {
    "en": {"loop": "loop (0: what enters)", "layer": "layer (0: what enters)", "y": "degrees from RMSNorm's result",
           "layer_norm": "LayerNorm", "batch": "BatchNorm", "rms": "RMSNorm"},
    "zh": {"loop": "循环（0 为进入时）", "layer": "层（0 为进入时）", "y": "与 RMSNorm 结果相差的度数",
           "layer_norm": "LayerNorm", "batch": "BatchNorm", "rms": "RMSNorm"},
}  # fmt: skip


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """How far each norm's result is from RMSNorm's, over the loops."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, lines = _PLOT[lang], []
    for i, norm in enumerate(norms.NORMS):
        part = table[table["norm"] == norm]
        name = words["layer_norm" if norm == "layer" else norm]
        hover = f"{name}<br>%{{x}}: %{{y:.3g}}°<extra></extra>"
        style = table_figures.series(i)
        lines.append(
            go.Scatter(x=part["place"].tolist(), y=part["angle"].tolist(), name=name, mode="lines+markers",
                       hovertemplate=hover, **style)
        )  # fmt: skip
    few = {"dtick": 1} if table["place"].max() <= 16 else {}
    return table_figures.figure(
        lines, x=words[str(table["of"].iloc[0])], y=words["y"], xaxis={"tickformat": "d", **few}
    )


_HEADLINE = {
    "en": {
        "loop": "After loop {place}",
        "layer": "After layer {place}",
        "loop_0": "Before the first loop",
        "layer_0": "Before the first layer",
        "said": "{at} LayerNorm's result is {layer}° from RMSNorm's, BatchNorm's {batch}°. With half of the text gone "
        "BatchNorm changes a number by up to {alone}, ",
        "nothing": "the other two by nothing.",
        "rest": "the other two by up to {rest}.",
    },
    "zh": {
        "loop": "第 {place} 次循环之后",
        "layer": "第 {place} 层之后",
        "loop_0": "第一次循环之前",
        "layer_0": "第一层之前",
        "said": "{at}，LayerNorm 的结果与 RMSNorm 相差 {layer}°，BatchNorm 相差 {batch}°。去掉一半文本，BatchNorm "
        "的数值最多改变 {alone}，",
        "nothing": "另外两种不变。",
        "rest": "另外两种最多改变 {rest}。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The last place of which all three are known."""
    found = {(row["place"], row["norm"]): row for row in known(rows, "angle", "alone")}
    places = [place for place, _ in found if all((place, norm) in found for norm in norms.NORMS)]
    if not places:
        return ""
    rms, layer, batch = (found[places[-1], norm] for norm in ("rms", "layer", "batch"))
    words, rest = _HEADLINE[lang], max(rms["alone"], layer["alone"])
    at = words[batch["of"] if places[-1] else f"{batch['of']}_0"].format(place=places[-1])
    said = {"layer": number(layer["angle"]), "batch": number(batch["angle"]), "alone": number(batch["alone"])}
    others = words["nothing" if rest < ROUNDING else "rest"].format(rest=number(rest))
    return words["said"].format(at=at, **said) + others


FIRST = {"tokens": 96}
register(
    Task(
        NAME,
        NormsParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        fits=("tokens",),
        work=_work,
        headline=headline,
        walk=Walk("place", {"en": "Loop step, or layer", "zh": "循环步或层"}, lambda row: row["place"], headline),
        asks=("loops",),
        group="anatomy",
    )
)
