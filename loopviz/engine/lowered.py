"""A model held in fewer bytes than float32, and what that costs: measured on a short text while it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from loopviz.engine.pieces import encode
from loopviz.engine.rate import measured, rate_of
from loopviz.engine.single_run import context_length
from loopviz.engine.work import Rate, Work
from loopviz.model.checkpoints.errors import Note
from loopviz.model.checkpoints.layout_choice import arrange
from loopviz.model.checkpoints.load import LoadedCheckpoint
from loopviz.model.checkpoints.precision_choice import Choice, choose
from loopviz.model.configuration import LoopLlamaConfig
from loopviz.model.measures import kl, log_probs
from loopviz.model.packed import quantization_of
from loopviz.model.precision import PrecisionError, lower, weight_bytes
from loopviz.paths import ASSETS
from loopviz.text_file import read_text

TEXT = ASSETS / "texts" / "little-stories.txt"
TOKENS = 64  # read of it: a tenth of a second or two
MEGABYTE = 1e6


class PrecisionRefused(PrecisionError):
    """A precision that was asked for, and that this model cannot be held in here.

    Attributes:
        code: why, for programs: as the note has it where a model is held in float32 instead.
        values: what the message is about, by name: `precision` as it was asked for, `dtype`, `said`.
    """

    def __init__(self, code: str, said: str, **values: Any) -> None:
        super().__init__(f"precision={values['precision']!r}: {said}; choose 'exact'")
        self.code, self.values = code, {**values, "said": said}


@dataclass(frozen=True)
class Fidelity:
    """How far one model's next tokens are from another's.

    Attributes:
        kl: KL(exact || other), nats, mean over the tokens.
        same: share of tokens after which the likeliest next one is the same.
        tokens: how many.
    """

    kl: float
    same: float
    tokens: int


def fidelity(exact: Tensor, other: Tensor) -> Fidelity:
    """Of two models' logits `[T, V]` for the same tokens."""
    found = kl(log_probs(exact.double()), log_probs(other.double()))
    same = (exact.argmax(-1) == other.argmax(-1)).double()
    return Fidelity(float(found.mean()), float(same.mean()), len(found))


@torch.inference_mode()
def short_logits(model: Any, tokenizer: Any, tokens: int = TOKENS) -> Tensor:
    """A model's logits `[T, V]` on the CPU for the beginning of a text that comes along, held out of what the bundled models read."""
    text = read_text(TEXT, "text")[: 16 * tokens]
    ids = encode(tokenizer, text, add_special_tokens=False, verbose=False)[: min(tokens, context_length(model))]
    ids = ids or [0]  # of a vocabulary that has no word of it
    found: Tensor = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0]
    return found.cpu()


def decided(config: LoopLlamaConfig, precision: str, must: bool = False) -> Choice:
    """The dtype that a precision means for a model; float32, with a note, where there is no half here.

    Args:
        must: refuse it then.

    Raises:
        PrecisionRefused: `must`, and there is no half.
        FieldError: no precision is called so.
    """
    found = choose(config, precision)
    if must and precision == "half" and found.dtype is torch.float32:
        said = "neither float16 nor bfloat16 is computed on this machine"
        raise PrecisionRefused("precision_no_half", said, precision=precision)
    return found


def refuse_packed(kind: str, precision: str) -> NoReturn:
    """Refuse a precision for a model whose files are packed as `kind` already.

    Raises:
        PrecisionRefused: always.
    """
    said = f"its layers are packed in its files already, as {kind} (bitsandbytes)"
    raise PrecisionRefused("precision_packed", said, precision=precision, dtype=kind)


def lowered(load: Callable[[], LoadedCheckpoint], precision: str, must: bool = False) -> LoadedCheckpoint:
    """A checkpoint in a precision, with notes that say which and what it costs; exact, and said so, where it cannot be that.

    What it holds in float32 then lies as it is read quickest here (:mod:`loopviz.model.checkpoints.layout_choice`).

    Args:
        load: loads it in float32; called again where a half has run over, for what is lost does not come back.
        precision: as :func:`loopviz.model.checkpoints.precision_choice.choose` takes it.
        must: refuse it where it cannot be that; `auto` can always be exact.

    Raises:
        PrecisionRefused: `must`, and it cannot; else as `load`.
    """
    found = _in_precision(load, precision, must and precision != "auto")
    arrange(found.model)
    return found


def _in_precision(load: Callable[[], LoadedCheckpoint], precision: str, must: bool) -> LoadedCheckpoint:
    loaded = load()
    if precision == "exact":
        return loaded
    if (packed := quantization_of(loaded.model)) is not None:
        if must:
            refuse_packed(packed, precision)
        text = (
            f"its layers are packed in its files already, as {packed} (bitsandbytes), so it is not held in {precision}"
        )
        note = Note("precision_packed", text, {"kind": packed, "precision": precision})
        return replace(loaded, notes=(*loaded.notes, note))
    choice = decided(loaded.model.config, precision, must)
    if choice.dtype is torch.float32:
        return replace(loaded, notes=(*loaded.notes, *choice.notes))
    name, model = str(choice.dtype).removeprefix("torch."), loaded.model
    exact, before = short_logits(model, loaded.tokenizer), weight_bytes(model)
    arrange(model)  # as it would run, were it not lowered
    pass_before = pass_ms(
        model, measured(model)
    )  # not rate_of: it is remembered by the weights, which are about to change
    try:
        lower(model, choice.dtype)
    except PrecisionError as error:
        if must:
            raise PrecisionRefused("precision_refused", str(error), precision=precision, dtype=name) from None
        note = Note("precision_refused", f"{error}; it is held in float32 instead", {"dtype": name})
        return replace(loaded, notes=(*loaded.notes, note))
    other = short_logits(model, loaded.tokenizer)
    if bool(torch.isfinite(exact).all()) and not bool(torch.isfinite(other).all()):
        text = f"its numbers run over in {name} on a short text"
        if must:
            raise PrecisionRefused("precision_overflow", text, precision=precision, dtype=name)
        loaded = load()
        note = Note("precision_overflow", f"{text}; it is held in float32 instead", {"dtype": name})
        return replace(loaded, notes=(*loaded.notes, note))
    arrange(model)
    sizes = (before, weight_bytes(model))
    cost = _cost(name, fidelity(exact, other), sizes, (pass_before, pass_ms(model, rate_of(model))))
    return replace(loaded, notes=(*loaded.notes, *choice.notes, cost, _floor(choice.dtype)))


def pass_ms(model: Any, rate: Rate) -> float:
    """Milliseconds that a token takes once through all layers and the head, without loops, at a rate measured here."""
    layers = model.config.num_hidden_layers
    return 1000 * Work(passes=layers, layer_tokens=layers, heads=1, head_tokens=1).seconds(rate)


def rounding(dtype: torch.dtype) -> float:
    """How far a number may be off, as a share of itself, once it is rounded: half of the dtype's eps. Of int8 layers: what they read."""
    return torch.finfo(torch.bfloat16 if dtype is torch.int8 else dtype).eps / 2


def _floor(dtype: torch.dtype) -> Note:
    """How far a loop can settle."""
    values = {"dtype": str(dtype).removeprefix("torch."), "floor": f"{rounding(dtype):.1e}"}
    if dtype is torch.int8:
        text = "what its layers read is rounded to bfloat16, by up to {floor} of a number: near there the curves of a loop end"
        return Note("precision_floor_int8", text.format(**values), values)
    text = "a loop's state settles no further than to changes of about {floor} of its norm, to which {dtype} rounds (half its eps), unless it stands still"
    return Note("precision_floor", text.format(**values), values)


def _cost(name: str, found: Fidelity, sizes: tuple[int, int], passes: tuple[float, float]) -> Note:
    """What is lost and saved: `sizes` in bytes and `passes` in ms, each before and after."""
    values = {
        "dtype": name,
        "kl": f"{found.kl:.2g}",
        "same": f"{100 * found.same:.0f}",
        "tokens": str(found.tokens),
        "size": f"{sizes[1] / MEGABYTE:,.3g}",
        "exact_size": f"{sizes[0] / MEGABYTE:,.3g}",
        "ms": f"{passes[1]:.3g}",
        "exact_ms": f"{passes[0]:.3g}",
    }
    text = (
        "held in {dtype}: on {tokens} tokens of a short text its next token is {kl} nats (KL) from float32's in the mean, and the "
        "likeliest is the same at {same} %; its weights take {size} MB instead of {exact_size} MB; a token takes {ms} ms once through "
        "all layers on this machine, and {exact_ms} in float32, measured now"
    )
    return Note("precision_cost", text.format(**values), values)
