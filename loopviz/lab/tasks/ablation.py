"""Every way of keeping the loops' keys and values, on the same text: what it costs and what it changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from loopviz.checks import FieldError, check_counts, check_number
from loopviz.engine.pieces import decode
from loopviz.engine.work import NOTHING, Work, kept_itemsize
from loopviz.lab.headline import byte_words, known, least, number, same, tied
from loopviz.lab.progress import Progress, layer_calls
from loopviz.lab.reading.cached import CacheScores, scoring
from loopviz.lab.reading.intervals import draws_param, mean_interval, seed_param
from loopviz.lab.reading.windows import TextParams, Windows
from loopviz.lab.task import MOST_LOOPS, MOST_TOKENS, Row, Subject, Task, column, param, register, titled
from loopviz.loop_fields import EXACT, FIELDS, KV_DTYPES
from loopviz.model import MERGES, LoopLlamaForCausalLM

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "ablation", 30
TITLE = {"en": "Cache ablation", "zh": "缓存消融"}

MODES = ("serial", "parallel", "ema", "average", "last", "first")  # LoopViz's own


def modes() -> tuple[str, ...]:
    """Every way of keeping the steps' K/V: LoopViz's, and the merges that people have registered; then each of them in 8 bits."""
    exact = (*MODES, *(name for name in MERGES if name not in MODES))
    return (*exact, *(f"{name}-{dtype}" for dtype in KV_DTYPES if dtype != EXACT for name in exact))


def kept_as(mode: str) -> tuple[str, str]:
    """A mode without what it is kept in, and that: `serial-int8` is `serial`, `int8`; a merge that somebody calls so is itself."""
    if mode in MERGES:
        return mode, EXACT
    found = ((mode.removesuffix(f"-{dtype}"), dtype) for dtype in KV_DTYPES if mode.endswith(f"-{dtype}"))
    return next(found, (mode, EXACT))


@dataclass(frozen=True)
class AblationParams(TextParams):
    """Parameters of the task `ablation`."""

    limit_tokens: int = param(2048, "Tokens to predict, at most.", "最多预测的词元数。", low=1, high=MOST_TOKENS)
    loops: tuple[int, ...] = param(
        (),
        "Loop counts (under dynamic_stop: upper bounds); default: the setting's own.",
        "循环次数（dynamic_stop 下为上限）；默认用设置本身的值。",
        low=1,
        high=MOST_LOOPS,
    )
    modes: tuple[str, ...] = param(
        MODES,
        "Ways of keeping the steps' K/V; with -int8 or -fp8 behind, in 8 bits.",
        "保存各步 K/V 的方式；后缀 -int8 或 -fp8 表示以 8 位保存。",
        choices=modes,
    )
    slots: tuple[int, ...] = param(
        (),
        "V for serial and parallel; default: serial 1 to the loop count, parallel the loop count.",
        "serial 与 parallel 的 V；默认 serial 取 1 到循环次数，parallel 取循环次数。",
        low=1,
        high=MOST_LOOPS,
    )
    alphas: tuple[float, ...] = param(
        (0.3, 0.5, 0.7, 0.9), "Weights on the old value for ema.", "ema 中旧值的权重。", low=0, high=1
    )
    loop: dict[str, Any] = param({}, "Loop fields to change.", "要更改的循环设置。", kind="loop")
    draws: int = draws_param()
    seed: int = seed_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("loops", "slots"):
            if getattr(self, name):
                check_counts(name, getattr(self, name))
        if not self.modes or not set(self.modes) <= set(modes()):
            raise FieldError("modes", self.modes, "must_be_some", choices=", ".join(modes()))
        if any(kept_as(mode)[0] == "ema" for mode in self.modes) and not self.alphas:
            raise FieldError("alphas", self.alphas, "ema_needs_alphas")
        check_number("draws", self.draws, 0)


@dataclass(frozen=True)
class _Cell:
    """One row to come: the mode and the loop fields that make it."""

    mode: str
    slots: int | None
    alpha: float | None
    loops: int
    fields: dict[str, Any]


def _steps(model: LoopLlamaForCausalLM) -> int:
    """Most steps any block may run.

    Raises:
        ValueError: nothing loops.
    """
    blocks = model.config.loop_blocks()
    if not blocks:
        raise FieldError("loop_layers", None, "nothing_loops_ablation")
    return max(block.max_steps for block in blocks)


def _plan(subject: Subject, params: AblationParams) -> list[_Cell]:
    """The rows to come, in order."""
    # Only its counts are asked for, and a V that the setting leaves to this task must not stop it.
    base = subject.view({**params.loop, "kv_cache_mode": "merge_strategy"})
    own = _steps(base)
    blocks = base.config.loop_blocks()
    dynamic = any(block.dynamic for block in blocks)
    most = max(block.max_count for block in blocks)
    plan = []
    for n in params.loops or (own,):
        counts: dict[str, Any] = {}
        if params.loops:
            counts = {"max_loop_count": n} if dynamic else {"loop_count": n, "max_loop_count": max(n, most)}
        for mode in params.modes:
            name, dtype = kept_as(mode)
            same = {**counts, "kv_cache_dtype": dtype}
            plan += [_Cell(mode, v, alpha, n, {**same, **fields}) for v, alpha, fields in _variants(name, n, params)]
    return plan


def _plan_size(subject: Subject, params: AblationParams) -> int:
    return len(_plan(subject, params))


def _work(subject: Subject, params: AblationParams) -> Work:
    """Every row a reading through its cache and a whole pass; counted, not listed: there may be very many."""
    base, reach = subject.view({**params.loop, "kv_cache_mode": "merge_strategy"}), params.reach(subject)
    shape, found, rows = subject.shape(base), NOTHING, 0
    for n in params.loops or (_steps(base),):
        for mode in params.modes:
            name, dtype = kept_as(mode)
            variants, slots = _count(name, n, params)
            kept = shape.at(n).keeping(slots, slots if name == "parallel" else 1)
            kept = replace(kept, kv_itemsize=kept_itemsize([dtype], shape.head_dim, shape.itemsize))
            found += reach.cached(kept, fidelity=True).times(variants)
            rows += variants
    return found + reach.text + reach.intervals(rows, params.draws)


def _count(mode: str, n: int, params: AblationParams) -> tuple[int, int]:
    """How many variants of a mode there are at `n` loops, and the most slots one has."""
    if mode == "serial":
        return (len(params.slots), params.slots[-1]) if params.slots else (n, n)
    if mode == "parallel":
        return (len(params.slots), params.slots[-1]) if params.slots else (1, n)
    return len(params.alphas) if mode == "ema" else 1, 1


def _variants(mode: str, n: int, params: AblationParams) -> Iterator[tuple[int | None, float | None, dict[str, Any]]]:
    """V, alpha and loop fields of every variant of a mode at `n` loops."""
    if mode in ("serial", "parallel"):
        for v in params.slots or (range(1, n + 1) if mode == "serial" else (n,)):
            kept = {"kv_cache_mode": "virtual_layers", "virtual_attention_mode": mode, "virtual_layer_count": v}
            yield v, None, kept
        return
    merge = {"kv_cache_mode": "merge_strategy", "merge_strategy": mode}
    for alpha in params.alphas if mode == "ema" else (None,):
        yield None, alpha, merge if alpha is None else {**merge, "merge_ema_alpha": alpha}


def _run(subject: Subject, params: AblationParams) -> Iterator[Row | float]:
    plan, windows = _plan(subject, params), params.windows(subject)
    base = subject.view({**params.loop, "kv_cache_mode": "merge_strategy"})
    progress = Progress(sum(layer_calls(base, cell.loops) for cell in plan) * len(windows))
    for cell in plan:
        row: Row = {column.name: None for column in COLUMNS}
        row |= {"mode": cell.mode, "slots": cell.slots, "alpha": cell.alpha, "loops": cell.loops}
        try:
            view = subject.view({**params.loop, **cell.fields})
            parts = []
            for part in windows.batches(params.batch):
                steps = scoring(view, part.ids, fidelity=True, mask=part.mask)
                parts.append((part, (yield from progress.part(layer_calls(base, cell.loops) * len(part), steps))))
        except ValueError as error:  # what the model does not allow is a result too
            yield {**row, "reason": " ".join(str(error).split())}
            continue
        yield {**row, **_measured(subject, parts, params)}


def _measured(subject: Subject, parts: list[tuple[Windows, CacheScores]], params: AblationParams) -> Row:
    """A row's numbers from its batches of windows."""

    def pick(name: str) -> Tensor:
        return torch.cat([getattr(scores, name)[part.counted] for part, scores in parts]).double()

    nats, full, kl = pick("nats"), pick("full_nats"), pick("kl")
    tokens = torch.cat([part.ids[:, 1:][part.counted] for part, _ in parts])
    gaps = [scores.gaps.masked_fill(~part.counted, 0.0).sum(1).numpy() for part, scores in parts]
    counts = [part.counted.sum(1).numpy() for part, _ in parts]
    low, high = mean_interval(np.concatenate(gaps), np.concatenate(counts), params.draws, params.seed)
    steps = torch.cat([torch.stack([n[part.counted] for n in scores.loops]) for part, scores in parts], dim=1)
    read = sum(scores.nats.numel() for _, scores in parts)
    worst = int(kl.argmax())
    return {
        "mean_loops": float(steps.double().mean()),
        "tokens": len(nats),
        "perplexity": math.exp(float(nats.mean())),
        "full_perplexity": math.exp(float(full.mean())),
        "gap": float((nats - full).mean()),
        "gap_low": low,
        "gap_high": high,
        "kl_mean": float(kl.mean()),
        "kl_worst": float(kl[worst]),
        "worst_token": decode(subject.tokenizer, [int(tokens[worst])]),
        "worst_position": worst + 1,
        "agreement": float(pick("agree").mean()),
        "bytes_per_token": sum(scores.bytes_used for _, scores in parts) / read,
        "tokens_per_second": round(read / sum(scores.seconds for _, scores in parts), 2),
    }


COLUMNS = (
    column("mode", "", "mode: how the steps' K/V are kept", "模式：各步 K/V 的保存方式"),
    column("slots", "", "V: KV slots of a looped layer", "V：循环层的 KV 槽数"),
    column("alpha", "", "alpha: weight on the old value", "α：旧值的权重"),
    column("loops", "steps", "loops: steps, or their upper bound", "循环：步数或其上限"),
    column("mean_loops", "steps", "mean loops: steps that really ran, by token", "平均循环：每个词元实际运行的步数"),
    column("tokens", "tokens", "tokens: how many were predicted", "词元：预测的数量"),
    column("perplexity", "", "perplexity: through the cache, token by token", "困惑度：逐词元经过缓存"),
    column(
        "full_perplexity",
        "",
        "full perplexity: the same configuration in one full pass",
        "完整困惑度：同一配置的一次完整前向",
    ),
    column(
        "gap",
        "nats",
        "gap: loss through the cache less that of the full pass",
        "差距：经过缓存的损失减去完整前向的损失",
    ),
    column(
        "gap_low",
        "nats",
        "gap, low: lower end of its 95 % bootstrap interval over windows; empty under 6 windows, too few to tell",
        "差距下限：其按窗口自助法 95 % 区间的下端；少于 6 个窗口时为空，不足以判断",
    ),
    column("gap_high", "nats", "gap, high: upper end of it", "差距上限：该区间的上端"),
    column("kl_mean", "nats", "fidelity: mean KL(p_full ‖ p_cached)", "保真度：KL(p_full ‖ p_cached) 的平均值"),
    column("kl_worst", "nats", "worst fidelity: the largest KL of a token", "最差保真度：单个词元的最大 KL"),
    column("worst_token", "", "worst token: what was to be predicted there", "最差词元：该处要预测的词元"),
    column(
        "worst_position", "", "worst position: its place in the text, from 0", "最差位置：它在文本中的位置，从 0 起"
    ),
    column(
        "agreement",
        "",
        "agreement: share of tokens with the same likeliest next one",
        "一致率：最可能的下一词元相同的比例",
    ),
    column("bytes_per_token", "bytes", "bytes a token: of K/V, over all layers", "每词元字节：所有层的 K/V"),
    column(
        "tokens_per_second",
        "tokens/s",
        "speed: tokens read a second, all windows of a pass together",
        "速度：每秒读取的词元数，同一前向的所有窗口合计",
    ),
    column("reason", "", "refused: why the model does not allow it", "拒绝：模型不允许的原因"),
)

WORDS = {
    "en": {
        "question": "What does each way of keeping the loops' keys and values cost, and how much of the answer does it keep?",
        "how": (
            "The same text, teacher-forced token by token through each cache, against one full pass of the same "
            "configuration: perplexity of both, KL(p_full ‖ p_cached) on average and at the worst token, bytes a "
            "token, speed. Serial with as many slots as loops forgets nothing: its fidelity is 0 up to rounding, so what it is "
            "in 8 bits (serial-int8, serial-fp8) is what these cost."
        ),
        "cost": "A pass per token of a window, for every row of the table; windows go through side by side.",
        "x": "bytes a token",
        "y": "perplexity through the cache",
        "loops": "loops",
    },
    "zh": {
        "question": "每种保存循环 K/V 的方式代价多大，又保留了多少答案？",
        "how": (
            "同一文本逐词元（教师强制）经过每种缓存，与同一配置的一次完整前向相比：两者的困惑度、KL(p_full ‖ p_cached) "
            "的平均值与最差词元、每词元字节数、速度。serial 的槽数不少于循环次数时不会遗忘：保真度在舍入误差内为 0；"
            "因此以 8 位保存时（serial-int8、serial-fp8）的保真度就是这 8 位的代价。"
        ),
        "cost": "表中每一行：窗口内每个词元一次前向；多个窗口并行。",
        "x": "每词元字节",
        "y": "经过缓存的困惑度",
        "loops": "循环",
    },
}


def plot(table: pd.DataFrame, lang: str = "en") -> go.Figure:
    """Perplexity over bytes a token, a mark a configuration, a colour and symbol a mode."""
    from loopviz.figures.line_styles import line_styles
    from loopviz.figures.table_figures import figure as drawn

    words = WORDS[lang]
    figure = drawn([], x=words["x"], y=words["y"])
    measured = table[table["perplexity"].notna()]
    shown = (*MODES, *(mode for mode in dict.fromkeys(measured["mode"]) if mode not in MODES))
    for mode, style in zip(shown, line_styles(len(shown)), strict=True):
        part = measured[measured["mode"] == mode]
        if part.empty:
            continue
        labels = [_label(row, words) for row in part.to_dict("records")]
        figure.add_scatter(
            x=part["bytes_per_token"].tolist(),
            y=part["perplexity"].tolist(),
            mode="markers",
            name=mode,
            customdata=labels,
            hovertemplate=f"%{{customdata}}<br>{words['x']} %{{x:,}}<br>{words['y']} %{{y:.4g}}<extra></extra>",
            marker={**style["marker"], "color": style["line"]["color"], "size": 9},
        )
    return figure


def _label(row: dict[str, Any], words: dict[str, str]) -> str:
    import pandas as pd

    parts = [str(row["mode"])]
    parts += [f"{name}={row[key]:g}" for key, name in (("slots", "V"), ("alpha", "α")) if pd.notna(row[key])]
    return f"{' '.join(parts)}, {words['loops']} {row['loops']}"


def settings(subject: Subject, row: Row, params: AblationParams) -> dict[str, Any] | None:
    """The loop fields of the model that a row speaks of; None for one that the model refused."""
    if row["reason"] is not None:
        return None
    cells = {(cell.mode, cell.slots, cell.alpha, cell.loops): cell for cell in _plan(subject, params)}
    return {**params.loop, **cells[row["mode"], row["slots"], row["alpha"], row["loops"]].fields}


_HEADLINE = {
    "en": {
        "one": "Perplexity {p} with {bytes} of cache a token ({name}).",
        "both": "{name} is best, and nothing needs less: perplexity {p} with {bytes} of cache a token{as_best}.",
        "trade": "Best: {name}, perplexity {p} with {bytes} of cache a token{as_best}. Least cache: {other}, perplexity {q} with {less}{as_small}.",
    },
    "zh": {
        "one": "困惑度 {p}，每词元缓存 {bytes}（{name}）。",
        "both": "{name} 最好，缓存也最小：困惑度 {p}，每词元缓存 {bytes}{as_best}。",
        "trade": "最好：{name}，困惑度 {p}，每词元缓存 {bytes}{as_best}。缓存最小：{other}，困惑度 {q}，每词元 {less}{as_small}。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The way to remember whose perplexity is best, and the one that needs the least cache."""
    found = known(rows, "perplexity", "bytes_per_token")
    if not found:
        return ""
    best = least(found, lambda row: row["perplexity"], lambda row: row["bytes_per_token"])
    small = least(found, lambda row: row["bytes_per_token"], lambda row: row["perplexity"])
    words, key = WORDS[lang], "one" if len(found) == 1 else "both" if best is small else "trade"
    said = {"name": _label(best, words), "p": number(best["perplexity"]), "bytes": byte_words(best["bytes_per_token"])}
    for end, row in (("best", best), ("small", small)):
        as_small = [one for one in found if same(one["bytes_per_token"], row["bytes_per_token"])]
        said[f"as_{end}"] = tied(as_small, lambda one: one["perplexity"], row, lang)
    said |= {"other": _label(small, words), "q": number(small["perplexity"])}
    return _HEADLINE[lang][key].format(**said, less=byte_words(small["bytes_per_token"]))


# Set anew for every row.
# All of keeping K/V but what fills slots that a word stopped before: where its rows have slots, every word reaches them.
VARIES = tuple(entry.name for entry in FIELDS if entry.dial.group == "kv" and entry.name != "unreached_slots")
# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"limit_tokens": 96, "window": 64, "slots": (1, 2, 4), "alphas": (0.5,)}
ABLATION = register(
    Task(
        NAME,
        AblationParams,
        COLUMNS,
        _plan_size,
        _run,
        titled(TITLE, WORDS),
        plot,
        settings,
        first=FIRST,
        headline=headline,
        asks=("modes",),
        work=_work,
        varies=VARIES,
        intervals=True,
    )
)
