"""What TTT's memory costs beside a KV cache of a Llama of equal size: bytes and ms a token by context; and the prefill.

    python benchmarks/ttt.py [--contexts 256 1024 4096 16384] [--turns 12] [--threads 1]
    python benchmarks/ttt.py --official ttt.py        the prefill beside the published code, whose file is not part of this
    python benchmarks/ttt.py --official ttt.py --contexts      ... and nothing else

Both bundled models (`stories-ttt`, `stories-attention`) read the same text; after each context both write tokens in turns, so that
what disturbs one disturbs the other. A turn is some tokens, as a text is written: of a single one the time would be that of
fetching the weights anew, which the turn before has driven from the processor's cache. Medians; prints Markdown tables. Beside the prefill stand the products of its weight matrices alone
(projections, MLP, head), which any reading of a text has to make: what is left of its time is all that an implementation can save.
The published file is ttt.py of ttt-lm-pytorch (Sun et al.
2024); of it the one line that today's transformers refuses (`_tied_weights_keys`) is replaced in memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.decode import plain_llama, take_turns  # noqa: E402
from loopviz.paths import ASSETS  # noqa: E402
from loopviz.ttt import TTTCache, TTTForCausalLM  # noqa: E402
from scripts.processors import processor  # noqa: E402

CHUNK = 1024  # tokens of a pass of the prefill
TRIES = 9
BURST = 16  # tokens of a turn


def models() -> tuple[TTTForCausalLM, LlamaForCausalLM]:
    """The bundled TTT model, and its control as a Llama of transformers on the same weights, both in float32."""
    import loopviz.model  # noqa: F401  registers loop_llama

    ttt = TTTForCausalLM.from_pretrained(ASSETS / "models" / "stories-ttt", dtype=torch.float32).eval()
    control = AutoModelForCausalLM.from_pretrained(ASSETS / "models" / "stories-attention", dtype=torch.float32).eval()
    return ttt, plain_llama(control, list(range(control.config.num_hidden_layers)))


def parameters(model: torch.nn.Module) -> int:
    """Numbers in its weights."""
    return sum(weight.numel() for weight in model.parameters())


def text(vocabulary: int, length: int) -> torch.Tensor:
    """Random ids, `[1, T]`: what is read decides no time."""
    return torch.randint(0, vocabulary, (1, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def read(model: Any, cache: Any, ids: torch.Tensor) -> None:
    """The text goes into the cache, a pass of `CHUNK` tokens after the other."""
    for part in ids.split(CHUNK, dim=1):
        model(part, past_key_values=cache, use_cache=True, logits_to_keep=1)


def written(model: Any, cache: Any, token: torch.Tensor) -> Iterator[None]:
    """Tokens one after the other, the likeliest each; `BURST` of them a turn."""
    while True:
        with torch.inference_mode():
            for _ in range(BURST):
                token = model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        yield


def cache_bytes(cache: DynamicCache) -> int:
    """Of keys and values."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def by_context(ttt: TTTForCausalLM, llama: LlamaForCausalLM, contexts: list[int], turns: int) -> list[list[str]]:
    """A row a context: bytes of both memories, ms of a token of both, and ratios; all of them take turns."""
    sides: dict[str, Iterator[None]] = {}
    held = []
    for context in contexts:
        ids = text(ttt.config.vocab_size, context)
        memory, cache = TTTCache(ttt), DynamicCache()
        read(ttt, memory, ids)
        read(llama, cache, ids)
        held.append((memory.nbytes, cache_bytes(cache)))
        sides[f"ttt {context}"] = written(ttt, memory, ids[:, -1:])
        sides[f"llama {context}"] = written(llama, cache, ids[:, -1:])
    took = {name: each / BURST for name, each in take_turns(sides, turns).items()}
    rows = []
    for context, kept in zip(contexts, held, strict=True):
        ours, other = took[f"ttt {context}"], took[f"llama {context}"]
        ratios = ours / other, ours / took[f"ttt {contexts[0]}"]
        rows.append(
            [f"{context:,}", *(f"{each:,}" for each in kept), *(f"{each:.2f}" for each in (ours, other, *ratios))]
        )
    return rows


def published(path: Path) -> types.ModuleType:
    """The published file as a module, its list of tied weights as today's transformers wants it."""
    source = path.read_text(encoding="utf-8")
    line = '_tied_weights_keys = ["lm_head.weight"]'
    if line not in source:
        raise SystemExit(f"--official {path}: no line {line!r} in it; give ttt.py of ttt-lm-pytorch")
    module = types.ModuleType("published_ttt")
    sys.modules["published_ttt"] = module
    exec(compile(source.replace(line, "_tied_weights_keys = {}"), str(path), "exec"), module.__dict__)
    return module


def theirs(path: Path, ttt: TTTForCausalLM) -> torch.nn.Module:
    """The published model on the same weights."""
    module = published(path)
    config = module.TTTConfig(**{**ttt.config.to_dict(), "torch_dtype": "float32"})
    model = module.TTTForCausalLM(config).float().eval()
    missing, unknown = model.load_state_dict(ttt.state_dict(), strict=False)
    if missing or unknown:
        raise SystemExit(f"--official {path}: other weights: {missing or unknown}")
    return model


def products(model: torch.nn.Module, longest: int) -> Callable[[torch.Tensor], None]:
    """Of a pass over a text the products of its weight matrices, and nothing else."""
    maps = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    given = {each.in_features: torch.randn(1, longest, each.in_features) for each in maps}

    def multiply(ids: torch.Tensor) -> None:
        for each in maps:
            each(given[each.in_features][:, : ids.shape[1]])

    return multiply


@torch.inference_mode()
def prefills(sides: dict[str, Callable[[torch.Tensor], Any]], vocabulary: int, length: int) -> dict[str, float]:
    """Median seconds of one pass over a text, the sides taking turns; of one thread those that it worked."""
    ids = text(vocabulary, length)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    took: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(TRIES + 1):
        for name in list(sides) if turn % 2 else list(reversed(sides)):
            began = clock()
            sides[name](ids)
            if turn:
                took[name].append(clock() - began)
    return {name: statistics.median(each) for name, each in took.items()}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", nargs="*", type=int, default=[256, 1024, 4096, 16384])
    parser.add_argument("--turns", type=int, default=12, help="of each that are timed (default: 12)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--official", type=Path, default=None, help="ttt.py of ttt-lm-pytorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ttt, llama = models()
    print(
        f"{processor()}, {options.threads} thread(s), float32; parameters: {parameters(ttt):,} and {parameters(llama):,}\n"
    )
    if options.contexts:
        head = ["context", "TTT state, bytes", "KV cache, bytes", "TTT, ms a token", "Llama, ms a token", "TTT / Llama"]
        rows = by_context(ttt, llama, options.contexts, options.turns)
        print(table([*head, f"TTT / TTT at {options.contexts[0]:,}"], rows))
    if options.official:
        print("\n" + table(PREFILL, beside_the_published(options.official, ttt)))
    return 0


PREFILL = [
    "prefill",
    "ours, tokens/s",
    "published, tokens/s",
    "ours / published",
    "matrix products alone, of our time",
    "products alone / published: the most there can be",
]


def beside_the_published(path: Path, ttt: TTTForCausalLM) -> list[list[str]]:
    """A row a length, as `PREFILL` says."""
    other, lengths, rows = theirs(path, ttt), (256, 1024, 4096), []
    sides: dict[str, Callable[[torch.Tensor], Any]] = {
        "ours": lambda ids: ttt(ids, use_cache=False),
        "theirs": lambda ids: other(ids, use_cache=False),
        "products": products(ttt, lengths[-1]),
    }
    for length in lengths:
        took = prefills(sides, ttt.config.vocab_size, length)
        speeds = [f"{length / took[name]:,.0f}" for name in ("ours", "theirs")]
        ratios = [f"{took['theirs'] / took['ours']:.2f}", f"{took['products'] / took['ours']:.0%}"]
        rows.append([f"{length:,}", *speeds, *ratios, f"{took['theirs'] / took['products']:.2f}"])
    return rows


if __name__ == "__main__":
    sys.exit(main())
