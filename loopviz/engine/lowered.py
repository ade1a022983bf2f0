"""A model held in fewer bytes than float32, and what that costs: measured on a short text while it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loopviz.engine.pieces import encode
from loopviz.engine.single_run import context_length
from loopviz.model.checkpoints.errors import Note
from loopviz.model.checkpoints.load import LoadedCheckpoint
from loopviz.model.checkpoints.precision_choice import choose
from loopviz.model.measures import kl, log_probs
from loopviz.model.packed import quantization_of
from loopviz.model.precision import PrecisionError, lower, weight_bytes
from loopviz.paths import ASSETS
from loopviz.text_file import read_text

TEXT = ASSETS / "texts" / "little-stories.txt"
TOKENS = 64  # read of it: a tenth of a second or two
MEGABYTE = 1e6


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


def lowered(load: Callable[[], LoadedCheckpoint], precision: str) -> LoadedCheckpoint:
    """A checkpoint in a precision, with notes that say which and what it costs; exact, and said so, where it cannot be that.

    Args:
        load: loads it in float32; called again where a half has run over, for what is lost does not come back.
        precision: as :func:`loopviz.model.checkpoints.precision_choice.choose` takes it.

    Raises:
        As `load`.
    """
    loaded = load()
    if precision == "exact":
        return loaded
    if (packed := quantization_of(loaded.model)) is not None:
        text = (
            f"its layers are packed in its files already, as {packed} (bitsandbytes), so it is not held in {precision}"
        )
        note = Note("precision_packed", text, {"kind": packed, "precision": precision})
        return replace(loaded, notes=(*loaded.notes, note))
    choice = choose(loaded.model.config, precision)
    if choice.dtype is torch.float32:
        return replace(loaded, notes=(*loaded.notes, *choice.notes))
    name, model = str(choice.dtype).removeprefix("torch."), loaded.model
    exact, before = short_logits(model, loaded.tokenizer), weight_bytes(model)
    try:
        lower(model, choice.dtype)
    except PrecisionError as error:
        note = Note("precision_refused", f"{error}; it is held in float32 instead", {"dtype": name})
        return replace(loaded, notes=(*loaded.notes, note))
    other = short_logits(model, loaded.tokenizer)
    if bool(torch.isfinite(exact).all()) and not bool(torch.isfinite(other).all()):
        text = f"its numbers run over in {name} on a short text; it is held in float32 instead"
        loaded = load()
        return replace(loaded, notes=(*loaded.notes, Note("precision_overflow", text, {"dtype": name})))
    return replace(
        loaded, notes=(*loaded.notes, *choice.notes, _cost(name, fidelity(exact, other), before, weight_bytes(model)))
    )


def _cost(name: str, found: Fidelity, before: int, after: int) -> Note:
    values = {
        "dtype": name,
        "kl": f"{found.kl:.2g}",
        "same": f"{100 * found.same:.0f}",
        "tokens": str(found.tokens),
        "size": f"{after / MEGABYTE:,.3g}",
        "exact_size": f"{before / MEGABYTE:,.3g}",
    }
    text = (
        "held in {dtype}: on {tokens} tokens of a short text its next token is {kl} nats (KL) from float32's in the mean, and the "
        "likeliest is the same at {same} %; its weights take {size} MB instead of {exact_size}"
    )
    return Note("precision_cost", text.format(**values), values)
