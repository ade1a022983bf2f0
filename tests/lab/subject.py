"""A tiny model as the thing that is measured."""

from __future__ import annotations

from typing import Any

from loopviz.lab import Subject

from ..engine import tiny

TEXT = "Once upon a time there was a small dog. The dog Lily saw the 3 🐕 dogs, and Lily ran. 从前有一只小狗。" * 2


def subject(seed: int = 0, **loop: Any) -> Subject:
    return Subject(tiny.model(seed, **loop), tiny.tokenizer(), "tiny", "made here")
