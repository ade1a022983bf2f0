"""The one error a checkpoint may end in, the border that sees to it, and what is said of one that loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopviz.worker import WorkerEnded


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names what is wrong with which value, and what to do."""


@dataclass(frozen=True)
class Note:
    """Something to know about a checkpoint that loads all the same.

    Args:
        code: what it is, for programs ("pad_dropped", ...).
        text: a sentence, for people.
        values: what the sentence is about, by name.
    """

    code: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


@contextmanager
def reading(what: str | Path) -> Iterator[None]:
    """The border between a checkpoint's files and everything else: inside, whatever they bring up ends as CheckpointError.

    Not a list of exception classes: parsers, converters and Rust libraries raise anything (a panic of theirs is not even
    an `Exception`). Only what is not about the files passes: Ctrl-C, the end of the interpreter, a task given up.
    A process that worked for us and was ended is about the files, unless it was ended because nobody waits any more.

    Args:
        what: the file or checkpoint, for the message.

    Raises:
        CheckpointError: for anything else; the original is its `__cause__`.
    """
    try:
        yield
    except CheckpointError:
        raise
    except WorkerEnded as error:
        if error.why == "over":
            raise
        raise CheckpointError(f"{what}: cannot be read ({error}); take another checkpoint") from error
    except MemoryError as error:
        raise CheckpointError(
            f"{what}: memory ran out while it was read; choose a smaller checkpoint, or close other programs"
        ) from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{what}: cannot be read ({cause(error)})") from error


def cause(error: BaseException) -> str:
    """An exception in a line: its class and the first of what it says."""
    said = (str(error).strip().splitlines() or [""])[0]
    said = said if len(said) <= 300 else said[:297] + "..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
