"""Is `llama.py` a Llama? Its loss and every logit, and its positions, against transformers' on the same weights.

    for row in compare(article(), torch.float32): ...

transformers computes attention in two ways, `eager` (one operation after the other, as `llama.py`) and `sdpa` (torch's
fused kernel, which adds in another order). With `eager` every bit is expected to agree; how far its own two ways are apart
is measured beside it, for that is what rounding does to this model. What differs says why (:meth:`Row.why`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaPreTrainedModel
from transformers import LlamaForCausalLM as TheirLlama
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from loopviz.checks import FieldError
from loopviz.loop_fields import MODEL_FIELDS
from loopviz.model import LOOP_FIELDS
from loopviz.model.checkpoints.inspect import available_memory
from loopviz.model.checkpoints.limits import gigabytes
from loopviz.model.interrupt import check
from loopviz.model.precision import plain_state
from loopviz.model.step_adapters import check_one_model

from . import families, rope
from .llama import IGNORED, LlamaForCausalLM, repeat_kv, rotary_frequencies, shifted_loss

ATTENTIONS = ("eager", "sdpa")
OWN = 4  # so many times what transformers' own two ways are apart are rounding (40 tiny models of 3 kinds: at most 1)
UNITS = 2  # where those two are equal: so many units in the last place of the largest logit
ROUNDINGS = 32  # so many units in the last place of a loss or a score count as rounding
FURTHEST = 8192  # position: an angle of a later one has too few digits left in float32 to tell one law from another
HELD_LOGITS = 3  # ours and both of theirs
LOGIT_STEPS = (
    34  # times that a logit is gone through: four losses, five largest values or differences, two comparisons of bits
)
WEIGHT_STEPS = 4  # the same of a weight that is made: a normal number, and its dtype
NUMBERS = 2**20  # gone through to tell how fast
SQUARES = (128, 256, 512, 1024)  # sides of matrices that are multiplied to tell a rate
TRIES = 6  # of each; the quickest counts: what else a machine does makes a product slow, and a small one a thousandfold
LONG, TOO_LONG = 0.03, 0.1  # seconds: of a product that is large enough to tell it, and of one that is made once only
SPARE = 0.1  # of the memory, for what is not counted
SEED = 0


@dataclass(frozen=True)
class Batch:
    """What is read: ids, padding mask (0 is padding) and labels, `[B, T]` each."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Subject:
    """What is compared: a configuration, its weights in a dtype under transformers' names, and a batch to read.

    Attributes:
        held: bytes of `weights` that are in memory already and used as they are, by dtype.
    """

    name: str
    config: LlamaConfig
    weights: Callable[[torch.dtype], dict[str, Tensor]]
    batch: Batch
    held: Callable[[torch.dtype], int] = lambda dtype: 0


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        subject, dtype: what was computed, and in what.
        attention: transformers' way of computing it.
        logits: how many were compared: all of the batch, those at padding too.
        equal: whether loss and logits agree in every bit.
        max_delta_logit: largest difference of a logit.
        largest_logit: by size; what rounding is relative to.
        loss_theirs, loss_ours: of all labels, as the article counts it.
        real_theirs, real_ours: with padding left out.
        own_delta_logit: largest difference between transformers' own two ways, the same in both rows.
    """

    subject: str
    dtype: torch.dtype
    attention: str
    logits: int
    equal: bool
    max_delta_logit: float
    largest_logit: float
    loss_theirs: float
    loss_ours: float
    real_theirs: float
    real_ours: float
    own_delta_logit: float

    @property
    def delta_loss(self) -> float:
        """The larger difference of the two losses."""
        both = (self.loss_theirs - self.loss_ours, self.real_theirs - self.real_ours)
        return max((abs(each) for each in both if not math.isnan(each)), default=0.0)

    @property
    def bound(self) -> float:
        """How large a difference is still rounding, by the yardstick of transformers' own two ways.

        In half precision a fault may be as small as that where attention hardly matters: of a new model that is 64 wide,
        frequencies that are half as large move no bfloat16 logit further. The same fault is seen in float32.
        """
        return max(OWN * self.own_delta_logit, UNITS * self._eps * self.largest_logit)

    @property
    def agrees(self) -> bool:
        """Whether whatever differs is rounding. A loss moves by at most twice what a logit does; it is float32 always."""
        own = ROUNDINGS * torch.finfo(torch.float32).eps * (abs(self.loss_theirs) + self.largest_logit)
        loss = 2 * self.max_delta_logit + own
        return self.max_delta_logit <= self.bound and self.delta_loss <= loss  # a NaN is not

    @property
    def _eps(self) -> float:
        """A unit in the last place of the coarsest dtype on the way; the eager softmax is float32 in float64 too."""
        return torch.finfo(torch.float32 if self.dtype == torch.float64 else self.dtype).eps

    @property
    def cause(self) -> str:
        """Why it is as it is: a key of `CAUSES`."""
        if self.equal:
            return "equal"
        if not self.agrees:
            return "differs"
        if self.attention == "sdpa":
            return "order"
        return "softmax" if self.dtype == torch.float64 else "layout"

    def why(self) -> str:
        """Why it is as it is, in a sentence."""
        return CAUSES[self.cause].format(bound=f"{self.bound:.1e}", own=f"{self.own_delta_logit:.1e}")


CAUSES = {
    "equal": "every bit agrees",
    "differs": "more than rounding ({bound}): the two do not compute the same",
    "order": "rounding: the fused attention adds in another order; its own eager differs from it by {own}",
    "softmax": "rounding: eager attention takes its softmax in float32 even here, llama.py in float64",
    "layout": "rounding: the same operations; this processor's matrix product depends on how a matrix lies in memory",
}


# -- what is compared --------------------------------------------------------------------------------------------------


def article(**changes: Any) -> Subject:
    """The reproduction article's configuration with random weights, and its batch: 4 x 125 tokens, the last 5 masked.

    Its code sets `hidden_size` after the configuration is made, which leaves `head_dim` at 128 in today's transformers;
    here it is 1024 / 32 = 32, as it was in the article.

    Args:
        changes: fields of the configuration, for a smaller one of the same kind.
    """
    fields: dict[str, Any] = {
        "vocab_size": 128256,
        "hidden_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    config = LlamaConfig(**{**fields, **changes})
    last = min(50000, config.vocab_size)
    name = "smaller than the article" if changes else "article"
    return Subject(name, config, lambda dtype: random_weights(config, dtype), random_batch(100 % last, last, 4, 125))


def random_batch(first: int, last: int, rows: int, length: int) -> Batch:
    """`[rows, length]` ids and labels in `first..last - 1`; the last 5 places are padding where there is room."""
    random = torch.Generator().manual_seed(SEED)
    ids, labels = (torch.randint(first, last, (rows, length), generator=random) for _ in range(2))
    mask = torch.ones_like(ids)
    if length > 10:
        mask[:, length - 5 :] = 0
    return Batch(ids, mask, labels)


def random_weights(config: LlamaConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights as a new model has them, one after the other in `dtype`: matrices normal, gains 1; the same every time."""
    random = torch.Generator().manual_seed(SEED)
    state = {}
    for name, weight in _on_meta(LlamaForCausalLM, config).state_dict().items():
        check()
        made = torch.ones(weight.shape)
        if weight.dim() == 2:
            made.normal_(0.0, config.initializer_range, generator=random)
        state[name] = made.to(dtype)
    return state


def of_model(model: LlamaPreTrainedModel, name: str, ids: Tensor | None = None) -> Subject:
    """A loaded model as plain Llama: of a LoopLlama each layer runs once, and what only its loop has is left out.

    Args:
        model: a Llama of transformers' or a LoopLlama.
        name: to call it by.
        ids: `[T]` to read; None: 4 x 125 random ones, fewer where its context is shorter.

    Raises:
        ValueError: it computes what `llama.py` does not (another rotary rule, other weights in every loop step, norms that stand
            elsewhere than a Llama's), by name.
    """
    check_one_model(model)
    for field, plain in MODEL_FIELDS.items():
        if (value := getattr(model.config, field, plain)) != plain:
            raise FieldError(field, value, "llama_not_written", plain=repr(plain))
    config = plain_config(model.config)
    names = set(_on_meta(LlamaForCausalLM, config).state_dict())
    state = {name: weight for name, weight in plain_state(model).items() if name in names}

    def weights(dtype: torch.dtype) -> dict[str, Tensor]:
        return {name: weight.to(dtype) for name, weight in state.items()}

    def held(dtype: torch.dtype) -> int:
        return sum(weight.nbytes for weight in state.values()) if dtype == model.dtype else 0

    if ids is None:
        batch = random_batch(0, config.vocab_size, 4, min(125, config.max_position_embeddings))
    else:
        batch = Batch(ids[None], torch.ones_like(ids[None]), ids[None])
    return Subject(name, config, weights, batch, held)


def plain_config(config: LlamaConfig) -> LlamaConfig:
    """The same without its loop."""
    fields = config.to_dict()
    for name in ("model_type", "architectures", "dtype", *LOOP_FIELDS):
        fields.pop(name, None)
    return LlamaConfig(**fields)


# -- what it takes -----------------------------------------------------------------------------------------------------


def memory(subject: Subject, dtype: torch.dtype) -> int:
    """Bytes that :func:`compare` needs at its peak, on top of what is held already."""
    config, size = subject.config, dtype.itemsize
    rows, tokens = subject.batch.input_ids.shape
    logits = rows * tokens * config.vocab_size
    weights = families.parameters(config) * size - subject.held(dtype)
    making = 4 * max(config.vocab_size, config.intermediate_size) * config.hidden_size
    loss = 2 * 4 * logits  # a float copy, and log-probabilities
    layer = rows * tokens * max(3 * config.intermediate_size, 4 * config.num_attention_heads * tokens) * max(size, 4)
    need = weights + max(making, HELD_LOGITS * size * logits + max(loss, layer))
    return int(need * (1 + SPARE))


def seconds(subject: Subject, dtype: torch.dtype, device: torch.device) -> float:
    """About how long it takes, by this machine's own product of two matrices, and by how fast it goes through numbers."""
    rows, tokens = subject.batch.input_ids.shape
    products = HELD_LOGITS * rows * tokens * families.flops(subject.config, tokens) / _product_rate(dtype, device)
    made = 0 if subject.held(dtype) else families.parameters(subject.config)
    return products + (WEIGHT_STEPS * made + LOGIT_STEPS * rows * tokens * subject.config.vocab_size) * _each_number(
        device
    )


@functools.cache
def _each_number(device: torch.device) -> float:
    """Seconds that a simple step takes for one number of very many, once a process."""
    numbers, took = torch.randn(NUMBERS, device=device), math.inf
    for _ in range(TRIES):
        began = time.perf_counter()
        float((numbers.double() - numbers).abs().max())  # four steps
        took = min(took, time.perf_counter() - began)
    return took / 4 / NUMBERS


@functools.cache
def _product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a product of two matrices, once a process: of small ones where those take long already, for some number
    formats have no instructions on some processors, and a product of large ones would be half a minute."""

    def product(size: int) -> float:
        square = torch.randn(size, size, device=device).to(dtype)
        began = time.perf_counter()
        float(square.matmul(square)[0, 0])
        return max(time.perf_counter() - began, 1e-9)

    product(SQUARES[0])  # this one also starts threads
    rate = 0.0
    for size in SQUARES:
        took = product(size)
        for _ in range(TRIES - 1):
            if took > TOO_LONG:
                break
            took = min(took, product(size))
        rate = max(rate, 2 * size**3 / took)
        if took > LONG:
            break
    return rate


def free_memory(device: torch.device) -> int:
    """Bytes that are free: a CUDA device's own, else this machine's (of MPS it is the same memory; of other devices their
    own is not asked)."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()


def check_memory(subject: Subject, dtype: torch.dtype, device: torch.device | None = None) -> None:
    """Refuse what does not fit.

    Args:
        device: where it is computed; None: the CPU.

    Raises:
        ValueError: with what is needed and what is free, and where.
    """
    device = device or torch.device("cpu")
    need, free = memory(subject, dtype), free_memory(device)
    if need > free:
        kind = str(dtype).removeprefix("torch.")
        where = {"cpu": "", "cuda": f" on {device}"}.get(device.type, f" on this machine ({device}'s own is not asked)")
        raise ValueError(
            f"{subject.name}, {kind}: needs {gigabytes(need)} of memory and {gigabytes(free)} are free{where}; leave it out, "
            "or choose a smaller dtype"
        )


# -- the comparison ----------------------------------------------------------------------------------------------------


def _on_meta(kind: Any, config: LlamaConfig) -> Any:
    with torch.device("meta"):
        return kind(config)


def build(subject: Subject, dtype: torch.dtype, device: torch.device) -> tuple[TheirLlama, LlamaForCausalLM]:
    """transformers' Llama and ours on the very same weights: nothing is held twice."""
    state = {name: weight.to(device) for name, weight in subject.weights(dtype).items()}
    ours = _on_meta(LlamaForCausalLM, subject.config)
    ours.load_state_dict(state, assign=True)
    theirs = _on_meta(TheirLlama, subject.config)
    theirs.load_state_dict(dict(ours.state_dict()), assign=True)
    theirs.tie_weights()
    theirs.model.rotary_emb = LlamaRotaryEmbedding(subject.config).to(device)  # no weights: not in the state
    for model in (theirs, ours):
        for part in (*model.model.layers, model.lm_head):
            part.register_forward_pre_hook(lambda *_: check())  # an article's worth of passes can be left in the middle
    return theirs.eval(), ours.eval()


@torch.no_grad()
def compare(subject: Subject, dtype: torch.dtype, device: torch.device | None = None) -> list[Row]:
    """Loss and logits of both, for each way in which transformers computes attention.

    Raises:
        ValueError: it does not fit in memory.
        Interrupted: inside of :func:`loopviz.model.interrupt.interruptible`, before the next layer.
    """
    device = device or torch.device("cpu")
    check_memory(subject, dtype, device)
    theirs, ours = build(subject, dtype, device)
    batch = Batch(*(each.to(device) for each in vars(subject.batch).values()))
    real_ours, found = ours(batch.input_ids, batch.attention_mask, batch.labels)
    losses_ours = (shifted_loss(found, batch.labels), real_ours)
    labels = (batch.labels, _real_labels(batch))
    kept = {}
    for attention in ATTENTIONS:
        theirs.set_attn_implementation(attention)
        kept[attention] = theirs(batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    own = _largest(*kept.values())
    rows = []
    for attention, logits in kept.items():
        losses = [theirs.loss_function(logits, wanted, subject.config.vocab_size) for wanted in labels]
        rows.append(
            Row(
                subject=subject.name,
                dtype=dtype,
                attention=attention,
                logits=logits.numel(),
                equal=torch.equal(logits, found) and all(map(torch.equal, losses, losses_ours)),
                max_delta_logit=_largest(logits, found),
                largest_logit=_largest(logits),
                loss_theirs=float(losses[0]),
                loss_ours=float(losses_ours[0]),
                real_theirs=float(losses[1]),
                real_ours=float(losses_ours[1]),
                own_delta_logit=own,
            )
        )
    return rows


def _real_labels(batch: Batch) -> Tensor:
    """Labels as transformers must be given them to leave padding out, on either side of a row: each that is padding, or
    whose token before is."""
    real = batch.attention_mask.bool()
    before = torch.cat((torch.zeros_like(real[:, :1]), real[:, :-1]), dim=1)
    return batch.labels.masked_fill(~(real & before), IGNORED)


def _largest(logits: Tensor, other: Tensor | None = None) -> float:
    """The largest absolute value of logits, or of their difference, row by row: a copy of all would be large. NaN if one
    is."""
    rows = (row if other is None else row.double() - other[place].double() for place, row in enumerate(logits))
    return float(torch.stack([row.abs().max() for row in rows]).max())  # Python's max would pass over a NaN


# -- positions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PositionRow:
    """One law of positions, on the queries and keys of a model's first layer.

    Attributes:
        law: what is held against what.
        dtype: of angles and products.
        largest: difference of a score.
        scores: the largest score, by size.
        furthest: the last position that was looked at.
        holds: whether the difference is rounding.
        absolute: of positions that are added to the state: nothing says that the law holds there.
    """

    law: str
    dtype: torch.dtype
    largest: float
    scores: float
    furthest: int
    holds: bool
    absolute: bool = False

    @property
    def as_expected(self) -> bool:
        """Whether it holds where it must; where it need not, whatever comes is."""
        return self.holds or self.absolute


@torch.no_grad()
def positions(subject: Subject, dtype: torch.dtype) -> Iterator[PositionRow]:
    """RoPE's two forms agree once permuted; a score depends on distance alone; with sinusoidal positions it does not.

    Distances are looked at from the first position on, in the middle and at the end of the context, of :data:`FURTHEST` at
    most.

    Args:
        subject: its first layer's real q_proj and k_proj, on the embeddings of the batch's first row.
        dtype: of what is computed; angles of float32 lose digits as positions grow.
    """
    config = subject.config
    ours = _on_meta(LlamaForCausalLM, config)
    ours.load_state_dict({name: weight.cpu() for name, weight in subject.weights(torch.float32).items()}, assign=True)
    layer = ours.model.layers[0].to(dtype=dtype)
    ids = subject.batch.input_ids[0, :16]
    x = layer.input_layernorm(ours.model.embed_tokens(ids).to(dtype))
    heads = _Heads(layer.self_attn, x, rotary_frequencies(config).to(dtype))
    n, last = len(ids), max(min(config.max_position_embeddings, FURTHEST) - len(ids), 0)
    here, away = torch.arange(n), [torch.arange(n) + start for start in (last // 2, last)]
    rotated = heads.rotated(here)
    size = float(rotated.abs().max())
    unit = torch.finfo(dtype).eps
    yield _law("pairs (Meta) = halves (transformers)", dtype, heads.rotated_pairs(here) - rotated, size, unit, n)
    moved = torch.stack([heads.rotated(place) for place in away]) - rotated
    yield _law("RoPE: score of a distance, anywhere", dtype, moved, size, unit, last + n)
    absolute = torch.stack([heads.absolute(place) for place in away]) - heads.absolute(here)
    law = _law("sinusoidal: score of a distance, anywhere", dtype, absolute, size, unit, last + n)
    yield replace(law, absolute=True)


def _law(law: str, dtype: torch.dtype, difference: Tensor, size: float, unit: float, n: int) -> PositionRow:
    """Of the first `n` positions: the digits that an angle loses grow with it."""
    largest = float(difference.abs().max())
    return PositionRow(law, dtype, largest, size, n - 1, largest <= ROUNDINGS * unit * n * size)


class _Heads:
    """Queries and keys of one attention for states `[T, H]`, and their scores `[N, T, T]` at given positions."""

    def __init__(self, attention: Any, x: Tensor, frequencies: Tensor) -> None:
        self.attention, self.x, self.frequencies = attention, x, frequencies

    def _project(self, projection: Any, n_heads: int, x: Tensor, pairs: bool) -> Tensor:
        """`[T, H]` -> `[n, T, D]`, with rows as Meta has them (`pairs`) or as they are."""
        weight, bias = projection.weight, projection.bias
        if pairs:
            weight = rope.projection_to_pairs(weight, n_heads)
            bias = None if bias is None else rope.projection_to_pairs(bias, n_heads)
        return torch.nn.functional.linear(x, weight, bias).view(len(x), n_heads, -1).transpose(0, 1)

    def _scores(self, x: Tensor, place: Callable[[Tensor], Tensor], pairs: bool = False) -> Tensor:
        q = place(self._project(self.attention.q_proj, self.attention.n_heads, x, pairs))
        k = place(self._project(self.attention.k_proj, self.attention.n_kv_heads, x, pairs))
        k = repeat_kv(k[None], self.attention.n_heads // self.attention.n_kv_heads)[0]
        return q @ k.transpose(1, 2) * self.attention.head_dim**-0.5

    def rotated(self, places: Tensor) -> Tensor:
        return self._scores(self.x, lambda heads: rope.rotate_halves(heads, self.frequencies, places))

    def rotated_pairs(self, places: Tensor) -> Tensor:
        return self._scores(self.x, lambda heads: rope.rotate_pairs(heads, self.frequencies, places), pairs=True)

    def absolute(self, places: Tensor) -> Tensor:
        return self._scores(self.x + rope.sinusoidal(places, self.x.shape[1]).to(self.x.dtype), lambda heads: heads)
