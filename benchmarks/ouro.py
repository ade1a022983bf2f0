"""What looping costs a model of Ouro's kind: a random one of 135 M parameters against the same layers unrolled, side by side.

    python benchmarks/ouro.py [--tokens 96] [--threads 1]

Looped: twelve layers, all in the block, four loops, a norm around each branch and after every loop, a gate that reads every state;
its cache has a slot a loop. Unrolled: the same twelve layers on the same weight tensors, four times in a row, in transformers' own
decoder with its DynamicCache: 48 layers, one norm at the end, no gate. The sides take turns token by token, and the figure is the
ratio of the medians of a decoded token's wall time; prefill is left out. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decode import decoded, ratio, take_turns
from loopviz.model import LoopCache, LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.families import ouro
from loopviz.model.layers import PlacedNormLayer
from scripts.processors import processor

SHAPE = {
    "vocab_size": 32768,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 128,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "total_ut_steps": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def looped_model() -> LoopLlamaForCausalLM:
    """Random weights of Ouro's architecture, mapped as its loader does."""
    torch.manual_seed(0)
    config = LoopLlamaConfig(**ouro.fields(SHAPE, Path("config.json"), []))
    return LoopLlamaForCausalLM(config).eval()


def unrolled(model: LoopLlamaForCausalLM) -> LlamaForCausalLM:
    """A plain decoder of all layer passes, on the very same weight tensors."""
    source, loops = model.config, model.config.loop_count
    fields = {name: getattr(source, name) for name in LlamaConfig.__dataclass_fields__}
    depth = loops * source.num_hidden_layers
    config = LlamaConfig(**{**fields, "num_hidden_layers": depth, "architectures": None, "dtype": None})
    config._attn_implementation = source._attn_implementation
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
        for index in range(depth):
            llama.model.layers[index] = PlacedNormLayer(source, index)
            llama.model.layers[index].self_attn.config = config
    for index, layer in enumerate(llama.model.layers):
        layer.load_state_dict(model.model.layers[index % source.num_hidden_layers].state_dict(), assign=True)
    llama.model.embed_tokens, llama.model.norm = model.model.embed_tokens, model.model.norm
    llama.model.rotary_emb, llama.lm_head = model.model.rotary_emb, model.lm_head
    return llama.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    looped = looped_model()
    plain, prompt = unrolled(looped), torch.arange(100, 132)[None]
    sides = {
        "unrolled": decoded(plain, DynamicCache(), prompt),
        "looped": decoded(looped, LoopCache(looped.config), prompt),
    }
    value, detail = ratio(take_turns(sides, args.tokens), "unrolled", "looped")
    parameters = looped.num_parameters()
    print(
        f"{processor()}, {args.threads} thread(s), float32, {parameters:,} parameters, {args.tokens} tokens a side, medians\n"
    )
    print("| figure | ratio | measured |\n|---|---|---|")
    print(f"| Ouro-shaped, 4 loops of 12 layers / 48 layers unrolled, tokens/s | {value:.2f}x | {detail} |")


if __name__ == "__main__":
    main()
