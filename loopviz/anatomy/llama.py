"""Llama from scratch, in plain torch: read top to bottom it is the whole model, from a token's id to the next token.

    ids -> embedding -> [ RMSNorm -> attention -> + -> RMSNorm -> SwiGLU -> + ] x layers -> RMSNorm -> head -> logits

Shapes: B sequences, T tokens read now, S tokens read so far (those T among them), H width of the state, N query heads,
K key/value heads (K divides N), D width of a head, F width of the MLP, V tokens in the vocabulary.
Modules are named as in transformers, so its checkpoints load as they are; :mod:`loopviz.anatomy.parity` compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100  # a label that is no token: it is left out of the loss
ROPE_TYPES = ("default", "linear", "llama3")
Maybe: TypeAlias = Tensor | None


class LlamaRMSNorm(nn.Module):
    """`g * x / rms(x)`, `rms(x) = sqrt(mean(x^2) + eps)`: a LayerNorm that subtracts no mean and adds no bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps  # the gain g

    def forward(self, x: Tensor) -> Tensor:  # [..., H] -> [..., H]
        wide = x.float()  # squares of half precision would overflow; transformers and Meta do it in float32 always
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def head_width(config: Any) -> int:
    """D: `head_dim` where the configuration has one, else H / N."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_rule(config: Any) -> dict[str, Any]:
    """`rope_type`, `rope_theta` and what the type needs, from `rope_parameters` or the older `rope_theta`, `rope_scaling`."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    theta = given.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise ValueError(f"rope_type={kind!r}: must be one of {', '.join(ROPE_TYPES)}; no other is written here")
    return {**given, "rope_type": kind, "rope_theta": float(theta)}


def rotary_frequencies(config: Any) -> Tensor:
    """Radians by which each pair of a head turns at every position, `theta^(-2i/D)`: `[D/2]` float32.

    Under `llama3` slow pairs (fewer than `low_freq_factor` turns in the trained context) turn `factor` times slower, quick
    ones (more than `high_freq_factor`) as before, those between in between; under `linear` all are slower alike.
    """
    rule, width = rope_rule(config), head_width(config)
    frequencies = 1.0 / (rule["rope_theta"] ** (torch.arange(0, width, 2).float() / width))
    slower = frequencies / (rule.get("factor") or 1.0)
    if rule["rope_type"] != "llama3":
        return frequencies if rule["rope_type"] == "default" else slower
    trained = rule.get("original_max_position_embeddings") or config.max_position_embeddings
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    share = (trained / (2 * math.pi / frequencies) - low) / (high - low)  # of the way from slow to quick
    between = (1 - share) * slower + share * frequencies
    return torch.where(share < 0, slower, torch.where(share > 1, frequencies, between))


def rotation(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, `[T]` -> two of `[T, D]`; pair i is the dimensions i and i + D/2."""
    angles = (positions[:, None].float() * frequencies).repeat(1, 2)  # [T, D/2] -> [T, D]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`(a, b) -> (a cos - b sin, b cos + a sin)` in every pair: `[..., T, D]` -> the same."""
    a, b = x.chunk(2, dim=-1)  # the halves of a head
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class KVCache:
    """Keys (rotated) and values of all tokens read so far, `[B, K, S, D]` each: all that a later token needs of them."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of T tokens, `[B, K, T, D]`, to a layer's; returns all it has now."""
        if layer < len(self.layers):
            keys, values = (torch.cat(pair, 2) for pair in zip(self.layers[layer], (keys, values), strict=True))
        self.layers[layer : layer + 1] = [(keys, values)]
        return keys, values


def visible(attention_mask: Tensor, n_new: int) -> Tensor:
    """Which keys each of the last T queries sees, those up to its place that are no padding: `[B, S]` -> `[B, 1, T, S]`."""
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    causal = places <= places[len(places) - n_new :, None]  # [T, S], a triangle
    return causal & attention_mask.bool()[:, None, None, :]


def repeat_kv(x: Tensor, times: int) -> Tensor:
    """Every key/value head `times` times in a row, so that each query head finds its own: `[B, K, S, D]` -> `[B, N, S, D]`.

    Grouped-query attention keeps K heads in the cache, not N; only for the product of matrices are they repeated. Query
    heads 0 to N/K - 1 read K/V head 0, and so on: `repeat_interleave`, where `x.repeat` would deal them out in turn.
    """
    B, K, S, D = x.shape
    return x[:, :, None].expand(B, K, times, S, D).reshape(B, K * times, S, D)


class LlamaAttention(nn.Module):
    """Every token asks (q) all that came before, by what they offer (k), and takes a mix of what they hold (v)."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.n_heads = layer, head_width(config), config.num_attention_heads
        self.n_kv_heads = getattr(config, "num_key_value_heads", None) or self.n_heads
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"num_key_value_heads={self.n_kv_heads}: must divide num_attention_heads={self.n_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim}: must be even, for its dimensions turn in pairs")
        H, bias = config.hidden_size, bool(getattr(config, "attention_bias", False))
        self.q_proj = nn.Linear(H, self.n_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(H, self.n_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(H, self.n_kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, H, bias=bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, seen: Tensor, past: KVCache | None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.n_heads, self.head_dim).transpose(1, 2)  # [B, N, T, D]
        k = self.k_proj(x).view(B, T, self.n_kv_heads, self.head_dim).transpose(1, 2)  # [B, K, T, D]
        v = self.v_proj(x).view(B, T, self.n_kv_heads, self.head_dim).transpose(1, 2)  # [B, K, T, D]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)  # a value carries no position
        if past is not None:
            k, v = past.append(self.layer, k, v)  # [B, K, S, D]
        k, v = (repeat_kv(each, self.n_heads // self.n_kv_heads) for each in (k, v))  # [B, N, S, D]
        scores = q @ k.transpose(2, 3) * self.head_dim**-0.5  # [B, N, T, S]; a product of D terms grows as sqrt(D)
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)  # -inf would make NaN of a row of padding
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))  # over keys, they sum to 1
        mixed = weights.to(v.dtype) @ v  # [B, N, T, D]
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, self.n_heads * self.head_dim))  # [B, T, H]


class LlamaMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`: what `up` says passes as far as `gate` opens; `silu(z) = z * sigmoid(z)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        if (given := getattr(config, "hidden_act", "silu")) != "silu":
            raise ValueError(f"hidden_act={given!r}: must be 'silu', as in every Llama")
        H, width, bias = config.hidden_size, config.intermediate_size, bool(getattr(config, "mlp_bias", False))
        self.gate_proj, self.up_proj = nn.Linear(H, width, bias=bias), nn.Linear(H, width, bias=bias)
        self.down_proj = nn.Linear(width, H, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, H] -> [B, T, F] -> [B, T, H]
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaDecoderLayer(nn.Module):
    """Attention, then the MLP; each reads a normed state, and what it says is added to the state itself (residual)."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layer)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, seen: Tensor, past: KVCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, seen, past)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    """Embedding, layers, final norm; positions enter in the attention alone."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        rope_rule(config)  # refused now, not at the first token
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, input_ids: Tensor, attention_mask: Maybe = None, past: KVCache | None = None) -> Tensor:
        (B, T), before = input_ids.shape, 0 if past is None else len(past)
        mask = input_ids.new_ones(B, before + T) if attention_mask is None else attention_mask
        if mask.shape != (B, before + T):
            raise ValueError(f"attention_mask {list(mask.shape)}: must be {[B, before + T]}, for past and new tokens")
        x = self.embed_tokens(input_ids)  # [B, T, H]
        places = torch.arange(before, before + T, device=x.device)
        cos, sin = rotation(rotary_frequencies(self.config).to(x.device), places)  # of angles in float32
        cos, sin, seen = cos.to(x.dtype), sin.to(x.dtype), visible(mask, T)
        for layer in self.layers:
            x = layer(x, cos, sin, seen, past)
        return self.norm(x)


def shifted_loss(logits: Tensor, labels: Tensor, attention_mask: Maybe = None) -> Tensor:
    """Mean cross-entropy (nats, float32) of each token under the logits of the one before it; NaN where nothing counts.

    Args:
        logits, labels: `[B, T, V]`, `[B, T]`; a label `IGNORED` (-100) is left out.
        attention_mask: `[B, T]`; where it is 0 neither the token nor what is said of the next counts. None: all count.
    """
    targets = F.pad(labels, (0, 1), value=IGNORED)[:, 1:]  # [B, T]; what follows the last is not known
    if attention_mask is not None:
        real = attention_mask.bool()
        targets = targets.masked_fill(~(real & F.pad(real, (0, 1))[:, 1:]), IGNORED)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def probabilities(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """What a next token is drawn from, `[B, V]` -> `[B, V]`: sharper or flatter, then the k likeliest (0: all), then the
    likeliest that reach p together."""
    if not (temperature > 0 and top_k >= 0 and 0 < top_p <= 1):
        raise ValueError(f"{temperature=}, {top_k=}, {top_p=}: must be > 0, >= 0, in (0, 1]")
    logits = logits.float() / temperature
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    shares, order = logits.softmax(-1).sort(-1, descending=True)
    beyond = shares.cumsum(-1) - shares >= (top_p if top_p < 1 else math.inf)  # those before it are enough
    return logits.masked_fill(beyond.scatter(-1, order, beyond), -math.inf).softmax(-1)


class LlamaForCausalLM(nn.Module):
    """The decoder with its head: for each token, a logit for every token that may come next. `config` is any object with
    the names of transformers' `LlamaConfig`; what is not written here of them is refused (ValueError)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.tied = config, bool(getattr(config, "tie_word_embeddings", False))
        self.model = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.load_state_dict({}, strict=False)  # ties the head

    def forward(
        self, input_ids: Tensor, attention_mask: Maybe = None, labels: Maybe = None, past: KVCache | None = None
    ) -> tuple[Maybe, Tensor]:
        """The loss (None without labels) and logits `[B, T, V]` of ids `[B, T]`.

        Args:
            attention_mask: `[B, S]`, of the tokens in `past` too; 0 is padding, which nobody sees and no loss counts.
            labels: `[B, T]`, usually the ids themselves; see :func:`shifted_loss`.
            past: what was read before; it grows by these tokens.
        """
        logits = self.lm_head(self.model(input_ids, attention_mask, past))
        mask = None if attention_mask is None else attention_mask[:, attention_mask.shape[1] - input_ids.shape[1] :]
        return None if labels is None else shifted_loss(logits, labels, mask), logits

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """A checkpoint's weights; a tied head may be missing, and rotary frequencies that old ones store are computed."""
        state = {name: value for name, value in state_dict.items() if not name.endswith("rotary_emb.inv_freq")}
        if self.tied and "model.embed_tokens.weight" in state:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        told = super().load_state_dict(state, strict, assign)
        if self.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        return told

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        attention_mask: Maybe = None,
        sampling: Mapping[str, Any] | None = None,
        ends: Sequence[int] = (),
        use_cache: bool = True,
    ) -> Tensor:
        """`[B, T]` ids, and up to `max_new_tokens` more: the likeliest each time, or drawn.

        Args:
            attention_mask: `[B, T]`; shorter prompts are padded on the left, so that all go on at the same place.
            sampling: arguments of :func:`probabilities`; None takes the likeliest.
            ends: tokens that end a sequence; while others go on, it repeats its own.
            use_cache: False reads everything again for every token: the same tokens for S times the work.
        """
        ids = fresh = input_ids
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask
        if not (ids.numel() and mask[:, -1:].all()):
            raise ValueError("attention_mask: each prompt must end in a token; pad on the left")
        past, stops = KVCache() if use_cache else None, torch.tensor(ends, dtype=ids.dtype, device=ids.device)
        ended = torch.zeros_like(ids[:, :1], dtype=torch.bool)
        for _ in range(max_new_tokens):
            last = self.lm_head(self.model(fresh, mask, past)[:, -1]).float()  # [B, V]; no other place needs the head
            drawn = last.argmax(-1, True) if sampling is None else torch.multinomial(probabilities(last, **sampling), 1)
            ids, mask = torch.cat((ids, torch.where(ended, ids[:, -1:], drawn)), dim=1), F.pad(mask, (0, 1), value=1)
            ended = torch.isin(ids[:, -1:], stops)  # [B, 1]
            if ended.all():
                break
            fresh = ids[:, -1:] if use_cache else ids
        return ids
