"""``run --beams N``: a search over N texts at once, as transformers' own ``generate()`` makes it; the best one is printed.

N texts share the cache, and which of them is the answer is known at the end alone: nothing is recorded, and no loop is changed on
the way. A search draws nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz import outputs
from loopviz.checks import ABSENT, FieldError, check_whole
from loopviz.cli.options import option
from loopviz.machine import UsageError

if TYPE_CHECKING:
    import torch

    from loopviz.engine import StreamSettings
    from loopviz.model.checkpoints.load import LoadedCheckpoint

LEAST, MOST = 2, 64
RECORDED = ("save", "change", "no_record", "extras", "top_tokens")  # of a run that is recorded, or changed on the way
DRAWN = ("do_sample", "temperature", "top_k", "top_p", "min_p", "seed")
OF_ARTICLE = ("max_new_tokens", "repetition_penalty")  # of its numbers, those that a search has a use for


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        prompt, new: ids; of the new ones without the model's mark of an end.
        finish: as of a Frame: ``"eos"``, ``"length"`` or ``"context"``.
        seconds: that it took.
    """

    prompt: list[int]
    new: list[int]
    finish: str
    seconds: float


def check_beams(options: argparse.Namespace) -> None:
    """Refuse, before anything is loaded, a number of beams that cannot be, and options that a search has no use for.

    Raises:
        FieldError: the number.
        UsageError: naming the options.
    """
    check_whole("beams", options.beams, LEAST, MOST)
    for names, why in (
        (RECORDED, "a search follows several texts at once, records nothing and changes no loop on the way"),
        (DRAWN, "a search draws nothing"),
    ):
        values = {name: getattr(options, name) for name in names}
        given = [
            option(name) for name, value in values.items() if value is not None and value is not False and value != []
        ]
        if given:
            shown = ", ".join("--sample" if name == "--do-sample" else name for name in given)
            raise UsageError(f"{shown}: no effect with --beams {options.beams}: {why}; leave it out")


def search(loaded: LoadedCheckpoint, prompt: str, settings: StreamSettings, beams: int) -> Found:
    """The likeliest text that ``generate(num_beams=beams)`` finds after a prompt.

    Args:
        settings: its length, its repetition penalty, and how the prompt is put.

    Raises:
        ValueError: the prompt, as `loopviz.engine.encode_prompt` does; logits that are no numbers.
    """
    import torch
    from transformers import LogitsProcessorList

    from loopviz.engine.pieces import encode_prompt
    from loopviz.engine.sampling import Sampler
    from loopviz.engine.stream import context_length
    from loopviz.model.checkpoints.quiet import quiet_transformers

    model, context = loaded.model, context_length(loaded.model)
    ids = encode_prompt(loaded.tokenizer, prompt, context=context, **settings.wording)
    tokens = torch.tensor([ids], device=model.device)  # [1, T]
    room = min(settings.max_new_tokens, context - len(ids) + 1)  # the last token chosen is never read
    ends = Sampler(model, settings, tokens, room).eos
    how: dict[str, Any] = {**settings.generate_kwargs(), "do_sample": False, "max_new_tokens": room, "num_beams": beams}
    how["logits_processor"] = LogitsProcessorList([_numbers])
    began = time.perf_counter()
    with torch.inference_mode(), quiet_transformers():
        new: list[int] = model.generate(tokens, attention_mask=torch.ones_like(tokens), **how)[0, len(ids) :].tolist()
    seconds = time.perf_counter() - began
    end = next((at for at, token in enumerate(new) if token in ends), None)
    if end is not None:
        return Found(ids, new[:end], "eos", seconds)
    return Found(ids, new, "length" if len(new) == settings.max_new_tokens else "context", seconds)


def _numbers(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Log-probabilities `[beams, vocab]` as they are; FieldError where they are no numbers: a search would go on with any token."""
    if bool(scores.isnan().any()):
        raise FieldError("", ABSENT, "logits_nan")
    return scores


def run_beams(
    loaded: LoadedCheckpoint, prompt: str, settings: StreamSettings, beams: int, safe: Callable[[str], str]
) -> int:
    """Search, print the text, and say on stderr what it took; returns the exit code.

    Args:
        safe: makes a text such that a terminal shows it and does not obey it.
    """
    from rich.console import Console
    from rich.table import Table

    from loopviz.engine.pieces import Pieces
    from loopviz.prompt_templates import template_of

    found = search(loaded, prompt, settings, beams)
    pieces = Pieces(loaded.tokenizer)
    before, after = ("".join(map(pieces.add, ids)) for ids in (found.prompt, found.new))
    echo = template_of(settings.to_dict()) == "none"
    with outputs.naming("stdout"):
        print(safe(before + after if echo else after), flush=True)
    table = Table("", "", show_header=False)
    ended = {"eos": "the model ended the text", "length": "max_new_tokens reached"}.get(
        found.finish, "the model's context is full"
    )
    table.add_row("tokens", f"{len(found.prompt)} of prompt, {len(found.new)} new ({ended})")
    table.add_row("search", f"the likeliest text of {beams} beams, in {found.seconds:.2f} s; nothing recorded")
    Console(file=sys.stderr).print(table)
    return 0
