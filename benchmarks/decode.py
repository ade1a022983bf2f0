"""What the engine, the recorder, the loop and the cache cost: ratios, each pair measured side by side in this run.

    python benchmarks/decode.py [--rounds 7] [--tokens 32] [--threads N] [--model smollm2-135m-instruct]

Every pair is interleaved round by round (the machine is noisy; what disturbs one side disturbs the other), and the figure
is the ratio of the medians. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loopviz.engine import StreamSettings, stream
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.checkpoints import load_checkpoint

BLOCK = {"loop_layers": (10, 14), "loop_count": 4}
PROMPT = (
    "Write a short story about a small robot that learns to paint. The story takes place in a quiet town by the sea."
)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call, the sides taking turns; the order turns round each time, and a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        names = list(sides) if round_number % 2 else list(reversed(sides))
        for name in names:
            took = seconds(sides[name])
            if round_number:
                times[name].append(took)
    return times


def plain_llama(model: LoopLlamaForCausalLM, order: list[int]) -> LlamaForCausalLM:
    """A transformers Llama whose layers are `order` of the model's, on the very same weight tensors."""
    fields = {name: getattr(model.config, name) for name in LlamaConfig.__dataclass_fields__}
    fields |= {"num_hidden_layers": len(order), "architectures": None, "dtype": None}
    config = LlamaConfig(**fields)
    config._attn_implementation = model.config._attn_implementation
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    for layer, source in zip(llama.model.layers, order, strict=True):
        layer.load_state_dict(model.model.layers[source].state_dict(), assign=True)
    llama.model.embed_tokens, llama.model.norm = model.model.embed_tokens, model.model.norm
    llama.model.rotary_emb, llama.lm_head = model.model.rotary_emb, model.lm_head
    llama.generation_config = model.generation_config
    return llama.eval()


def decode_tokens(model: LlamaForCausalLM, cache: object, first: torch.Tensor, n: int) -> Callable[[], None]:
    """Greedy decode of `n` tokens over plain `forward`, continuing `cache` and cropping it back."""

    def work() -> None:
        token = first
        with torch.inference_mode():
            for _ in range(n):
                logits = model(token, past_key_values=cache, use_cache=True).logits
                token = logits[:, -1:].argmax(-1)
            cache.crop(-n)

    return work


def stream_against_generate(model: LoopLlamaForCausalLM, tokenizer: object, rounds: int, n: int) -> tuple[float, str]:
    """tokens/s of stream(), plain, recorder off, over transformers' generate() on the same weights."""
    llama = plain_llama(model, list(range(model.config.num_hidden_layers)))
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    plain = model.with_loop(loop_layers=None)
    # An end-of-text token must not shorten one side.
    plain.generation_config.eos_token_id = None
    llama.generation_config = plain.generation_config
    settings = StreamSettings(max_new_tokens=n, record="off")
    sides = {
        "stream": lambda: list(stream(plain, tokenizer, PROMPT, settings)),
        "generate": lambda: llama.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False),
    }
    return ratio(side_by_side(sides, rounds), "generate", "stream", n)


def recorder_cost(model: LoopLlamaForCausalLM, tokenizer: object, rounds: int, n: int) -> tuple[float, str]:
    """tokens/s of stream(), looped, recorder fully on over off."""
    looped = model.with_loop(**BLOCK)
    looped.generation_config.eos_token_id = None

    def run(record: str) -> None:
        for _ in stream(looped, tokenizer, PROMPT, StreamSettings(max_new_tokens=n, record=record)):
            pass

    times = side_by_side({"off": lambda: run("off"), "full": lambda: run("full")}, rounds)
    return ratio(times, "off", "full", n)


def loop_overhead(model: LoopLlamaForCausalLM, rounds: int, n: int) -> tuple[float, str]:
    """tokens/s of looped decode over a plain Llama that runs the same layers on the same weights, one after another."""
    looped = model.with_loop(**BLOCK, virtual_attention_mode="serial")
    (a, b), count = BLOCK["loop_layers"], BLOCK["loop_count"]
    L = model.config.num_hidden_layers
    unrolled = plain_llama(model, [*range(a), *list(range(a, b + 1)) * count, *range(b + 1, L)])
    ids = torch.arange(100, 132)[None]
    sides = {}
    for name, one, cache in (("looped", looped, LoopCache(looped.config)), ("plain", unrolled, DynamicCache())):
        with torch.inference_mode():
            one(ids, past_key_values=cache, use_cache=True)
        sides[name] = decode_tokens(one, cache, torch.tensor([[5]]), n)
    return ratio(side_by_side(sides, rounds), "plain", "looped", n)


def context_growth(model: LoopLlamaForCausalLM, rounds: int, n: int) -> tuple[float, str]:
    """(ms/token at 2,000 tokens / at 200) of DynamicCache over the same of LoopCache, plain model: >= 1 is not worse."""
    plain = model.with_loop(loop_layers=None)
    sides = {}
    for length in (200, 2000):
        ids = (torch.arange(length) % 5000 + 100)[None]
        for name, cache in (("ours", LoopCache(plain.config)), ("DynamicCache", DynamicCache())):
            with torch.inference_mode():
                plain.model(ids, past_key_values=cache, use_cache=True)
            sides[f"{name} {length}"] = decode_tokens(plain, cache, torch.tensor([[5]]), n)
    ms = {name: statistics.median(t) * 1000 / n for name, t in side_by_side(sides, rounds).items()}
    growth = {name: ms[f"{name} 2000"] / ms[f"{name} 200"] for name in ("ours", "DynamicCache")}
    detail = ", ".join(f"{name}: {value:.1f} ms" for name, value in ms.items())
    return growth["DynamicCache"] / growth["ours"], (
        f"growth ours x{growth['ours']:.2f}, DynamicCache x{growth['DynamicCache']:.2f} ({detail})"
    )


def ratio(times: dict[str, list[float]], slow: str, quick: str, n: int) -> tuple[float, str]:
    """Median of `slow` over median of `quick` (how many times the tokens/s `quick` has), and both in ms a token."""
    medians = {name: statistics.median(t) for name, t in times.items()}
    detail = ", ".join(f"{name}: {value * 1000 / n:.1f} ms/token" for name, value in medians.items())
    return medians[slow] / medians[quick], detail


def best_threads(model: LoopLlamaForCausalLM) -> int:
    """The thread count (1 or as many as the machine has cores) at which plain decode is quickest."""
    plain = model.with_loop(loop_layers=None)
    cache = LoopCache(plain.config)
    with torch.inference_mode():
        plain.model(torch.arange(100, 132)[None], past_key_values=cache, use_cache=True)
    work = decode_tokens(plain, cache, torch.tensor([[5]]), 8)
    candidates = sorted({1, torch.get_num_threads()})

    def at(threads: int) -> Callable[[], None]:
        def run() -> None:
            torch.set_num_threads(threads)
            work()

        return run

    times = side_by_side({str(t): at(t) for t in candidates}, 4)
    return min(candidates, key=lambda t: statistics.median(times[str(t)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, help="default: whichever of 1 and all cores is quicker")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    args = parser.parse_args()

    loaded = load_checkpoint(args.model, dtype=torch.float32)
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    threads = args.threads or best_threads(model)
    torch.set_num_threads(threads)
    shown = f"block {BLOCK['loop_layers'][0]}-{BLOCK['loop_layers'][1]}, {BLOCK['loop_count']} loops"
    rows = [
        (
            "`stream()` plain, recorder off / `generate()`, tokens/s",
            *stream_against_generate(model, tokenizer, args.rounds, args.tokens),
        ),
        (
            f"`stream()` looped, recorder full / off, tokens/s ({shown})",
            *recorder_cost(model, tokenizer, args.rounds, args.tokens),
        ),
        (
            f"looped decode / plain decode of equal layer passes, tokens/s ({shown})",
            *loop_overhead(model, args.rounds, args.tokens),
        ),
        (
            "growth of ms/token from 200 to 2,000 tokens of context, DynamicCache / ours",
            *context_growth(model, args.rounds, max(4, args.tokens // 4)),
        ),
    ]
    print(f"{loaded.name}, float32, {threads} thread(s), {args.rounds} rounds of {args.tokens} tokens, medians\n")
    print("| figure | ratio | measured |\n|---|---|---|")
    for figure, value, detail in rows:
        print(f"| {figure} | {value:.2f}x | {detail} |")


if __name__ == "__main__":
    main()
