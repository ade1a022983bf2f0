"""The one error a checkpoint may end in, the border that sees to it, and what is said of one that loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopviz.checkpoint_rules import RULES
from loopviz.checks import RuleError
from loopviz.worker import WorkerEnded


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names what is wrong with which value, and what to do."""


class CheckpointRuleError(CheckpointError, RuleError):
    """One that is told by its rule: in English here, on a page in the visitor's language.

    Args:
        rule: a key of :data:`loopviz.checkpoint_rules.RULES`.
        places: what fills the rule's places.
    """

    texts = "checkpoint"

    def __init__(self, rule: str, /, **places: object) -> None:
        super().__init__(RULES[rule].format(**places))
        self.rule, self.places = rule, places

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.rule, dict(self.places))


def _again(rule: str, places: dict[str, object]) -> CheckpointRuleError:
    return CheckpointRuleError(rule, **places)


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
        raise CheckpointRuleError("worker_ended", what=what, said=str(error)) from error
    except MemoryError as error:
        raise CheckpointRuleError("memory_out", what=what) from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointRuleError("unreadable", what=what, said=cause(error)) from error


def cause(error: BaseException) -> str:
    """An exception in a line: its class and the first of what it says."""
    said = (str(error).strip().splitlines() or [""])[0]
    said = said if len(said) <= 300 else said[:297] + "..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
