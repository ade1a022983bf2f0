"""How exactly a model computes: float32, half of its bytes, or its matrices as int8.

    exact   float32; what every oracle and every figure is made in
    half    float16 or bfloat16, whichever is quicker on this machine (:mod:`.checkpoints.precision_choice`)
    int8    matrices hold a weight in a byte, with a scale a row, through a kernel that torch has; all else is float32

A projection W `[out, in]` is held as q `[out, in]` int8 and s `[out]` bfloat16, W ~ s q, and reads activations rounded to
bfloat16: `aten._weight_int8pack_mm`. Each row of activations is computed from itself alone, so that batches, shared passes and a
prefill give what single tokens do; torch's dynamic quantisation rounds by the largest number of a whole batch, and does not.
The head is one of these maps, and an embedding reads its rows from such a matrix, the head's own where both are one: measured on an
EPYC with AVX-512, SmolLM2's head took half as long so, and on 1,024 tokens the KL to exact rose from 0.0026 to 0.0039 nats.
Norms, a loop's own weights, keys and values stay float32, and so does what decides when a loop stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .layers import NormedProjection
from .packed import beside_weights, quantization_of, unpacked_numbers, unpacked_state

Model = TypeVar("Model", bound=PreTrainedModel)  # a LoopLlama's class, which itself asks what is held here

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MOST = 127  # the largest whole number that stands for a weight
KERNEL = "aten._weight_int8pack_mm"
TRIED = 4_096  # rows of a matrix that the kernel is tried with
ALIGNED = 32  # columns: the kernel reads whole vectors, beyond the end of a matrix that is no multiple of them


class PrecisionError(ValueError):
    """A model that cannot be held as asked; the message says why and what to do."""


class Int8Linear(nn.Module):
    """A linear map that holds a weight in a byte. Its `weight` is what it stands for, so that readers of weights read it too.

    It computes on the CPU and without gradients.

    Args:
        plain: the map that it takes the place of, of finite weights; not changed.

    Attributes:
        quantised: q `[out, columns]` int8; columns beyond `in_features` are zero.
        scale: s `[out]` bfloat16.
    """

    quantised: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        quantised, scale = quantise_rows(plain.weight.detach())
        self.spare = -self.in_features % ALIGNED
        self.register_buffer("quantised", F.pad(quantised, (0, self.spare)))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if plain.bias is None else plain.bias.detach().float().clone())

    @property
    def weight(self) -> Tensor:
        """What the whole numbers stand for, `[out, in]` float32; made anew each time."""
        return self.quantised[:, : self.in_features].float() * self.scale.float()[:, None]

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, in the dtype it comes in.

        Raises:
            PrecisionError: gradients are asked of it, or it is not on the CPU.
        """
        return self.product(self.rounded(input), input)

    def rounded(self, input: Tensor) -> Tensor:
        """`[..., in]` as the kernel reads it, `[rows, columns]` bfloat16: the same for all maps of one width. Raises as `forward`."""
        if input.requires_grad and torch.is_grad_enabled():
            raise PrecisionError("int8: no gradients pass layers of int8; use torch.no_grad(), or precision 'exact'")
        if not input.is_cpu:
            raise PrecisionError(
                f"int8: layers of int8 run on the CPU alone, not on {input.device}; use 'exact' or 'half'"
            )
        rows = input if input.dim() == 2 else input.reshape(-1, self.in_features)
        rows = rows.to(torch.bfloat16)
        return F.pad(rows, (0, self.spare)) if self.spare else rows

    def product(self, rows: Tensor, like: Tensor) -> Tensor:
        """What `rounded(like)` comes to, `[..., out]`."""
        held: dict[str, Any] = self._buffers  # quicker to read than attributes of a module
        bias = held["bias"]
        found = int8_product(rows, held["quantised"], held["scale"], like)
        return found if bias is None else found + bias.to(like.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Linear:
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.scale.device)  # the kernel's dtype, whatever the model is cast to
        return self

    def extra_repr(self) -> str:
        """Its sizes, as nn.Linear tells them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8Embedding(nn.Module):
    """An embedding that reads its rows from a matrix of int8.

    Args:
        plain: the embedding that it takes the place of, of finite weights; not changed.
        head: the map whose matrix is its own too; None: it has one for itself.
    """

    like: Tensor

    def __init__(self, plain: nn.Embedding, head: Int8Linear | None = None) -> None:
        super().__init__()
        self.own = Int8Linear(as_linear(plain.weight)) if head is None else None
        self._heads: tuple[Int8Linear, ...] = (
            () if head is None else (head,)
        )  # a tuple: no module of this one, whose weights would count twice
        self.register_buffer("like", torch.empty(0, dtype=torch.float32), persistent=False)  # of the dtype to give

    @property
    def table(self) -> Int8Linear:
        """What holds its rows."""
        return self._heads[0] if self.own is None else self.own

    @property
    def weight(self) -> Tensor:
        """What the whole numbers stand for, `[V, H]` float32; made anew each time."""
        return self.table.weight

    def forward(self, input: Tensor) -> Tensor:
        """Ids `[...]` to `[..., H]`."""
        held = self.table
        rows = F.embedding(input, held.quantised)[..., : held.in_features].float()
        return (rows * F.embedding(input, held.scale[:, None]).float()).to(self.like.dtype)


def int8_product(rows: Tensor, quantised: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    """s q, `[out, columns]` and `[out]`, times `[rows, columns]` bfloat16, in the dtype and shape of `like` `[..., in]`: `[..., out]`."""
    found = torch._weight_int8pack_mm(rows, quantised, scale).to(like.dtype)
    return found if like.dim() == 2 else found.view(*like.shape[:-1], len(scale))


def as_linear(weight: Tensor) -> nn.Linear:
    """The linear map of a matrix `[out, in]`, which is not copied."""
    plain = nn.Linear(1, 1, bias=False, device="meta")
    plain.out_features, plain.in_features = weight.shape
    plain.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return plain


class NormedInt8Projection(Int8Linear):
    """A projection to queries or keys of int8 with the norm of the one it takes the place of."""

    def __init__(self, plain: NormedProjection) -> None:
        super().__init__(plain)
        self.norm, self.width = plain.norm, plain.width

    def forward(self, input: Tensor) -> Tensor:
        """As `NormedProjection.forward`."""
        normed: Tensor = self.norm(super().forward(input).unflatten(-1, (-1, self.width)))
        return normed.flatten(-2)


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A finite matrix `[out, in]` as whole numbers, int8, and a scale a row, bfloat16: no weight is further off than half its scale."""
    wide = weight.float().contiguous()  # the kernel reads rows, however the matrix lay
    exact = (wide.abs().amax(dim=1) / MOST).clamp_min(torch.finfo(torch.float32).tiny)  # [out]
    scale = exact.to(torch.bfloat16)
    # rounded up, so that the largest weight is within MOST scales: of positive numbers the next has the next bit pattern
    scale = torch.where(scale.float() < exact, (scale.view(torch.int16) + 1).view(torch.bfloat16), scale)
    return (wide / scale.float()[:, None]).round().to(torch.int8), scale


def projections(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The projections of a model's layers: the module each stands in, its name there, and itself."""
    for parent in model.model.layers.modules():  # type: ignore[union-attr]
        for name in PROJECTIONS:
            child = getattr(parent, name, None)
            if isinstance(child, nn.Module):
                yield parent, name, child


@torch.no_grad()
def quantise(model: Model) -> Model:
    """Hold the matrices of a model as int8, in place; the model, which takes no gradients from then on.

    Views of it that are there already share the layers, and so this; they keep the embedding and the head that they have.

    Args:
        model: on the CPU, its projections and its head linear maps of finite floats.

    Raises:
        PrecisionError: it is none of that; nothing has been changed.
    """
    if (packed := quantization_of(model)) is not None:
        raise PrecisionError(f"int8: its layers are packed already, as {packed} (bitsandbytes); load it anew")
    if model.model.step_adapters is not None:
        raise PrecisionError(
            "int8: each loop step has a LoRA of its own, which is no part of the weights; use 'exact' or 'half'"
        )
    found = list(projections(model))
    if not found:
        raise PrecisionError(
            f"int8: {type(model).__name__} has no projections {', '.join(PROJECTIONS)}; use 'exact' or 'half'"
        )
    embedding, tied = model.model.embed_tokens, has_one_table(model)
    found.append((model, "lm_head", model.lm_head))
    names = {id(module): name for name, module in model.named_modules()}
    shapes: dict[tuple[int, int], nn.Linear] = {}
    for _, _, plain in found:
        _check(plain, names[id(plain)])
        if isinstance(plain, nn.Linear):
            shapes.setdefault((plain.out_features, plain.in_features), plain)
    if isinstance(embedding, nn.Embedding) and not tied:
        _check(as_linear(embedding.weight), names[id(embedding)])
    for plain in shapes.values():
        check_kernel(plain)
    for parent, name, plain in found:  # one after the other: at most one is held twice
        if isinstance(plain, nn.Linear):
            taken = NormedInt8Projection(plain) if isinstance(plain, NormedProjection) else Int8Linear(plain)
            setattr(parent, name, taken)
    if isinstance(embedding, nn.Embedding):
        model.model.embed_tokens = Int8Embedding(embedding, model.lm_head if tied else None)
    model.requires_grad_(False)
    return model


def _check(plain: nn.Module, name: str) -> None:
    """Refuse a projection that cannot be held as int8."""
    if isinstance(plain, Int8Linear):
        return
    if type(plain) not in (nn.Linear, NormedProjection):
        raise PrecisionError(f"int8: {name} is a {type(plain).__name__} and no linear map; use 'exact' or 'half'")
    weight: Any = plain.weight
    if weight.device.type != "cpu":
        raise PrecisionError(
            f"int8: {name} is on {weight.device}, and int8 layers run on the CPU; move the model there first"
        )
    if not weight.is_floating_point():
        raise PrecisionError(f"int8: {name} holds {weight.dtype}, and floats are wanted; load it with dtype float32")
    if odd := int((~torch.isfinite(weight)).sum()):
        raise PrecisionError(f"int8: {name} has {odd:,} weights that are not finite, which no scale fits; use 'exact'")


def check_kernel(plain: nn.Linear) -> None:
    """Refuse int8 where this torch has no such kernel, or computes something else with it on this processor.

    Args:
        plain: a map of the shape that is asked about; of a tall one some rows are tried.

    Raises:
        PrecisionError: by the kernel's name.
    """
    if plain.out_features > TRIED:
        plain = as_linear(plain.weight[:TRIED])
    int8, x = Int8Linear(plain), torch.linspace(-1, 1, 2 * plain.in_features).view(2, -1)
    try:
        found = int8(x)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise PrecisionError(f"int8: this torch has no {KERNEL} here ({error}); use 'exact' or 'half'") from None
    rounded, weight = x.to(torch.bfloat16).double(), int8.weight.double()
    bias = weight.new_zeros(1) if int8.bias is None else int8.bias.double()
    product = rounded @ weight.T
    # sums in float32 and one rounding to bfloat16, twice over; and the bias added in float32
    most = (
        2 * (product.abs() * 2**-8 + rounded.abs() @ weight.abs().T * int8.in_features * 2**-24) + bias.abs() * 2**-22
    )
    if not bool(((found.double() - product - bias).abs() <= most + torch.finfo(torch.bfloat16).tiny).all()):
        raise PrecisionError(f"int8: {KERNEL} of this torch is wrong on this processor; use 'exact' or 'half'")


@torch.no_grad()
def lower(model: Model, dtype: torch.dtype) -> Model:
    """Hold a model's weights in another dtype, in place: what loading it in that dtype gives. The model.

    Args:
        model: on the CPU, in float32.
        dtype: a floating one, or int8.

    Raises:
        PrecisionError: weights that it cannot hold, by name; nothing has been changed.
    """
    if dtype is torch.int8:
        return quantise(model)
    if (packed := quantization_of(model)) is not None:
        raise PrecisionError(
            f"{dtype}: its layers are packed already, as {packed} (bitsandbytes); load it in that dtype"
        )
    most = torch.finfo(dtype).max
    for name, parameter in model.named_parameters():
        if parameter.numel() and float(parameter.abs().max()) > most:
            raise PrecisionError(f"{name} has weights beyond {most:g}, the most that {dtype} holds; use 'exact'")
    for parameter in model.parameters():  # not model.to(): rotary frequencies stay what they are
        parameter.data = parameter.data.to(dtype).contiguous()  # a half by columns is read many times slower
    model.config.dtype = dtype
    return model


# -- what a model is held in -----------------------------------------------------------------------------------------------------------


def is_quantised(model: nn.Module) -> bool:
    """Whether its matrices hold int8."""
    return any(isinstance(module, Int8Linear) for module in model.modules())


def has_one_table(model: Any) -> bool:
    """Whether a model's head is the matrix that its embedding reads, too."""
    embedding = model.model.embed_tokens
    if isinstance(embedding, Int8Embedding):
        return embedding.own is None
    return model.lm_head.weight is embedding.weight


def held_in(model: Any) -> torch.dtype:
    """What a model's weights are held in: the dtype to load it in again. int8 of a model whose matrices are; its other weights are floats.

    Of one whose layers bitsandbytes has packed it is that of all else, and of what is computed (:func:`.packed.quantization_of`).
    """
    found: torch.dtype = torch.int8 if is_quantised(model) else model.dtype
    return found


def held_name(model: Any) -> str:
    """:func:`held_in` by its name, "float32"."""
    return str(held_in(model)).removeprefix("torch.")


def held_words(model: Any) -> str:
    """What a model's weights are held in, for people: "float32", or of packed layers "nf4 (bitsandbytes), else float32"."""
    return words_of(held_name(model), quantization_of(model))


def words_of(dtype: str, packed: str | None) -> str:
    """:func:`held_words` of a dtype's name, and of how layers are packed beside it."""
    return dtype if packed is None else f"{packed} (bitsandbytes), else {dtype}"


def weight_bytes(module: nn.Module) -> int:
    """Bytes that a module's weights take, those that several share counted once."""
    held: list[Tensor] = [*module.parameters()]
    for each in module.modules():
        if isinstance(each, Int8Linear):
            held += [tensor for tensor in (each.quantised, each.scale, each.bias) if tensor is not None]
        held += beside_weights(each)
    once = {id(tensor): tensor for tensor in held}  # tables of values that several packed weights share
    return sum(tensor.numel() * tensor.element_size() for tensor in once.values())


def weight_count(module: nn.Module) -> int:
    """How many numbers a module's weights are, whatever they are held in; those that several share counted once."""
    found = sum(parameter.numel() for parameter in module.parameters())
    for each in module.modules():
        if isinstance(each, Int8Linear):
            found += each.out_features * (each.in_features + (each.bias is not None))
        found += unpacked_numbers(each)
    return found


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict as one that was never quantised has it: int8, and what is packed, as the floats that it stands for."""
    found = dict(model.state_dict()) if quantization_of(model) is None else unpacked_state(model)
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear):
            for part in ("quantised", "scale"):
                del found[f"{name}.{part}"]
            if not name.endswith("embed_tokens.own"):
                found[f"{name}.weight"] = module.weight
        elif isinstance(module, Int8Embedding):
            found[f"{name}.weight"] = module.weight
    return found
