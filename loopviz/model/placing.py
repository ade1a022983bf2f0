"""A model on a device that does not hold all of it: the layers there is no room for stay in main memory, or on disk.

Through accelerate: the weights of such a layer are brought to the device as they are used, and let go of after it. Everything is
computed on the one device, so that states, cache and lenses are where they always are; what it costs is the way of the weights, in
every loop step anew.
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate.hooks import attach_align_device_hook
from accelerate.utils import OffloadedWeightsLoader, offload_state_dict
from torch import nn

from .checkpoints.errors import CheckpointError
from .modeling import LoopLlamaForCausalLM
from .packed import quantization_of
from .precision import weight_bytes

SPARE = 8  # a share of a device's free memory is left for states, logits and the cache: one part in so many


def free_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator; None where nobody tells."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def room_on(device: torch.device) -> int | None:
    """Bytes of an accelerator that weights may take: what is free there, less a part for what is computed; None where nobody tells."""
    free = free_bytes(device)
    return None if free is None else free - free // SPARE


def check_room(needed: int, device: torch.device, what: str) -> None:
    """Refuse what must be on a device as a whole and has no room there.

    Args:
        needed: bytes.
        device: where.
        what: needs them, for the message: "model 'stories-ttt'".

    Raises:
        CheckpointError: with the bytes.
    """
    room = room_on(device)
    if room is not None and needed > room:
        raise CheckpointError(
            f"device={str(device)!r}: {what} needs {needed:,} bytes there, and {room:,} may be taken; use device='cpu', or a smaller model"
        )


def place(
    model: LoopLlamaForCausalLM, device: torch.device, room: int | None = None, folder: Path | None = None
) -> int:
    """Move a model to a device, all but the last layers that there is no room for.

    Args:
        model: in eval mode, on the CPU. Its views share what is done here.
        device: where everything is computed.
        room: bytes of it that weights may take; None: what is free there, less a part for what is computed. Where nobody tells,
            all of it is moved.
        folder: where the layers that stay behind are written; None: main memory holds them.

    Returns:
        How many layers stayed behind.

    Raises:
        CheckpointError: not even what is no layer fits; or the layers are packed (:mod:`.packed`) and do not fit as a whole.
    """
    if room is None:
        room = room_on(device)
    layers = model.model.layers
    sizes = [weight_bytes(layer) for layer in layers]
    needed = weight_bytes(model)
    if room is None or needed <= room:
        model.to(device)
        return 0
    if (packed := quantization_of(model)) is not None:
        raise CheckpointError(
            f"device={str(device)!r}: the model needs {needed:,} bytes there, and {room:,} may be taken; layers that are packed ({packed}) "
            "do not stay behind: use device='cpu', or load it without quantization"
        )
    rest, away, kept = needed - sum(sizes), max(sizes), 0
    while kept < len(sizes) and rest + sum(sizes[: kept + 1]) + away <= room:  # a layer that comes needs its place
        kept += 1
    if rest + away > room:
        raise CheckpointError(
            f"device={str(device)!r}: the model needs {rest + away:,} bytes there for all that is no layer and one layer at a time, and "
            f"{room:,} may be taken; load it with a smaller dtype, or use device='cpu'"
        )
    for index in range(kept, len(layers)):
        state = layers[index].state_dict()
        if folder is None:
            held = {name: value.cpu() for name, value in state.items()}
        else:
            offload_state_dict(str(folder / str(index)), state)
            held = OffloadedWeightsLoader(save_folder=str(folder / str(index)))
        attach_align_device_hook(layers[index], execution_device=device, offload=True, weights_map=held)
    for name, child in [*model.named_children(), *model.model.named_children()]:
        if name not in ("model", "layers"):
            child.to(device)
    for layer in layers[:kept]:
        layer.to(device)
    return len(layers) - kept


def stored(model: nn.Module, name: str) -> torch.Tensor:
    """A weight of a model by its name in the state dict, wherever it is."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    value: torch.Tensor = getattr(module, leaf)
    return module._hf_hook.weights_map[leaf] if value.is_meta else value  # type: ignore[union-attr, index]
