"""Maps of a layer that read the same, lying side by side in memory: one product gives what all of them do.

Such are queries, keys and values, and a gate with what it lets through. Each map keeps its weights, as rows of one matrix: who reads,
changes or copies them sees nothing of it, and a map whose weights have been put elsewhere is asked for itself again. In half and in int8
alone, where calls are a larger part of a token; whether it gains is measured (:mod:`.checkpoints.layout_choice`). In float32 nothing did.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

from .precision import Int8Linear, int8_product
from .weight_layout import LEAST, ROWS, SAMPLE, TRIES

WAYS = ("apart", "beside")
HALVES = (torch.float16, torch.bfloat16)
GAIN = 1.02  # times as quick for one row: nothing is lost by it, but measurements differ
PROVED = (1, 2, ROWS, 64)  # rows of passes in which both ways must give the same bits
_GROUPS: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (LlamaAttention, ("q_proj", "k_proj", "v_proj")),
    (LlamaMLP, ("gate_proj", "up_proj")),
)
"""The maps that read the same, and in which module they stand."""

Group = Sequence[nn.Module]
Kind = tuple[str, tuple[int, ...], int]  # what is held; rows of each, columns
Seconds = Mapping[str, tuple[float, float]]  # by way: of one row, and of ROWS
Projected = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`[..., in]` to what all maps but the last make of it, as one tensor, and what the last does: queries and keys, and values."""


class Whole:
    """The matrix that maps lie in, one below the other.

    Args:
        group: the maps.
        tensors: of which theirs are consecutive rows: W `[out of all, in]`, or of int8 q `[out of all, columns]` and s `[out of all]`.
            They are kept, so that nothing else comes to lie there.
    """

    def __init__(self, group: Group, tensors: list[Tensor]) -> None:
        self.first, self.tensors = group[0], tensors
        last = len(_tensors(group[-1])[0])
        self.sizes = [len(tensors[0]) - last, last]
        self._places = [
            (_held(module), name, tensor.data_ptr())
            for module in group
            for name, tensor in zip(_names(module), _tensors(module), strict=True)
        ]

    def holds(self) -> bool:
        """Whether all of the maps still lie there, and nothing has been added to them."""
        for held, name, place in self._places:
            tensor = held.get(name)
            if tensor is None or tensor.data_ptr() != place or held.get("bias") is not None:
                return False
        return True

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Projected`, bit for bit what maps that lie apart give."""
        if isinstance(self.first, Int8Linear):
            quantised, scale = self.tensors
            found = int8_product(self.first.rounded(x), quantised, scale, x)
        else:
            found = F.linear(x, self.tensors[0])
        most, last = found.split_with_sizes(self.sizes, -1)
        if x.numel() == x.shape[-1]:
            return most, last
        return most.contiguous(), last.contiguous()  # as they lie otherwise: what reads them goes the same ways


def whole_of(group: Group) -> Whole | None:
    """What maps lie in, they alone and in this order; None: they do not."""
    if kind_of(group) is None:
        return None
    found = []
    for tensors in zip(*map(_tensors, group), strict=True):
        storage, end = tensors[0].untyped_storage(), 0
        for tensor in tensors:
            if tensor.data_ptr() != storage.data_ptr() + end or not tensor.is_contiguous():
                return None
            end += tensor.nbytes
        if storage.nbytes() != end:
            return None
        shape = (sum(map(len, tensors)), *tensors[0].shape[1:])
        found.append(tensors[0].detach().as_strided(shape, (*shape[1:], 1)))
    return Whole(group, found)


def groups(layers: nn.Module) -> dict[Kind, list[Group]]:
    """The maps of a model's layers that may lie side by side, by kind: of half or int8, on the CPU, without biases, not too small."""
    found: dict[Kind, list[Group]] = {}
    for parent in layers.modules():
        for owner, names in _GROUPS:
            if type(parent) is not owner:
                continue
            group = [parent.get_submodule(name) for name in names]
            kind = kind_of(group)
            if kind is not None and sum(kind[1]) * kind[2] >= LEAST:
                found.setdefault(kind, []).append(group)
    return found


def kind_of(group: Group) -> Kind | None:
    """What maps that may lie side by side have in common; None: they may not."""
    if len({type(module) for module in group}) != 1 or type(group[0]) not in (nn.Linear, Int8Linear):
        return None
    if any(_held(module).get("bias") is not None for module in group):
        return None
    matrices = [_tensors(module)[0] for module in group]
    if any(not isinstance(matrix, Tensor) or matrix.device.type != "cpu" for matrix in matrices):
        return None
    likes = {(matrix.dtype, matrix.shape[1]) for matrix in matrices}
    dtype, columns = likes.pop()
    if likes or dtype not in (*HALVES, torch.int8):
        return None
    return str(dtype).removeprefix("torch."), tuple(map(len, matrices)), columns


def _names(module: Any) -> tuple[str, ...]:
    """Of the tensors that a map's product reads."""
    return ("quantised", "scale") if type(module) is Int8Linear else ("weight",)


def _held(module: Any) -> dict[str, Any]:
    """Where they are, and its bias."""
    found: dict[str, Any] = module._buffers if type(module) is Int8Linear else module._parameters
    return found


def _tensors(module: Any) -> list[Any]:
    return [_held(module).get(name) for name in _names(module)]


# -- laid ------------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def lay_beside(group: Group) -> None:
    """Let maps of one kind lie side by side, in place: for a moment they are held twice."""
    for name in _names(group[0]):
        own = [_held(module)[name] for module in group]
        whole = torch.cat([tensor.detach() for tensor in own])
        for module, rows in zip(group, whole.split([len(tensor) for tensor in own]), strict=True):
            _put(module, name, rows)


@torch.no_grad()
def lay_apart(layers: nn.Module) -> None:
    """Undo :func:`lay_beside` for all layers."""
    for found in groups(layers).values():
        for group in found:
            if whole_of(group) is not None:
                for module in group:
                    for name in _names(module):
                        _put(module, name, _held(module)[name].detach().clone())


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    held = _held(module)
    if isinstance(held[name], nn.Parameter):  # it stays the same one: others may hold it, too
        held[name].data = tensor
    else:
        held[name] = tensor


# -- apart -----------------------------------------------------------------------------------------------------------------------------


def one_by_one(calls: Sequence[Callable[[Tensor], Tensor]]) -> Projected:
    """As `Projected`, of maps that are called one after the other."""

    def projected(x: Tensor) -> tuple[Tensor, Tensor]:
        return _paired([call(x) for call in calls])

    return projected


def from_rounded(maps: Sequence[Int8Linear]) -> Projected:
    """As `Projected`, of maps of int8: what they round what they read to is made once."""

    def projected(x: Tensor) -> tuple[Tensor, Tensor]:
        rows = maps[0].rounded(x)
        return _paired([one.product(rows, x) for one in maps])

    return projected


def _paired(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    *most, last = parts
    return (most[0] if len(most) == 1 else torch.cat(most, -1)), last


# -- measured --------------------------------------------------------------------------------------------------------------------------


def better(seconds: Seconds) -> str:
    """The way for a kind: "beside" where one row is quicker so, and passes of several do not lose more than that is worth."""
    (one, several), (one_beside, several_beside) = (seconds[way] for way in WAYS)
    gains = one >= GAIN * one_beside
    return "beside" if gains and 2 * one_beside + several_beside <= 2 * one + several else "apart"


@torch.inference_mode()
def measured(found: Sequence[Group]) -> str:
    """How maps of one kind are to lie on this machine: "beside" where that is quicker and gives the same bits. They stay as they are."""
    ways: dict[str, list[Projected]] = {way: [] for way in WAYS}
    numbers = 0
    for group in found:
        copied = copy.deepcopy(list(group))
        lay_beside(copied)
        whole = whole_of(copied)
        assert whole is not None  # just laid so
        ways["apart"].append(_apart(group))
        ways["beside"].append(whole)
        numbers += whole.tensors[0].numel()
        if numbers >= SAMPLE:
            break
    like = _row(found[0][0])
    if not all(_same(ways, like, rows) for rows in PROVED):
        return "apart"
    return better(timed(ways, like))


def timed(ways: Mapping[str, list[Projected]], like: Tensor) -> dict[str, tuple[float, float]]:
    """How long maps take in each way with one row, `like` `[1, in]`, and with ROWS."""
    seconds = {way: [math.inf] * 2 for way in ways}
    for _ in range(TRIES):  # in turn, so that what else the machine does is shared
        for way, calls in ways.items():
            for place, rows in enumerate((1, ROWS)):
                seconds[way][place] = min(seconds[way][place], _seconds(calls, like.repeat(rows, 1)))
    return {way: (one, several) for way, (one, several) in seconds.items()}


def _apart(group: Group) -> Projected:
    maps = [module for module in group if isinstance(module, Int8Linear)]
    return (
        from_rounded(maps) if maps else one_by_one([partial(F.linear, weight=_tensors(module)[0]) for module in group])
    )


def _row(module: Any) -> Tensor:
    """A row that a map may read, `[1, in]`."""
    held = torch.float32 if isinstance(module, Int8Linear) else module.weight.dtype
    return torch.ones(1, module.in_features, dtype=held)


def _same(ways: Mapping[str, list[Projected]], like: Tensor, rows: int) -> bool:
    x = torch.linspace(0, 1e3, rows * like.shape[1]).sin().view(rows, -1).to(like.dtype)
    one, other = (ways[way][0](x) for way in WAYS)
    return all(map(torch.equal, one, other))


def _seconds(calls: list[Projected], rows: Tensor) -> float:
    started = time.perf_counter()
    for call in calls:
        call(rows)
    return time.perf_counter() - started
