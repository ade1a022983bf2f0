"""A looped run with everything captured, by LoopViz and by other tools, side by side on the same weights: milliseconds a token.

    python benchmarks/peers/run.py [--tokens 96] [--threads 1] [--peers-in float32] [--save NAME]
    python benchmarks/peers/run.py --quick          a tiny random model and a few tokens: whether all of it runs

The first time it makes `benchmarks/peers/.venv` of `benchmarks/peers/requirements.txt`; --here measures with this very Python,
which must have nnsight and transformer-lens. All sides read the same prompt and take the likeliest token, and take turns token by
token; the figures are ratios of medians, prefill left out. Before anything is timed, all sides that compute in float32 must have
captured the same states, tokens and lens (benchmarks/peers/captures.py says what is captured, and how). Prints a Markdown table;
with --save also NAME.json and NAME.csv.

llama.cpp with weights of four bits, which many would pick for plain text, is no side here, for it captures nothing: benchmarks/peers/llama_cpp.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from benchmarks.results import Figure

CHECKED = 3  # tokens whose captures are compared before anything is timed
QUICK = {"loop_layers": (2, 3), "loop_count": 3}
GENERATE = "generate(), nothing captured"
OURS, ALL = "LoopViz, {}", "float32, extras too"
AIMS = {"hidden states + lens": 2, "nnsight": 2, "TransformerLens": 4}  # times the tokens a second of each


def environment() -> Path:
    """The Python of the peers' own environment, made where it is not."""
    from scripts import run as setup

    setup.VENV = HERE / ".venv"
    setup.STAMP = setup.VENV / setup.STAMP.name
    return setup.make_environment((HERE / "requirements.txt").relative_to(ROOT).as_posix())


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument(
        "--peers-in", choices=("float32", "half"), default="float32", help="what the peers' weights are held in"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny random model and four tokens")
    parser.add_argument("--here", action="store_true", help="with this Python, and no environment made")
    parser.add_argument("--save", type=Path, metavar="NAME", help="write NAME.json and NAME.csv, too")
    return parser.parse_args()


def models_of(options: argparse.Namespace) -> tuple[dict[str, Any], Any, Mapping[str, Any]]:
    """The models by what they are held in, their tokenizer, and the block that loops."""
    from benchmarks.decode import BLOCK, held_models

    if not options.quick:
        return (*held_models(options.model), BLOCK)
    from tests.conftest import make_llama, make_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        make_llama(num_hidden_layers=6).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return (*held_models(folder), QUICK)


def sides(models: Mapping[str, Any], tokenizer: Any, block: Mapping[str, Any], n: int, held: str) -> dict[str, Any]:
    """Every side by name, each an iterator of `n` tokens.

    Args:
        held: what the peers' model is held in, of `models`.
    """
    from benchmarks.decode import EXACT, as_read, encoded, generated, serial, unrolled_llama
    from benchmarks.peers import captures
    from loopviz.trace import EXTRAS

    theirs = as_read(models[held])
    found: dict[str, Iterator[Any]] = {
        GENERATE: generated(unrolled_llama(theirs, block), encoded(tokenizer), n),
        **captures.peers(theirs, tokenizer, block, n),
    }
    for name, model in models.items():
        found[OURS.format(name)] = captures.by_stream(serial(model, block), tokenizer, n)
    return found | {OURS.format(ALL): captures.by_stream(serial(models[EXACT], block), tokenizer, n, EXTRAS)}


def figures(ms: Mapping[str, float], models: Mapping[str, Any]) -> list[Figure]:
    """The ratios of the sides' medians, ours at its quickest and in float32, and the medians themselves.

    Args:
        ms: by side.
        models: by what is held in.
    """
    from benchmarks.decode import EXACT, best, in_ms
    from benchmarks.results import Figure

    ours = {OURS.format(held): held for held in models}
    exact, everything = OURS.format(EXACT), OURS.format(ALL)
    found = []
    for peer in (name for name in ms if name not in (*ours, everything)):
        for name in dict.fromkeys((best(ms, ours), exact)):
            aim = f">= {AIMS[peer]}x, in the best precision" if peer in AIMS and name == best(ms, ours) else ""
            what = f"looped, everything recorded: {name} / {peer}, tokens/s"
            found.append(Figure(what, ms[peer] / ms[name], aim, in_ms(ms, name, peer)))
    found.append(Figure(f"{everything} / {exact}, tokens/s", ms[exact] / ms[everything]))
    return found + [Figure(name, value, unit="ms/token") for name, value in ms.items()]


def measure(options: argparse.Namespace) -> None:
    """Check, time, and tell.

    Raises:
        SystemExit: the sides do not capture the same.
    """
    import torch

    from benchmarks.decode import EXACT, WARM_UP, take_turns, worded
    from benchmarks.peers.captures import check_same
    from benchmarks.results import about, tell

    torch.set_num_threads(options.threads)
    models, tokenizer, block = models_of(options)
    exact = sides(models, tokenizer, block, CHECKED, EXACT)
    first = OURS.format(EXACT)
    peers = {name: side for name, side in exact.items() if name != GENERATE and not name.startswith(OURS.format(""))}
    check_same({first: exact[first]} | peers, CHECKED, models[EXACT].config.hidden_size)
    tokens = 4 if options.quick else options.tokens
    held = EXACT if options.peers_in == EXACT else next(name for name in models if name not in (EXACT, "int8"))
    ms = take_turns(sides(models, tokenizer, block, tokens + WARM_UP + 1, held), tokens)
    settings = {"model": "a tiny random one" if options.quick else options.model, "threads": options.threads}
    settings |= {"tokens": tokens, "loop": worded(block), "peers in": held}
    packages = ("torch", "transformers", "nnsight", "transformer-lens")
    tell(about(packages, **settings), figures(ms, models), options.save)


def in_environment(script: str, options: argparse.Namespace, measure: Callable[[argparse.Namespace], None]) -> int:
    """Measure with this very Python where `options.here` says so, else have the peers' own do it; the exit code."""
    if options.here:
        measure(options)
        return 0
    return subprocess.call([str(environment()), script, "--here", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(in_environment(__file__, arguments(), measure))
