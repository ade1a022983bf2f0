"""`python -m loopviz anatomy check`, `families` and (in `anatomy_stages.py`) `stages`. Nothing heavy is imported before the arguments are known to be
well-formed.

Tables go to stdout, what a check needs and its progress to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loopviz.checks import check_whole
from loopviz.cli import anatomy_stages
from loopviz.cli.measure import printed
from loopviz.cli.options import add_machine, load
from loopviz.machine import DTYPES, UsageError, check_threads

if TYPE_CHECKING:
    import torch

    from loopviz.anatomy.parity import PositionRow, Row, Subject

BUNDLED = "stories-loop"
PARTS = ("article", "model")
MOST_TOKENS = 10**9
MOST_RANK = 10**6


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    anatomy = commands.add_parser(
        "anatomy", help="a Llama from scratch: is it one, what one layer computed, and what the published sizes cost"
    )
    parts = anatomy.add_subparsers(dest="part", required=True)
    check = parts.add_parser(
        "check",
        help="the Llama of loopviz/anatomy/llama.py against transformers', logit by logit",
        description="Loss and every logit of the Llama written from scratch against transformers' on the same weights: of "
        "the reproduction article's configuration (needs about 4 GB in float32) and of a model, whose loop is not run. "
        "Exit code 1 if they differ by more than rounding.",
    )
    check.add_argument("--model", help=f"named model, Hub id, folder or GGUF file (default: {BUNDLED})")
    check.add_argument("--only", choices=PARTS, help="the article's configuration alone, or the model alone")
    check.add_argument("--prompt", help="the model reads this text instead of random tokens")
    check.add_argument(
        "--dtype",
        type=dtypes,
        default=("float32",),
        metavar="X,X",
        help=f"what to compute in, some of {', '.join(DTYPES)} (default: float32)",
    )
    add_machine(check)
    families = parts.add_parser(
        "families",
        help="parameters, KV bytes and FLOPs a token of LLaMA 1, 2 and 3",
        description="What the published sizes cost, computed from their shapes; each with its source.",
    )
    families.add_argument(
        "--context", type=int, default=2048, metavar="N", help="tokens that are read (default: %(default)s)"
    )
    families.add_argument(
        "--dtype", default="float16", choices=DTYPES, help="of keys and values (default: %(default)s)"
    )
    families.add_argument("--rank", type=int, default=16, metavar="R", help="of LoRA's matrices (default: %(default)s)")
    anatomy_stages.add_parser(parts)


def run(options: argparse.Namespace) -> int:
    """Run a parsed sub-command; returns the exit code: 1 where the two Llamas differ.

    Raises:
        ValueError: an option, a checkpoint, or a configuration that does not fit in memory.
    """
    parts = {"check": _check, "families": _families, "stages": anatomy_stages.run}
    return parts[options.part](options)


COMMANDS = {"anatomy": run}


def dtypes(text: str) -> tuple[str, ...]:
    """``float32,bfloat16``."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in DTYPES:
            raise argparse.ArgumentTypeError(f"{name!r}: must be one of {', '.join(DTYPES)}")
    return names


# -- check -------------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    if options.prompt is not None and options.only == "article":
        raise UsageError("--prompt: no effect with --only article, which reads the article's random tokens")
    if options.model is not None and options.only == "article":
        raise UsageError("--model: no effect with --only article")
    check_threads(options.threads)

    import torch

    from loopviz.anatomy import parity
    from loopviz.model.devices import resolve_device

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    kinds = [getattr(torch, name) for name in options.dtype]
    device = resolve_device(options.device)
    for kind in kinds:
        resolve_device(options.device, kind)  # refused by name, before any work
    subjects = []
    if options.only != "model":
        subjects.append(parity.article())
        _check_memory(subjects, kinds, device)  # before a model is loaded
    if options.only != "article":
        subjects.append(_model(BUNDLED if options.model is None else options.model, options))
        _check_memory(subjects, kinds, device)
    rows: list[Row] = []
    try:
        for subject in subjects:
            for kind in kinds:
                rows += _rows(subject, kind, device)
    finally:  # what is known is not lost where the next one fails
        if rows:
            print(_agreement(rows), flush=True)
    laws = [] if options.only == "article" else [row for kind in _wide(kinds) for row in _laws(subjects[-1], kind)]
    if laws:
        print("\n" + _positions(laws), flush=True)
    if options.only != "article" and (narrow := [_short(kind) for kind in kinds if kind not in _wide(kinds)]):
        print(f"loopviz: note: no positions in {', '.join(narrow)}: only in float32 and float64", file=sys.stderr)
    return 0 if all(row.agrees for row in rows) and all(law.as_expected for law in laws) else 1


def _check_memory(subjects: Sequence[Subject], kinds: Sequence[torch.dtype], device: torch.device) -> None:
    from loopviz.anatomy import parity

    for subject in subjects:
        for kind in kinds:
            parity.check_memory(subject, kind, device)


def _model(name: str, options: argparse.Namespace) -> Subject:
    import torch

    from loopviz.anatomy import parity
    from loopviz.engine import context_length, encode_prompt

    loaded = load(name, torch.float32, {}, options.device)
    if loaded.model.config.loop_blocks():
        print(f"loopviz: note: {name}: its loop is not run; each layer runs once", file=sys.stderr)
    if options.prompt is None:
        return parity.of_model(loaded.model, name)
    ids = encode_prompt(loaded.tokenizer, options.prompt, chat=False, context=context_length(loaded.model))
    if len(ids) < 2:
        raise ValueError("prompt: 1 token; must be at least 2, for the loss is that of a token after another")
    return parity.of_model(loaded.model, f"{name}, prompt", torch.tensor(ids))


def _rows(subject: Subject, kind: torch.dtype, device: torch.device) -> list[Row]:
    from loopviz.anatomy import families, parity
    from loopviz.model.checkpoints.limits import gigabytes

    parity.check_memory(subject, kind, device)
    need, free = gigabytes(parity.memory(subject, kind)), gigabytes(parity.free_memory(device))
    print(
        f"loopviz: {subject.name}, {_short(kind)}: {families.parameters(subject.config):,} parameters; needs {need} of "
        f"memory ({free} are free) and about {parity.seconds(subject, kind, device):.0f} s",
        file=sys.stderr,
    )
    return parity.compare(subject, kind, device)


def _laws(subject: Subject, kind: torch.dtype) -> list[PositionRow]:
    from loopviz.anatomy import parity

    return list(parity.positions(subject, kind))


def _wide(kinds: Sequence[torch.dtype]) -> list[torch.dtype]:
    """The dtypes in which positions are looked at: half precision has no complex numbers to speak of."""
    import torch

    return [kind for kind in kinds if kind in (torch.float32, torch.float64)]


def _short(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _agreement(rows: Sequence[Row]) -> str:
    import pandas as pd

    table = pd.DataFrame(
        {
            "configuration": row.subject,
            "dtype": _short(row.dtype),
            "transformers": row.attention,
            "logits": f"{row.logits:,}",
            "max |Δlogit|": f"{row.max_delta_logit:.1e}",
            "loss": f"{row.loss_ours:.4f}",
            "|Δloss|": f"{row.delta_loss:.1e}",
            "every bit": "yes" if row.equal else "no",
        }
        for row in rows
    )
    why = [f"{row.subject}, {_short(row.dtype)}, {row.attention}: {row.why()}" for row in rows if not row.equal]
    return "\n".join([printed(table), *(["", *why] if why else [])])


def _positions(laws: Sequence[PositionRow]) -> str:
    import pandas as pd

    table = pd.DataFrame(
        {
            "law of positions": row.law,
            "dtype": _short(row.dtype),
            "positions up to": f"{row.furthest:,}",
            "max |Δscore|": f"{row.largest:.1e}",
            "of scores up to": f"{row.scores:.3g}",
            "equal": "yes" if row.holds else "no",
        }
        for row in laws
    )
    return printed(table)


# -- families ----------------------------------------------------------------------------------------------------------


def _families(options: argparse.Namespace) -> int:
    check_whole("context", options.context, 1, MOST_TOKENS)
    check_whole("rank", options.rank, 1, MOST_RANK)

    import pandas as pd
    import torch

    from loopviz.anatomy import families

    itemsize, context = getattr(torch, options.dtype).itemsize, options.context

    def row(size: families.PublishedSize) -> dict[str, Any]:
        count, lora = families.parameters(size), families.lora_total(size, options.rank)
        last, every = (families.logits_cost(size, positions) for positions in (1, context))
        return {
            "model": size.name,
            "layers": size.num_hidden_layers,
            "width": size.hidden_size,
            "heads": size.num_attention_heads,
            "K/V": size.num_key_value_heads,
            "ff": size.intermediate_size,
            "vocabulary": size.vocab_size,
            "context": size.max_position_embeddings,
            "theta": f"{size.rope_theta:g}",
            "trained on": f"{'>= ' * size.tokens_or_more}{size.tokens / families.T:g} T",
            "parameters": f"{count:,}",
            "KV bytes/token": f"{families.kv_bytes(size, itemsize):,}",
            "GFLOPs/token": f"{families.flops(size, context) / 1e9:.1f}",
            "last logits": f"{last.bytes / 1e6:.3g} MB",
            "all logits": f"{every.bytes / 1e6:.3g} MB, {(every.flops - last.flops) / 1e9:,.0f} GFLOPs more",
            f"LoRA r={options.rank}": f"{lora:,} ({lora / count:.2%})",
        }

    print(printed(pd.DataFrame(row(size) for size in families.SIZES.values())))
    print(
        f"\nKeys and values in {options.dtype}; FLOPs of a token after {context:,} (itself among them); logits of so many."
    )
    for source in dict.fromkeys(size.source for size in families.SIZES.values()):
        names = ", ".join(size.name for size in families.SIZES.values() if size.source == source)
        print(f"{names}: {source}.")
    return 0
