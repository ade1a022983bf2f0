"""A tiny model with its tokenizer, as the thing that is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopviz.lab.task import Subject
from tests.conftest import make_tokenizer
from tests.model.tiny import build

TEXT = "Once upon a time there was a little loop that went round and round. The loop knew: 1 + 2 = 3. " * 3
SMALL: dict[str, Any] = {"limit_tokens": 40, "window": 12, "batch": 3}  # of the parameters of a measurement on a text


def subject(**loop: Any) -> Subject:
    """A random looped model of four layers whose vocabulary holds the tiny tokenizer's; layers 1-2 loop."""
    return Subject(build({"loop_layers": (1, 2), **loop}, vocab_size=320), make_tokenizer(), "tiny", "made up")


def save(folder: Path, **loop: Any) -> str:
    """The subject's model as a checkpoint folder; its path."""
    thing = subject(**loop)
    thing.model.save_pretrained(folder)
    thing.tokenizer.save_pretrained(folder)
    return str(folder)
