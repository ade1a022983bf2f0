"""Path independence: does the loop forget where it started?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.checks import FieldError, check_number, check_whole
from loopviz.engine.work import Work
from loopviz.lab.headline import is_finite, number, percent
from loopviz.lab.reading.exit_replay import MAX_LOGITS, max_loop_view, passes
from loopviz.lab.reading.reach import ROW_BYTES
from loopviz.lab.reading.windows import CorpusParams
from loopviz.lab.task import MOST_LOOPS, MOST_SEED, MOST_TOKENS, Row, Subject, Task, column, param, register, titled
from loopviz.loop_fields import LARGEST_SEED
from loopviz.model.interrupt import check
from loopviz.trace import metrics

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.model import LoopBlock, LoopLlamaForCausalLM

NAME, ORDER = "starts", 80
TITLE = {"en": "Path independence", "zh": "路径无关性"}

KINDS = ("noise", "random", "zeros", "seed")


@dataclass(frozen=True)
class Start:
    """Where a loop begins instead of at its own s_0.

    Attributes:
        kind: ``"noise"``: s_0 plus ``size`` x RMS(s_0) x a normal draw; ``"random"``: RMS(s_0) x a normal draw alone;
            ``"zeros"``; ``"seed"``: the model's own random start from another seed. The RMS is each token's own, over its
            components.
        size: of the noise; None for the other kinds.
        draw: number of the draw; 0 for zeros; of a seed how much is added to the model's own.
    """

    kind: str
    size: float | None
    draw: int

    def state(self, own: Tensor, generator: torch.Generator, entry: Tensor | None = None) -> Tensor:
        """The start ``[B, T, H]`` in the place of ``own`` ``[B, T, H]``.

        Args:
            own: s_0.
            generator: of the draw.
            entry: what enters the loop; its RMS is the unit where s_0 is zero.
        """
        if self.kind == "zeros":
            return torch.zeros_like(own)
        rms = _rms(own)
        if entry is not None:
            rms = torch.where(rms == 0, _rms(entry), rms)
        drawn = torch.randn(own.shape, generator=generator).to(own.device) * rms
        return (drawn if self.size is None else own + self.size * drawn).to(own.dtype)


def _rms(state: Tensor) -> Tensor:
    """Of each token's components, ``[B, T, 1]``."""
    return state.float().square().mean(-1, keepdim=True).sqrt()


MOST_NOISE = 1e6
MOST_DRAWS = 10_000  # each is a run of its own


@dataclass(frozen=True)
class StartsParams(CorpusParams):
    """Parameters of the path-independence measurement."""

    limit_tokens: int = param(256, "Tokens read at most.", "最多读入的词元数。", low=2, high=MOST_TOKENS)
    loop: dict[str, Any] = param({}, "Loop settings.", "循环设置。", kind="loop")
    loops: int = param(16, "Steps to follow.", "跟踪的步数。", low=1, high=MOST_LOOPS)
    noise: tuple[float, ...] = param(
        (0.1, 1.0),
        "Sizes of the noise added to s_0, in units of its RMS.",
        "加到 s_0 上的噪声大小，以其 RMS 为单位。",
        low=0,
        high=MOST_NOISE,
    )
    zeros: bool = param(True, "Start from zeros too.", "也从零开始。")
    random: bool = param(True, "Start from noise of s_0's RMS alone too.", "也从 RMS 与 s_0 相同的纯噪声开始。")
    seeds: int = param(
        3,
        "Models that start at random: other seeds of their own start.",
        "随机起始的模型：其自身起点的其他随机种子个数。",
        low=0,
        high=MOST_DRAWS,
    )
    draws: int = param(2, "Draws of every random start.", "每种随机起点抽取的次数。", low=1, high=MOST_DRAWS)
    seed: int = param(0, "Seed of the draws.", "抽取的随机种子。", low=0, high=MOST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.noise:
            check_number("noise", size, 0.0)
        for name in ("loops", "draws"):
            check_whole(name, getattr(self, name), 1)
        check_number("draws", self.draws, 1, MOST_DRAWS)
        check_whole("seeds", self.seeds, 0, MOST_DRAWS)
        check_whole("seed", self.seed, 0)
        if not (self.noise or self.random or self.zeros or self.seeds):
            raise FieldError("noise", (), "no_start", shown="(), zeros=False, random=False")

    def starts(self, block: LoopBlock) -> list[Start]:
        """The starts of a block in the order in which they are run.

        Raises:
            FieldError: there is none: other seeds alone are asked for, of a loop that does not start at random; or zeros alone,
                of one that starts there itself.
        """
        drawn_itself = block.init == "random" and block.init_std > 0
        seeds, at_zeros = (self.seeds if drawn_itself else 0), block.init != "entry" and not drawn_itself
        drawn = [("noise", float(size)) for size in self.noise] + ([("random", None)] if self.random else [])
        found = [Start("seed", None, draw) for draw in range(1, seeds + 1)]
        found += [Start(kind, size, draw) for kind, size in drawn for draw in range(self.draws)]
        found += [Start("zeros", None, 0)] if self.zeros and not at_zeros else []
        if not found:
            raise FieldError("noise", (), "no_start", shown="(), zeros=False, random=False")
        return found


def _view(subject: Subject, params: StartsParams) -> LoopLlamaForCausalLM:
    return max_loop_view(subject.view(params.loop), {}, params.loops, "starts_compared")


def _cells(subject: Subject, params: StartsParams) -> int:
    block = _view(subject, params).config.loop_blocks()[0]  # refuses what cannot be measured
    return len(params.starts(block)) * (params.loops + 1)


def _work(subject: Subject, params: StartsParams) -> Work:
    """The own run, and each start's, whose every step is read from beside the own: nothing is listed for it."""
    view, reach = _view(subject, params), params.reach(subject)
    shape, starts = subject.shape(view), len(params.starts(view.config.loop_blocks()[0]))
    read = 2 * (params.loops + 1)
    through = Work(layer_tokens=read * reach.tokens * shape.loops[-1].coda)
    each = reach.whole(shape) + reach.heads(shape, read) + through + reach.states(shape)
    own = Work(kept=reach.states(shape, held=reach.tokens).states / 3)  # all windows' are held to the end
    rows = Work(kept=starts * (params.loops + 1) * ROW_BYTES)
    return each.times(starts) + reach.whole(shape) + own + rows + reach.text


def _run(subject: Subject, params: StartsParams) -> Iterator[Row | None]:
    view = _view(subject, params)
    windows = [part.ids.to(view.device) for part in params.windows(subject).batches(params.batch, unpadded=True)]
    own = []
    for rows in windows:
        own.append(states_from(view, rows))
        yield None
    block = view.config.loop_blocks()[0]
    for start in params.starts(block):
        # The same draw for every size: sizes then differ in nothing else.
        generator = torch.Generator().manual_seed(params.seed * 1_000_003 + start.draw)
        parts = []
        for rows, states in zip(windows, own, strict=True):
            if start.kind == "seed":
                other = view.with_loop(loop_init_seed=(block.init_seed + start.draw) % (LARGEST_SEED + 1))
                parts.append(compare(view, states, states_from(other, rows)))
            else:
                other_start = _replacement(start, states[0], generator)
                parts.append(compare(view, states, states_from(view, rows, other_start)))
            yield None
        found = {name: torch.cat([part[name] for part in parts], dim=1).double() for name in parts[0]}  # [N + 1, M]
        for r in range(params.loops + 1):
            yield {
                "start": start.kind,
                "size": start.size,
                "draw": start.draw,
                "loops": r,
                **{name: _finite(found[name][r].mean()) for name in ("distance", "angle", "kl", "same")},
                "worst": _finite(found["distance"][r].max()),
            }


def _replacement(start: Start, own: Tensor, generator: torch.Generator) -> Callable[[int, Tensor], Tensor]:
    """The start in the place of s_0, which is what enters the loop only where `loop_init` says so."""
    return lambda block, entry: start.state(own.to(entry.device), generator, entry)


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None


def states_from(
    view: LoopLlamaForCausalLM, ids: Tensor, start: Callable[[int, Tensor], Tensor] | None = None
) -> Tensor:
    """s_0..s_N of one full pass over ``ids`` ``[B, T]``, ``[N + 1, B, T, H]``, begun at ``start`` (None: its own).

    Args:
        view: runs N steps; its own object.
    """
    view.model.loop_start = start
    try:
        ((states, _),) = passes(view, ids, "pass")
    finally:
        view.model.loop_start = None
    return states


@torch.no_grad()
def compare(view: LoopLlamaForCausalLM, own: Tensor, other: Tensor) -> dict[str, Tensor]:
    """How far two runs are apart after each step, each ``[N + 1, B * T]``.

    Args:
        own, other: ``[N + 1, B, T, H]`` states.

    Returns:
        ``distance``: |other_r - own_r| / |own_r|; ``angle``: 1 - cos (NaN where a state is zero); ``kl``:
        KL(own_r || other_r), nats, and ``same``: 1 where both say the same most likely token, both of what the model
        says if it stops there.
    """
    gap = metrics.norm(metrics.wide(other) - metrics.wide(own)) / metrics.norm(own)
    found = {"distance": gap, "angle": 1 - metrics.cosine(other, own)}
    kl, same = [], []
    for pair in zip(own, other, strict=True):
        hidden = torch.cat([view.exit_states(state[None], None) for state in pair]).flatten(1, 2)  # [2, B * T, H]
        chunk = max(1, MAX_LOGITS // (2 * view.config.vocab_size))
        said = []  # [2, C, V] each
        for rows in hidden.split(chunk, dim=1):
            check()
            said.append(metrics.log_probs(view.lm_head(rows)))
        kl.append(torch.cat([metrics.kl(p, q) for p, q in said]))
        same.append(torch.cat([(p.argmax(-1) == q.argmax(-1)).float() for p, q in said]))
    found = {name: values.flatten(1) for name, values in found.items()}
    return {name: values.cpu() for name, values in {**found, "kl": torch.stack(kl), "same": torch.stack(same)}.items()}


COLUMNS = tuple(
    column(*told)
    for told in (
        (
            "start",
            "",
            "Start: noise added to s_0, random alone, zeros, or another seed of the model's own",
            "起点：s_0 加噪声、纯随机、零，或模型自身起点的另一个种子",
        ),
        ("size", "RMS", "Size: of the noise, in units of the RMS of s_0", "大小：噪声大小，以 s_0 的 RMS 为单位"),
        ("draw", "", "Draw: number of the random draw", "抽取：随机抽取的编号"),
        ("loops", "", "Loops: steps run", "循环数：已运行的步数"),
        (
            "distance",
            "",
            "Distance: mean |s' - s| / |s|, s being the run from its own s_0",
            "距离：平均 |s′ − s| / |s|，s 为从自身 s_0 开始的运行",
        ),
        ("worst", "", "Worst: distance of the farthest token", "最远：最远词元的距离"),
        (
            "angle",
            "",
            "Angle: mean 1 - cos(s', s); empty where a state is zero",
            "角度：平均 1 − cos(s′, s)；状态为零时为空",
        ),
        (
            "kl",
            "nats",
            "KL: mean KL(p || p') of what the model says if it stops here",
            "KL：在此停止时模型所说的 KL(p || p′) 平均值",
        ),
        (
            "same",
            "",
            "Same word: share of tokens with the same likeliest next token",
            "同一词：最可能的下一词元相同的词元比例",
        ),
    )
)

WORDS = {
    "en": {
        "question": "Does the loop reach the same state from wherever it starts?",
        "how": "Each window is run in one full pass from its own s_0 (what the layers before the block give, or what loop_init says), "
        "and again from other starts: s_0 with normal noise of the stated size in units of each token's RMS of s_0 (where that is zero, of what "
        "enters the loop), noise of that RMS alone, or zeros; of a model whose loop starts at random also its own start from other seeds. Only s_0 is replaced: what is injected in every step, where the model has an injection, stays. "
        "Distances that fall to rounding mean one fixed point for all starts (path independence, arXiv 2211.09961). "
        "Without injection s_0 is all the loop knows of the text: a loop that forgets such a start forgets the text.",
        "cost": "One pass of all steps a start, and two readings of the output head a token, step and start.",
    },
    "zh": {
        "question": "无论从哪里开始，循环都会到达同一个状态吗？",
        "how": "每个窗口先从自身的 s_0（块之前各层的输出，或 loop_init 所指定的起点）做一次完整前向，再从其他起点各做一次：s_0 加正态噪声（大小以每个词元 s_0 的 RMS 为单位；s_0 为零时以进入循环的状态为单位）、"
        "仅有同样 RMS 的噪声，或零；循环从随机起始的模型，还有其自身起点的其他种子。只替换 s_0：若模型每步有注入，注入的内容不变。距离降到舍入误差，说明所有起点通向同一个不动点"
        "（路径无关性，arXiv 2211.09961）。没有注入时，s_0 就是循环对文本所知的全部：忘掉这样的起点就是忘掉文本。",
        "cost": "每个起点一次全部步数的前向，每个词元、每步、每个起点读两次输出头。",
    },
}

_PLOT = {
    "en": {
        "x": "loops",
        "y": "mean |s' - s| / |s| (≥ 1e-8)",
        "noise": "s₀ + {size:g} RMS noise, draw {draw}",
        "random": "random, draw {draw}",
        "zeros": "zeros",
        "seed": "its own start, seed + {draw}",
    },
    "zh": {
        "x": "循环数",
        "y": "平均 |s′ − s| / |s|（≥ 1e-8）",
        "noise": "s₀ + {size:g} RMS 噪声，第 {draw} 次",
        "random": "随机，第 {draw} 次",
        "zeros": "零",
        "seed": "自身起点，种子 + {draw}",
    },
}
LOWEST = 1e-8


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Distance from the run's own states by loops, a line a start and draw."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, traces = _PLOT[lang], []
    groups = table.groupby(["start", "size", "draw"], dropna=False, sort=False)
    for index, ((kind, size, draw), rows) in enumerate(groups):
        traces.append(
            go.Scatter(
                x=rows["loops"].tolist(),
                y=rows["distance"].clip(lower=LOWEST).tolist(),
                mode="lines+markers",
                name=words[kind].format(size=size, draw=draw),
                text=[f"{value:.3g}" for value in rows["distance"]],
                hovertemplate="r = %{x}: %{text}",
                **table_figures.series(index),
            )
        )
    axis = {"type": "log", "exponentformat": "power"}
    # loops are whole numbers: a short axis would have ticks between them
    whole = {"tickformat": "d", **({"dtick": 1} if int(table["loops"].max()) <= 20 else {})}
    return table_figures.figure(traces, x=words["x"], y=words["y"], xaxis=whole, yaxis=axis)


_HEADLINE = {
    "en": {
        "one": "Wherever it starts it ends in one place: after {n} loops no other start is farther than {far} (of the state's length) on "
        "average over the words, {worst} at the farthest one.",
        "nearly": "Wherever it starts it ends in nearly one place: after {n} loops no other start is farther than {far} (of the state's "
        "length) on average over the words, but {worst} at the farthest one.",
        "apart": "Where it starts still matters after {n} loops: up to {far} (of the state's length) apart on average over the words, "
        "{worst} at the farthest one.",
        "lost": "Where it starts still matters: begun at {names} it has no finite state after {n} loops.",
        "and": ", ",
        "same": "In the worst case {same} of the words are the same.",
    },
    "zh": {
        "one": "无论从哪里开始都到达同一处：循环 {n} 次后，其他起点的距离按词平均都不超过 {far}（以状态长度为单位），最远的一个词为 {worst}。",
        "nearly": "无论从哪里开始都到达几乎同一处：循环 {n} 次后，其他起点的距离按词平均都不超过 {far}（以状态长度为单位），但最远的一个词为 {worst}。",
        "apart": "循环 {n} 次后，从哪里开始仍有影响：距离按词平均最大为 {far}（以状态长度为单位），最远的一个词为 {worst}。",
        "lost": "从哪里开始仍有影响：从{names}开始，循环 {n} 次后状态已不是有限数。",
        "and": "、",
        "same": "最差时有 {same} 的词相同。",
    },
}
ONE_PLACE = 0.01  # of the state's length: so near are two runs that end in one place


def headline(rows: Sequence[Row], lang: str) -> str:
    """How far the farthest start is when its run ends, and how many words are the same."""
    if not rows:
        return ""
    words, last = _HEADLINE[lang], max(row["loops"] for row in rows)
    ends = [row for row in rows if row["loops"] == last]
    if lost := [row for row in ends if not is_finite(row["distance"])]:
        names = [_PLOT[lang][row["start"]].format(size=row["size"], draw=row["draw"]) for row in lost]
        return words["lost"].format(n=last, names=words["and"].join(names))
    far, worst = (max(row[name] for row in ends) for name in ("distance", "worst"))
    key = "one" if worst < ONE_PLACE else "nearly" if far < ONE_PLACE else "apart"
    told = words[key].format(n=last, far=number(far), worst=number(worst))
    alike = min((row["same"] for row in ends if is_finite(row["same"])), default=None)
    return told if alike is None else told + ("" if lang == "zh" else " ") + words["same"].format(same=percent(alike))


# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"window": 64}
register(
    Task(
        NAME,
        StartsParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        work=_work,
        headline=headline,
        asks=("loops",),
        over_loops=True,
    )
)
