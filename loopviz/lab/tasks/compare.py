"""Configurations side by side: the same prompt and seed, each one's text, cost, and what it differs in from a baseline.

What a configuration's row holds, and how it comes about:

* its own text, with everything recorded, written together with those of other configurations of the same model, in passes that
  they share (:mod:`loopviz.lab.comparison.together`); loops, stop reasons and cache bytes are those of the passes that chose its tokens;
* its speed, from a second run of the first tokens, alone and with nothing recorded (company and recording cost time);
* teacher-forced, token by token through its cache: the perplexity of a given continuation; cache fidelity,
  `KL(p_full || p_cached)` at every token scored, against one full pass of the same configuration; and the share of the
  baseline's greedy tokens that it would choose as well, given the baseline's text before each.

:class:`Comparison` tells what happens as it happens; the task `compare` keeps the rows.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from loopviz.checks import ABSENT, FieldError, inside
from loopviz.engine import StreamSettings, limits
from loopviz.engine.pieces import decode, encode, encode_prompt
from loopviz.engine.work import Shape, Work, decoding, head, one_pass
from loopviz.engine.work import run as runs
from loopviz.lab.comparison.result import Result, Scores
from loopviz.lab.comparison.setups import Setup, setups_of
from loopviz.lab.comparison.sides import Side, context_of, frames_together, side_of
from loopviz.lab.comparison.table import COLUMNS, WORDS, plot
from loopviz.lab.comparison.together import beside, fits
from loopviz.lab.comparison.verdict import verdict
from loopviz.lab.fellows import fellow, learns, shape_beside
from loopviz.lab.task import MOST_LOOPS, Row, Subject, Task, param, register, titled
from loopviz.model.interrupt import until
from loopviz.prompt_templates import TEMPLATES
from loopviz.trace import metrics

if TYPE_CHECKING:
    from loopviz.trace import Frame

NAME, ORDER = "compare", 40
TITLE = {"en": "Configurations side by side", "zh": "配置对比"}

MOST = 6  # configurations: as many as there are colours that stay apart
TIMED = 33  # passes of the timed run at most, the prompt's included
TIMED_LEAST = 3  # one-token passes, or the speed is not known
_SETTINGS = (
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "chat",
    "template",
    "input",
)


@dataclass(frozen=True)
class CompareParams:
    """What is compared, and on what. `names[i]` is `loops[i]`'s."""

    prompt: str = param("Once upon a time, there was a little", "Text to continue.", "要续写的文字。", kind="text")
    continuation: str = param(
        "",
        "Text whose perplexity after the prompt is measured; without one, none is.",
        "测量其在提示词之后的困惑度的文字；留空则不测量。",
        kind="text",
    )
    names: tuple[str, ...] = param(("plain", "own"), "A name for each configuration.", "每个配置的名称。")
    loops: tuple[dict[str, Any] | None, ...] = param(
        (None, {}),
        "Loop fields of each configuration: {} the model's own, null the model without its loop.",
        "每个配置的循环设置：{} 表示模型自带的设置，null 表示不循环。",
        kind="loop",
    )
    sweeps: tuple[int, ...] = param(
        (),
        "For each configuration: up to how many loops it is measured, at 1, 2, 3, 4, 6, 8 and so on; 0 or nothing: once, as it is.",
        "每个配置：从 1、2、3、4、6、8 起测到多少次循环；0 或留空：按原样只测一次。",
        low=0,
        high=MOST_LOOPS,
        most=MOST,
    )
    models: tuple[str, ...] = param(
        (),
        "For each configuration: the model it is of, looped or TTT, with the same tokenizer; empty or nothing: the one that is measured.",
        "每个配置所用的模型（循环模型或 TTT 模型，分词器须相同）；留空表示被测量的模型。",
        kind="models",
        most=MOST,
    )
    baseline: int = param(
        0,
        "Which configuration the others are compared with, from 0.",
        "作为基线的配置，从 0 数起。",
        low=0,
        high=MOST - 1,
    )
    max_new_tokens: int = param(
        64, "Tokens to choose at most.", "最多生成的词元数。", low=1, high=limits.MAX_NEW_TOKENS
    )
    do_sample: bool = param(False, "Draw tokens at random; otherwise the likeliest.", "随机抽取词元；否则取最可能的。")
    temperature: float = param(
        1.0, "Of sampling.", "采样温度。", low=limits.MIN_TEMPERATURE, high=limits.MAX_TEMPERATURE
    )
    top_k: int = param(
        0,
        "Sample among the k likeliest; 0: all.",
        "只在最可能的 k 个中采样；0 表示全部。",
        low=0,
        high=limits.MAX_TOP_K,
    )
    top_p: float = param(
        1.0,
        "Sample among the likeliest of this total probability.",
        "只在总概率达到此值的最可能者中采样。",
        low=0,
        high=1,
    )
    min_p: float = param(
        0.0,
        "Leave out what is less likely than this share of the likeliest.",
        "去掉概率低于最可能者此比例的词元。",
        low=0,
        high=1,
    )
    repetition_penalty: float = param(
        1.0,
        "Above 1: tokens already there become less likely.",
        "大于 1 时，已出现的词元变得不太可能。",
        low=limits.MIN_PENALTY,
        high=limits.MAX_PENALTY,
    )
    seed: int = param(0, "Of sampling.", "采样的随机种子。", low=0, high=limits.MAX_SEED)
    chat: bool = param(False, "Put the prompt into the model's chat template.", "把提示词放入模型的对话模板。")
    template: str = param(
        "none",
        "How the prompt is put: as it is, in the model's chat template (as with chat), as Alpaca's or Vicuna's instruction.",
        "提示词的写法：原样、模型的对话模板（同 chat）、Alpaca 或 Vicuna 的指令格式。",
        choices=TEMPLATES,
    )
    input: str = param(
        "", "With Alpaca's form: what the instruction is about.", "用 Alpaca 格式时：指令所针对的内容。", kind="text"
    )

    def __post_init__(self) -> None:
        if not 1 <= len(self.loops) <= MOST:
            raise FieldError("loops", ABSENT, "configurations", n=len(self.loops), most=MOST)
        if len(self.names) != len(self.loops):
            raise FieldError("names", self.names, "as_many_names", n=len(self.loops))
        if len(set(self.names)) < len(self.names):
            raise FieldError("names", self.names, "two_names_same")
        if len(self.sweeps) > len(self.loops):
            raise FieldError("sweeps", self.sweeps, "sweeps_at_most", n=len(self.loops))
        if len(self.models) > len(self.loops):
            raise FieldError("models", self.models, "models_at_most", n=len(self.loops))
        for most, loop in zip(self.sweeps, self.loops, strict=False):
            if most and loop is None:
                raise FieldError("sweeps", self.sweeps, "sweep_of_plain")
        if not 0 <= self.baseline < len(self.loops):
            raise FieldError("baseline", self.baseline, "one_of_range", last=len(self.loops) - 1)
        self.settings()

    def setups(self) -> list[Setup]:
        """What is measured, a row each."""
        return setups_of(self.names, self.loops, self.sweeps, self.models)

    def settings(self, **changes: Any) -> StreamSettings:
        """How tokens are chosen, with `changes`; ValueError names the field that is refused."""
        same = {name: getattr(self, name) for name in _SETTINGS}
        return StreamSettings(**{**same, "top_tokens": 1, **changes})

    @property
    def greedy(self) -> bool:
        """Whether the runs' own tokens are the likeliest, by nothing but the model's distribution."""
        return not self.do_sample and self.repetition_penalty == 1


@dataclass(frozen=True)
class Event:
    """Something that happened to a configuration.

    Attributes:
        setup: which of the comparison's setups, from 0.
        kind: "begin"; "token": one more in its result; "stage": `stage` begins or goes on, `done` of `total` passes;
            "row": `row` is its row, the last of its events; "refused": it cannot be had, `error` says why.
        stage: "text", "written" (the text is there, others' are on their way), "timing", "greedy" (the baseline's greedy tokens) or "scoring".
        frame: of a token, the pass that chose it.
    """

    setup: int
    kind: str
    stage: str = ""
    done: int = 0
    total: int = 0
    error: ValueError | None = None
    row: Row | None = None
    frame: Frame | None = field(default=None, repr=False)

    @property
    def reason(self) -> str:
        """Why it cannot be had, in English."""
        return "" if self.error is None else str(self.error)


class Comparison:
    """Configurations compared on one prompt, the baseline first.

    Args:
        subject: the model.
        params: what is compared.

    Attributes:
        setups: what is measured, a row each: every configuration, or each number of loops of one that is swept.
        results: one a setup, filling as :meth:`events` goes on.
        stops: one a setup; once set, that one ends at once, in the middle of a pass too, with what is
            known by then, and one that has not begun is left out.
        lock: held while a token is added to a result; who reads `results` from another thread takes it. Never held in
            a pass.

    Raises:
        ValueError: a prompt, or a continuation, that the model cannot read.
    """

    def __init__(self, subject: Subject, params: CompareParams) -> None:
        self.subject, self.params = subject, params
        self.lock = threading.RLock()
        self.setups = params.setups()
        self.stops = [threading.Event() for _ in self.setups]
        self.results = [Result(learns=learns(self._here(setup))) for setup in self.setups]
        tokenizer, context = subject.tokenizer, context_of(subject)
        self.prompt = encode_prompt(tokenizer, params.prompt, context=context, **params.settings().wording)
        after = encode(tokenizer, params.continuation, add_special_tokens=False) if params.continuation else []
        self.continuation: list[int] = after
        self._check_context(context)
        self.greedy: list[int] | None = None  # the baseline's greedy tokens

    def _here(self, setup: Setup) -> Subject:
        """The model of a setup as far as it is here; one that is not is loaded when its turn comes."""
        return self.subject.beside.get(setup.model, self.subject)

    def _check_context(self, context: int) -> None:
        """Refuse a continuation that reaches past so many tokens; ValueError."""
        if len(self.prompt) + len(self.continuation) > context:
            sizes = {"n": f"{len(self.continuation):,}", "prompt": f"{len(self.prompt):,}", "context": f"{context:,}"}
            raise FieldError("continuation", ABSENT, "continuation_over_context", **sizes)

    def _side(self, i: int) -> Side:
        """The model of a setup, so configured; ValueError for what cannot be had."""
        setup = self.setups[i]
        subject = fellow(self.subject, setup.model, "models")
        self._check_context(context_of(subject))
        self.results[i].learns = learns(subject)
        return side_of(setup.view(subject), self.subject.tokenizer)

    @property
    def model_name(self) -> str:
        """The model's name."""
        return self.subject.name

    @property
    def baseline(self) -> int:
        """The setup that the others are compared with: of a baseline that is swept, the one of fewest loops."""
        return next(i for i, setup in enumerate(self.setups) if setup.of == self.params.baseline)

    @property
    def order(self) -> list[int]:
        """The setups in the order in which they are measured."""
        first = self.baseline
        return [first, *(i for i in range(len(self.setups)) if i != first)]

    def events(self) -> Iterator[Event]:
        """Run everything, telling what happens. Closing this generator ends the work at the next token.

        Texts of one model are written together, then each configuration is measured by itself.
        """
        left = self.order
        while left:
            sides: dict[int, Side] = {}
            left = yield from self._begin(left, sides)
            yield from self._texts(sides)
            for i, side in sides.items():
                yield from self._measure(i, side)
                self._compare_texts(i)
                yield Event(i, "row", row=self.results[i].row(self.setups[i], i == self.baseline))

    def _begin(self, left: list[int], sides: dict[int, Side]) -> Generator[Event, None, list[int]]:
        """Begin the next setup of those that are left, and others of its model, as many as are written together.

        Args:
            sides: to be filled, by setup.

        Returns:
            (`yield from`) what is left then.
        """
        later: list[int] = []
        for i in left:
            if self.stops[i].is_set():
                continue
            if sides and self.setups[i].model != self.setups[next(iter(sides))].model:
                later.append(i)
                continue
            try:
                side = self._side(i)
            except ValueError as error:
                yield from (Event(i, "begin"), Event(i, "refused", error=error))
                continue
            if fits([*sides.values()], side, len(self.prompt), self.params.max_new_tokens):
                sides[i] = side
                yield Event(i, "begin")
            else:
                later.append(i)
        return later

    def _compare_texts(self, i: int) -> None:
        baseline = self.results[self.baseline].ids
        if baseline:
            self.results[i].against(baseline)

    def _measure(self, i: int, side: Side) -> Iterator[Event]:
        for part in (self._timing, self._greedy, self._scores):
            if self.stops[i].is_set():
                return
            yield from part(i, side)

    def _frames(self, i: int, side: Side, settings: StreamSettings) -> Iterator[Frame]:
        """The passes that choose tokens."""
        for frame in side.frames(self.params.prompt, self.prompt, settings, self.stops[i]):
            if frame["index"] >= len(self.prompt) - 1:
                yield frame

    def _texts(self, sides: dict[int, Side]) -> Iterator[Event]:
        """The configurations' own texts, recorded."""
        places, total = [*sides], self.params.max_new_tokens
        for i in places:
            yield Event(i, "stage", "text", 0, total)
        stops, settings = [self.stops[i] for i in places], self.params.settings()
        for at, frame in frames_together([*sides.values()], self.params.prompt, self.prompt, settings, stops):
            if frame["index"] < len(self.prompt) - 1:
                continue
            i, result = places[at], self.results[places[at]]
            with self.lock:
                result.take(frame)
            yield Event(i, "token", "text", len(result.ids), total, frame=frame)
            if frame["finish"] is not None and len(places) > 1:
                yield Event(i, "stage", "written", len(result.ids), total)

    def _timing(self, i: int, side: Side) -> Iterator[Event]:
        """The first tokens again, with nothing recorded: the median of the passes of one token."""
        chosen = self.results[i].ids[:TIMED]
        spent: list[float] = []
        yield Event(i, "stage", "timing", 0, len(chosen))
        passes = side.timed(self.params.prompt, self.prompt, chosen, self.params.settings(), self.stops[i])
        for done, ms in enumerate(passes, 1):
            if ms is not None:
                spent.append(ms)
            yield Event(i, "stage", "timing", done, len(chosen))
        if len(spent) >= TIMED_LEAST:
            self.results[i].ms = statistics.median(spent)

    def _greedy(self, i: int, side: Side) -> Iterator[Event]:
        """The baseline's greedy tokens, unless they are its text's."""
        if i != self.baseline:
            return
        if self.params.greedy:
            self.greedy = list(self.results[i].ids)
            return
        total, found = self.params.max_new_tokens, []
        settings = self.params.settings(record="off", do_sample=False, repetition_penalty=1.0)
        for frame in self._frames(i, side, settings):
            found.append(frame["next_id"])
            yield Event(i, "stage", "greedy", len(found), total)
        if not self.stops[i].is_set():
            self.greedy = found

    def _scores(self, i: int, side: Side) -> Iterator[Event]:
        """Perplexity, fidelity and agreement, teacher-forced through the cache."""
        texts = {"continuation": self.continuation, "greedy": self.greedy or []}
        texts = {name: ids for name, ids in texts.items() if ids}
        if not texts:
            return
        scored = yield from until(self.stops[i], self._forced(i, side, list(texts.values())))
        if scored is None:  # stopped
            return
        result, by_name = self.results[i], dict(zip(texts, scored, strict=True))
        first = scored[0]  # fidelity is measured on the continuation, or else on the baseline's text
        result.fidelity = first.kl
        worst = max(range(len(first.kl)), key=first.kl.__getitem__)
        result.worst = decode(self.subject.tokenizer, [next(iter(texts.values()))[worst]])
        if "continuation" in by_name:
            nats = by_name["continuation"].nats
            result.perplexity = math.exp(min(700.0, statistics.fmean(nats)))
        if "greedy" in by_name:
            result.agreement = statistics.fmean(by_name["greedy"].chosen)

    def _forced(self, i: int, side: Side, texts: list[list[int]]) -> Generator[Event, None, list[Scores]]:
        """Read the texts after the prompt, all in one batch: the prompt in one pass, as a run does, then token by token.

        Returns (`yield from`) a Scores for each text.
        """
        start, longest, head = len(self.prompt), max(map(len, texts)), side.view.lm_head
        full = [self._full(side, ids) for ids in texts]
        # a row that has ended goes on with its last token: what comes later changes nothing before it
        rows = [self.prompt + ids + ids[-1:] * (longest - len(ids)) for ids in texts]
        tokens = torch.tensor(rows, device=side.view.device)  # [B, T]
        scores, memory = [Scores() for _ in texts], side.memory()
        for n in range(longest):
            yield Event(i, "stage", "scoring", n, longest)
            new = tokens[:, :start] if n == 0 else tokens[:, start + n - 1 : start + n]
            with torch.inference_mode():
                cached = metrics.log_probs(head(side.states(new, memory)[:, -1]))  # [B, vocab]
                for b, ids in enumerate(texts):
                    if n < len(ids):
                        scores[b].add(metrics.log_probs(head(full[b][n])), cached[b], ids[n])
        return scores

    def _full(self, side: Side, ids: list[int]) -> torch.Tensor:
        """The states that predict each scored token, before the head, from one full pass: [N, H]."""
        with torch.inference_mode():
            tokens = torch.tensor([self.prompt + ids], device=side.view.device)  # [1, T]
            return side.states(tokens, None)[0][len(self.prompt) - 1 : -1]


def work_of(shape: Shape, prompt: int, new: int, continuation: int, *, greedy: bool) -> Work:
    """What one configuration costs: its text, recorded; its first tokens once more; texts read through its cache.

    Args:
        prompt, new, continuation: tokens.
        greedy: the tokens that are held against the others' are those of the text itself, and not of a run of its own.
    """
    found = runs(shape, prompt, new) + runs(shape, prompt, min(new, TIMED), recorded=False)
    if not greedy:
        found += runs(shape, prompt, new, recorded=False)
    longest = max(new, continuation)
    texts = 2 if continuation else 1
    full = one_pass(shape, prompt + longest, cached=False) + head(shape, longest)
    forced = one_pass(shape, prompt, rows=texts) + decoding(shape, longest, rows=texts, past=prompt)
    return found + full.times(texts) + forced + Work(heads=longest, head_tokens=longest * texts)


def _work(subject: Subject, params: CompareParams) -> Work:
    """The configurations, one after the other, and what their texts hold together."""
    prompt, after = (subject.tokens_in(text) for text in (params.prompt, params.continuation))
    shapes = [
        shape_beside(subject, setup.model) if setup.model else subject.shape(setup.view(subject))
        for setup in params.setups()
    ]
    each = (work_of(shape, prompt, params.max_new_tokens, after, greedy=params.greedy) for shape in shapes)
    return sum(each, beside(shapes, prompt, params.max_new_tokens))


def run(subject: Subject, params: CompareParams) -> Iterator[Row | None]:
    """The task: a row as soon as a configuration is done.

    Raises:
        ValueError: what a configuration is refused for; nothing is left out silently.
    """
    comparison = Comparison(subject, params)
    for event in comparison.events():
        if event.error is not None:
            raise inside(comparison.setups[event.setup].name, event.error)
        yield event.row  # None: work may be left here


def headline(rows: Sequence[Row], lang: str) -> str:
    """The verdict of the table; whether there was a continuation its rows do not say."""
    return verdict(rows, lang, continued=True)


TASK = register(
    Task(
        name=NAME,
        params=CompareParams,
        columns=COLUMNS,
        cells=lambda subject, params: len(params.setups()),
        run=run,
        words=titled(TITLE, WORDS),
        plot=plot,
        work=_work,
        headline=headline,
        first={"max_new_tokens": 24},
        fits=("max_new_tokens",),
        asks=("prompt", "continuation"),
        learns=True,
    )
)
