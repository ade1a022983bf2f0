"""Decoder layers of a short pass, without what calling a module costs where nothing listens to it.

A layer of one new token is some sixty small operations and fourteen module calls; on a small model they take longer than its
products. Where a module is transformers' (or torch's) own and has no hook, its operations are asked for directly, in fewer calls and
with the same numbers, bit for bit. What a module computes is decided by its class, so anything else (a LoRA, a watched or a replaced module,
one whose `forward` was changed) is called as ever; what is hooked, replaced or moved is seen by the next pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from transformers.activations import SiLUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm

from .precision import Int8Linear
from .side_by_side import Projected, Whole, from_rounded, one_by_one, whole_of

FEW = 64  # tokens of all rows up to which calls, not products, are what a layer costs
_FLASH_WIDTH = 256  # head_dim up to which transformers lets sdpa share keys among queries (enable_gqa)
_GIVEN = {"position_ids", "position_embeddings", "use_cache"}  # what a layer is told here; anything else is for modules
# The operations that stand here for a module are those of this forward; who puts another in its place gets it called.
_KNOWN = {
    kind: kind.forward
    for kind in (LlamaDecoderLayer, LlamaAttention, LlamaMLP, LlamaRMSNorm, SiLUActivation, nn.Linear, Int8Linear)
}
_EVERYWHERE = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
_PLACES = (
    ("", "input_layernorm", LlamaRMSNorm),
    ("", "self_attn", LlamaAttention),
    ("self_attn", "q_proj", nn.Linear),
    ("self_attn", "k_proj", nn.Linear),
    ("self_attn", "v_proj", nn.Linear),
    ("self_attn", "o_proj", nn.Linear),
    ("", "post_attention_layernorm", LlamaRMSNorm),
    ("", "mlp", LlamaMLP),
    ("mlp", "gate_proj", nn.Linear),
    ("mlp", "act_fn", SiLUActivation),
    ("mlp", "up_proj", nn.Linear),
    ("mlp", "down_proj", nn.Linear),
)
"""The modules of a layer: which stands in which, under what name, and as what its operations are known."""

Call = Callable[[Tensor], Tensor]


class LeanLayers:
    """Runs decoder layers for one pass of few tokens; see :func:`lean_layers`.

    Args:
        given: what every layer of the pass is called with: `position_embeddings` (cos and sin, `[B or 1, T, D]` each),
            `position_ids` and `use_cache`.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.told = {name: value for name, value in given.items() if name != "position_embeddings"}
        self._attends: dict[int, Callable[..., Any]] = {}
        self._seen: dict[int, _Parts | None] = {}  # by layer; None: it is called

    @cached_property
    def angles(self) -> tuple[Tensor, Tensor, int]:
        """Cosines and signed sines `[B or 1, 1, T, D]`, and D / 2: x, its halves exchanged, times the latter is rotate_half(x) * sin."""
        cos, sin = self.given["position_embeddings"]
        half = cos.shape[-1] // 2
        return cos.unsqueeze(1), torch.cat((-sin[..., :half], sin[..., half:]), dim=-1).unsqueeze(1), half

    def run(self, layer: nn.Module, state: Tensor, mask: Any, cache: Any) -> Tensor:
        """One layer: `[B, T, H]` in and out, as `layer(state, attention_mask=mask, past_key_values=cache, **given)`."""
        key = id(layer)
        parts = self._seen[key] if key in self._seen else self._seen.setdefault(key, _parts_of(layer))
        if parts is None:
            found: Tensor = layer(state, attention_mask=mask, past_key_values=cache, **self.given)
            return found
        if parts.unheard:
            return self._unheard(parts, state, mask, cache)
        normed = parts.norm_before(state)
        if parts.attends:
            attended = self._attention(parts, normed, state.shape, mask, cache)
        else:
            attended, _ = parts.attention(
                hidden_states=normed, attention_mask=mask, past_key_values=cache, **self.given
            )
        state = state + attended
        normed = parts.norm_after(state)
        if not parts.expands:
            return state + parts.mlp(normed)
        gate, up = parts.gate_up(normed)
        return state + parts.down(parts.act(gate) * up)

    def _unheard(self, parts: _Parts, state: Tensor, mask: Any, cache: Any) -> Tensor:
        """The same where nothing hears any of its modules: what they make is nobody else's, and is written over.

        Tokens stand in one dimension: a product of two takes fewer calls.
        """
        shape = state.shape
        state = state.reshape(-1, shape[-1])
        state = self._attention(parts, parts.norm_before(state), shape, mask, cache).add_(state)
        gate, up = parts.gate_up(parts.norm_after(state))
        return parts.down(F.silu(gate, inplace=True).mul_(up)).add_(state).view(shape)

    def _attention(self, parts: _Parts, normed: Tensor, shape: torch.Size, mask: Any, cache: Any) -> Tensor:
        """`normed` in, and as much out: `[B, T, H]`, which is `shape`, or `[B T, H]`."""
        attention, D = parts.attention, parts.width
        B, T, _ = shape
        both, v = parts.qkv(normed)  # queries and keys of all heads
        if T == 1:
            both, v = both.view(B, -1, 1, D), v.view(B, -1, 1, D)  # [B, heads + K, 1, D], [B, K, 1, D]
        else:
            both = both.view(B, T, -1, D).transpose(1, 2).contiguous()
            v = v.view(B, T, -1, D).transpose(1, 2)
        K = v.shape[1]
        heads = both.shape[1] - K
        cos, sin, half = self.angles
        both = (both * cos).add_(both.roll(half, -1).mul_(sin))
        q, k = both.narrow(1, 0, heads), both.narrow(1, heads, K)
        if cache is not None:
            k, v = cache.update(k, v, attention.layer_idx)
        attend = self._attend(attention.config)
        if attend is sdpa_attention_forward and mask is None and T == 1:
            found = one_token_attention(attention, q, k, v)
        else:
            found, _ = attend(attention, q, k, v, mask, dropout=0.0, scaling=attention.scaling, **self.told)
        return parts.o(found.reshape(*normed.shape[:-1], -1).contiguous())  # found: [B, T, heads, D]

    def _attend(self, config: Any) -> Callable[..., Any]:
        """transformers' attention function of a configuration, whose attributes are slow to read."""
        found = self._attends.get(id(config))
        if found is None:
            found = ALL_ATTENTION_FUNCTIONS.get_interface(
                config._attn_implementation, modeling_llama.eager_attention_forward
            )
            self._attends[id(config)] = found
        return found


def lean_layers(training: bool, tokens: Tensor, given: Mapping[str, Any]) -> LeanLayers | None:
    """What runs the layers of a pass, or None where they must be called as modules.

    Args:
        training: whether the model is; dropout and checkpointing are the modules' own.
        tokens: of the pass, `[B, T, ...]`; one of more than FEW gains nothing.
        given: what every layer of the pass is called with.
    """
    if training or tokens.shape[0] * tokens.shape[1] > FEW or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if not given.keys() <= _GIVEN:
        return None
    if any(_EVERYWHERE) or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return None
    if any(kind.forward is not known for kind, known in _KNOWN.items()):
        return None
    return LeanLayers(given)


def run_layer(
    layer: nn.Module, state: Tensor, mask: Any, cache: Any, given: Mapping[str, Any], lean: LeanLayers | None
) -> Tensor:
    """One decoder layer, `[B, T, H]` in and out: by `lean`, or called as a module with `given`."""
    if lean is not None:
        return lean.run(layer, state, mask, cache)
    found: Tensor = layer(state, attention_mask=mask, past_key_values=cache, **given)
    return found


def one_token_attention(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """transformers' "sdpa" of one new token that sees everything it is given, of `[B, heads, 1, D]`; heads and D side by side."""
    if not q.is_cpu or q.shape[-1] > _FLASH_WIDTH:
        heads: Tensor = sdpa_attention_forward(attention, q, k, v, None, scaling=attention.scaling)[0]
        return heads
    shared = attention.num_key_value_groups > 1
    return F.scaled_dot_product_attention(q, k, v, scale=attention.scaling, enable_gqa=shared)


# -- what stands in a layer ----------------------------------------------------------------------------------------------------------


class _Parts:
    """A layer's modules as they are to be run, as long as they are what they were: see :meth:`holds`."""

    def __init__(self, layer: nn.Module) -> None:
        inside = [(layer.get_submodule(owner)._modules, name, kind) for owner, name, kind in _PLACES]
        kinds = [_held_as(held[name], kind) for held, name, kind in inside]
        self.places = [
            (held, name, held[name], kind, _quiet(held[name], kind))
            for (held, name, _), kind in zip(inside, kinds, strict=True)
        ]
        by_name: dict[str, Any] = {name: (module, quiet) for _, name, module, _, quiet in self.places}
        self.attention, attends = by_name["self_attn"]
        self.mlp, self.expands = by_name["mlp"]
        self.width, self.trains = self.attention.head_dim, self.attention.training
        self.attends = attends and not self.trains  # its dropout is its own
        norms = [by_name[name] for name in ("input_layernorm", "post_attention_layernorm")]
        self.epsilons = [(norm.__dict__, norm.__dict__.get("variance_epsilon")) for norm, _ in norms]
        self.norm_before, self.norm_after = (_norm(*norm) for norm in norms)
        self.o, self.down = (_linear(*by_name[name]) for name in ("o_proj", "down_proj"))
        self.qkv = _linears([by_name[name] for name in ("q_proj", "k_proj", "v_proj")])
        self.gate_up = _linears([by_name[name] for name in ("gate_proj", "up_proj")])
        self.wholes = [each for each in (self.qkv, self.gate_up) if isinstance(each, Whole)]
        act, quiet = by_name["act_fn"]
        self.act: Call = F.silu if quiet else act
        self.unheard = self.attends and all(quiet for *_, quiet in self.places)

    def holds(self) -> bool:
        """Whether each module still stands where it stood, and is heard, or not, as it was."""
        if self.attention.training is not self.trains:
            return False
        for held, epsilon in self.epsilons:
            if held.get("variance_epsilon") != epsilon:
                return False
        for held, name, module, kind, quiet in self.places:
            if held.get(name) is not module or _quiet(module, kind) is not quiet:
                return False
        return all(whole.holds() for whole in self.wholes)


_PARTS: WeakKeyDictionary[nn.Module, _Parts] = WeakKeyDictionary()


def _parts_of(layer: nn.Module) -> _Parts | None:
    """A layer's modules; None where it must be called itself."""
    if not _quiet(layer, LlamaDecoderLayer):
        return None
    found = _PARTS.get(layer)
    if found is None or not found.holds():
        found = _PARTS[layer] = _Parts(layer)
    return found


def _quiet(module: Any, kind: type[nn.Module]) -> bool:
    """Whether calling this module would do what `kind.forward` does, and nothing else."""
    held = module.__dict__
    return (
        type(module) is kind
        and not held["_forward_hooks"]
        and not held["_forward_pre_hooks"]
        and "forward" not in held
        and held.get("_compiled_call_impl") is None
    )


def _held_as(module: Any, kind: type[nn.Module]) -> type[nn.Module]:
    """The class as which a module's operations are known: a projection may hold int8."""
    return Int8Linear if kind is nn.Linear and type(module) is Int8Linear else kind


def _linears(known: list[tuple[Any, bool]]) -> Projected:
    """Maps that read the same: as one where they lie side by side; of int8, what they round it to is made once."""
    modules, quiet = [module for module, _ in known], all(quiet for _, quiet in known)
    if quiet and (whole := whole_of(modules)) is not None:
        return whole
    if quiet and all(type(module) is Int8Linear for module in modules):
        return from_rounded(modules)
    return one_by_one([_linear(*each) for each in known])


def _linear(module: Any, quiet: bool) -> Call:
    if not quiet:
        return module  # a module is called so, too
    if type(module) is Int8Linear:
        return module.forward
    linear, held = F.linear, module._parameters  # read at each call: weights are moved, and replaced

    def projected(x: Tensor) -> Tensor:
        return linear(x, held["weight"], held["bias"])

    return projected


def _norm(module: Any, quiet: bool) -> Call:
    """RMSNorm over the last dimension, in the order that its module sums and rounds in."""
    if not quiet:
        return module
    held = module._parameters
    number = partial(torch.tensor, dtype=torch.float32, device="cpu")  # whatever tensors are by default elsewhere
    eps = number(module.variance_epsilon)  # a tensor is added, and divided by, quicker than a number
    count = number(held["weight"].shape[0])

    def normed(x: Tensor) -> Tensor:
        if not x.is_cpu:
            found: Tensor = module(x)
            return found
        wide = x.to(torch.float32)
        variance = (wide * wide).sum(-1, keepdim=True).div_(count)
        return held["weight"] * wide.mul(variance.add_(eps).rsqrt_()).to(x.dtype)

    return normed
