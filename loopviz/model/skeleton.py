"""A model without its numbers: its configuration, its layers, and the shapes, dtypes and names of all tensors, in a few hundred kB.

For who has to know what a model is and does not compute with it: its tensors are on torch's device `meta`.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import nn


class _Writer(pickle.Pickler):
    """Puts a tensor's shape in the place of its numbers; tensors that are one stay one."""

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        if not isinstance(obj, torch.Tensor):
            return None
        kind = "parameter" if isinstance(obj, nn.Parameter) else "tensor"
        return kind, id(obj), tuple(obj.shape), str(obj.dtype), obj.requires_grad


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._made: dict[int, torch.Tensor] = {}

    def persistent_load(self, pid: tuple[Any, ...]) -> torch.Tensor:
        kind, which, shape, dtype, gradients = pid
        if which not in self._made:
            made = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")), device="meta")
            parameter = nn.Parameter(made, requires_grad=gradients) if kind == "parameter" else made
            self._made[which] = parameter
        return self._made[which]


def skeleton_of(model: nn.Module) -> bytes:
    """A model as :func:`from_skeleton` makes one of it; its hooks must be functions of modules, for they are pickled."""
    file = io.BytesIO()
    _Writer(file, pickle.HIGHEST_PROTOCOL).dump(model)
    return file.getvalue()


def from_skeleton(written: bytes) -> Any:
    """The model, all tensors on `meta`. What is read is unpickled: it must come from one's own process."""
    return _Reader(io.BytesIO(written)).load()
