"""What a run's numbers come from: the weights by their hash, the device, the dtype; and a model's name without its folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from loopviz.model import LoopLlamaForCausalLM


def weights_digest(model: LoopLlamaForCausalLM) -> str:
    """The model's hash: sha256, hex, over names, dtypes, shapes and bytes of the sorted state dict."""
    from loopviz.model.placing import stored

    # of a layer that stayed behind a device, too
    return _digest((name, stored(model, name)) for name in sorted(model.state_dict()))


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
    """For a Meta: `weights` (:func:`weights_digest`), `device` ("cpu", "cuda:0") and `dtype` ("float32").

    A model whose layers hold int8 has that as its dtype. It reads all weights once: half a second for a hundred million of them.
    """
    from loopviz.model.precision import held_name

    return {
        "weights": weights_digest(model),
        "device": str(model.device),
        "dtype": held_name(model),
    }


def shown_name(name: str) -> str:
    """A model's name as others may read it: of a path on this machine, what it is called there alone."""
    if os.path.isabs(name) or name.startswith((".", "~")) or os.path.exists(name):
        return Path(os.path.abspath(os.path.expanduser(name))).name or name
    return name
