"""A model's name as pages show it."""

from __future__ import annotations

from pathlib import Path


def short_name(name: str) -> str:
    """A model's name as shown: of a path on this machine, the last part only."""
    return Path(name).name if name.startswith(("/", ".", "~")) or "\\" in name else name
