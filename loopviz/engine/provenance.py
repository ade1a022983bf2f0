"""What a run's numbers come from: the weights by their hash, the device, the dtype; and a model's name without its folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from loopviz.model import LoopLlamaForCausalLM


def weights_digest(model: LoopLlamaForCausalLM) -> str:
    """The model's hash: sha256, hex, over names, dtypes, shapes and bytes of the sorted state dict."""
    from loopviz.model.placing import stored

    # of a layer that stayed behind a device, too; parts of a packed weight have a name in the state dict alone
    state = sorted(model.state_dict().items())
    return _digest((name, stored(model, name) if value.is_meta else value) for name, value in state)


def gates_digest(model: LoopLlamaForCausalLM) -> str:
    """The same of the gates that stand beside a model's weights (`spare_gates`), which a loop may ask for; "" where none does."""
    gates = sorted(getattr(model, "spare_gates", {}).items())  # of other kinds of model there are none
    named = [(f"{block}.{name}", value) for block, gate in gates for name, value in sorted(gate.state_dict().items())]
    return _digest(named) if named else ""


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def provenance(model: LoopLlamaForCausalLM) -> dict[str, str]:
    """For a Meta: `weights` (:func:`weights_digest`), `device` ("cpu", "cuda:0"), `dtype` ("float32") and how bitsandbytes has packed
    the layers, if it has: `quantization` ("nf4").

    A model whose layers hold int8 has that as its dtype. It reads all weights once: half a second for a hundred million of them.
    """
    return {"weights": weights_digest(model), **held(model)}


def held(model: Any) -> dict[str, str]:
    """Of :func:`provenance`, where a model is and what it is held in."""
    from loopviz.model.packed import quantization_of
    from loopviz.model.precision import held_name

    packed = quantization_of(model)
    return {
        "device": str(model.device),
        "dtype": held_name(model),
        **({} if packed is None else {"quantization": packed}),
    }


def shown_name(name: str) -> str:
    """A model's name as others may read it: of a path on this machine, what it is called there alone."""
    if os.path.isabs(name) or name.startswith((".", "~")) or os.path.exists(name):
        return Path(os.path.abspath(os.path.expanduser(name))).name or name
    return name
