"""A slow, obvious LoopLlama: the specification in explicit arithmetic, for the tests to compare the real one with.

One sequence, one token after another, Python lists for everything: a cache is `cache.layers[layer][token][slot] ->
(key, value)`. There is no batch, no mask, no buffer: what a token may attend to is a Python list of keys and values.
Only the weights come from the model under test; nothing of its code is used.

Symbols as in the project's semantics: block `[a, b]`, loop step `r` (1-based), `V` slots, slot `(r - 1) mod V`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KV = tuple[Tensor, Tensor]
"""Key (after RoPE) and value of one token: each `[K, D]`."""

DEFAULTS: dict[str, Any] = {
    "loop_layers": None,
    "loop_strategy": "fixed_count",
    "loop_count": 3,
    "max_loop_count": 10,
    "min_loop_count": 5,
    "cosine_threshold": 0.95,
    "kl_threshold": 0.01,
    "convergence_criterion": "either",
    "kv_cache_mode": "virtual_layers",
    "virtual_layer_count": 5,
    "virtual_attention_mode": "parallel",
    "merge_strategy": "ema",
    "merge_ema_alpha": 0.7,
    "loop_damping": 1.0,
    "loop_injection": "none",
    "loop_norm": False,
    "layer_chooser": "none",
    "layer_threshold": 0.15,
    "kv_cache_dtype": "exact",
}

# Every number an 8-bit float of the kind E4M3 can be, but for its sign: 4 bits of exponent, 3 of mantissa; the last code is no number.
E4M3 = [m / 8 * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:-1]


def rounded(x: Tensor, dtype: str) -> Tensor:
    """A token's key or value `[K, D]` as it comes back from a cache that keeps it so: head by head, number by number."""
    if dtype == "exact":
        return x
    heads = []
    for head in x.tolist():
        largest = max(abs(number) for number in head)
        scale = torch.tensor(largest / {"int8": 127, "fp8": 448}[dtype], dtype=torch.float32).item()
        if scale == 0:
            heads.append([0.0] * len(head))
        elif dtype == "int8":
            heads.append([round(number / scale) * scale for number in head])
        else:
            sizes = [abs(number) / scale for number in head]
            near = [E4M3[min(range(len(E4M3)), key=[abs(code - size) for code in E4M3].__getitem__)] for size in sizes]
            heads.append([math.copysign(code * scale, number) for code, number in zip(near, head, strict=True)])
    return torch.tensor(heads, dtype=x.dtype)


def resolve(loop: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks that loop arguments describe: one dict per block with `a`, `b`, `floor` and every per-block field."""
    layers = loop.get("loop_layers")
    if layers is None:
        return []
    pairs = [layers] if isinstance(layers[0], int) else list(layers)
    blocks = []
    for index, (a, b) in enumerate(pairs):
        block: dict[str, Any] = {"a": a, "b": b}
        for name, default in DEFAULTS.items():
            value = loop.get(name, default)
            block[name] = value[index] if isinstance(value, list) else value
        explicit = "min_loop_count" in loop
        merging = block["kv_cache_mode"] == "merge_strategy"
        block["floor"] = 1 if merging and not explicit else block["min_loop_count"]
        blocks.append(block)
    return blocks


@dataclass
class RefCache:
    """`layers[layer][token][slot] = (key, value)`; plain layers and merge mode use slot 0 only."""

    layers: list[list[dict[int, KV]]]

    @property
    def tokens(self) -> int:
        return len(self.layers[0])

    def keep(self, tokens: int) -> RefCache:
        """A copy that has only ever seen the first `tokens` tokens."""
        return RefCache([[dict(slots) for slots in layer[:tokens]] for layer in self.layers])

    def slots(self, layer: int) -> list[int]:
        """Tokens held in each slot of `layer`."""
        count = max((max(held) + 1 for held in self.layers[layer]), default=0)
        return [sum(slot in held for held in self.layers[layer]) for slot in range(count)]


@dataclass
class RefPass:
    """What one forward pass gave."""

    logits: Tensor  # [T, vocab]
    cache: RefCache
    steps: list[int] = field(default_factory=list)  # per block: N
    reasons: list[str] = field(default_factory=list)  # per block: count | cosine | kl | both | max | a chooser's name
    layers_run: list[list[list[bool]]] = field(default_factory=list)  # per block, step r = 1..N: which layers ran
    states: list[list[Tensor]] = field(default_factory=list)  # per block: s_0..s_N, each [T, H]
    cosine: list[list[float]] = field(default_factory=list)  # per block: mean cos(s_r, s_{r-1}) at r = 1..N
    kl: list[list[float]] = field(default_factory=list)  # per block: mean KL(p_{r-1} || p_r) at r = 1..N


@dataclass
class RefChoice:
    """What a chooser of layers may look at before step `r`: one sequence, Python lists."""

    block: dict[str, Any]
    step: int
    ids: list[int]  # the pass's tokens
    entry: list[Tensor]  # e of each token
    inputs: dict[int, list[Tensor]]  # by physical layer: the last time it ran in this pass
    outputs: dict[int, list[Tensor]]
    lens: Callable[[Tensor], Tensor]


class Reference:
    """LoopLlama by the book.

    Args:
        config: where the shapes are read (a `LlamaConfig`).
        weights: a plain Llama's state dict, and for block i `injection.{i}` `[H, 2H]` and `loop_norm.{i}` `[H]` if used.
        loop: the loop fields, as given to the configuration.
        chooser: which layers of a block run in a step, one bool a layer; `None`: all, whatever `layer_chooser` says.
    """

    def __init__(
        self,
        config: Any,
        weights: dict[str, Tensor],
        loop: dict[str, Any],
        chooser: Callable[[RefChoice], list[bool]] | None = None,
    ) -> None:
        self.chooser = chooser
        self.weights = weights
        self.count = config.num_hidden_layers
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.dim = config.head_dim
        self.eps = config.rms_norm_eps
        self.theta = config.rope_parameters["rope_theta"]
        self.blocks = resolve(loop)

    def kept(self, layer: int, kv: KV) -> KV:
        """A token's K/V as the cache of a layer keeps it: a plain layer's as the block before it does, or the first block."""
        before = [block for block in self.blocks if block["a"] <= layer] or self.blocks[:1]
        dtype = before[-1]["kv_cache_dtype"] if before else "exact"
        return rounded(kv[0], dtype), rounded(kv[1], dtype)

    def new_cache(self) -> RefCache:
        return RefCache([[] for _ in range(self.count)])

    # --- plain Llama, one token at a time ---

    def rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return weight * x / torch.sqrt((x * x).mean() + self.eps)

    def rope(self, x: Tensor, position: int) -> Tensor:
        """Rotate the halves of every head of `x` `[heads, D]` by the angle of `position`."""
        half = self.dim // 2
        # Llama keeps its frequencies in float32 whatever the dtype of the model.
        exponent = torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim
        angle = position * (1.0 / self.theta**exponent).to(x.dtype)  # [D/2]
        first, second = x[:, :half], x[:, half:]
        return torch.cat(
            (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), dim=1
        )

    def attend(self, query: Tensor, visible: list[KV]) -> Tensor:
        """Softmax attention of `query` `[H, D]` over a list of keys and values -> `[H * D]`."""
        group = self.heads // self.kv_heads
        heads = []
        for head in range(self.heads):
            shared = head // group
            keys = torch.stack([key[shared] for key, _ in visible])  # [n, D]
            values = torch.stack([value[shared] for _, value in visible])  # [n, D]
            heads.append(torch.softmax(keys @ query[head] / math.sqrt(self.dim), dim=0) @ values)
        return torch.cat(heads)

    def decoder_layer(self, layer: int, states: list[Tensor], start: int, store, visible) -> list[Tensor]:
        """One decoder layer over the tokens of a pass.

        Args:
            states: one `[H]` per token of the pass, the first at position `start`.
            store: `store(i, (key, value))` keeps the fresh K/V of the pass's i-th token.
            visible: `visible(i)` lists every K/V the pass's i-th token attends to.
        """
        w = {
            name.removeprefix(f"model.layers.{layer}."): value
            for name, value in self.weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        queries = []
        for i, x in enumerate(states):
            normed = self.rms_norm(x, w["input_layernorm.weight"])
            query = (w["self_attn.q_proj.weight"] @ normed).view(self.heads, self.dim)
            key = (w["self_attn.k_proj.weight"] @ normed).view(self.kv_heads, self.dim)
            value = (w["self_attn.v_proj.weight"] @ normed).view(self.kv_heads, self.dim)
            queries.append(self.rope(query, start + i))
            store(i, (self.rope(key, start + i), value))
        out = []
        for i, x in enumerate(states):
            x = x + w["self_attn.o_proj.weight"] @ self.attend(queries[i], visible(i))
            normed = self.rms_norm(x, w["post_attention_layernorm.weight"])
            gated = F.silu(w["mlp.gate_proj.weight"] @ normed) * (w["mlp.up_proj.weight"] @ normed)
            out.append(x + w["mlp.down_proj.weight"] @ gated)
        return out

    def lens(self, x: Tensor) -> Tensor:
        return self.weights["lm_head.weight"] @ self.rms_norm(x, self.weights["model.norm.weight"])

    # --- the loop ---

    def __call__(self, ids: list[int], cache: RefCache | None = None) -> RefPass:
        """Read `ids` after whatever `cache` has read. The given cache is left as it was."""
        cache = self.new_cache() if cache is None else cache.keep(cache.tokens)
        self.ids = ids
        start = cache.tokens
        states = [self.weights["model.embed_tokens.weight"][token] for token in ids]
        for layer in cache.layers:
            layer.extend({} for _ in ids)
        out = RefPass(logits=torch.empty(0), cache=cache)
        layer = 0
        while layer < self.count:
            index = next((i for i, block in enumerate(self.blocks) if block["a"] == layer), None)
            if index is None:
                states = self.plain_layer(layer, states, start, cache)
                layer += 1
            else:
                states = self.loop(index, states, start, cache, out)
                layer = self.blocks[index]["b"] + 1
        out.logits = torch.stack([self.lens(x) for x in states])
        return out

    def plain_layer(self, layer: int, states: list[Tensor], start: int, cache: RefCache) -> list[Tensor]:
        held = cache.layers[layer]

        def store(i: int, kv: KV) -> None:
            held[start + i][0] = self.kept(layer, kv)

        return self.decoder_layer(layer, states, start, store, lambda i: [held[p][0] for p in range(start + i + 1)])

    def loop(self, index: int, states: list[Tensor], start: int, cache: RefCache, out: RefPass) -> list[Tensor]:
        block = self.blocks[index]
        entered = states
        layers = range(block["a"], block["b"] + 1)
        ran: dict[int, list[int]] = {layer: [] for layer in layers}  # the steps each layer ran in this pass
        passed_by = dict.fromkeys(layers, states)  # what stood before it in the pass's last step
        inputs: dict[int, list[Tensor]] = {}
        outputs: dict[int, list[Tensor]] = {}
        trail, cosines, kls = [torch.stack(states)], [], []
        if block["kv_cache_mode"] == "virtual_layers":
            self.open_slots(block, start, cache)
        limit = block["loop_count"] if block["loop_strategy"] == "fixed_count" else block["max_loop_count"]
        for r in range(1, limit + 1):
            before = states
            chosen = [True] * len(layers)
            if self.chooser is not None:
                chosen = self.chooser(RefChoice(block, r, self.ids, entered, inputs, outputs, self.lens))
            if not any(chosen):
                r, reason = r - 1, block["layer_chooser"]
                break
            x = self.inject(index, block, states, entered)
            for layer, runs in zip(layers, chosen, strict=True):
                passed_by[layer] = x
                if runs:
                    ran[layer].append(r)
                    inputs[layer] = x
                    self.nth = len(ran[layer])
                    x = self.loop_layer(block, layer, r, x, start, cache)
                    outputs[layer] = x
            states = [s + block["loop_damping"] * (g - s) for s, g in zip(before, x, strict=True)]
            trail.append(torch.stack(states))
            cosines.append(self.mean_cosine(before, states))
            kls.append(self.mean_kl(before, states))
            reason = self.stop_reason(block, r, cosines[-1], kls[-1])
            if reason:
                break
        for layer in layers:
            if not ran[layer]:
                self.keep_passed_by(layer, passed_by[layer], start, cache)
            elif block["kv_cache_mode"] == "virtual_layers":
                self.level_slots(block, layer, ran[layer][-1], start, cache)
            else:
                for slots in cache.layers[layer][
                    start:
                ]:  # merged of what the steps computed, and rounded once, at the end
                    slots[0] = self.kept(layer, slots[0])
        out.layers_run.append([[step in ran[layer] for layer in layers] for step in range(1, r + 1)])
        out.steps.append(r)
        out.reasons.append(reason)
        out.states.append(trail)
        out.cosine.append(cosines)
        out.kl.append(kls)
        return states

    def inject(self, index: int, block: dict[str, Any], states: list[Tensor], entered: list[Tensor]) -> list[Tensor]:
        if block["loop_injection"] == "add":
            states = [s + e for s, e in zip(states, entered, strict=True)]
        elif block["loop_injection"] == "linear":
            matrix = self.weights[f"injection.{index}"]
            states = [matrix @ torch.cat((s, e)) for s, e in zip(states, entered, strict=True)]
        if block["loop_norm"]:
            states = [self.rms_norm(s, self.weights[f"loop_norm.{index}"]) for s in states]
        return states

    def loop_layer(
        self, block: dict[str, Any], layer: int, r: int, states: list[Tensor], start: int, cache: RefCache
    ) -> list[Tensor]:
        """Step `r` of a looped layer, which runs it for the `self.nth` time in this pass."""
        if block["kv_cache_mode"] == "merge_strategy":
            return self.merging_layer(block, layer, self.nth, states, start, cache)
        held = cache.layers[layer]
        slot = (r - 1) % block["virtual_layer_count"]

        def store(i: int, kv: KV) -> None:
            held[start + i][slot] = self.kept(layer, kv)

        def visible(i: int) -> list[KV]:
            if block["virtual_attention_mode"] == "serial":
                return [held[p][slot] for p in range(start + i + 1)]
            return [kv for p in range(start + i + 1) for kv in held[p].values()]

        return self.decoder_layer(layer, states, start, store, visible)

    def merging_layer(
        self, block: dict[str, Any], layer: int, nth: int, states: list[Tensor], start: int, cache: RefCache
    ) -> list[Tensor]:
        held = cache.layers[layer]
        fresh: list[KV] = []

        def store(i: int, kv: KV) -> None:
            fresh.append(kv)

        def visible(i: int) -> list[KV]:
            return [held[p][0] for p in range(start)] + [self.kept(layer, kv) for kv in fresh[: i + 1]]

        result = self.decoder_layer(layer, states, start, store, visible)
        for i, kv in enumerate(fresh):
            merged = held[start + i].get(0)
            held[start + i][0] = (
                kv
                if merged is None
                else tuple(self.merge(block, nth, old, new) for old, new in zip(merged, kv, strict=True))
            )
        return result

    @staticmethod
    def merge(block: dict[str, Any], nth: int, old: Tensor, new: Tensor) -> Tensor:
        if block["merge_strategy"] == "last":
            return new
        if block["merge_strategy"] == "average":
            return (old * (nth - 1) + new) / nth
        return block["merge_ema_alpha"] * old + (1 - block["merge_ema_alpha"]) * new

    def open_slots(self, block: dict[str, Any], start: int, cache: RefCache) -> None:
        """Slots this pass will write and earlier ones had not (the count was raised): tokens read before it hold their
        latest K/V in them, as the pass begins."""
        for layer in range(block["a"], block["b"] + 1):
            for slots in cache.layers[layer][:start]:
                for slot in range(self.used_slots(block)):
                    slots.setdefault(slot, slots[max(slots)])

    @staticmethod
    def used_slots(block: dict[str, Any]) -> int:
        """Slots that a pass of the most steps writes."""
        if block["kv_cache_mode"] == "merge_strategy":
            return 1
        used = block["virtual_layer_count"]
        return min(used, block["loop_count"]) if block["loop_strategy"] == "fixed_count" else used

    def existing_slots(self, block: dict[str, Any], layer: int, cache: RefCache) -> set[int]:
        """Slots that some token holds, and those that a pass of the most steps writes."""
        return {slot for slots in cache.layers[layer] for slot in slots} | set(range(self.used_slots(block)))

    def level_slots(self, block: dict[str, Any], layer: int, last: int, start: int, cache: RefCache) -> None:
        """Slots the layer did not write in the pass get its latest K/V, of step `last`; all slots are equally long."""
        latest = (last - 1) % block["virtual_layer_count"]
        for slots in cache.layers[layer][start:]:
            for slot in sorted(self.existing_slots(block, layer, cache)):
                slots.setdefault(slot, slots[latest])

    def keep_passed_by(self, layer: int, states: list[Tensor], start: int, cache: RefCache) -> None:
        """A layer that the pass never ran holds K/V of the states that passed it by, in every slot."""
        block = next(block for block in self.blocks if block["a"] <= layer <= block["b"])
        existing = self.existing_slots(block, layer, cache)
        w = {
            name: self.weights[f"model.layers.{layer}.{name}.weight"]
            for name in ("input_layernorm", "self_attn.k_proj", "self_attn.v_proj")
        }
        for i, x in enumerate(states):
            normed = self.rms_norm(x, w["input_layernorm"])
            key = (w["self_attn.k_proj"] @ normed).view(self.kv_heads, self.dim)
            value = (w["self_attn.v_proj"] @ normed).view(self.kv_heads, self.dim)
            for slot in existing:
                cache.layers[layer][start + i][slot] = self.kept(layer, (self.rope(key, start + i), value))

    # --- convergence ---

    @staticmethod
    def mean_cosine(before: list[Tensor], after: list[Tensor]) -> float:
        each = [(s @ p / (s.norm() * p.norm())).item() for p, s in zip(before, after, strict=True)]
        return sum(each) / len(each)

    def mean_kl(self, before: list[Tensor], after: list[Tensor]) -> float:
        each = []
        for p, s in zip(before, after, strict=True):
            log_p = torch.log_softmax(self.lens(p).float(), dim=0)
            log_q = torch.log_softmax(self.lens(s).float(), dim=0)
            each.append((log_p.exp() * (log_p - log_q)).sum().item())
        return sum(each) / len(each)

    @staticmethod
    def stop_reason(block: dict[str, Any], r: int, cosine: float, kl: float) -> str:
        """Why the loop stops after step `r`; an empty string when it goes on."""
        if block["loop_strategy"] == "fixed_count":
            return "count" if r == block["loop_count"] else ""
        by_cosine, by_kl = cosine >= block["cosine_threshold"], kl <= block["kl_threshold"]
        reason = {
            "cosine": "cosine" if by_cosine else "",
            "kl": "kl" if by_kl else "",
            "either": "cosine" if by_cosine else "kl" if by_kl else "",
            "both": "both" if by_cosine and by_kl else "",
        }[block["convergence_criterion"]]
        if reason and r >= max(block["floor"], 1):
            return reason
        return "max" if r == block["max_loop_count"] else ""
