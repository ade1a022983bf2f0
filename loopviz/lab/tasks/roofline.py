"""Why decoding is bound by reading weights: this machine's two limits, and what the model's passes reach under them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from loopviz.anatomy import roofline
from loopviz.checks import ABSENT, FieldError, check_counts, check_whole
from loopviz.engine.work import NOTHING, Work, head, one_pass
from loopviz.lab.headline import byte_words, known, number
from loopviz.lab.reading.one_pass import LayerRuns, PassParams
from loopviz.lab.task import MOST_WINDOW, Row, Subject, Task, column, loop_param, param, register, titled
from loopviz.lab.walk import Walk
from loopviz.model import LoopCache

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "roofline", 250
TITLE = {"en": "Why writing waits for memory", "zh": "写作为何在等内存"}

MACHINE_SECONDS = 1.0  # to measure the machine, the first time


@dataclass(frozen=True)
class RooflineParams(PassParams):
    """Parameters of the roofline."""

    tokens: int = param(
        256, "Tokens of the text that are used, at most.", "最多使用的词元数。", low=2, high=MOST_WINDOW
    )
    past: int = param(
        32,
        "Tokens that have been read before each pass, where the text has so many.",
        "每次前向之前已读入的词元数（文本够长时）。",
        low=1,
        high=MOST_WINDOW,
    )
    at_once: tuple[int, ...] = param(
        (1, 2, 4, 8, 16, 32, 64, 128),
        "Tokens read at once: 1 is a decode, many are a prompt. What the text or the model cannot hold is left out.",
        "一次读入的词元数：1 为逐词生成，多个即读提示。超出文本或模型长度的略去。",
        low=1,
        high=MOST_WINDOW,
    )
    tries: int = param(
        3, "Times each pass is timed; the quickest counts.", "每种前向计时的次数，取最快。", low=1, high=100
    )
    loop: dict[str, Any] | None = loop_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("at_once", self.at_once)
        check_whole("past", self.past, 1)
        check_whole("tries", self.tries, 1)

    def sizes(self, tokens: int) -> tuple[int, tuple[int, ...]]:
        """Of a text of so many tokens: how many are read before, and the passes that fit after them."""
        past = min(self.past, tokens - 1)
        return past, tuple(count for count in self.at_once if past + count <= tokens)


def _cells(subject: Subject, params: RooflineParams) -> int:
    return len(params.sizes(params.ids(subject).shape[1])[1])


def _work(subject: Subject, params: RooflineParams) -> Work:
    shape = subject.shape(subject.view(params.loop))
    past, sizes = params.sizes(params.expected(subject))
    passes = [one_pass(shape, count, past=past) + head(shape, 1) for count in sizes]
    found = one_pass(shape, past) + sum((one.times(params.tries) for one in passes), NOTHING)
    held = roofline.measuring_bytes(subject.model.device.type, subject.model.dtype.itemsize)
    return found + Work(python=MACHINE_SECONDS, states=held)


@torch.no_grad()
def _run(subject: Subject, params: RooflineParams) -> Iterator[Row | None]:
    ids = params.ids(subject)
    past, sizes = params.sizes(ids.shape[1])
    if not sizes:
        raise FieldError("text", ABSENT, "text_too_short", n=ids.shape[1])
    runs = LayerRuns(subject.view(params.loop))
    model, view = subject.model, runs.view
    machine = roofline.measure(model.device.type, model.dtype)
    yield None
    before = LoopCache(view.config)
    view.model(ids[:, :past], past_key_values=before, use_cache=True)
    for count in sizes:
        seconds = []
        for _ in range(params.tries):
            cache = copy.deepcopy(before)
            runs.take()
            started = time.perf_counter()
            made = view.model(ids[:, past : past + count], past_key_values=cache, use_cache=True)
            view.lm_head(made.last_hidden_state[:, -1:])
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            seconds.append(time.perf_counter() - started)
        ran = runs.take()
        asked = roofline.pass_of(
            model.config,
            model.dtype.itemsize,
            tokens=count,
            past=past,
            layer_runs=ran.layers,
            key_runs=ran.keys,
            kv_itemsize=subject.shape(view).kv_itemsize,
        )
        yield {
            "at_once": count,
            "past": past,
            "layer_runs": ran.layers,
            "bytes": asked.bytes,
            "gflop": asked.flops / 1e9,
            "intensity": asked.intensity,
            "bound": asked.bound(machine),
            "least_ms": 1e3 * asked.seconds(machine),
            "ms": 1e3 * min(seconds),
            "ms_each": 1e3 * min(seconds) / count,
            "gflops": asked.flops / min(seconds) / 1e9,
            "balance": machine.balance,
            "machine_bytes": machine.bytes_per_second,
            "machine_gflops": machine.flops_per_second / 1e9,
        }


COLUMNS = tuple(
    column(*told)
    for told in (
        ("at_once", "tokens", "At once: tokens that a pass reads", "一次读入：一次前向读的词元数"),
        ("past", "tokens", "Before: tokens whose keys and values it reads", "之前：要读其键和值的词元数"),
        ("layer_runs", "", "Layer runs: in the pass, loops counted", "层运行次数：一次前向中，循环计入"),
        ("bytes", "bytes", "Reads: weights, keys and values, by arithmetic; at most, where a step reads several slots", "读取：权重、键和值，由算术得出；一步读多个槽时为上限"),
        ("gflop", "", "GFLOP: operations, by arithmetic; at most, where a step reads several slots", "运算量：十亿次（GFLOP），由算术得出；一步读多个槽时为上限"),
        ("intensity", "", "Per byte: operations for each byte", "每字节：每读一字节所做的运算次数"),
        ("bound", "", "What bounds it, by arithmetic: memory or operations (arithmetic)", "由算术得出的瓶颈：内存（memory）或运算（arithmetic）"),
        ("least_ms", "ms", "At least: time that the slower limit takes, if nothing stays in the processor's cache", "至少：较慢的那个极限所需的时间（若处理器缓存中什么都不留）"),
        ("ms", "ms", "Took: measured, the quickest of the tries", "用时：测得，取最快的一次"),
        ("ms_each", "ms", "Each token: of that", "每个词元：其中分摊的时间"),
        ("gflops", "", "GFLOP/s: reached", "每秒运算量：达到的（GFLOP/s）"),
        ("balance", "", "Balance: operations a byte at which both limits take as long", "平衡点：两个极限耗时相同时的每字节运算次数"),
        ("machine_bytes", "", "Machine, bytes: read in a second, measured", "机器读取：每秒字节数，测得"),
        ("machine_gflops", "", "Machine, GFLOP/s: of large matrices, measured", "机器运算：大矩阵每秒运算量，测得（GFLOP/s）"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "Why does one new word take nearly as long as reading many?",
        "how": "This machine is measured once: bytes that it reads in a second, and operations of a product of large matrices. "
        "Passes of the loaded model read some tokens at once, after others in the cache: bytes and operations follow from its "
        "shape and from the runs of layers as they are counted, the time is measured. The roof is the slower of the two limits "
        "(Williams, Waterman, Patterson 2009). A model that fits into the processor's own cache may go above the slope.",
        "cost": "Some passes, and a second to measure the machine the first time.",
        "seen": "One token alone stands far to the left, where the roof slopes; the more tokens a pass reads, the further "
        "right and up it goes.",
        "why": "A pass reads every weight once, whether for one token or for a hundred, and one token gives each weight a "
        "single multiplication to do.",
        "looping": "Each loop reads its weights again, so a looped word costs as many readings as a deeper model's; its few "
        "weights are its chance, if they stay in the processor's cache.",
    },
    "zh": {
        "question": "为什么写一个新词几乎与读许多词一样久？",
        "how": "本机只测一次：每秒能读多少字节，大矩阵相乘每秒能做多少次运算。所载入的模型在缓存中已有一些词元之后，一次读入若干词元："
        "字节数和运算次数由模型形状和实际数出的层运行次数得出，用时是测得的。屋顶是两个极限中较慢的一个（Williams、Waterman、Patterson 2009）。"
        "若模型能放进处理器自己的缓存，点可能高于斜坡。",
        "cost": "若干次前向；第一次另需一秒测量本机。",
        "seen": "单个词元在最左边，屋顶倾斜的地方；一次读入的词元越多，点就越往右上走。",
        "why": "一次前向要把每个权重读一遍，无论是为一个词元还是一百个；而只有一个词元时，每个权重只做一次乘法。",
        "looping": "每次循环都要再读一遍权重，所以循环的一个词与更深的模型读得一样多；它的机会在于权重很少，若能留在处理器的缓存里。",
    },
}

_PLOT = {
    "en": {"x": "operations for each byte that is read", "y": "GFLOP/s", "roof": "this machine's roof", "reached": "reached by a pass",
           "point": "{n} at once"},
    "zh": {"x": "每读一字节所做的运算次数", "y": "每秒运算量（GFLOP/s）", "roof": "本机的屋顶", "reached": "一次前向达到的",
           "point": "一次 {n} 个"},
}  # fmt: skip


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """The roof of this machine, and each pass under it."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, rows = _PLOT[lang], table.to_dict("records")
    balance, top, slope = rows[0]["balance"], rows[0]["machine_gflops"], rows[0]["machine_bytes"] / 1e9
    x = [row["intensity"] for row in rows]
    ends = sorted({min(*x, balance) / 2, balance, max(*x, balance) * 2})
    roof = go.Scatter(
        x=ends,
        y=[min(top, slope * at) for at in ends],
        mode="lines",
        name=words["roof"],
        hovertemplate=f"{words['roof']}<br>%{{y:.3g}} GFLOP/s<extra></extra>",
        line={**table_figures.series(5)["line"], "dash": "solid"},
    )
    reached = go.Scatter(
        x=x,
        y=[row["gflops"] for row in rows],
        text=[words["point"].format(n=row["at_once"]) for row in rows],
        customdata=[row["ms_each"] for row in rows],
        mode="lines+markers",
        name=words["reached"],
        hovertemplate="%{text}<br>%{y:.3g} GFLOP/s, %{customdata:.3g} ms<extra></extra>",
        **table_figures.series(0),
    )
    log = {"type": "log"}
    return table_figures.figure([roof, reached], x=words["x"], y=words["y"], xaxis=log, yaxis=log)


_HEADLINE = {
    "en": {
        "machine": "This machine reads {bytes} and makes {gflops} GFLOP in a second: work with fewer than {balance} operations a "
        "byte waits for memory, unless what it reads stays in the processor's cache.",
        "memory": " {n} at once: {intensity} a byte, by arithmetic memory is the limit; {ms} ms each.",
        "arithmetic": " {n} at once: {intensity} a byte, by arithmetic the operations are the limit; {ms} ms each.",
    },
    "zh": {
        "machine": "本机每秒读 {bytes}，做 {gflops} GFLOP：每字节运算少于 {balance} 次的工作要等内存，除非所读的留在处理器缓存里。",
        "memory": "一次 {n} 个词元：每字节 {intensity} 次，按算术受限于内存；每个 {ms} 毫秒。",
        "arithmetic": "一次 {n} 个词元：每字节 {intensity} 次，按算术受限于运算；每个 {ms} 毫秒。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The machine, and the fewest and the most tokens at once."""
    found, words = known(rows, "intensity", "ms_each", "balance"), _HEADLINE[lang]
    if not found:
        return ""
    one = found[0]
    said = words["machine"].format(
        bytes=byte_words(one["machine_bytes"]), gflops=number(one["machine_gflops"]), balance=number(one["balance"])
    )
    for row in [one, *found[-1:]][: len(found)]:
        said += words[row["bound"]].format(
            n=row["at_once"], intensity=number(row["intensity"]), ms=number(row["ms_each"])
        )
    return said


FIRST = {"tokens": 192}
register(
    Task(
        NAME,
        RooflineParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        fits=("tokens",),
        work=_work,
        headline=headline,
        walk=Walk(
            "at_once", {"en": "Tokens at once", "zh": "一次读入的词元数"}, lambda row: row["intensity"], headline
        ),
        asks=("past",),
        group="anatomy",
    )
)
