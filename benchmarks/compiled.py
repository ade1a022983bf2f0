"""What torch.compile makes of decoding: a token whose layers are compiled, beside the same token as LoopViz decodes it.

    python benchmarks/compiled.py [--tokens 32] [--threads 1] [--model smollm2-135m-instruct] [--dtypes float32,bfloat16] [--whole]

A layer is compiled once (by inductor, in its default mode, the length of the past left open) and called for each layer of the model;
with --whole all layers are compiled as one function, too. Sides take turns token by token, and the figure is the ratio of the medians.
Compiled in an empty folder, and once more with what is on disk then; that the numbers are the same is looked at bit for bit. Prints a
Markdown table; with --save also NAME.json and NAME.csv.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decode import Tokens, decoded, take_turns
from benchmarks.results import Figure, about, tell
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.checkpoints.layout_choice import arrange
from loopviz.model.checkpoints.load import load_checkpoint

AIM = "> 1.15x to be worth a choice"
PROMPT = torch.arange(32)[None] + 32

Weights = tuple[Tensor, ...]  # of a layer: norm, q, k, v, o, norm, gate, up, down
Past = list[tuple[Tensor, Tensor]]  # by layer, keys and values [1, K, S, D]
Step = Callable[[Tensor, tuple[Tensor, Tensor], Past], tuple[Tensor, Past]]


def weights_of(layer: Any) -> Weights:
    """What a decoder layer of a Llama computes with."""
    attention, mlp = layer.self_attn, layer.mlp
    maps = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    after = (layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    return tuple(module.weight.detach() for module in (layer.input_layernorm, *maps, *after))


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """transformers' RMSNorm."""
    wide = x.to(torch.float32)
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of `[1, heads, 1, D]`."""
    one, other = x.chunk(2, -1)
    return x * cos + torch.cat((-other, one), -1) * sin


def one_layer(
    state: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, weights: Weights, D: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer of one token, `[1, 1, H]`, with the keys and values before it; what comes out, and both with its own."""
    before, wq, wk, wv, wo, after, gate, up, down = weights
    x = normed(state, before, eps)
    q, k, v = (F.linear(x, w).view(1, 1, -1, D).transpose(1, 2) for w in (wq, wk, wv))
    q, k = rotated(q, cos, sin), rotated(k, cos, sin)
    keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
    found = F.scaled_dot_product_attention(q, keys, values, scale=D**-0.5, enable_gqa=True)
    state = state + F.linear(found.transpose(1, 2).reshape(1, 1, -1), wo)
    x = normed(state, after, eps)
    return state + F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down), keys, values


def steps(model: LoopLlamaForCausalLM, layer: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Step:
    """A token through all layers by `layer`, which is :func:`one_layer` or what it was compiled to."""
    config = model.config
    weights = [weights_of(one) for one in model.model.layers]

    def step(state: Tensor, angles: tuple[Tensor, Tensor], past: Past) -> tuple[Tensor, Past]:
        cos, sin = (angle.unsqueeze(1) for angle in angles)
        found: Past = []
        for own, (keys, values) in zip(weights, past, strict=True):
            state, keys, values = layer(state, cos, sin, keys, values, own, config.head_dim, config.rms_norm_eps)
            found.append((keys, values))
        return state, found

    return step


def tokens_by(model: LoopLlamaForCausalLM, step: Step, kept: list[Tensor]) -> Tokens:
    """Tokens of a greedy loop after a prompt, their layers by `step`, all else by the model; their logits are kept."""
    cache = LoopCache(model.config)
    with torch.no_grad():
        model.model(PROMPT, past_key_values=cache, use_cache=True)
    past: Past = [tuple(layer.read(lambda x: x[:, :, :32, 0].contiguous())) for layer in cache.layers]  # type: ignore[misc]
    token, position = PROMPT[:, -1:], PROMPT.shape[1]
    while True:
        with torch.no_grad():
            state = model.model.embed_tokens(token)
            for keys, values in past if position == PROMPT.shape[1] else ():
                for each in (keys, values):
                    torch._dynamo.mark_dynamic(each, 2)
            angles = model.model.rotary_emb(state, position_ids=torch.tensor([[position]]))
            state, past = step(state, angles, past)
            logits = model.lm_head(model.model.norm(state))
        kept.append(logits)
        token, position = logits.argmax(-1), position + 1
        yield


def lean(model: LoopLlamaForCausalLM, kept: list[Tensor]) -> Tokens:
    """The same as LoopViz decodes it."""
    handle = model.lm_head.register_forward_hook(lambda module, args, out: kept.append(out))
    try:
        tokens = decoded(model, LoopCache(model.config), PROMPT)
        while True:
            yield next(tokens)
    finally:
        handle.remove()


def compiled(model: LoopLlamaForCausalLM, whole: bool) -> tuple[Step, list[float]]:
    """Layers compiled one by one, or all at once; and the seconds that the first token took, anew and with what is on disk by then."""
    seconds = []
    for _ in range(2):
        torch._dynamo.reset()
        step = (
            torch.compile(steps(model, one_layer), fullgraph=True)
            if whole
            else steps(model, torch.compile(one_layer, fullgraph=True))
        )
        started = time.perf_counter()
        tokens = tokens_by(model, step, [])
        next(tokens)
        next(tokens)  # a second one: the past is longer, and nothing is to be compiled again
        seconds.append(time.perf_counter() - started)
    return step, seconds


def figures(model: LoopLlamaForCausalLM, name: str, tokens: int, ways: Sequence[bool]) -> list[Figure]:
    """Compiled layers over ours, tokens/s, of a model held in `name`.

    Args:
        ways: whether all layers are compiled at once.
    """
    plain, found = model.with_loop(loop_layers=None), []
    for whole in ways:
        step, (anew, again) = compiled(plain, whole)
        kept: dict[str, list[Tensor]] = {"ours": [], "compiled": []}
        sides = {"ours": lean(plain, kept["ours"]), "compiled": tokens_by(plain, step, kept["compiled"])}
        ms = take_turns(sides, tokens)
        sides["ours"].close()  # type: ignore[attr-defined]  # a generator
        ours, theirs = kept["ours"][0][:, -1], kept["compiled"][0][:, -1]
        told = {f"{side}, ms/token": value for side, value in ms.items()}
        told |= {"two tokens, compiled anew, s": anew, "found on disk, s": again}
        told |= {
            "the same bits": float(torch.equal(ours, theirs)),
            "most that a logit differs by": float((ours - theirs).abs().max()),
        }
        title = f"{'all layers' if whole else 'a layer'} compiled / as LoopViz decodes, {name}, tokens/s"
        found.append(Figure(title, ms["ours"] / ms["compiled"], AIM, told))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="with commas between: float32, float16, bfloat16")
    parser.add_argument("--whole", action="store_true", help="all layers as one function, too; this takes minutes")
    parser.add_argument("--save", type=Path, metavar="NAME", help="write NAME.json and NAME.csv, too")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    found = about(("torch",), model=args.model, threads=args.threads, tokens=args.tokens)
    rows: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # empty: nothing is found there that somebody compiled before
        for name in args.dtypes.split(","):
            model = load_checkpoint(args.model, dtype=getattr(torch, name)).model
            arrange(model)
            model.requires_grad_(False)
            rows += figures(model, name, args.tokens, [False, True] if args.whole else [False])
    tell(found, rows, args.save)


if __name__ == "__main__":
    main()
