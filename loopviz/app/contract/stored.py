"""What Explore and TTT and their server say to each other of stored runs; each question is the body of a request, each answer one's."""

from __future__ import annotations

from typing import Literal, TypedDict, Union

from loopviz.app.contract.explore import ExploreSnapshot
from loopviz.app.contract.learn import AnswersAsked
from loopviz.app.contract.shared import Focus, Text, Whole


class _KeepRun(TypedDict):
    run: str
    view: str  # View; on TTT a PlaceTTT


class KeepRun(_KeepRun, total=False):
    """A run is to be kept."""

    secret: str  # of its owner, once they have one
    folder: str  # the class folder it is saved into
    student: str  # what they call themselves there


class KeptRun(TypedDict):
    """An answer: it is kept."""

    id: str
    secret: str
    until: int  # milliseconds since 1970


class _OpenKept(TypedDict):
    id: str


class OpenKept(_OpenKept, total=False):
    """A stored run is to be shown."""

    secret: str  # of who asks, if they have one: it may be theirs


class OpenedRun(TypedDict):
    """An answer: a stored run, with the view under which it was saved."""

    id: str
    title: str
    until: Whole  # milliseconds since 1970; None: it stands in the gallery
    mine: bool  # whether the secret that came along is its owner's
    panels: Union[list[str], None]  # noqa: UP007  # as OpenedLink
    group: Text
    focus: Focus
    snapshot: ExploreSnapshot


class DeleteKept(TypedDict):
    """A stored run is to be deleted by its owner."""

    id: str
    secret: str


class NewFolder(TypedDict):
    """A class folder is to be made."""

    name: str


class MadeFolder(TypedDict):
    """An answer: a class folder, and its teacher's secret."""

    folder: str
    secret: str
    name: str


class _AskFolder(TypedDict):
    folder: str


class AskFolder(_AskFolder, total=False):
    """What is a class folder called? With its teacher's secret: what lies in it?"""

    secret: str


class DeleteFolder(TypedDict):
    """A class folder is to be deleted by its teacher, with all that was saved and handed in there."""

    folder: str
    secret: str


class DeletedFolder(TypedDict):
    """An answer: it is deleted, and so many runs and answers with it."""

    runs: int
    answers: int


class DeleteFromFolder(TypedDict):
    """A run, or a pupil's answers to a lesson, are to be deleted from a class folder by its teacher."""

    folder: str
    secret: str
    id: str  # of a KeptEntry or a HandedEntry


class KeptEntry(TypedDict):
    """A stored run in a list."""

    id: str
    title: str
    model: str
    of_ttt: bool  # of a TTT model: the TTT page shows it
    tokens: int
    student: str
    created: int  # milliseconds since 1970


class HandedEntry(TypedDict):
    """A pupil's answers to a lesson, in a list."""

    id: str  # by which its teacher deletes them
    student: str
    title: str  # of the lesson
    right: int
    answered: int
    at: int  # milliseconds since 1970


class KeptList(TypedDict):
    """An answer: stored runs, of the gallery or a class folder, and what was handed in there; none for who is not its teacher."""

    name: str
    runs: list[KeptEntry]
    answers: list[HandedEntry]


class _HandIn(AnswersAsked):
    folder: str


class HandIn(_HandIn, total=False):
    """A pupil's answers to a lesson are handed in to a class folder, in place of those handed in before."""

    secret: str  # as of KeepRun


class HandedIn(TypedDict):
    """An answer: they are kept."""

    secret: str
    at: int  # milliseconds since 1970


class Withdraw(TypedDict):
    """A pupil takes back what was handed in of a lesson."""

    folder: str
    secret: str
    lesson: str
    student: str  # the name it was handed in with


class AskHanded(TypedDict):
    """All that a class handed in, as a file for its teacher."""

    folder: str
    secret: str
    kind: Literal["csv", "json"]
