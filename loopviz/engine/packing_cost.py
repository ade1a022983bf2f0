"""What packing a model's layers costs: float32 is read first, and the packed model is held against it on a short text as it is loaded."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopviz.engine.lowered import MEGABYTE, fidelity, short_logits
from loopviz.model.checkpoints import inspect
from loopviz.model.checkpoints.errors import Note
from loopviz.model.checkpoints.load import LoadedCheckpoint, PreparedCheckpoint
from loopviz.model.checkpoints.packing import check_quantization
from loopviz.model.precision import weight_bytes

GIGABYTE = 1e9


@dataclass(frozen=True)
class Exact:
    """What a model in float32 is held against: its logits `[T, V]` for the short text, and bytes of its weights."""

    logits: Tensor
    n_bytes: int


def packed_beside_exact(
    kind: str,
    dtype: torch.dtype,
    prepared: Callable[[], PreparedCheckpoint],
    packed: Callable[[], LoadedCheckpoint],
) -> LoadedCheckpoint:
    """A checkpoint whose layers are packed, with a note that says what that costs; where it cannot be measured, why not.

    Float32 is read, looked at and let go of before: the two are never in memory together.

    Args:
        kind, dtype: how its layers are packed, and what all else is held in.
        prepared: looks at its files, for float32.
        packed: loads it.

    Raises:
        CheckpointError: it cannot be packed so, said before anything is read; else as `prepared` and `packed`.
    """
    check_quantization(kind, dtype, None)
    found = _exact(prepared())
    gc.collect()  # a model's parts know each other: only so is its memory the next one's
    loaded = packed()
    note = found if isinstance(found, Note) else _cost(kind, found, loaded)
    return replace(loaded, notes=(*loaded.notes, note))


def _exact(found: PreparedCheckpoint) -> Exact | Note:
    """The model in float32, as far as it is needed; a note where it is not to be had."""
    if found.found.packing is not None:
        text = "what its packing costs is not measured: its files hold the layers packed, and no floats to hold them against"
        return Note("quantization_no_floats", text)
    need, free = found.need, inspect.available_memory()
    if need > free:
        values = {"need": f"{need / GIGABYTE:,.2f}", "free": f"{free / GIGABYTE:,.2f}"}
        text = "what its packing costs is not measured: float32, to hold it against, needs {need} GB of memory, and {free} GB are free"
        return Note("quantization_no_room", text.format(**values), values)
    loaded = found.load()
    return Exact(short_logits(loaded.model, loaded.tokenizer), weight_bytes(loaded.model))


def _cost(kind: str, exact: Exact, loaded: LoadedCheckpoint) -> Note:
    """What is lost and saved."""
    logits = short_logits(loaded.model, loaded.tokenizer)
    if bool(torch.isfinite(exact.logits).all()) and not bool(torch.isfinite(logits).all()):
        text = f"packed as {kind} its numbers run over on a short text, and float32's do not; take another dtype, or leave it unpacked"
        return Note("quantization_overflow", text, {"kind": kind})
    beside = fidelity(exact.logits, logits)
    values = {
        "kind": kind,
        "kl": f"{beside.kl:.2g}",
        "same": f"{100 * beside.same:.0f}",
        "tokens": str(beside.tokens),
        "size": f"{weight_bytes(loaded.model) / MEGABYTE:,.3g}",
        "exact_size": f"{exact.n_bytes / MEGABYTE:,.3g}",
    }
    text = (
        "packed as {kind}: on {tokens} tokens of a short text its next token is {kl} nats (KL) from float32's in the mean, and the likeliest "
        "is the same at {same} %; its weights take {size} MB instead of {exact_size} MB (on the CPU, measured now)"
    )
    return Note("quantization_cost", text.format(**values), values)
