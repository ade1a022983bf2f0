"""A LoopLlama that is built, not trained: its loop is a contraction whose rate and fixed point are known exactly.

One layer, looped. Its attention output and MLP output are zero, so the layer hands on what enters it, and a step is
what the injection makes of it:

    x_r = W[s_{r-1}; e],  W = [rho I | (1 - rho) M]      s_r = rho s_{r-1} + (1 - rho) M e

By induction, from s_0 = e:   s_r = rho^r e + (1 - rho^r) M e.   The fixed point is s* = M e, and every step shrinks the
distance to it by exactly rho:   |s_r - s*| = rho^r |e - M e|.

Embeddings are orthogonal, one axis a symbol, and M maps a symbol's axis to its successor's: `a` to `b`, `z` to `a`, `9`
to `0`. So the model says what comes next, its state turns from the symbol it read to the next one, and the direct lens
changes its mind at the first r with rho^r < 1/2. With c = rho^r, d = 1 - c, everything on the page has a closed form:
|s_r| = scale sqrt(c^2 + d^2), cos(s_r, s_{r-1}) = (c c' + d d') / sqrt((c^2 + d^2)(c'^2 + d'^2)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, digits

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from loopviz import outputs
from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM, LoopStep
from loopviz.model.checkpoints.quiet import quiet_transformers

SYMBOLS = ascii_lowercase + digits
UNKNOWN = "<unk>"
RATE = 0.75  # a binary fraction: exact in every dtype
SHARPNESS = 4.0  # of the head: a settled state says the next symbol with p = 1 / (1 + 36 exp(-sharpness sqrt(H)))


def successor(token: int) -> int:
    """The id the fixed point of `token` says: the next letter or digit; the unknown symbol (id 0) stays."""
    n = len(ascii_lowercase)
    if token == 0:
        return 0
    if token <= n:
        return token % n + 1
    return n + 1 + (token - n) % len(digits)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; what is no letter a-z or digit is unknown."""
    words = {word: index for index, word in enumerate([UNKNOWN, *SYMBOLS])}
    inner = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=UNKNOWN, clean_up_tokenization_spaces=False)


@torch.no_grad()
def build(rate: float = RATE, loop_count: int = 12) -> LoopLlamaForCausalLM:
    """The model, float32, in eval mode.

    Args:
        rate: rho, in (0, 1).
        loop_count: steps it is set to.

    Raises:
        ValueError: a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate={rate!r}: must be in (0, 1): only then does the loop contract")
    vocab, H = 1 + len(SYMBOLS), 40  # one axis a symbol; an even head needs three more
    model = LoopLlamaForCausalLM(
        LoopLlamaConfig(
            vocab_size=vocab,
            hidden_size=H,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=512,
            rms_norm_eps=1e-12,  # so small that norms are exact to float32
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            loop_layers=(0, 0),
            loop_count=loop_count,
            max_loop_count=max(64, loop_count),
            loop_injection="linear",
            kv_cache_mode="merge_strategy",
            merge_strategy="last",
        )
    )
    layer = model.model.layers[0]
    for linear in (*(getattr(layer.self_attn, f"{x}_proj") for x in "qkvo"), *layer.mlp.children()):
        if isinstance(linear, torch.nn.Linear):
            linear.weight.zero_()
    axes = torch.eye(vocab, H)
    model.model.embed_tokens.weight.copy_(math.sqrt(H) * axes)
    model.lm_head.weight.copy_(SHARPNESS * axes)
    step = torch.eye(H)
    step[:vocab, :vocab] = 0
    for token in range(vocab):
        step[successor(token), token] = 1
    _injection(model).copy_(torch.cat((rate * torch.eye(H), (1 - rate) * step), dim=1))
    return model.eval()


def rate_of(model: LoopLlamaForCausalLM) -> float:
    """rho of a glassbox, read from its weights."""
    return float(_injection(model)[0, 0])


def _injection(model: LoopLlamaForCausalLM) -> Tensor:
    """The weights that make a step's input of state and entry, `[H, 2 H]`."""
    linear = model.model.loop_injections["0"]
    assert isinstance(linear, torch.nn.Linear)
    return linear.weight


def exact_state(model: LoopLlamaForCausalLM, ids: Tensor, step: int | None) -> Tensor:
    """s_r in closed form, or for `None` the fixed point: `[B, T]` ids to `[B, T, H]` float64."""
    table = model.model.embed_tokens.weight.double()
    following = torch.tensor([[successor(token) for token in row] for row in ids.tolist()], device=ids.device)
    kept = 0.0 if step is None else rate_of(model) ** step
    return kept * table[ids] + (1 - kept) * table[following]


def exact_cosine(rate: float, step: int) -> float:
    """cos(s_r, s_{r-1}) of every symbol but the unknown one, in closed form."""
    (c, d), (old_c, old_d) = ((k, 1 - k) for k in (rate**step, rate ** (step - 1)))
    return (c * old_c + d * old_d) / math.sqrt((c * c + d * d) * (old_c * old_c + old_d * old_d))


@dataclass(frozen=True)
class Check:
    """Measured against exact.

    Attributes:
        rate: rho, exact.
        rates: measured |s_{r+1} - s*| / |s_r - s*| for r = 0, 1, ..., the mean over tokens.
        state_error: largest |component of s_r - exact|, over steps and tokens, as a share of |s*|.
        fixed_point_error: the same of the last state against s*, less the rho^N |s_0 - s*| that must be left.
        cosine_error: largest |cos(s_r, s_{r-1}) - exact|.
    """

    rate: float
    rates: tuple[float, ...]
    state_error: float
    fixed_point_error: float
    cosine_error: float

    @property
    def rate_error(self) -> float:
        """Largest |measured rate - rho|."""
        return max(abs(x - self.rate) for x in self.rates)


@torch.no_grad()
def check(model: LoopLlamaForCausalLM, loops: int = 16, ids: Tensor | None = None) -> Check:
    """Run a glassbox and hold every step's state against the closed form.

    Args:
        model: from `build`, possibly saved and loaded since.
        loops: steps to run, >= 1. Float32 keeps the last distances to four digits up to about 20.
        ids: `[B, T]` int64 without the unknown symbol (id 0); by default all symbols.
    """
    ids = torch.arange(1, 1 + len(SYMBOLS), device=model.device)[None] if ids is None else ids
    view = model.with_loop(loop_strategy="fixed_count", loop_count=loops, max_loop_count=loops)
    states: list[Tensor] = []

    def watch(event: LoopStep) -> None:
        if not states:
            states.append(event.previous.double())
        states.append(event.state.double())

    handle = view.register_loop_hook(watch)
    try:
        view(ids, use_cache=False)
    finally:
        handle.remove()
    rate = rate_of(model)
    end = exact_state(model, ids, None)
    size = end.norm(dim=-1).min()
    distance = torch.stack([(state - end).norm(dim=-1) for state in states])  # [N + 1, B, T]
    errors = [(state - exact_state(model, ids, r)).abs().max() / size for r, state in enumerate(states)]
    cosines = [torch.cosine_similarity(states[r], states[r - 1], dim=-1) for r in range(1, loops + 1)]
    return Check(
        rate=rate,
        rates=tuple((distance[1:] / distance[:-1]).mean(dim=(1, 2)).tolist()),
        state_error=float(torch.stack(errors).max()),
        fixed_point_error=float((distance[-1] - rate**loops * distance[0]).abs().max() / size),
        cosine_error=max(float((cos - exact_cosine(rate, r)).abs().max()) for r, cos in enumerate(cosines, start=1)),
    )


def save(folder: Path, rate: float = RATE) -> Check:
    """Build it, save it with its tokenizer, and check what was saved.

    Raises:
        OSError: the folder cannot be written.
    """
    with quiet_transformers():
        with outputs.filling(folder, keep=["README.md"]) as part:
            build(rate).half().save_pretrained(str(part))  # rates that are binary fractions are exact in float16
            make_tokenizer().save_pretrained(str(part))
        saved = LoopLlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
        return check(saved.eval())
