"""What the engine, the recorder, the loop, the cache and a precision cost: ratios, each measured side by side in this run.

    python benchmarks/decode.py [--tokens 96] [--threads N] [--runs 5] [--model smollm2-135m-instruct] [--save NAME]

The sides of a comparison take turns token by token, so that what disturbs one disturbs the other (machines are noisy), and
the figure is the ratio of the medians of a decoded token's wall time. Prefill is left out. The limit is one read of the weights
that a token reads (benchmarks/bandwidth.py), in each precision: float32, both halves and int8. Prints a Markdown table; with --save also NAME.json and NAME.csv.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bandwidth import READS, n_bytes, read_weights, reads
from benchmarks.results import Figure, about, tell
from loopviz.engine import StreamSettings, stream
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.model.checkpoints.layout_choice import arrange
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.model.checkpoints.precision_choice import HALVES, times_of
from loopviz.model.precision import held_name
from loopviz.model.weight_layout import lay_by_rows

BLOCK: dict[str, Any] = {"loop_layers": (10, 14), "loop_count": 4}
EXACT = "float32"
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


def streamed(model: LoopLlamaForCausalLM, tokenizer: object, n: int, record: str, extras: Sequence[str] = ()) -> Tokens:
    """Frames of our `stream()`, one a token, the prefill's taken together as `generate()` takes them: its last is yielded."""
    prompt, settings = 0, StreamSettings(max_new_tokens=n, record=record, extras=tuple(extras))
    for frame in stream(model, tokenizer, PROMPT, settings):
        prompt += frame["phase"] == "prompt"
        if frame["phase"] == "generated" or prompt == frame["pass_tokens"]:
            yield frame


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
    """A transformers Llama whose layers are `order` of the model's: modules of its own on the very same weight tensors."""
    fields = {name: getattr(model.config, name) for name in LlamaConfig.__dataclass_fields__}
    fields |= {"num_hidden_layers": len(order), "architectures": None, "dtype": None}
    config = LlamaConfig(**fields)
    config._attn_implementation = model.config._attn_implementation
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    for layer, source in zip(llama.model.layers, order, strict=True):
        layer.load_state_dict(model.model.layers[source].state_dict(), assign=True)
    llama.model.embed_tokens.weight, llama.model.norm.weight = model.model.embed_tokens.weight, model.model.norm.weight
    llama.lm_head.weight = model.lm_head.weight
    llama.model.rotary_emb = copy.deepcopy(model.model.rotary_emb)
    llama.generation_config = copy.deepcopy(model.generation_config)
    return llama.eval()


def as_read(model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
    """A model whose matrices lie as transformers reads them from files: itself, or a copy."""
    if all(parameter.is_contiguous() for parameter in model.parameters()):
        return model
    found = copy.deepcopy(model)
    lay_by_rows(found)
    return found


def unrolled_llama(model: LoopLlamaForCausalLM, block: Mapping[str, Any] = BLOCK) -> LlamaForCausalLM:
    """A plain Llama that runs the layers of a looped block, on the same weights, one after another."""
    (a, b), count = block["loop_layers"], block["loop_count"]
    last = range(b + 1, model.config.num_hidden_layers)
    return plain_llama(model, [*range(a), *list(range(a, b + 1)) * count, *last])


def serial(model: LoopLlamaForCausalLM, block: Mapping[str, Any] = BLOCK) -> LoopLlamaForCausalLM:
    """The looped model that computes what `unrolled_llama` does: a slot a loop, each read by its own loop alone."""
    slots = max(block["loop_count"], model.config.virtual_layer_count)
    return model.with_loop(**block, virtual_attention_mode="serial", virtual_layer_count=slots)


def against_generate(models: Mapping[str, LoopLlamaForCausalLM], tokenizer: object, n: int) -> list[Figure]:
    """tokens/s of stream(), plain, recorder off, over transformers' generate() on the float32 weights: exact, and at its best.

    Args:
        models: by what their weights are held in, float32 among them.
    """
    exact = models[EXACT]
    llama, ids = plain_llama(as_read(exact), list(range(exact.config.num_hidden_layers))), encoded(tokenizer)
    long = n + WARM_UP + 1
    sides = {"generate": generated(llama, ids, long)}
    sides |= {held: streamed(each.with_loop(loop_layers=None), tokenizer, long, "off") for held, each in models.items()}
    ms = take_turns(sides, n)
    held = best(ms, models)
    name = "`stream()` plain, recorder off{} / `generate()` float32, tokens/s"
    return [
        Figure(name.format(", float32"), ms["generate"] / ms[EXACT], ">= 1.1x", in_ms(ms, "generate", EXACT)),
        Figure(
            name.format(f", best precision ({held})"),
            ms["generate"] / ms[held],
            ">= 2x on AVX-512, 1.5x on AVX2",
            in_ms(ms, *ms),
        ),
    ]


def encoded(tokenizer: Any) -> torch.Tensor:
    """The prompt's tokens `[1, T]`."""
    ids: torch.Tensor = tokenizer(PROMPT, return_tensors="pt").input_ids
    return ids


def best(ms: Mapping[str, float], among: Mapping[str, Any]) -> str:
    """The quickest of the sides that are `among` something."""
    return min(among, key=lambda name: ms[name])


def in_ms(ms: Mapping[str, float], *names: str) -> dict[str, float]:
    """The times of some sides, as a figure tells what it was made of."""
    return {f"{name}, ms/token": ms[name] for name in names}


def recorder_cost(model: LoopLlamaForCausalLM, tokenizer: object, n: int, block: Mapping[str, Any] = BLOCK) -> Figure:
    """tokens/s of stream(), looped, recorder fully on over off."""
    looped = model.with_loop(**block)
    ms = take_turns({record: streamed(looped, tokenizer, n + WARM_UP + 1, record) for record in ("off", "full")}, n)
    name = f"`stream()` looped, recorder full / off, tokens/s ({worded(block)})"
    return Figure(name, ms["off"] / ms["full"], "", in_ms(ms, *ms))


def loop_overhead(model: LoopLlamaForCausalLM, n: int, runs: int, block: Mapping[str, Any] = BLOCK) -> Figure:
    """tokens/s of looped decode over a plain Llama of equal layer passes: the least of several runs."""
    looped, unrolled, prompt = serial(model, block), unrolled_llama(model, block), torch.arange(32)[None] + 32
    found = []
    for _ in range(runs):
        sides = {
            "plain": decoded(unrolled, DynamicCache(), prompt),
            "looped": decoded(looped, LoopCache(looped.config), prompt),
        }
        ms = take_turns(sides, n)
        found.append(ms["plain"] / ms["looped"])
    name = f"looped decode / plain decode of equal layer passes, tokens/s ({worded(block)}), least of {runs} runs"
    told = {f"run {i}": value for i, value in enumerate(found, 1)}
    return Figure(name, min(found), f">= 0.97x, in {runs} of {runs}", told | in_ms(ms, *ms))


def context_growth(
    model: LoopLlamaForCausalLM, n: int, block: Mapping[str, Any] = BLOCK, lengths: tuple[int, int] = (200, 2000)
) -> Figure:
    """(ms/token at 2,000 tokens / at 200) of DynamicCache over the same of LoopCache: >= 1 is not worse.

    Of equal layer passes, looped in a LoopCache and unrolled in a DynamicCache. A plain Llama is no comparison: its keys
    are laid out and copied as a DynamicCache's, for the sake of equal bits.
    """
    looped, unrolled = serial(model, block), unrolled_llama(model, block)
    made = {"ours": lambda: (looped, LoopCache(looped.config)), "DynamicCache": lambda: (unrolled, DynamicCache())}
    most = min(5000, model.config.vocab_size - 32)
    sides = {
        f"{name} {length}": decoded(*make(), (torch.arange(length) % most + 32)[None])
        for length in lengths
        for name, make in made.items()
    }
    ms = take_turns(sides, n)
    short, long = lengths
    growth = {name: ms[f"{name} {long}"] / ms[f"{name} {short}"] for name in made}
    name = f"growth of ms/token from {short} to {long} tokens, unrolled in a DynamicCache / {worded(block)}"
    told = {f"growth {side}": value for side, value in growth.items()}
    return Figure(name, growth["DynamicCache"] / growth["ours"], ">= 1x", told | in_ms(ms, *ms))


def fewer_bits(
    model: LoopLlamaForCausalLM, n: int, block: Mapping[str, Any] = BLOCK, lengths: tuple[int, int] = (200, 2000)
) -> list[Figure]:
    """tokens/s with the loop's keys and values kept in int8 and in fp8, over the same kept as they are, after so many tokens."""
    plain = serial(model, block)
    views = {kept: plain.with_loop(kv_cache_dtype=kept) for kept in ("exact", "int8", "fp8")}
    most = min(5000, model.config.vocab_size - 32)
    found = []
    for length in lengths:
        prompt = (torch.arange(length) % most + 32)[None]
        ms = take_turns({kept: decoded(view, LoopCache(view.config), prompt) for kept, view in views.items()}, n)
        for kept in ("int8", "fp8"):
            name = f"keys and values kept in {kept} / in {EXACT}, tokens/s after {length} tokens ({worded(block)})"
            found.append(Figure(name, ms["exact"] / ms[kept], "", in_ms(ms, "exact", kept)))
    return found


def memory_share(models: Mapping[str, LoopLlamaForCausalLM], n: int) -> list[Figure]:
    """One read of the weights that a token of plain decode reads, over that token: by what they are held in."""
    found = []
    for held, model in models.items():
        plain, parts = model.with_loop(loop_layers=None), read_weights(model)
        sides = {"decode": decoded(plain, LoopCache(plain.config), torch.arange(32)[None] + 32)}
        sides |= {how: reads(parts, how) for how in READS}
        ms = take_turns(sides, n)
        how = best(ms, READS)
        told = {"MB": n_bytes(parts) / 1e6, "GB/s read": n_bytes(parts) / ms[how] / 1e6}
        told |= {f"{each}, ms" if each in READS else f"{each}, ms/token": value for each, value in ms.items()}
        name = f"one read of the weights / a token of plain decode, {held}"
        found.append(Figure(name, ms[how] / ms["decode"], ">= 0.55x" if held == EXACT else "", told))
    return found


def ratio(ms: dict[str, float], slow: str, quick: str) -> tuple[float, str]:
    """How many times the tokens/s of `slow` that `quick` has, and both in ms a token."""
    return ms[slow] / ms[quick], ", ".join(f"{name}: {value:.1f} ms/token" for name, value in ms.items())


def worded(block: Mapping[str, Any]) -> str:
    """A block in words."""
    a, b = block["loop_layers"]
    return f"block {a}-{b}, {block['loop_count']} loops"


def best_threads(model: LoopLlamaForCausalLM) -> int:
    """The thread count (1 or as many as torch takes by itself) at which plain decode is quickest."""
    plain = model.with_loop(loop_layers=None)

    def at(threads: int) -> Tokens:
        tokens = decoded(plain, LoopCache(plain.config), torch.arange(100, 132)[None])
        while True:
            torch.set_num_threads(threads)
            yield next(tokens)

    ms = take_turns({str(t): at(t) for t in sorted({1, torch.get_num_threads()})}, 16)
    return int(min(ms, key=lambda name: ms[name]))


def held_models(name: str, both_halves: bool = False) -> tuple[dict[str, LoopLlamaForCausalLM], Any]:
    """A model in float32, in this machine's quicker half and in int8, by what it is then held in; and its tokenizer.

    Args:
        both_halves: in the slower half, too, where this machine computes it.

    Raises:
        CheckpointError: the model cannot be had at all.
    """
    loaded = load_checkpoint(name, dtype=torch.float32)
    models = {EXACT: loaded.model}
    halves = [half for half in HALVES if half in times_of(loaded.model.config)] if both_halves else []
    ways: list[dict[str, Any]] = [
        {"precision": "half"},
        *({"dtype": getattr(torch, half)} for half in halves),
        {"precision": "int8"},
    ]
    for way in ways:
        if str(way.get("dtype")).removeprefix("torch.") in models:
            continue  # the quicker one
        try:
            model = load_checkpoint(name, **way).model
        except CheckpointError as error:
            print(f"not held so, {way}: {error}", file=sys.stderr)
        else:
            models.setdefault(held_name(model), model)
    for model in models.values():
        arrange(model)  # as the app and the commands run it
        model.requires_grad_(False)
        model.generation_config.eos_token_id = None  # an end-of-text token must not shorten one side
    return models, loaded.tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, help="default: whichever of 1 and torch's own choice is quicker")
    parser.add_argument("--runs", type=int, default=5, help="of looped against plain decode")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--save", type=Path, metavar="NAME", help="write NAME.json and NAME.csv, too")
    args = parser.parse_args()

    models, tokenizer = held_models(args.model, both_halves=True)
    model, n = models[EXACT], args.tokens
    threads = args.threads or best_threads(model)
    torch.set_num_threads(threads)
    found = about(("torch", "transformers"), model=args.model, threads=threads, tokens=n)
    figures = [
        *against_generate(models, tokenizer, n),
        recorder_cost(model, tokenizer, n),
        loop_overhead(model, n, args.runs),
        context_growth(model, n // 2),
        *fewer_bits(model, n // 2),
        *memory_share(models, n // 2),
    ]
    tell(found, figures, args.save)


if __name__ == "__main__":
    main()
