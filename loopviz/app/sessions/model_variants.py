"""By what a server holds a model: its name, and beside it the precision where a visitor chose another than the server's."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, Union

from loopviz.paths import MODELS

COME_ALONG = frozenset(folder.name for folder in MODELS.glob("*"))  # each so small that `auto` holds it exactly


class Variant(NamedTuple):
    """A model in a precision that a visitor chose."""

    name: str
    precision: str


Key: TypeAlias = Union[str, Variant]  # noqa: UP007  # evaluated, on Python 3.10 as well


def name_of(key: Key) -> str:
    """The model's name."""
    return key.name if isinstance(key, Variant) else key


def precision_of(key: Key) -> str:
    """The precision that was chosen; "": the server's."""
    return key.precision if isinstance(key, Variant) else ""


def timed(key: Key) -> str:
    """By what the time is remembered that its loading took."""
    return f"{key.name} ({key.precision})" if isinstance(key, Variant) else key


class HeldElsewhere(ValueError):
    """Another precision than the server's was chosen, and models are held by a cluster, as its host chose.

    Attributes:
        code, values: as of a limit: what is said of it (`limit.<code>`), and of what.
    """

    code = "precision_cluster"

    def __init__(self, precision: str) -> None:
        super().__init__(f"precision={precision!r}: models run on a cluster, which holds them as its host chose")
        self.values = {"precision": precision}


class LearnsExactly(ValueError):
    """A precision was chosen of a TTT model, whose weights are held in float32 and nothing else.

    Attributes:
        code, values: as of a limit.
    """

    code = "precision_ttt"

    def __init__(self, precision: str) -> None:
        super().__init__(f"precision={precision!r}: a TTT model is held in float32; choose 'exact'")
        self.values = {"precision": precision}


def is_of_precision(error: BaseException) -> bool:
    """Whether a model could not be had for the precision it was wanted in."""
    return str(getattr(error, "code", "")).startswith("precision_")
