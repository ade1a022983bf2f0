"""The manual's experiment: a model without its loop against configurations with one, in one table.

The manual (LoopLlama) asks for a baseline, `loop_layers=None`, three configurations, and four measures: perplexity, quality of
what is written (BLEU, ROUGE), cost (time, memory), and how the number of loops is distributed. All rows are measured on the same
weights, the same tokens and the same prompts.

A configuration is written as in the manual, so what it does not name has the manual's default (`MANUAL_FIELDS`), whatever the
model was trained with. What belongs to the weights stays the model's own: which layers loop, what enters a step, the norm before
it. Where a field that nobody asked for contradicts one that was asked for, the former gives way; the row says so.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig

from loopviz.checks import ABSENT, FieldError, check_number, check_one_of, check_whole, inside
from loopviz.engine.pieces import decode
from loopviz.engine.work import NOTHING, Work, decoding, one_pass
from loopviz.fields import layers
from loopviz.lab.memory import SequenceMemory, sequence_memory
from loopviz.lab.progress import Progress, layer_calls
from loopviz.lab.reading.cached import CacheScores, finish, scoring
from loopviz.lab.reading.intervals import draws_param, mean_interval, seed_param
from loopviz.lab.reading.text_scores import TOKENIZERS, score_all
from loopviz.lab.reading.windows import TextParams, TextWindows, Windows
from loopviz.lab.task import (
    MOST_BATCH,
    MOST_TOKENS,
    MOST_WINDOW,
    Column,
    Row,
    Size,
    Subject,
    Task,
    param,
    register,
)
from loopviz.model import LoopCache, LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.configuration import DEFAULT_FLOOR, LOOP_FIELDS
from loopviz.paths import ASSETS

from .quality import Exercise, QualityParams, exercises, work_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "experiment", 10
TITLE = {"en": "The manual's experiment", "zh": "手册的实验"}

BASELINE = "baseline"
STORIES = ASSETS / "texts" / "little-stories.txt"

# The manual's own configurations, as written there.
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"loop_count": 3, "kv_cache_mode": "virtual_layers"},
    {"loop_count": 5, "kv_cache_mode": "merge_strategy"},
    {"loop_strategy": "dynamic_stop", "cosine_threshold": 0.95},
)
# What the manual lists as settings of the loop, each with a default; the other loop fields belong to the weights.
MANUAL_FIELDS: tuple[str, ...] = (
    "loop_strategy",
    "loop_count",
    "max_loop_count",
    "min_loop_count",
    "cosine_threshold",
    "kl_threshold",
    "convergence_criterion",
    "kv_cache_mode",
    "virtual_layer_count",
    "virtual_attention_mode",
    "merge_strategy",
    "merge_ema_alpha",
)
DEFAULTS = ("manual", "model")
BARS = 0.8  # of a number of loops' place in the plot that bars take
MOST_PROMPTS = 10_000
CHUNK = 4  # tokens that are written between two moments at which the work may be left


@functools.cache
def stories() -> str:
    """The text that comes with LoopViz: sixteen little stories, written for it, so that no model was trained on them."""
    return STORIES.read_text("utf-8")


@dataclass(frozen=True)
class ManualParams(TextParams):
    """Parameters of the task `experiment`."""

    text: str = param(
        "",
        "Text to predict, and to continue from its documents' beginnings; without text and file: little stories that come "
        "with LoopViz.",
        "用于预测的文本，并从其中各文档的开头续写；不给文本也不给文件时，用 LoopViz 自带的小故事。",
        kind="text",
    )
    limit_tokens: int = param(2048, "Tokens to predict, at most.", "最多预测的词元数。", low=1, high=MOST_TOKENS)
    window: int = param(
        128, "Tokens a prediction may look back at most.", "一次预测最多回看的词元数。", low=2, high=MOST_WINDOW
    )
    batch: int = param(
        32, "Windows, or prompts, in one pass.", "一次前向同时处理的窗口数或提示数。", low=1, high=MOST_BATCH
    )
    names: tuple[str, ...] = param(
        (), "A name for each configuration; none: what it asks for.", "每个配置的名称；不填则用其所要求的设置。"
    )
    loops: tuple[dict[str, Any], ...] = param(
        CONFIGURATIONS,
        "Loop fields of each configuration, beside the baseline without a loop.",
        "每个配置的循环设置；基线（不循环）另有一行。",
        kind="loop",
    )
    defaults: str = param(
        "manual",
        "Fields that a configuration does not name: manual: the manual's defaults; model: the model's own.",
        "配置未写明的字段：manual 为手册的默认值；model 为模型自带的值。",
        choices=DEFAULTS,
    )
    loop_layers: str = param(
        "",
        "Layers that loop, first and last: 10-14; default: the model's own, or, where it has none, its middle third, as the "
        "manual's 4-7 of 12.",
        "参与循环的层，首尾：10-14；默认用模型自带的；没有时取中间三分之一，如手册中 12 层的 4-7。",
    )
    prompts: int = param(
        16, "Prompts at most: beginnings of documents.", "最多使用的提示数：各文档的开头。", low=1, high=MOST_PROMPTS
    )
    prompt_tokens: int = param(
        32,
        "Tokens of a prompt, at most: it ends with a word.",
        "提示的最多词元数：在词尾处切断。",
        low=1,
        high=MOST_WINDOW,
    )
    new_tokens: int = param(
        48, "Tokens written after each, at most.", "每个提示之后最多生成的词元数。", low=1, high=MOST_WINDOW
    )
    tokenize: str = param(
        "auto",
        "Of BLEU: 13a; zh for Chinese; ja-mecab; char (of ROUGE too); auto: by the text's script.",
        "BLEU 的分词：13a；中文用 zh；ja-mecab；char（也用于 ROUGE）；auto 按文本的文字选择。",
        choices=TOKENIZERS,
    )
    draws: int = draws_param()
    seed: int = seed_param()

    def __post_init__(self) -> None:
        if not self.text and not self.file:
            object.__setattr__(self, "text", stories())  # by itself, so that a manifest holds what was read
        super().__post_init__()
        for name in ("prompts", "prompt_tokens", "new_tokens"):
            check_whole(name, getattr(self, name), 1)
        check_number("draws", self.draws, 0)
        check_one_of("defaults", self.defaults, DEFAULTS, quoted=False)
        check_one_of("tokenize", self.tokenize, TOKENIZERS, quoted=False)
        self._check_configurations()

    def _check_configurations(self) -> None:
        if not self.loops:
            raise FieldError("loops", self.loops, "none_against_baseline")
        if self.names and len(self.names) != len(self.loops):
            raise FieldError("names", self.names, "as_many_names_or_none", n=len(self.loops))
        called = self.called()
        twice = [name for name, times in Counter((BASELINE, *called)).items() if times > 1]
        if twice:
            raise FieldError("names", ABSENT, "name_twice", also=("loops",), name=repr(twice[0]))
        if self.loop_layers:
            try:
                layers(self.loop_layers)
            except argparse.ArgumentTypeError:
                raise FieldError("loop_layers", self.loop_layers, "layers_typed") from None

    def called(self) -> tuple[str, ...]:
        """The configurations' names."""
        return self.names or tuple(_name(fields) for fields in self.loops)

    def setups(self, subject: Subject) -> list[Setup]:
        """The rows to come, the baseline first.

        Raises:
            ValueError: what a configuration is refused for, with its name.
        """
        plain = subject.view(None)
        left_out = {name: (value, None) for name, value in _own(subject).items()}
        found = [Setup(BASELINE, None, None, {}, left_out, plain)]
        for name, asked in zip(self.called(), self.loops, strict=True):
            try:
                found.append(self._setup(subject, name, asked))
            except ValueError as error:
                raise inside(name, error) from None
        return found

    def _setup(self, subject: Subject, name: str, asked: dict[str, Any]) -> Setup:
        own = _own(subject)
        fields = dict(own)
        if self.defaults == "manual":
            fields |= {field: getattr(LoopLlamaConfig, field) for field in MANUAL_FIELDS}
        else:
            fields |= {field: getattr(subject.model.config, field) for field in MANUAL_FIELDS}
        gave_way: dict[str, tuple[Any, Any]] = {}
        block = layers(self.loop_layers) if self.loop_layers else own.get("loop_layers")
        if block is None and "loop_layers" not in asked:
            block = middle_third(subject.model.config.num_hidden_layers)
        if block != own.get("loop_layers"):
            gave_way["loop_layers"] = (own.get("loop_layers"), block)
        fields |= {"loop_layers": block, **asked}
        changes = giving_way(fields, asked)
        gave_way |= {field: (fields[field], value) for field, value in changes.items()}
        fields |= changes
        kept = {field: value for field, value in own.items() if field not in asked and fields[field] == value}
        return Setup(name, asked, fields, kept, gave_way, subject.view(fields))

    def exercises(self, subject: Subject) -> list[Exercise]:
        """What is to be continued, and how it really goes on.

        Raises:
            ValueError: a text too short, or more tokens than the model's context.
        """
        same = ("text", "file", "prompts", "prompt_tokens", "new_tokens")
        return exercises(subject, QualityParams(**{name: getattr(self, name) for name in same}))


@dataclass(frozen=True)
class Setup:
    """A row to come.

    Attributes:
        name: of the configuration.
        asked: the fields it names; `None`: the baseline.
        fields: all its loop fields; `None`: the baseline.
        own: of them, those that stay the model's.
        gave_way: fields that nobody asked to be so, and that are not what they were: (before, now).
        view: the model that is measured.
    """

    name: str
    asked: dict[str, Any] | None
    fields: dict[str, Any] | None
    own: dict[str, Any]
    gave_way: dict[str, tuple[Any, Any]]
    view: LoopLlamaForCausalLM


# -- configurations ----------------------------------------------------------------------------------------------------


def _name(asked: dict[str, Any]) -> str:
    """A configuration's name: what it asks for; texts say by themselves what they are."""
    parts = [value if isinstance(value, str) else f"{name}={_shown(value)}" for name, value in asked.items()]
    return ", ".join(parts) or "defaults"


def _shown(value: Any) -> str:
    return "[" + ", ".join(map(_shown, value)) + "]" if isinstance(value, (list, tuple)) else str(value)


def _own(subject: Subject) -> dict[str, Any]:
    """What belongs to the weights: the loop fields that are no setting of the manual's, where they are not the default."""
    config = subject.model.config
    names = [name for name in LOOP_FIELDS if name not in MANUAL_FIELDS]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(LoopLlamaConfig, name)}


def middle_third(n_layers: int) -> tuple[int, int]:
    """The layers that loop in a model that has no loop: as the manual's 4 to 7 of 12."""
    first = n_layers // 3
    return first, max(first, 2 * n_layers // 3 - 1)


def giving_way(fields: dict[str, Any], asked: Iterable[str]) -> dict[str, Any]:
    """Changes of fields that nobody asked for, so that they do not contradict those that were asked for.

    Under `dynamic_stop` V <= `min_loop_count` <= `max_loop_count` must hold, and `loop_count` <= `max_loop_count` under
    `fixed_count`. What was asked for is never changed: if that contradicts itself, the model refuses it by name.
    """
    changes: dict[str, Any] = {}

    def at_most(small: str, large: str) -> None:
        """Make `small` <= `large`, by the one of them that was not asked for."""
        low, high = ({**fields, **changes}[name] for name in (small, large))
        if not isinstance(low, int) or not isinstance(high, int) or low <= high:
            return  # lists, one value a block, are left to the model
        if small not in asked:
            changes[small] = int(high)
        elif large not in asked:
            changes[large] = int(low)

    virtual = fields["kv_cache_mode"] == "virtual_layers"
    if fields["loop_strategy"] == "fixed_count":
        at_most("loop_count", "max_loop_count")
    elif virtual or not isinstance(fields["min_loop_count"], type(DEFAULT_FLOOR)):  # else the floor is 1
        at_most("min_loop_count", "max_loop_count")
        if virtual:
            at_most("virtual_layer_count", "min_loop_count")
    return changes


# -- measuring ---------------------------------------------------------------------------------------------------------


def _cells(subject: Subject, params: ManualParams) -> int:
    params.windows(subject)  # what is refused is refused before anything is measured
    params.exercises(subject)
    return len(params.setups(subject))


def _work(subject: Subject, params: ManualParams) -> Work:
    """Of each configuration: the windows through the cache, the texts written, one sequence for its memory."""
    reach, found = params.reach(subject), NOTHING
    for setup in params.setups(subject):
        shape = subject.shape(setup.view)
        memory = one_pass(shape, reach.length) + decoding(shape, 2, past=reach.length)
        found += reach.cached(shape) + memory + work_of(subject, shape, params, 1)
    return found + reach.text + reach.intervals(2 * (len(params.loops) + 1), params.draws)


def _run(subject: Subject, params: ManualParams) -> Iterator[Row | float]:
    setups, windows, found = params.setups(subject), params.windows(subject), params.exercises(subject)
    length = windows.longest
    rounds = [math.ceil(len(some) / params.batch) for some in (windows, found)]
    calls = [layer_calls(setup.view) for setup in setups]
    progress = Progress(sum(n * (rounds[0] * length + rounds[1] * params.new_tokens) for n in calls))
    baseline: np.ndarray | None = None  # summed loss of each window
    for setup, n in zip(setups, calls, strict=True):
        memory = sequence_memory(setup.view.with_loop(), _memory_prompt(windows))  # and nothing is new when time counts
        yield min(1.0, progress.done / progress.total)
        read = yield from progress.part(n * rounds[0] * length, reading(setup.view, windows, params.batch))
        prompts = [exercise.ids for exercise in found]
        cost = n * rounds[1] * params.new_tokens
        written = yield from progress.part(cost, writing(setup.view, prompts, params.new_tokens, params.batch))
        sums = np.concatenate([scores.nats.masked_fill(~part.counted, 0.0).sum(1).numpy() for part, scores in read])
        yield {
            **{column.name: None for column in COLUMNS},
            **_about(setup),
            **_perplexity(windows, sums, baseline, params),
            **_loops(read),
            **_texts(subject, found, written.ids, params),
            **_costs(read, written, memory),
        }
        baseline = sums if baseline is None else baseline


def _memory_prompt(windows: TextWindows) -> torch.Tensor:
    """The first window, but for what is written after it and, of what was read, its last token, which is only predicted."""
    ids = windows.first()
    return ids[: max(1, len(ids) - 2)]


def reading(
    view: LoopLlamaForCausalLM, windows: TextWindows, batch: int
) -> Generator[float, None, list[tuple[Windows, CacheScores]]]:
    """The windows token by token through the cache, `batch` of them a pass.

    Yields:
        How much is done, in 0..1. Returns what each batch gave.
    """
    progress, found = Progress(len(windows)), []
    for part in windows.batches(batch):
        found.append((part, (yield from progress.part(len(part), scoring(view, part.ids)))))
    return found


@dataclass(frozen=True)
class Written:
    """What was written: tokens of each text, without the end mark, and the wall time of all."""

    ids: list[list[int]]
    seconds: float


@torch.no_grad()
def writing(
    view: LoopLlamaForCausalLM, prompts: list[list[int]], new_tokens: int, batch: int
) -> Generator[float, None, Written]:
    """Greedy continuations by transformers' `generate`, a few tokens at a time: between two calls the work may be left.

    Args:
        view: the configuration.
        prompts: token ids; those of different lengths are padded at the left.
        new_tokens: at most, each.
        batch: prompts a pass.

    Yields:
        How much is done, in 0..1. Returns the texts.
    """
    eos = view.generation_config.eos_token_id
    ends = set() if eos is None else {eos} if isinstance(eos, int) else set(eos)
    texts: list[list[int]] = []
    seconds = 0.0
    for first in range(0, len(prompts), batch):
        some = prompts[first : first + batch]
        longest = max(map(len, some))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in some], device=view.device)
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in some], device=view.device)
        cache = LoopCache(view.config)
        rows: list[list[int]] = [[] for _ in some]
        while (done := ids.shape[1] - longest) < new_tokens and not all(ends & set(row) for row in rows):
            yield (first + len(some) * done / new_tokens) / len(prompts)
            started = time.perf_counter()
            ids = view.generate(
                ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=GenerationConfig(
                    max_new_tokens=min(CHUNK, new_tokens - done),
                    do_sample=False,
                    eos_token_id=eos,
                    pad_token_id=min(ends, default=0),
                ),
            )
            finish(view.device)
            seconds += time.perf_counter() - started
            mask = torch.cat((mask, mask.new_ones(len(some), ids.shape[1] - mask.shape[1])), dim=1)
            rows = ids[:, longest:].tolist()
        texts += [_until(row, ends) for row in rows]
    return Written(texts, seconds)


def _until(ids: list[int], ends: set[int]) -> list[int]:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]


# -- a row -------------------------------------------------------------------------------------------------------------


def _about(setup: Setup) -> Row:
    def listed(values: Iterable[str]) -> str:
        return "; ".join(values)

    asked = setup.asked if setup.asked is not None else {"loop_layers": None}
    return {
        "configuration": setup.name,
        "asked": listed(f"{name}={_shown(value)}" for name, value in asked.items()),
        "own": listed(f"{name}={_shown(value)}" for name, value in setup.own.items()) or None,
        "gave_way": listed(
            f"{name}: {_shown(old)} → {'–' if new is None else _shown(new)}"
            for name, (old, new) in setup.gave_way.items()
        )
        or None,
    }


def _perplexity(windows: TextWindows, sums: np.ndarray, baseline: np.ndarray | None, params: ManualParams) -> Row:
    counts = windows.counts
    mean = float(sums.sum() / counts.sum())
    ends = mean_interval(sums, counts, params.draws, params.seed)
    row: Row = {"tokens": windows.tokens, "windows": len(windows), "nats": mean, "perplexity": _exp(mean)}
    row |= dict(zip(("low", "high"), (None if end is None else _exp(end) for end in ends), strict=True))
    if baseline is not None:
        gaps = sums - baseline
        row["difference"] = float(gaps.sum() / counts.sum())
        ends = mean_interval(gaps, counts, params.draws, params.seed)
        row |= dict(zip(("difference_low", "difference_high"), ends, strict=True))
    return row


def _exp(nats: float) -> float:
    return math.exp(min(700.0, nats))


def _loops(read: list[tuple[Windows, CacheScores]]) -> Row:
    """Steps that every looped block ran at every token that counts, and why it stopped; without a loop one, plain."""
    steps: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    for part, scores in read:
        counted = part.counted
        if not scores.loops:
            steps[1] += int(counted.sum())
            reasons["plain"] += int(counted.sum())
        for block, why in zip(scores.loops, scores.reasons, strict=True):
            steps.update(block[counted].tolist())
            reasons.update(why[counted.numpy()].tolist())
    return {
        "mean_loops": sum(n * times for n, times in steps.items()) / steps.total(),
        "loops": counted_text(sorted(steps.items())),
        "reasons": counted_text(reasons.most_common()),
    }


def counted_text(counts: Iterable[tuple[Any, int]]) -> str:
    """Counts as a cell holds them: `5: 812, 6: 40`."""
    return ", ".join(f"{name}: {times}" for name, times in counts)


def counts_of(cell: str) -> dict[str, int]:
    """What :func:`counted_text` wrote."""
    return {name: int(times) for name, _, times in (part.rpartition(": ") for part in cell.split(", "))}


def _texts(subject: Subject, found: list[Exercise], written: list[list[int]], params: ManualParams) -> Row:
    texts = [decode(subject.tokenizer, ids, skip_special_tokens=True) for ids in written]
    scores, signature = score_all(texts, [exercise.reference or "" for exercise in found], params.tokenize)
    return {
        "bleu": scores.bleu,
        "rouge_1": scores.rouge_1,
        "rouge_2": scores.rouge_2,
        "rouge_l": scores.rouge_l,
        "chrf": scores.chrf,
        "prompts": len(found),
        "signature": signature,
    }


def _costs(read: list[tuple[Windows, CacheScores]], written: Written, memory: SequenceMemory) -> Row:
    seconds = sum(scores.seconds for _, scores in read)
    passed = sum(scores.nats.numel() for _, scores in read)
    tokens = sum(map(len, written.ids))
    return {
        "seconds": round(seconds, 3),
        "tokens_per_second": round(passed / seconds, 2),
        "written_tokens": tokens,
        "write_tokens_per_second": round(tokens / written.seconds, 2),
        "peak_bytes": memory.peak_bytes,
        "kv_bytes_per_token": memory.kv_bytes / memory.tokens,
        "kv_bytes": memory.kv_bytes,
    }


def _column(name: str, unit: str, en: str, zh: str) -> Column:
    return Column(name, unit, {"en": en, "zh": zh})


COLUMNS = (
    _column(
        "configuration", "", "configuration: baseline is the model without a loop", "配置：baseline 为不循环的模型"
    ),
    _column("perplexity", "", "perplexity: through the cache, token by token", "困惑度：逐词元经过缓存"),
    _column(
        "difference",
        "nats",
        "against the baseline: loss less the baseline's, on the same tokens; below 0 the loop helps",
        "与基线之差：同样词元上的损失减去基线的损失；小于 0 表示循环有帮助",
    ),
    _column(
        "difference_low",
        "nats",
        "difference, low: lower end of its 95 % interval, windows drawn in pairs",
        "差的下限：其 95 % 区间的下端，窗口成对抽取",
    ),
    _column("difference_high", "nats", "difference, high: upper end of it", "差的上限：该区间的上端"),
    _column(
        "bleu",
        "0-100",
        "BLEU: sacrebleu, of all continuations as one corpus, against the texts' own",
        "BLEU：sacrebleu，全部续写作为一个语料，对照文本自身的后文",
    ),
    _column("rouge_1", "0-100", "ROUGE-1: F1 of the words in common; mean", "ROUGE-1：共有词的 F1；平均"),
    _column(
        "rouge_2", "0-100", "ROUGE-2: F1 of the pairs of words in common; mean", "ROUGE-2：共有二元词组的 F1；平均"
    ),
    _column(
        "rouge_l",
        "0-100",
        "ROUGE-L: F1 of the longest common subsequence of words; mean",
        "ROUGE-L：最长公共词子序列的 F1；平均",
    ),
    _column("chrf", "0-100", "chrF: character n-grams shared with the reference", "chrF：与参考共有的字符 n 元组"),
    _column(
        "mean_loops",
        "loops",
        "mean loops: steps a looped block ran at a token; 1 without a loop",
        "平均循环：循环块在每个词元上运行的步数；不循环时为 1",
    ),
    _column("loops", "", "loops: how many tokens ran how many steps", "循环分布：多少词元运行了多少步"),
    _column(
        "reasons",
        "",
        "stopped by: count, or the rule that held, or max, and at how many tokens",
        "停止原因：count（次数）、成立的规则或 max，以及各有多少词元",
    ),
    _column(
        "tokens_per_second",
        "tokens/s",
        "reading speed: tokens a second, all windows of a pass together",
        "读入速度：每秒词元数，同一前向的所有窗口合计",
    ),
    _column(
        "write_tokens_per_second",
        "tokens/s",
        "writing speed: tokens a second, all prompts of a pass together",
        "生成速度：每秒词元数，同一前向的所有提示合计",
    ),
    _column(
        "peak_bytes",
        "bytes",
        "peak memory: most that torch held at once, on top of the weights, for one window as a prompt and two new tokens; CPU: "
        "each allocation counted by its profiler; CUDA: max_memory_allocated",
        "内存峰值：以一个窗口为提示并生成两个新词元时，torch 在权重之外同时占用的最大字节数；CPU 上由其性能分析器逐次统计分配，"
        "CUDA 上为 max_memory_allocated",
    ),
    _column(
        "kv_bytes_per_token",
        "bytes",
        "KV cache a token: keys and values in use, over all layers and slots",
        "每词元 KV 缓存：所有层与槽中在用的键与值",
    ),
    _column("kv_bytes", "bytes", "KV cache: of that window, in use at the end", "KV 缓存：该窗口结束时在用的字节数"),
    _column(
        "low",
        "",
        "perplexity, low: lower end of its 95 % bootstrap interval over windows; empty under 6 windows, too few to tell",
        "困惑度下限：其按窗口自助法 95 % 区间的下端；少于 6 个窗口时为空，不足以判断",
    ),
    _column("high", "", "perplexity, high: upper end of it", "困惑度上限：该区间的上端"),
    _column("nats", "nats", "loss: mean -log p of a token", "损失：每个词元 -log p 的平均值"),
    _column(
        "seconds",
        "s",
        "seconds: of reading, the same passes in every row; with others at work on this machine it says little",
        "秒：读入用时，每行的前向次数相同；机器上另有任务时说明不了什么",
    ),
    _column("tokens", "tokens", "tokens: how many were predicted", "词元：预测的数量"),
    _column(
        "windows",
        "windows",
        "windows: stretches of the text, each from an empty cache",
        "窗口：文本分成的段数，每段从空缓存开始",
    ),
    _column("prompts", "", "prompts: that were continued", "提示：被续写的数量"),
    _column("written_tokens", "tokens", "written: tokens, end marks left out", "所写：词元数，不含结束符"),
    _column("signature", "", "signature: how BLEU was computed", "签名：BLEU 的计算方式"),
    _column("asked", "", "asked for: the configuration as it was written", "所要求的：配置原文"),
    _column(
        "own",
        "",
        "the model's own: fields that stay with the weights",
        "模型自带：随权重保留的字段",
    ),
    _column(
        "gave_way",
        "",
        "gave way: fields that nobody asked for and that had to change; of the baseline: what it leaves out",
        "让步：未被要求而必须改变的字段；对基线：略去的部分",
    ),
)

WORDS = {
    "en": {
        "title": TITLE["en"],
        "question": "What do loops buy, and what do they cost, against the same model without them?",
        "how": "One row without a loop, every layer once (what a model was trained with to enter each step, and the norm before it, is "
        "left out there), and one for each configuration, by default the manual's three as written, with the manual's defaults for what "
        "they do not name; which layers loop and what enters a step stay the model's. All read the same text token by token through their "
        "cache, each token given the true ones before it (perplexity, its paired difference to the baseline, loops, reading speed), and "
        "continue the same beginnings with the likeliest token each time (BLEU, ROUGE, chrF against the real continuation; one of many "
        "good ones, so scores stay low and serve to compare). Peak memory and KV cache are those of one window alone.",
        "cost": "For each row: a pass for each token of a window, windows side by side, and one for each token written.",
    },
    "zh": {
        "title": TITLE["zh"],
        "question": "与不循环的同一模型相比，循环带来什么，代价又是什么？",
        "how": "一行不循环，每层只过一次（训练时每步注入的内容与步前的归一化在此略去）；每个配置一行，默认即手册所写的三个，未写明的字段取手册的默认值；"
        "哪些层循环、每步注入什么仍按模型自带。各行都逐词元经缓存读入同一文本，每个词元之前给的都是真实词元（困惑度、与基线的成对差、循环次数、读入速度），"
        "并对同样的开头每次取最可能的词元续写（BLEU、ROUGE、chrF，对照真实后文；真实后文只是众多好的续写之一，所以分数偏低，用于比较）。内存峰值与 KV 缓存为单独一个窗口的。",
        "cost": "每一行：窗口内每个词元一次前向（多个窗口并行），以及所写的每个词元一次前向。",
    },
}

_PLOT = {
    "en": {
        "loops": "loops at a token",
        "share": "share of tokens",
        "time": "reading, ms/token",
        "kv": "KV, kB/token",
        "perplexity": "perplexity (lower is better)",
        "bar": "{name}<br>{n} loops: {times:,} of {all:,} tokens ({share:.1%})<br>stopped by {reasons}",
        "point": "{name}<br>perplexity {perplexity:.4g}{interval}<br>ROUGE-L {rouge_l:.3g}<br>{cost}",
        "interval": " ({low:.4g} to {high:.4g})",
    },
    "zh": {
        "loops": "每个词元的循环次数",
        "share": "词元比例",
        "time": "读入，毫秒/词元",
        "kv": "KV，kB/词元",
        "perplexity": "困惑度（越低越好）",
        "bar": "{name}<br>{n} 步：{all:,} 个词元中的 {times:,} 个（{share:.1%}）<br>停止原因 {reasons}",
        "point": "{name}<br>困惑度 {perplexity:.4g}{interval}<br>ROUGE-L {rouge_l:.3g}<br>{cost}",
        "interval": "（{low:.4g} 到 {high:.4g}）",
    },
}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Above: how the tokens spread over numbers of loops. Below: perplexity against time and against the cache."""
    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, rows = _PLOT[lang], table.to_dict("records")
    traces = [trace for index, row in enumerate(rows) for trace in _traces(row, index, len(rows), words)]
    most = max(int(n) for row in rows for n in counts_of(row["loops"]))
    y = {"title": {"text": words["perplexity"]}, "domain": [0.0, 0.42], "anchor": "x2"}
    return table_figures.figure(
        traces,
        x=words["loops"],
        y=words["share"],
        xaxis={"anchor": "y", "tick0": 1, "dtick": 1, "range": [0.5, most + 0.5]},
        yaxis={"domain": [0.58, 1.0], "tickformat": ".0%", "range": [0, 1.02]},
        xaxis2={"title": {"text": words["time"]}, "domain": [0.0, 0.47], "anchor": "y2", "rangemode": "tozero"},
        yaxis2=y,
        xaxis3={"title": {"text": words["kv"]}, "domain": [0.53, 1.0], "anchor": "y3", "rangemode": "tozero"},
        yaxis3={"domain": [0.0, 0.42], "anchor": "x3", "matches": "y2", "showticklabels": False},
        barmode="overlay",
        height=640,
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom"},
    )


def _traces(row: Row, index: int, of: int, words: dict[str, str]) -> list[Any]:
    """A configuration's bars, beside those of the others at each number of loops, and its two points."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures
    from loopviz.figures.labels import escape

    name, style = escape(row["configuration"]), table_figures.series(index)
    counts = counts_of(row["loops"])
    total = sum(counts.values())
    hover = [
        words["bar"].format(name=name, n=n, times=times, all=total, share=times / total, reasons=escape(row["reasons"]))
        for n, times in counts.items()
    ]
    bars = go.Bar(
        x=[int(n) for n in counts],
        y=[times / total for times in counts.values()],
        name=name,
        legendgroup=name,
        width=BARS / of,
        offset=BARS * (index / of - 0.5),  # said here: left to itself the group is as wide as the widest gap
        marker={"color": style["line"]["color"]},
        text=hover,
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )
    known = row["low"] is not None and row["low"] == row["low"]
    interval = words["interval"].format(low=row["low"], high=row["high"]) if known else ""
    bar = None
    if known:
        above, below = row["high"] - row["perplexity"], row["perplexity"] - row["low"]
        bar = {"type": "data", "symmetric": False, "array": [above], "arrayminus": [below], "thickness": 1}
    points = []
    costs = (
        ("x2", "y2", "time", 1000 / row["tokens_per_second"]),
        ("x3", "y3", "kv", row["kv_bytes_per_token"] / 1000),
    )
    for xaxis, yaxis, label, x in costs:
        said = f"{words[label]}: {x:.4g}"
        values = {key: row[key] for key in ("perplexity", "rouge_l")}
        points.append(
            go.Scatter(
                x=[x],
                y=[row["perplexity"]],
                xaxis=xaxis,
                yaxis=yaxis,
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=False,
                error_y=bar,
                text=[words["point"].format(name=name, interval=interval, cost=said, **values)],
                hovertemplate="%{text}<extra></extra>",
                marker={**style["marker"], "color": style["line"]["color"], "size": 11},
            )
        )
    return [bars, *points]


def settings(subject: Subject, row: Row, params: ManualParams) -> dict[str, Any] | None:
    """The loop fields of the model that a row speaks of; None for the baseline, which has no loop."""
    return next(setup.fields for setup in params.setups(subject) if setup.name == row["configuration"])


SIZES = (
    Size(
        {"en": "Quick (some seconds)", "zh": "快速（数秒）"},
        {"limit_tokens": 512, "window": 64, "prompts": 8, "prompt_tokens": 24, "new_tokens": 24},
    ),
    Size(
        {"en": "Full (a minute or more)", "zh": "完整（一分钟以上）"},
        {"limit_tokens": 4096, "window": 128, "prompts": 32, "prompt_tokens": 32, "new_tokens": 48},
    ),
)

EXPERIMENT = register(Task(NAME, ManualParams, COLUMNS, _cells, _run, WORDS, plot, settings, sizes=SIZES, work=_work))
