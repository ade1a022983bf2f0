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
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from loopviz.checks import ABSENT, FieldError, check_number, check_one_of, check_whole, inside
from loopviz.engine.pieces import decode
from loopviz.engine.work import NOTHING, Work, decoding, one_pass
from loopviz.fields import layers
from loopviz.lab.manual.configurations import (
    CONFIGURATIONS,
    MANUAL_FIELDS,
    Setup,
    giving_way,
    middle_third,
    name_of,
    own_fields,
    shown_value,
)
from loopviz.lab.manual.table import BASELINE, COLUMNS, WORDS, counted_text, headline, plot
from loopviz.lab.memory import SequenceMemory, sequence_memory
from loopviz.lab.progress import Progress, layer_calls
from loopviz.lab.reading.cached import CacheScores, finish, scoring
from loopviz.lab.reading.intervals import draws_param, mean_interval, seed_param
from loopviz.lab.reading.text_scores import TOKENIZERS, score_all
from loopviz.lab.reading.windows import TextParams, TextWindows, Windows
from loopviz.lab.task import (
    FULL,
    MOST_BATCH,
    MOST_TOKENS,
    MOST_WINDOW,
    QUICK,
    QUICK_SECONDS,
    Row,
    Size,
    Subject,
    Task,
    param,
    register,
    titled,
)
from loopviz.model import LoopCache, LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.paths import ASSETS

from .quality import Exercise, QualityParams, exercises, work_of

NAME, ORDER = "experiment", 10
TITLE = {"en": "The manual's experiment", "zh": "手册的实验"}

STORIES = ASSETS / "texts" / "little-stories.txt"

DEFAULTS = ("manual", "model")
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
        return self.names or tuple(name_of(fields) for fields in self.loops)

    def setups(self, subject: Subject) -> list[Setup]:
        """The rows to come, the baseline first.

        Raises:
            ValueError: what a configuration is refused for, with its name.
        """
        plain = subject.view(None)
        left_out = {name: (value, None) for name, value in own_fields(subject).items()}
        found = [Setup(BASELINE, None, None, {}, left_out, plain)]
        for name, asked in zip(self.called(), self.loops, strict=True):
            try:
                found.append(self._setup(subject, name, asked))
            except ValueError as error:
                raise inside(name, error) from None
        return found

    def _setup(self, subject: Subject, name: str, asked: dict[str, Any]) -> Setup:
        own = own_fields(subject)
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
        "asked": listed(f"{name}={shown_value(value)}" for name, value in asked.items()),
        "own": listed(f"{name}={shown_value(value)}" for name, value in setup.own.items()) or None,
        "gave_way": listed(
            f"{name}: {shown_value(old)} → {'–' if new is None else shown_value(new)}"
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


def settings(subject: Subject, row: Row, params: ManualParams) -> dict[str, Any] | None:
    """The loop fields of the model that a row speaks of; None for the baseline, which has no loop."""
    return next(setup.fields for setup in params.setups(subject) if setup.name == row["configuration"])


SIZES = (
    Size(
        QUICK,
        {"limit_tokens": 512, "window": 64, "prompts": 8, "prompt_tokens": 24, "new_tokens": 24},
        seconds=QUICK_SECONDS,
        fits=("limit_tokens", "prompts"),
    ),
    Size(
        FULL,
        {"limit_tokens": 4096, "window": 128, "prompts": 32, "prompt_tokens": 32, "new_tokens": 48},
    ),
)

EXPERIMENT = register(
    Task(
        NAME,
        ManualParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        settings,
        sizes=SIZES,
        work=_work,
        headline=headline,
        intervals=True,
    )
)
