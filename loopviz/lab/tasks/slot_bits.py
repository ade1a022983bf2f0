"""Which loop's keys and values bear fewer bits: each loop's slot rounded alone, the others as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from loopviz.checks import FieldError, check_number, check_whole
from loopviz.engine.work import NOTHING, Work
from loopviz.lab.headline import known, number, same, tied
from loopviz.lab.reading.intervals import draws_param, mean_interval, seed_param
from loopviz.lab.reading.windows import TextParams, Windows
from loopviz.lab.task import MOST_LOOPS, MOST_TOKENS, Row, Subject, Task, column, param, register, titled
from loopviz.loop_fields import ATTENTION_MODES, EXACT
from loopviz.model import LoopCache, LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.choosers import NO_CHOOSER
from loopviz.model.kept_kv import ROUNDINGS, as_kept
from loopviz.trace import metrics

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "slot_bits", 32
TITLE = {"en": "Bits by slot", "zh": "各槽位的位数"}


@dataclass(frozen=True)
class SlotBitsParams(TextParams):
    """Parameters of the task `slot_bits`."""

    limit_tokens: int = param(512, "Tokens to predict, at most.", "最多预测的词元数。", low=1, high=MOST_TOKENS)
    loops: int = param(
        0,
        "Loops, each with a slot of its own; 0: the setting's own (under dynamic_stop its upper bound).",
        "循环次数，每次循环各有一个槽位；0 表示用设置本身的值（dynamic_stop 下为其上限）。",
        low=0,
        high=MOST_LOOPS,
    )
    dtypes: tuple[str, ...] = param(
        ROUNDINGS,
        "What a slot's K/V are rounded to, by token and head.",
        "把一个槽位的 K/V 按词元和头舍入到什么。",
        choices=ROUNDINGS,
    )
    modes: tuple[str, ...] = param(
        ("serial",), "Which slots a step attends to.", "每一步关注哪些槽位。", choices=ATTENTION_MODES
    )
    loop: dict[str, Any] = param({}, "Loop fields to change.", "要更改的循环设置。", kind="loop")
    draws: int = draws_param()
    seed: int = seed_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("loops", self.loops, 0)
        check_number("draws", self.draws, 0)
        for name, choices in (("dtypes", ROUNDINGS), ("modes", ATTENTION_MODES)):
            value = getattr(self, name)
            if not value or not set(value) <= set(choices):
                raise FieldError(name, value, "must_be_some", choices=", ".join(choices))

    def steps(self, subject: Subject) -> int:
        """Loops that are run.

        Raises:
            FieldError: nothing loops.
        """
        # Only its counts are asked for, and a V that the setting leaves to this task must not stop it.
        blocks = subject.view({**self.loop, "kv_cache_mode": "merge_strategy"}).config.loop_blocks()
        if not blocks:
            raise FieldError("loop_layers", None, "nothing_loops_ablation")
        return self.loops or max(block.max_steps for block in blocks)

    def view(self, subject: Subject, mode: str) -> LoopLlamaForCausalLM:
        """The model with a slot a loop, all of it exact."""
        n = self.steps(subject)
        fixed = {"loop_strategy": "fixed_count", "loop_count": n, "max_loop_count": n, "layer_chooser": NO_CHOOSER}
        kept = {"kv_cache_mode": "virtual_layers", "virtual_attention_mode": mode, "virtual_layer_count": n}
        return subject.view({**self.loop, **fixed, **kept, "kv_cache_dtype": EXACT})


class SlotRounded(LoopCache):
    """A cache in which the K/V of one slot of the looped layers are rounded as they are written, though held in full.

    Args:
        config: of the model it is for; its `kv_cache_dtype` is "exact".
        slot: which, from 0; `None`: all of them.
        dtype: to what, one of :data:`~loopviz.model.kept_kv.ROUNDINGS`.
    """

    def __init__(self, config: LoopLlamaConfig, slot: int | None, dtype: str) -> None:
        super().__init__(config)
        self.rounded_slot, self.rounded_to = slot, dtype

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        layer: Any = self.layers[layer_idx]
        if layer.block is not None and self.rounded_slot in (None, layer.slot):
            k, v = as_kept(k, self.rounded_to), as_kept(v, self.rounded_to)
        return super().update(k, v, layer_idx, *args, **kwargs)


def last_states(model: LoopLlamaForCausalLM, ids: Tensor, cache: LoopCache) -> Iterator[Tensor]:
    """The last hidden states `[B, H]` of windows `[B, T]`, token by token through a cache."""
    ids = ids.to(model.device)
    for t in range(ids.shape[1]):
        with torch.no_grad():  # not held while the consumer works
            made = model.model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        yield made.last_hidden_state[:, 0]


def _cells(subject: Subject, params: SlotBitsParams) -> int:
    return len(params.modes) * len(params.dtypes) * (params.steps(subject) + 1)


def _work(subject: Subject, params: SlotBitsParams) -> Work:
    """A reading of the text for every row, and one without rounding; the states of that are kept."""
    reach, n, found = params.reach(subject), params.steps(subject), NOTHING
    for mode in params.modes:
        shape = subject.shape(params.view(subject, mode))
        each = reach.cached(shape) + reach.heads(shape, 1)
        found += each.times(len(params.dtypes) * (n + 1)) + reach.cached(shape)
        found += Work(kept=reach.windows * reach.length * shape.hidden * shape.itemsize)
    return found + reach.text + reach.intervals(_cells(subject, params), params.draws)


def _run(subject: Subject, params: SlotBitsParams) -> Iterator[Row | float]:
    parts, n = list(params.windows(subject).batches(params.batch)), params.steps(subject)
    readings = len(params.modes) * (1 + len(params.dtypes) * (n + 1))
    whole, done = readings * sum(part.ids.shape[1] - 1 for part in parts), 0
    for mode in params.modes:
        view = params.view(subject, mode)
        exact: list[list[Tensor]] = []
        for part in parts:
            exact.append([])
            for state in last_states(view, part.ids[:, :-1], LoopCache(view.config)):
                exact[-1].append(state)
                done += 1
                yield done / whole
        for dtype in params.dtypes:
            for slot in (None, *range(n)):
                kls, agree = [], []
                for part, kept in zip(parts, exact, strict=True):
                    cache, apart = SlotRounded(view.config, slot, dtype), []
                    for t, state in enumerate(last_states(view, part.ids[:, :-1], cache)):
                        apart.append(_apart(view, kept[t], state))
                        done += 1
                        yield done / whole
                    kls.append(torch.stack([kl for kl, _ in apart], dim=1))
                    agree.append(torch.stack([likeliest for _, likeliest in apart], dim=1))
                row = _measured(parts, kls, agree, params)
                yield {"mode": mode, "dtype": dtype, "loop": None if slot is None else slot + 1, "loops": n, **row}


@torch.no_grad()
def _apart(view: LoopLlamaForCausalLM, exact: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p_exact || p_rounded) `[B]` of two states of the same tokens, float64, and whether both name the same token."""
    log_p, log_q = (metrics.log_probs(view.lm_head(state)) for state in (exact, rounded))
    return metrics.kl(log_p, log_q).double().cpu(), (log_p.argmax(-1) == log_q.argmax(-1)).cpu()


def _measured(parts: list[Windows], kls: list[Tensor], agree: list[Tensor], params: SlotBitsParams) -> Row:
    kl, likeliest = (torch.cat([x[part.counted] for part, x in zip(parts, xs, strict=True)]) for xs in (kls, agree))
    sums = [x.masked_fill(~part.counted, 0.0).sum(1).numpy() for part, x in zip(parts, kls, strict=True)]
    counts = [part.counted.sum(1).numpy() for part in parts]
    low, high = mean_interval(np.concatenate(sums), np.concatenate(counts), params.draws, params.seed)
    return {
        "tokens": len(kl),
        "kl_mean": float(kl.mean()),
        "kl_low": low,
        "kl_high": high,
        "kl_worst": float(kl.max()),
        "agreement": float(likeliest.double().mean()),
    }


COLUMNS = tuple(
    column(*told)
    for told in (
        ("mode", "", "mode: which slots a step attends to", "模式：每一步关注哪些槽位"),
        ("dtype", "", "dtype: what the slot's K/V are rounded to, by token and head", "精度：该槽位的 K/V 按词元和头舍入到什么"),
        ("loop", "", "loop: whose K/V are rounded, from 1; empty: those of all loops", "循环：舍入哪次循环的 K/V，从 1 起；空表示全部循环"),
        ("loops", "steps", "loops: that are run, each with a slot of its own", "循环次数：每次循环各有一个槽位"),
        ("tokens", "tokens", "tokens: how many were predicted", "词元：预测的数量"),
        ("kl_mean", "nats", "KL: mean KL(p_exact ‖ p_rounded), both token by token through the cache", "KL：KL(p_exact ‖ p_rounded) 的平均值，两者都逐词元经过缓存"),
        ("kl_low", "nats", "KL, low: lower end of its 95 % bootstrap interval over windows; empty under 6 windows, too few to tell", "KL 下限：其按窗口自助法 95 % 区间的下端；少于 6 个窗口时为空，不足以判断"),
        ("kl_high", "nats", "KL, high: upper end of it", "KL 上限：该区间的上端"),
        ("kl_worst", "nats", "worst KL: the largest of a token", "最差 KL：单个词元的最大值"),
        ("agreement", "", "agreement: share of tokens with the same likeliest next one", "一致率：最可能的下一词元相同的比例"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "Do the keys and values of late loops bear fewer bits than those of the first?",
        "how": (
            "Every loop has a slot of its own. The same text, teacher-forced token by token through the cache: once as it is, then with "
            "the keys and values of one loop rounded as they are written (one scale for each token and head), the others as they are. "
            "KL(p_exact ‖ p_rounded) says what the rounding of that loop does to the prediction; a row without a loop rounds all of "
            "them. Only looped layers are rounded. int8 and fp8 are what kv_cache_dtype keeps; int4 is computed with, and kept by no cache here."
        ),
        "cost": "A pass per token of a window, for every row of the table; windows go through side by side.",
    },
    "zh": {
        "question": "靠后的循环的键和值，是否比第一次循环的更能承受较少的位数？",
        "how": (
            "每次循环各有一个槽位。同一文本逐词元（教师强制）经过缓存：一次按原样，之后每次只把某一次循环的键和值在写入时舍入"
            "（每个词元、每个头一个缩放系数），其余按原样。KL(p_exact ‖ p_rounded) 说明舍入该循环对预测的影响；没有循环号的行舍入全部循环。"
            "只舍入循环层。int8 与 fp8 就是 kv_cache_dtype 保存的；int4 只用来计算，这里没有缓存以它保存。"
        ),
        "cost": "表中每一行：窗口内每个词元一次前向；多个窗口并行。",
    },
}

_PLOT = {
    "en": {"x": "loop whose keys and values are rounded", "y": "KL(p_exact ‖ p_rounded), nats", "all": "all loops"},
    "zh": {"x": "舍入其键和值的循环", "y": "KL(p_exact ‖ p_rounded)，奈特", "all": "全部循环"},
}


def plot(table: pd.DataFrame, lang: str = "en") -> go.Figure:
    """KL by the loop that is rounded, a line for each way of rounding and mode."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, lines = _PLOT[lang], []
    each = table[table["loop"].notna()]
    several = each["mode"].nunique() > 1
    for index, ((mode, dtype), part) in enumerate(each.groupby(["mode", "dtype"], sort=False)):
        bars = table_figures.arms(part["kl_mean"], part["kl_low"], part["kl_high"])
        lines.append(
            go.Scatter(
                x=part["loop"].tolist(),
                y=part["kl_mean"].tolist(),
                error_y=bars,
                mode="lines+markers",
                name=f"{dtype}, {mode}" if several else dtype,
                hovertemplate="%{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
                **table_figures.series(index),
            )
        )
    # a logarithm where there is one to show: 4 bits and 8 are orders of magnitude apart
    scale = {"type": "log", "exponentformat": "power"} if len(each) and (each["kl_mean"] > 0).all() else {}
    whole = {"tickformat": "d", **({"dtick": 1} if len(each) and int(each["loop"].max()) <= 20 else {})}
    return table_figures.figure(lines, x=words["x"], y=words["y"], xaxis=whole, yaxis=scale, showlegend=True)


_HEADLINE = {
    "en": {
        "both": "Rounded to {dtype}, loop {high} costs most: KL {most}{as_high}. Loop {low} least: {least}{as_low}.",
        "same": "Rounded to {dtype}, every loop costs the same: KL {least}.",
        "one": "Rounded to {dtype}, loop {low} costs KL {least}.",
    },
    "zh": {
        "both": "舍入到 {dtype} 时，第 {high} 次循环代价最大：KL {most}{as_high}。第 {low} 次最小：{least}{as_low}。",
        "same": "舍入到 {dtype} 时，每次循环代价相同：KL {least}。",
        "one": "舍入到 {dtype} 时，第 {low} 次循环的代价：KL {least}。",
    },
}
_FEWEST = ("int4", "int8", "fp8")  # what tells most of the loops first


def _kl(row: Row) -> float:
    return float(row["kl_mean"])


def headline(rows: Sequence[Row], lang: str) -> str:
    """Which loop's K/V bear rounding worst, and which best, where fewest bits are left; of the first mode there is."""
    found = known(rows, "kl_mean", "loop")
    if not found:
        return ""
    found = [row for row in found if row["mode"] == found[0]["mode"]]
    dtype = min((row["dtype"] for row in found), key=_FEWEST.index)
    found = [row for row in found if row["dtype"] == dtype]
    low, high = (choose(found, key=_kl) for choose in (min, max))
    key = "one" if len(found) == 1 else "same" if same(_kl(low), _kl(high)) else "both"
    said = {
        "dtype": dtype,
        "low": low["loop"],
        "high": high["loop"],
        "least": number(_kl(low)),
        "most": number(_kl(high)),
    }
    said |= {f"as_{end}": tied(found, _kl, row, lang) for end, row in (("low", low), ("high", high))}
    return _HEADLINE[lang][key].format(**said)


# Set anew for every row.
VARIES = (
    "loop_strategy",
    "loop_count",
    "max_loop_count",
    "layer_chooser",
    "kv_cache_mode",
    "virtual_attention_mode",
    "virtual_layer_count",
    "kv_cache_dtype",
)
# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"limit_tokens": 64, "window": 32, "loops": 4}
SLOT_BITS = register(
    Task(
        NAME,
        SlotBitsParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        headline=headline,
        asks=("dtypes",),
        work=_work,
        varies=VARIES,
        intervals=True,
    )
)
