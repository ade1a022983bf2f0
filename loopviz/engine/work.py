"""What work costs, known before it begins: tokens times layers, bytes held, and seconds at a model's own rate.

Pure arithmetic on plain numbers, free of torch: a page asks it at every keystroke. Numbers
are upper ends (a loop that may stop early is counted in full) of the right size, not measurements.

The parts add up: a run is its prompt's pass and a pass a token, a measurement is passes over windows, a comparison is its
configurations one after the other. What is computed adds; of what is held for a while the most counts; what is kept adds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from loopviz.loop_fields import EXACT

GROWTH = 2  # a cache that grows is copied: for a moment the old and the new are held
MASK_BYTES = 10  # of a query and a key: bool, put together from parts, beside the step's before, and as float
LOGIT_COPIES = 4  # logits, their float copy, log-probabilities, probabilities
HEAD_NUMBERS = 2**24  # logits that a recorder or a loss holds at once, at most, unless one token's are more
SCALE_BYTES = 4  # of a head of K/V in 8 bits
FRAME_BYTES = 4_000  # of a recorded token, beside what belongs to its steps
STEP_BYTES = 1_500  # of a recorded step of a token: its numbers, and a lens' likeliest tokens
SCORE_BYTES = 120  # of a token read through the cache: its loss, its loops, why it stopped
PACKED = 2 * 4 / 3  # bytes a number takes as base64 of float16
# Seconds of Python for a recorded token, drawn by a page's panels, and for each of its steps; an AVX2 core's.
FRAME_SECONDS, STEP_SECONDS = 1e-3, 5e-5


@dataclass(frozen=True)
class Work:
    """What some work costs.

    Attributes:
        passes: calls of a layer, each for as many tokens as its pass has.
        layer_tokens: tokens times the layers that each goes through, loops counted.
        pairs: of a query and a key, over all layers.
        heads: calls of the output head.
        head_tokens: rows that go through it.
        frames, steps: recorded tokens, and their recorded loop steps.
        python: seconds besides the model's.
        kv: bytes of keys and values.
        states: bytes of states and of what a layer computes on the way.
        attention: bytes of masks and of what is kept to tell attention weights.
        logits: bytes of logits and what is made of them.
        kept: bytes of what stays when this is over: frames, rows, scores.
    """

    passes: float = 0.0
    layer_tokens: float = 0.0
    pairs: float = 0.0
    heads: float = 0.0
    head_tokens: float = 0.0
    frames: float = 0.0
    steps: float = 0.0
    python: float = 0.0
    kv: float = 0.0
    states: float = 0.0
    attention: float = 0.0
    logits: float = 0.0
    kept: float = 0.0

    def __add__(self, other: Work) -> Work:
        """One after the other: of what is held for a while, the most."""
        counted = [getattr(self, name) + getattr(other, name) for name in _COUNTED]
        held = [max(getattr(self, name), getattr(other, name)) for name in _HELD]
        return Work(*[*counted, *held, self.kept + other.kept])

    def times(self, n: float) -> Work:
        """The same `n` times, one after the other."""
        held = [getattr(self, name) for name in _HELD]
        return Work(*[*(n * getattr(self, name) for name in _COUNTED), *held, n * self.kept])

    @property
    def bytes(self) -> float:
        """Held at a time, at most."""
        return self.kv + self.states + self.attention + self.logits + self.kept

    def seconds(self, rate: Rate) -> float:
        """How long it takes at a model's rate."""
        return (
            self.passes * rate.layer_pass
            + self.layer_tokens * rate.layer_token
            + self.pairs * rate.pair
            + self.heads * rate.head_pass
            + self.head_tokens * rate.head_token
            + self.frames * FRAME_SECONDS
            + self.steps * STEP_SECONDS
            + self.python
        )


_COUNTED = ("passes", "layer_tokens", "pairs", "heads", "head_tokens", "frames", "steps", "python")
_HELD = ("kv", "states", "attention", "logits")
NOTHING = Work()


@dataclass(frozen=True)
class Rate:
    """How fast one model is on one machine, in seconds; see :func:`loopviz.engine.rate.measured`.

    Attributes:
        layer_pass: a layer's call costs, for however few tokens: its overhead, and reading its weights.
        layer_token: each token costs in it.
        pair: a query and a key cost.
        head_pass, head_token: the same of the output head.
    """

    layer_pass: float
    layer_token: float
    pair: float
    head_pass: float
    head_token: float


# -- a model's shape ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loop:
    """A looped block: how many layers, steps at most, KV slots a layer owns, those a step attends to, layers after it.

    No more slots are written than steps are run.
    """

    layers: int
    steps: float
    slots: int
    reads: int
    coda: int


@dataclass(frozen=True)
class Shape:
    """What of a model decides what work costs.

    Attributes:
        inner: size of the MLP's middle.
        context: tokens it can read at most.
        itemsize: bytes of a number.
        kv_itemsize: of one in the cache, where that is another; see :func:`kept_itemsize`.
        loops: its blocks, first to last.
        chosen: whether a chooser says which layers run.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    itemsize: int
    loops: tuple[Loop, ...] = ()
    chosen: bool = False
    kv_itemsize: float | None = None

    @classmethod
    def of(cls, config: Any, itemsize: int) -> Shape:
        """The shape of a `LoopLlamaConfig`."""
        blocks, layers = config.loop_blocks(), config.num_hidden_layers
        return cls(
            layers=layers,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            vocab=config.vocab_size,
            context=config.max_position_embeddings,
            itemsize=itemsize,
            loops=tuple(
                Loop(
                    len(block.layers),
                    block.max_steps,
                    block.slots,
                    block.slots if block.parallel else 1,
                    layers - 1 - block.b,
                )
                for block in blocks
            ),
            chosen=any(block.chosen for block in blocks),
            kv_itemsize=kept_itemsize([block.kv_dtype for block in blocks], config.head_dim, itemsize),
        )

    @classmethod
    def of_ttt(cls, config: Any, itemsize: int, context: int) -> Shape:
        """What of a `TTTConfig` decides the cost: as of a Llama of its sizes, whose keys and values it does not have.

        Args:
            context: tokens that it is to read at most, for it has no end of its own.
        """
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=heads,
            kv_heads=heads,
            head_dim=config.head_dim,
            vocab=config.vocab_size,
            context=context,
            itemsize=itemsize,
        )

    def at(self, steps: float) -> Shape:
        """The same with so many steps of every block."""
        return replace(self, loops=tuple(replace(loop, steps=steps) for loop in self.loops))

    def keeping(self, slots: int, reads: int) -> Shape:
        """The same with so many KV slots of every looped layer."""
        return replace(self, loops=tuple(replace(loop, slots=slots, reads=reads) for loop in self.loops))

    @property
    def plain(self) -> Shape:
        """The same without its loops."""
        return replace(self, loops=(), chosen=False, kv_itemsize=None)

    @property
    def calls(self) -> float:
        """Layers that a pass runs, loops counted."""
        return self.layers + sum((loop.steps - 1) * loop.layers for loop in self.loops)

    @property
    def key_calls(self) -> float:
        """As `calls`, each as often as it has slots to read."""
        return self.calls + sum(loop.steps * loop.layers * (min(loop.reads, loop.steps) - 1) for loop in self.loops)

    @property
    def steps(self) -> float:
        """Steps of all blocks together."""
        return sum(loop.steps for loop in self.loops)

    @property
    def reads(self) -> float:
        """Slots that a query of any layer reads at once, at most."""
        return max((min(loop.reads, loop.steps) for loop in self.loops), default=1)

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values that one token holds, over all layers and slots."""
        entries = self.layers + sum(loop.layers * (min(loop.slots, loop.steps) - 1) for loop in self.loops)
        number = self.itemsize if self.kv_itemsize is None else self.kv_itemsize
        return 2 * self.kv_heads * self.head_dim * number * entries


def kept_itemsize(dtypes: Iterable[str], head_dim: int, itemsize: int) -> float | None:
    """Bytes of a number in a cache whose blocks ask for these `kv_cache_dtype`, with its part of a head's scale; where they
    differ, the most. None: as the model's other numbers."""
    most = max((itemsize if dtype == EXACT else 1 + SCALE_BYTES / head_dim for dtype in dtypes), default=itemsize)
    return None if most == itemsize else most


# -- passes ------------------------------------------------------------------------------------------------------------


def one_pass(
    shape: Shape, tokens: float, *, rows: int = 1, past: float = 0, cached: bool = True, masked: bool = False
) -> Work:
    """A pass over `rows` texts of `tokens` new tokens each, `past` tokens before them; without the head.

    Args:
        cached: keys and values are kept.
        masked: a mask is made though nothing but the order of the tokens is masked.
    """
    n, seen, width = rows * tokens, past + tokens, shape.heads * shape.head_dim
    inside = n * (6 * shape.hidden + 3 * shape.inner + 2 * width)
    read = 4 * width * rows * seen * shape.reads  # a layer's keys and values, repeated for its heads, and once copied
    mask = MASK_BYTES * n * seen * shape.reads if tokens > 1 and (masked or shape.reads > 1 or past) else 0
    return Work(
        passes=shape.calls,
        layer_tokens=n * shape.calls,
        pairs=shape.key_calls * n * (past + tokens / 2),
        kv=GROWTH * rows * seen * shape.kv_bytes if cached else 0,
        states=(inside + read) * shape.itemsize,
        attention=mask,
    )


def decoding(shape: Shape, tokens: float, *, rows: int = 1, past: float = 0) -> Work:
    """Passes of one token a text, `tokens` of them, after `past` tokens; with the head."""
    if tokens <= 0:
        return NOTHING
    last = one_pass(shape, 1, rows=rows, past=past + tokens - 1)
    return replace(
        last,
        passes=tokens * last.passes,
        layer_tokens=tokens * last.layer_tokens,
        pairs=shape.key_calls * rows * tokens * (past + tokens / 2),
        heads=tokens,
        head_tokens=tokens * rows,
        logits=LOGIT_COPIES * 4 * rows * shape.vocab,
    )


def head(shape: Shape, rows: float, at_once: float = 1) -> Work:
    """Reading the output head for `rows` states, in chunks of at most `HEAD_NUMBERS` logits.

    Args:
        at_once: rows that are never parted.
    """
    held = min(rows, max(at_once, HEAD_NUMBERS // shape.vocab))
    return Work(heads=math.ceil(rows / max(held, 1)), head_tokens=rows, logits=LOGIT_COPIES * 4 * held * shape.vocab)


# -- a run -------------------------------------------------------------------------------------------------------------


def run(shape: Shape, prompt: int, new: int, *, recorded: bool = True, extras: Collection[str] = ()) -> Work:
    """A prompt of `prompt` tokens read, and `new` tokens written, as far as the model's context goes.

    Args:
        recorded: every token's states and lenses are recorded.
        extras: what is recorded beyond that (:data:`loopviz.trace.EXTRAS`).
    """
    written = max(0, min(new, shape.context - prompt + 1) - 1)
    found = reading(shape, prompt, recorded=recorded, extras=extras) + decoding(shape, written, past=prompt)
    return found + recording(shape, written, extras, past=prompt) if recorded else found


def reading(shape: Shape, prompt: int, *, recorded: bool = True, extras: Collection[str] = ()) -> Work:
    """A prompt's own pass, and the first token chosen."""
    found = one_pass(shape, prompt) + head(shape, 1)
    return found + recording(shape, prompt, extras, at_once=prompt) if recorded else found


def recording(
    shape: Shape, tokens: float, extras: Collection[str] = (), *, past: float = 0, at_once: float = 1
) -> Work:
    """What recording `tokens` tokens takes beyond their passes.

    Args:
        past: tokens before them.
        at_once: tokens of a pass.
    """
    exits = max(0, shape.loops[-1].steps - 1) if shape.loops and "exit" in extras else 0
    through = tokens * exits * shape.loops[-1].coda if exits else 0
    states, lenses = shape.steps + len(shape.loops), 2 if "exit" in extras else 1
    found = head(shape, tokens * (states + exits), states + exits + 1)
    keys = sum(loop.steps * loop.layers for loop in shape.loops)
    seen = keys * tokens * (past + tokens / 2) * PACKED if "attention" in extras else 0
    kept = tokens * (FRAME_BYTES + shape.steps * STEP_BYTES * lenses + states * shape.hidden * PACKED) + seen
    width = at_once * keys * shape.head_dim * shape.itemsize
    held = width * (shape.heads + shape.kv_heads * shape.reads) if "attention" in extras else 0
    held += width * shape.kv_heads if "keys" in extras else 0
    return found + Work(
        passes=through / max(at_once, 1),
        layer_tokens=through,
        frames=tokens,
        steps=tokens * shape.steps * (lenses + len(extras)),
        states=at_once * (states + exits) * shape.hidden * shape.itemsize,
        attention=held,
        kept=kept,
    )


# -- a measurement -----------------------------------------------------------------------------------------------------


def windows_of(tokens: float, length: int, overlap: int = 0) -> int:
    """Windows over so many tokens, each reaching `overlap` tokens into the one before."""
    return 1 if tokens <= length else 1 + math.ceil((tokens - length) / max(1, length - overlap))


def whole_passes(shape: Shape, windows: int, length: int, batch: int, *, heads: int = 1) -> Work:
    """Windows read by whole passes, `batch` at a time, each token through the head `heads` times."""
    rows = min(batch, windows)
    once = one_pass(shape, length, rows=rows, cached=False, masked=True)
    return once.times(windows / rows) + head(shape, heads * windows * length, rows)


def through_cache(shape: Shape, windows: int, length: int, batch: int, *, fidelity: bool = False) -> Work:
    """Windows read token by token through the cache, `batch` at a time.

    Args:
        fidelity: each is held against a whole pass too.
    """
    rows = min(batch, windows)
    found = decoding(shape, length, rows=rows)
    if fidelity:
        found += one_pass(shape, length, rows=rows, cached=False, masked=True)
        found += Work(heads=length, head_tokens=length * rows, logits=2 * found.logits)
    return found.times(windows / rows) + Work(kept=windows * length * SCORE_BYTES)


def generating(shape: Shape, texts: int, prompt: int, new: int, batch: int) -> Work:
    """`texts` prompts continued by `new` tokens each, `batch` at a time."""
    rows = min(batch, texts)
    found = one_pass(shape, prompt, rows=rows, masked=True) + head(shape, rows, rows)
    return (found + decoding(shape, new, rows=rows, past=prompt)).times(texts / rows)
