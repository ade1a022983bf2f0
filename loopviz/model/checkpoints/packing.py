"""A checkpoint whose layers are packed by bitsandbytes as it is loaded (:mod:`loopviz.model.quantization`): what is refused, what is said."""

from __future__ import annotations

from pathlib import Path

import torch

from loopviz.machine import QUANTIZATIONS
from loopviz.model.modeling import LoopLlamaForCausalLM
from loopviz.model.precision import PrecisionError
from loopviz.model.quantization import check_asked, pack

from .errors import CheckpointError, Note

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
    """A model with its layers packed, in place; CheckpointError, naming its files, where they cannot be."""
    try:
        return pack(model, kind)
    except PrecisionError as error:
        raise CheckpointError(f"{path}: {error}") from error
