"""A checkpoint whose layers are packed by bitsandbytes as it is loaded (:mod:`loopviz.model.quantization`): what is refused, what is said."""

from __future__ import annotations

from pathlib import Path

import torch

from loopviz.machine import QUANTIZATIONS
from loopviz.model.modeling import LoopLlamaForCausalLM
from loopviz.model.packed import quantization_of
from loopviz.model.precision import PrecisionError
from loopviz.model.quantization import check_asked, pack

from .errors import CheckpointError, Note
from .packed_folder import Packing

ABOUT = {
    "nf4": "half a byte a weight, with double quantisation",
    "int8": "LLM.int8: a byte a weight; activations are rounded by what is read together, so that batches, prompts and single tokens "
    "differ by rounding",
}


def check_quantization(kind: str, dtype: torch.dtype, precision: str | None) -> None:
    """Refuse a quantisation that cannot be had, before anything is looked for.

    Args:
        kind: as `load_checkpoint` takes it.
        dtype, precision: what else was asked for.

    Raises:
        ValueError: no such kind, or with another way of saying what layers are held in.
        CheckpointError: bitsandbytes is not installed.
    """
    if kind not in QUANTIZATIONS:
        raise ValueError(f"quantization={kind!r}: must be one of {', '.join(QUANTIZATIONS)}")
    if precision is not None:
        raise ValueError(
            f"precision={precision!r}, quantization={kind!r}: both say what the layers' weights are held in; leave one of them out "
            "(dtype says what all else is held and computed in)"
        )
    try:
        check_asked(kind, dtype)
    except PrecisionError as error:
        raise CheckpointError(str(error)) from None


def kind_of(
    packing: Packing | None, asked: str | None, dtype: torch.dtype, precision: str | None, path: Path
) -> str | None:
    """How a checkpoint's layers are to be packed: as asked, or as its files hold them.

    Args:
        packing: of its files.
        asked, dtype, precision: as `load_checkpoint` takes them.

    Raises:
        CheckpointError: its files hold them packed, and otherwise than is asked for; no bitsandbytes.
    """
    if packing is None:
        return asked
    kind = packing.kind
    other = (
        f"quantization={asked!r}"
        if asked not in (None, kind)
        else None
        if precision is None
        else f"precision={precision!r}"
    )
    if other is not None:
        raise CheckpointError(f"{other}: the layers of {path} are packed already, as {kind}; leave it out")
    try:
        check_asked(kind, dtype)
    except PrecisionError as error:
        raise CheckpointError(f"{path}: its layers are packed as {kind}; {error}") from None
    return kind


def quantization_note(kind: str, dtype: torch.dtype, is_gguf: bool) -> Note:
    """What is to be known of a model that is loaded so."""
    name = str(dtype).removeprefix("torch.")
    twice = "; its file's own quantisation was undone first, so it is rounded twice" if is_gguf else ""
    return Note(
        "quantization",
        f"its layers' weights are packed by bitsandbytes ({kind}: {ABOUT[kind]}), all else is {name}{twice}; made for a GPU, and slower "
        "than floats on a CPU",
        {"kind": kind, "dtype": name},
    )


def packed(model: LoopLlamaForCausalLM, kind: str, path: Path) -> LoopLlamaForCausalLM:
    """A model with its layers packed, in place if they are not yet; CheckpointError, naming its files, where they cannot be."""
    if quantization_of(model) == kind:
        return model
    try:
        return pack(model, kind)
    except PrecisionError as error:
        raise CheckpointError(f"{path}: {error}") from error
