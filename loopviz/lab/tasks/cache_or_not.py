"""Writing with and without a KV cache: the work of each new token, measured and counted, and whether the logits are the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.anatomy import roofline
from loopviz.checks import FieldError, check_one_of, check_whole
from loopviz.engine import context_length
from loopviz.engine.work import NOTHING, Work, decoding, head, one_pass
from loopviz.lab.headline import known, number
from loopviz.lab.reading.one_pass import LayerRuns, PassParams
from loopviz.lab.task import MOST_WINDOW, Row, Subject, Task, column, loop_param, param, register, titled
from loopviz.lab.walk import Walk, until
from loopviz.loop_fields import NO_CHOOSER
from loopviz.model import LoopCache, LoopLlamaForCausalLM

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "cache_or_not", 240
TITLE = {"en": "With and without a KV cache", "zh": "有无 KV 缓存"}


SLOTS = ("each", "own")
ROUNDING = 1e-3  # of the largest logit: less is what another order of sums gives in float32
SUMS = 16  # roundings of a number format with fewer digits, bfloat16 above all, that may add up to more than that


@dataclass(frozen=True)
class CacheParams(PassParams):
    """Parameters of writing with and without a cache."""

    tokens: int = param(
        32, "Tokens of the text that are the prompt, at most.", "用作提示的词元数上限。", low=2, high=MOST_WINDOW
    )
    new_tokens: int = param(64, "Tokens written.", "写出的词元数。", low=2, high=MOST_WINDOW)
    slots: str = param(
        "each",
        "Slots of the cache: each = one for every loop step, so that it holds all that the steps read; own = as the model keeps them.",
        "缓存的槽：each 为每个循环步一个，装得下各步要读的全部内容；own 为模型自己的做法。",
        choices=SLOTS,
    )
    loop: dict[str, Any] | None = loop_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("new_tokens", self.new_tokens, 2)
        check_one_of("slots", self.slots, SLOTS)

    def model(self, subject: Subject) -> LoopLlamaForCausalLM:
        """The model that writes, with as many slots as are asked for.

        With a slot for every step it runs them all, and in each every layer, and rounds nothing that it keeps: else a pass over one
        token might stop, or choose, otherwise than one over the whole text, and the logits would differ by that.
        """
        view = subject.view(self.loop)
        blocks = view.config.loop_blocks()
        if self.slots == "own" or not blocks:
            return view
        steps = [block.max_steps for block in blocks]
        kept = {"kv_cache_mode": "virtual_layers", "virtual_attention_mode": "serial", "kv_cache_dtype": "exact"}
        counts = steps if len(steps) > 1 else steps[0]
        every = {"loop_strategy": "fixed_count", "loop_count": counts, "layer_chooser": NO_CHOOSER}
        return view.with_loop(**kept, **every, virtual_layer_count=counts)

    def check_context(self, subject: Subject) -> None:
        """FieldError where prompt and new tokens are more than the model can read."""
        context = context_length(subject.model)
        if self.new_tokens > context // 2:
            raise FieldError("new_tokens", self.new_tokens, "at_most", high=context // 2)

    def ids(self, subject: Subject) -> Tensor:
        """The prompt; with what is written after it no longer than the context."""
        self.check_context(subject)
        return super().ids(subject)[:, : context_length(subject.model) - self.new_tokens]


def _cells(subject: Subject, params: CacheParams) -> int:
    return params.new_tokens


def _work(subject: Subject, params: CacheParams) -> Work:
    params.check_context(subject)
    shape, prompt = subject.shape(params.model(subject)), params.expected(subject)
    new = params.new_tokens - 1
    with_cache = one_pass(shape, prompt) + head(shape, 1) + decoding(shape, new, past=prompt)
    anew = [one_pass(shape, prompt + n, cached=False, masked=True) + head(shape, 1) for n in (0, new / 2, new)]
    longest = anew[2].times(0.0)  # what is held, of the longest of them
    return with_cache + (anew[1].times(params.new_tokens) if new else NOTHING) + longest


@torch.no_grad()
def _run(subject: Subject, params: CacheParams) -> Iterator[Row | None]:
    ids = params.ids(subject)
    runs = LayerRuns(params.model(subject))
    view, config, itemsize = runs.view, subject.model.config, subject.model.dtype.itemsize
    cache = LoopCache(view.config)
    rounding = max(ROUNDING, SUMS * torch.finfo(view.dtype).eps)
    fixed = not any(block.dynamic or block.chosen for block in view.config.loop_blocks())
    step, past = ids, 0
    yield None
    for n in range(1, params.new_tokens + 1):
        kept, kept_ms = _timed(view, step, past_key_values=cache, use_cache=True)
        kept_ran = runs.take()
        anew, anew_ms = _timed(view, ids, use_cache=False)
        anew_ran = runs.take()
        logits, other = kept.double(), anew.double()
        with_flops, without_flops = (
            roofline.pass_of(config, itemsize, tokens=read, past=before, layer_runs=ran.layers, key_runs=ran.keys).flops
            for read, before, ran in ((step.shape[1], past, kept_ran), (ids.shape[1], 0, anew_ran))
        )
        yield {
            "n": n,
            "context": ids.shape[1],
            "with_runs": kept_ran.tokens,
            "without_runs": anew_ran.tokens,
            "with_gflops": with_flops / 1e9,
            "without_gflops": without_flops / 1e9,
            "with_ms": kept_ms,
            "without_ms": anew_ms,
            "delta": float((logits - other).abs().max()),
            "largest": float(other.abs().max()),
            "rounding": rounding,
            "same": bool(logits.argmax() == other.argmax()),
            "fixed": fixed,
        }
        past, step = ids.shape[1], logits.argmax(-1, keepdim=True).to(ids.device)
        ids = torch.cat((ids, step), dim=1)


def _timed(model: LoopLlamaForCausalLM, ids: Tensor, **how: Any) -> tuple[Tensor, float]:
    """The last token's logits `[1, vocab]`, and the milliseconds of the pass with its head."""
    started = time.perf_counter()
    logits = model.lm_head(model.model(ids, **how).last_hidden_state[:, -1])
    if logits.is_cuda:
        torch.cuda.synchronize(logits.device)
    return logits, 1e3 * (time.perf_counter() - started)


COLUMNS = tuple(
    column(*told)
    for told in (
        ("n", "", "New token: the first is chosen after the prompt", "新词元：第 1 个紧接提示之后"),
        ("context", "tokens", "Tokens: before it", "之前的词元数"),
        ("with_runs", "", "With cache, runs: of a layer, a token each", "有缓存时的层运行：每个词元经过一层算一次"),
        ("without_runs", "", "Without, runs: of a layer, a token each", "无缓存时的层运行：每个词元经过一层算一次"),
        ("with_gflops", "", "With cache, GFLOP: operations, by arithmetic; at most, where a step reads several slots", "有缓存时的运算量：十亿次（GFLOP），由算术得出；一步读多个槽时为上限"),
        ("without_gflops", "", "Without, GFLOP: operations, by arithmetic; at most, where a step reads several slots", "无缓存时的运算量：十亿次（GFLOP），由算术得出；一步读多个槽时为上限"),
        ("with_ms", "ms", "With cache, time: of the pass and its head, timed once", "有缓存时的用时：前向与输出层，计时一次"),
        ("without_ms", "ms", "Without, time: of the pass and its head, timed once", "无缓存时的用时：前向与输出层，计时一次"),
        ("delta", "", "Apart: the largest difference of two logits", "相差：两者分数（logit）的最大差"),
        ("largest", "", "Of up to: the largest logit", "量级：最大的分数（logit）"),
        ("rounding", "", "Rounding: share of the largest logit that another order of sums may take in these numbers", "舍入：在这种数字格式下，求和次序不同可造成的差异，占最大分数的比例"),
        ("same", "", "Same word: whether both choose it", "同一个词：两者是否选同一个"),
        ("fixed", "", "Fixed: whether a step's number and its layers are the same for any text", "固定：步数和每步的层是否与文本无关"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "What does a model save that remembers what it has read, and does it still say the same?",
        "how": "The model writes greedily after the beginning of the text. For each new token the pass that reads one token "
        "and the cache is held against a pass that reads everything anew: runs of a layer are counted as they happen, "
        "operations follow from them by arithmetic, each pass with its head is timed once. The cache has a slot for every loop "
        "step, and the loop runs all its steps and layers, however soon the model would stop; unless the model's own slots are "
        "asked for. A text's end mark does not end it.",
        "cost": "With the cache a token a pass; without it, all tokens so far, each time.",
        "seen": "With the cache every new token costs nearly the same, for only attention grows; without it each costs more than the one before, for the same "
        "logits.",
        "why": "An earlier token cannot see a later one, so its keys and values never change: reading them again gives what "
        "the cache already holds.",
        "looping": "A loop runs its layers several times a token, so it repeats as many times as much without a cache; but only "
        "with a slot for each step does the cache hold all that the steps would read.",
    },
    "zh": {
        "question": "记得读过内容的模型省下了什么？它说的还一样吗？",
        "how": "模型在文本开头之后贪心地往下写。对每个新词元，把只读一个词元加缓存的前向，与从头读全部内容的前向相比："
        "层的运行次数是实际数出来的，运算量由此算出，每次前向连同输出层计时一次。除非要求用模型自己的槽，缓存为每个循环步各留一个槽，"
        "并且循环跑完全部步和层，不管模型自己会多早停下。遇到文本结束标记也继续写。",
        "cost": "有缓存时每个词元一次单词元前向；没有缓存时每次都要读到目前为止的全部词元。",
        "seen": "有缓存时每个新词元代价几乎相同，只有注意力在增长；没有缓存时一个比一个贵，而得到的分数相同。",
        "why": "先前的词元看不到后来的词元，所以它的键和值永远不变：再读一遍只是重新得到缓存里已有的东西。",
        "looping": "循环让每个词元多次经过同样的层，没有缓存时重复的工作也成倍增加；但只有每一步都有自己的槽，缓存才装得下各步要读的全部内容。",
    },
}

_PLOT = {
    "en": {"x": "new token", "y": "GFLOP for it", "with": "with the cache", "without": "without"},
    "zh": {"x": "第几个新词元", "y": "为它所做的运算（GFLOP）", "with": "有缓存", "without": "无缓存"},
}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Operations for each new token, both ways; the time it took when one points at it."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, lines = _PLOT[lang], []
    for i, way in enumerate(("with", "without")):
        lines.append(
            go.Scatter(
                x=table["n"].tolist(),
                y=table[f"{way}_gflops"].tolist(),
                customdata=table[f"{way}_ms"].tolist(),
                name=words[way],
                mode="lines+markers" if len(table) <= 32 else "lines",
                hovertemplate=f"{words[way]}<br>%{{x}}: %{{y:.3g}} GFLOP, %{{customdata:.3g}} ms<extra></extra>",
                **table_figures.series(i),
            )
        )
    axis = {"rangemode": "tozero"}
    return table_figures.figure(lines, x=words["x"], y=words["y"], xaxis={"tickformat": "d"}, yaxis=axis)


_HEADLINE = {
    "en": {
        "work": "For new token {n} the cache leaves {few} runs of a layer instead of {many}, and {fast} instead of {slow} ms, timed once.",
        "equal": " The logits are the same.",
        "same": " The logits are the same but for {delta} of up to {largest}.",
        "other": " The logits are not the same ({delta} apart of up to {largest}): this cache does not keep all that its steps read.",
        "either": " The logits are not the same ({delta} apart of up to {largest}): either the cache's slots do not keep all that its "
        "steps read, or the loop stopped after other steps or ran other layers.",
    },
    "zh": {
        "work": "第 {n} 个新词元：有缓存时层只需运行 {few} 次，否则要 {many} 次；用时 {fast} 毫秒对 {slow} 毫秒（计时一次）。",
        "equal": "两者的分数完全相同。",
        "same": "两者的分数相同，最多只差 {delta}（分数最大 {largest}）。",
        "other": "两者的分数不同（最多差 {delta}，分数最大 {largest}）：这种缓存没有保留各步要读的全部内容。",
        "either": "两者的分数不同（最多差 {delta}，分数最大 {largest}）：要么缓存的槽没有保留各步要读的全部内容，要么循环停在了别的步数或运行了别的层。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The last new token's work, and whether the logits are the same over all of them."""
    found = known(rows, "delta", "largest", "rounding", "with_ms", "without_ms")
    if not found:
        return ""
    last, worst = found[-1], max(found, key=lambda row: row["delta"] / max(row["rounding"] * row["largest"], 1e-30))
    words = _HEADLINE[lang]
    said = words["work"].format(
        n=last["n"],
        few=number(last["with_runs"]),
        many=number(last["without_runs"]),
        fast=number(last["with_ms"]),
        slow=number(last["without_ms"]),
    )
    other = "other" if worst["fixed"] else "either"
    key = "equal" if not worst["delta"] else "same" if worst["delta"] <= worst["rounding"] * worst["largest"] else other
    apart = {"delta": number(worst["delta"]), "largest": number(worst["largest"])}
    return said + words[key].format(**apart)


FIRST = {"tokens": 32, "new_tokens": 24}
register(
    Task(
        NAME,
        CacheParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        fits=("new_tokens",),
        work=_work,
        headline=headline,
        walk=Walk("n", {"en": "New token", "zh": "新词元"}, lambda row: row["n"], headline, until),
        asks=("new_tokens", "slots"),
        group="anatomy",
    )
)
