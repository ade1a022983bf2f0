"""What the engine, the recorder, the loop and the cache cost: ratios, each pair measured side by side in this run.

    python benchmarks/decode.py [--tokens 96] [--threads N] [--model smollm2-135m-instruct]

The sides of a comparison take turns token by token, so that what disturbs one disturbs the other (machines are noisy), and
the figure is the ratio of the medians of a decoded token's wall time. Prefill is left out. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loopviz.engine import StreamSettings, stream
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.checkpoints.load import load_checkpoint

BLOCK = {"loop_layers": (10, 14), "loop_count": 4}
PROMPT = (
    "Write a short story about a small robot that learns to paint. The story takes place in a quiet town by the sea."
)


Tokens = Iterator[Any]  # yields after every token

WARM_UP = 4  # tokens of each side that are not counted


def take_turns(sides: dict[str, Tokens], n: int) -> dict[str, float]:
    """Median ms of a token of every side over `n` tokens, the sides taking turns; who goes first changes each time."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(n + WARM_UP):
        for name in list(sides) if turn % 2 else list(reversed(sides)):
            start = time.perf_counter()
            next(sides[name])
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(t) for name, t in times.items()}


class Turnstile(BaseStreamer):
    """Lets `generate()`, in a thread of its own, go on by one token at a time."""

    def __init__(self) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt_seen:  # generate() first hands over the prompt
            self.prompt_seen = True
        else:
            self.done.release()
        self.go.acquire()

    def end(self) -> None:
        self.done.release()


def generated(model: LlamaForCausalLM, ids: torch.Tensor, n: int) -> Tokens:
    """Tokens of transformers' greedy `generate()`, the prefill's first."""
    gate = Turnstile()
    call = {"attention_mask": torch.ones_like(ids), "max_new_tokens": n, "do_sample": False, "streamer": gate}
    threading.Thread(target=lambda: model.generate(ids, **call), daemon=True).start()
    for _ in range(n):
        gate.go.release()
        gate.done.acquire()
        yield


def streamed(model: LoopLlamaForCausalLM, tokenizer: object, n: int, record: str) -> Tokens:
    """Tokens of our `stream()`, the prefill's frames taken together as `generate()` takes them."""
    prompt = 0
    for frame in stream(model, tokenizer, PROMPT, StreamSettings(max_new_tokens=n, record=record)):
        prompt += frame["phase"] == "prompt"
        if frame["phase"] == "generated" or prompt == frame["pass_tokens"]:
            yield


def decoded(model: LlamaForCausalLM, cache: object, prompt: torch.Tensor) -> Tokens:
    """Tokens of a greedy loop over `forward` after `prompt` `[1, T]`."""
    with torch.inference_mode():
        model.model(prompt, past_key_values=cache, use_cache=True)
    token = prompt[:, -1:]
    while True:
        with torch.inference_mode():
            token = model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        yield


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


def stream_against_generate(model: LoopLlamaForCausalLM, tokenizer: object, n: int) -> tuple[float, str]:
    """tokens/s of stream(), plain, recorder off, over transformers' generate() on the same weights."""
    llama = plain_llama(model, list(range(model.config.num_hidden_layers)))
    plain = model.with_loop(loop_layers=None)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    long = n + WARM_UP + 1
    sides = {"generate": generated(llama, ids, long), "stream": streamed(plain, tokenizer, long, "off")}
    return ratio(take_turns(sides, n), "generate", "stream")


def recorder_cost(model: LoopLlamaForCausalLM, tokenizer: object, n: int) -> tuple[float, str]:
    """tokens/s of stream(), looped, recorder fully on over off."""
    looped = model.with_loop(**BLOCK)
    sides = {record: streamed(looped, tokenizer, n + WARM_UP + 1, record) for record in ("off", "full")}
    return ratio(take_turns(sides, n), "off", "full")


def unrolled_llama(model: LoopLlamaForCausalLM) -> LlamaForCausalLM:
    """A plain Llama that runs the layers of the looped block, on the same weights, one after another."""
    (a, b), count = BLOCK["loop_layers"], BLOCK["loop_count"]
    last = range(b + 1, model.config.num_hidden_layers)
    return plain_llama(model, [*range(a), *list(range(a, b + 1)) * count, *last])


def loop_overhead(model: LoopLlamaForCausalLM, n: int) -> tuple[float, str]:
    """tokens/s of looped decode over a plain Llama of equal layer passes."""
    looped, prompt = model.with_loop(**BLOCK, virtual_attention_mode="serial"), torch.arange(100, 132)[None]
    sides = {
        "plain": decoded(unrolled_llama(model), DynamicCache(), prompt),
        "looped": decoded(looped, LoopCache(looped.config), prompt),
    }
    return ratio(take_turns(sides, n), "plain", "looped")


def context_growth(model: LoopLlamaForCausalLM, n: int) -> tuple[float, str]:
    """(ms/token at 2,000 tokens / at 200) of DynamicCache over the same of LoopCache: >= 1 is not worse.

    Of equal layer passes, looped in a LoopCache and unrolled in a DynamicCache. A plain Llama is no comparison: its keys
    are laid out and copied as a DynamicCache's, for the sake of equal bits.
    """
    looped = model.with_loop(**BLOCK, virtual_attention_mode="serial")
    unrolled = unrolled_llama(model)
    made = {"ours": lambda: (looped, LoopCache(looped.config)), "DynamicCache": lambda: (unrolled, DynamicCache())}
    sides = {
        f"{name} {length}": decoded(*make(), (torch.arange(length) % 5000 + 100)[None])
        for length in (200, 2000)
        for name, make in made.items()
    }
    ms = take_turns(sides, n)
    growth = {name: ms[f"{name} 2000"] / ms[f"{name} 200"] for name in made}
    detail = ", ".join(f"{name}: {value:.1f} ms" for name, value in ms.items())
    return growth["DynamicCache"] / growth["ours"], (
        f"growth ours x{growth['ours']:.2f}, DynamicCache x{growth['DynamicCache']:.2f} ({detail})"
    )


def ratio(ms: dict[str, float], slow: str, quick: str) -> tuple[float, str]:
    """How many times the tokens/s of `slow` that `quick` has, and both in ms a token."""
    return ms[slow] / ms[quick], ", ".join(f"{name}: {value:.1f} ms/token" for name, value in ms.items())


def best_threads(model: LoopLlamaForCausalLM) -> int:
    """The thread count (1 or as many as torch takes by itself) at which plain decode is quickest."""
    plain = model.with_loop(loop_layers=None)

    def at(threads: int) -> Tokens:
        tokens = decoded(plain, LoopCache(plain.config), torch.arange(100, 132)[None])
        while True:
            torch.set_num_threads(threads)
            yield next(tokens)

    ms = take_turns({str(t): at(t) for t in sorted({1, torch.get_num_threads()})}, 16)
    return int(min(ms, key=ms.get))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, help="default: whichever of 1 and torch's own choice is quicker")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    args = parser.parse_args()

    loaded = load_checkpoint(args.model, dtype=torch.float32)
    model, tokenizer, n = loaded.model.eval(), loaded.tokenizer, args.tokens
    model.generation_config.eos_token_id = None  # an end-of-text token must not shorten one side
    threads = args.threads or best_threads(model)
    torch.set_num_threads(threads)
    shown = f"block {BLOCK['loop_layers'][0]}-{BLOCK['loop_layers'][1]}, {BLOCK['loop_count']} loops"
    figures = [
        ("`stream()` plain, recorder off / `generate()`, tokens/s", stream_against_generate(model, tokenizer, n)),
        (f"`stream()` looped, recorder full / off, tokens/s ({shown})", recorder_cost(model, tokenizer, n)),
        (f"looped decode / plain decode of equal layer passes, tokens/s ({shown})", loop_overhead(model, n)),
        (
            f"growth of ms/token from 200 to 2,000 tokens, unrolled in a DynamicCache / {shown}",
            context_growth(model, n // 2),
        ),
    ]
    print(f"{loaded.name}, float32, {threads} thread(s), {n} tokens a side, medians\n")
    print("| figure | ratio | measured |\n|---|---|---|")
    for figure, (value, detail) in figures:
        print(f"| {figure} | {value:.2f}x | {detail} |")


if __name__ == "__main__":
    main()
