"""What scoring many windows at once through the cache gains over one window at a time, on the same text, in one run.

    python benchmarks/lab.py [--model assets/models/stories-loop] [--windows 32] [--length 128] [--repeats 3] [--threads 1]

Both sides score the same windows by the same function, token by token through the cache; one side gives it all windows
at once, the other one window after another. They take turns, a round each, and the figure is the ratio of the medians of
their rounds. The losses of both sides must agree. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loopviz.lab.reading.cached import score_cached
from loopviz.lab.reading.windows import cut, encode
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.text_file import read_text

ROOT = Path(__file__).resolve().parents[1]
MODES = {
    "serial": {"virtual_attention_mode": "serial", "kv_cache_mode": "virtual_layers"},
    "parallel": {"virtual_attention_mode": "parallel", "kv_cache_mode": "virtual_layers"},
    "last": {"kv_cache_mode": "merge_strategy", "merge_strategy": "last"},
    **{
        f"serial, {dtype}": {
            "virtual_attention_mode": "serial",
            "kv_cache_mode": "virtual_layers",
            "kv_cache_dtype": dtype,
        }
        for dtype in ("int8", "fp8")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "assets/models/stories-loop"))
    parser.add_argument("--file", type=Path, default=ROOT / "README.md", help="text to score (default: the README)")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128, help="tokens predicted in each window")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loop-layers", type=int, nargs=2, help="for a checkpoint without a loop")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    loop = {"loop_layers": tuple(args.loop_layers)} if args.loop_layers else {}
    loaded = load_checkpoint(args.model, **loop)
    text = read_text(args.file)
    n = args.windows * args.length + 1
    ids = encode(loaded.tokenizer, text, n)
    if len(ids) < n:
        raise SystemExit(
            f"{args.file.name}: {len(ids)} tokens, {n} are needed; give a longer --file, or fewer --windows"
        )
    windows = cut(ids, args.length, 0).ids

    print(
        f"{Path(loaded.name).name}, float32, {args.threads} thread(s), {args.windows} windows of {args.length} tokens, ",
        end="",
    )
    print(f"medians of {args.repeats} rounds\n")
    print("| cache mode | times as fast | all windows at once | one window at a time | largest difference of a loss |")
    print("|---|---|---|---|---|", flush=True)
    for name, fields in MODES.items():
        model = loaded.model.with_loop(**fields)
        score_cached(model, windows[:2, :8])  # warm-up
        times: dict[str, list[float]] = {"batched": [], "alone": []}
        for _ in range(args.repeats):
            start = time.perf_counter()
            batched = score_cached(model, windows).nats
            middle = time.perf_counter()
            alone = torch.cat([score_cached(model, row[None]).nats for row in windows])
            times["batched"].append(middle - start)
            times["alone"].append(time.perf_counter() - middle)
        seconds = {side: statistics.median(values) for side, values in times.items()}
        rate = {side: windows[:, 1:].numel() / value for side, value in seconds.items()}
        print(
            f"| {name} | {seconds['alone'] / seconds['batched']:.1f} | {rate['batched']:,.0f} tokens/s "
            f"| {rate['alone']:,.0f} tokens/s | {(batched - alone).abs().max():.1e} nats |",
            flush=True,
        )


if __name__ == "__main__":
    main()
