"""Runs at the same time against one after the other: total tokens/s, both sides measured side by side in this run.

    python benchmarks/batch.py [--rows 2 4 8 16] [--kinds alike mixed] [--tokens 96] [--repeats 3] [--threads 1] [--record full] [--model NAME ...]

Every run has a prompt of its own and everything is recorded, as the page asks for it. "At once" is what `LocalEngine.start`
does: a thread a run, which takes its frames. The sides take turns, run by run, and the figure is the ratio of the medians; prompts
are read on both sides, and counted: of the seconds, not of the tokens. Prints a Markdown table. Its last column but one is what the
model's own pass gives, with nothing recorded and nothing drawn: as many rows in one pass against a row a pass, after a prompt of the same length.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loopviz.engine.engine import Request
from loopviz.engine.local import LocalEngine
from loopviz.machine import processor
from loopviz.model.checkpoints.load import load_checkpoint

LOOPS: dict[str, dict[str, Any]] = {
    "stories-loop": {},
    "smollm2-135m-instruct": {"loop_layers": (10, 14), "loop_count": 4},
}
STEPS = 24  # tokens that the pass alone is measured of
SUBJECTS = ("dog", "robot", "girl", "boat", "bird", "king", "tree", "fish")


def requests(model: str, rows: int, tokens: int, record: str, mixed: bool) -> list[Request]:
    """As many runs, no two alike; `mixed`: of three strategies too."""
    found = []
    for i in range(rows):
        loop = dict(LOOPS[model])
        if mixed and i % 3 == 1:
            loop |= {"loop_strategy": "dynamic_stop", "max_loop_count": 8, "unreached_slots": "latest"}
        elif mixed and i % 3 == 2:
            loop |= {"loop_count": 2 + i % 4}
        prompt = f"Once upon a time there was a little {SUBJECTS[i % len(SUBJECTS)]}"
        found.append(Request(prompt, loop, {"max_new_tokens": tokens, "record": record}))
    return found


def read(engine: LocalEngine, request: Request) -> list[int]:
    """A run's tokens."""
    return [frame["next_id"] for frame in engine.start(request).frames]


def one_after_the_other(engine: LocalEngine, asked: list[Request]) -> list[list[int]]:
    return [read(engine, request) for request in asked]


def at_once(engine: LocalEngine, asked: list[Request]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in asked]

    def work(i: int) -> None:
        found[i] = read(engine, asked[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def compare(engine: LocalEngine, asked: list[Request], repeats: int) -> dict[str, float]:
    """Median seconds of both sides by the clock and by the processor, the runs' tokens, and how many texts are alike."""
    sides = {"one": one_after_the_other, "once": at_once}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    texts: dict[str, list[list[int]]] = {}
    at_once(engine, [Request(one.prompt, one.loop, one.settings | {"max_new_tokens": 3}) for one in asked])
    for turn in range(repeats):
        for name in list(sides) if turn % 2 else list(reversed(sides)):
            began, worked = time.perf_counter(), time.process_time()
            texts[name] = sides[name](engine, asked)
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - worked)
    same = sum(a == b for a, b in zip(texts["one"], texts["once"], strict=True))
    tokens = sum(one.settings["max_new_tokens"] for one in asked)
    found = {
        f"{name}_{kind}": statistics.median(t[name]) for kind, t in (("wall", wall), ("cpu", cpu)) for name in sides
    }
    return found | {"same": same, "tokens": tokens}


@torch.inference_mode()
def pass_alone(engine: LocalEngine, loop: dict[str, Any], rows: int, repeats: int) -> float:
    """How many times the tokens/s of one row a pass of so many rows gives, medians of a token, in turn."""
    view, ms = engine.model.with_loop(**loop), {1: [], rows: []}  # type: dict[int, list[float]]
    prompt = torch.tensor(
        [engine.tokenizer(f"Once upon a time there was a little {SUBJECTS[0]}")["input_ids"]]
    )  # [1, T]
    for _ in range(repeats):
        for n in ms:
            out = view(input_ids=prompt.expand(n, -1), use_cache=True)
            for _ in range(STEPS):
                ids, began = out.logits[:, -1:].argmax(-1), time.perf_counter()
                out = view(input_ids=ids, past_key_values=out.past_key_values, use_cache=True)
                ms[n].append(time.perf_counter() - began)
    return rows * statistics.median(ms[1]) / statistics.median(ms[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[8], help="how many runs, one table row each")
    parser.add_argument("--kinds", choices=("alike", "mixed"), nargs="+", default=["alike", "mixed"])
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", choices=("full", "off"), default="full")
    parser.add_argument("--model", choices=tuple(LOOPS), nargs="+", default=list(LOOPS))
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    print(
        f"{processor()}, {args.threads} thread(s), load {os.getloadavg()[0]:.1f}, recorder {args.record}, medians of {args.repeats}\n"
    )
    print(
        "| model | runs | strategies | one after the other | at once | ratio | ratio of processor time | the pass alone | same texts |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.model:
        loaded = load_checkpoint(name, dtype=torch.float32)
        loaded.model.requires_grad_(False)
        loaded.model.generation_config.eos_token_id = None  # an end-of-text token must not shorten one side
        engine = LocalEngine(name, loaded.model, loaded.tokenizer)
        for rows, kind in itertools.product(args.rows, args.kinds):
            alone = "" if kind == "mixed" else f"{pass_alone(engine, LOOPS[name], rows, args.repeats):.2f}x"
            t = compare(engine, requests(name, rows, args.tokens, args.record, kind == "mixed"), args.repeats)
            speeds = {side: t["tokens"] / t[f"{side}_wall"] for side in ("one", "once")}
            print(
                f"| {name} | {rows} | {'three' if kind == 'mixed' else 'one'} | {speeds['one']:.1f} tokens/s "
                f"| {speeds['once']:.1f} tokens/s | {speeds['once'] / speeds['one']:.2f}x "
                f"| {t['one_cpu'] / t['once_cpu']:.2f}x | {alone} | {t['same']:.0f} of {rows} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
