"""What is remembered of visitors' runs, and for how long."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.registry import Registry


class Measured:
    """A run that ends when it is told to."""

    def __init__(self, name: str, session: str) -> None:
        self.id, self.session, self.finished = name, session, threading.Event()
        self.nbytes, self.keeper, self.opened = 10, None, False

    def halt(self, end: str = "stopped") -> None:
        self.finished.set()


def test_a_visitor_s_new_run_takes_the_place_of_the_one_before() -> None:
    gone: list[Measured] = []
    runs = Registry(forget=gone.append)
    first, other, second = Measured("a", "me"), Measured("b", "you"), Measured("c", "me")
    for run in (first, other, second):
        runs.begin(run)
    assert first.finished.is_set()
    assert gone == [], "it is on the screen until the new one has something to show"
    runs.supersede(second)
    assert gone == [first]
    assert not other.finished.is_set()
    assert [*runs] == [other, second]
    runs.forget("you")
    assert gone == [first, other]
    assert other.finished.is_set()
    assert (len(runs), runs.of_session("me"), runs.of_session("you")) == (1, [second], [])


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_that_is_heard_of_late_takes_no_later_one_s_place(replaced: bool) -> None:
    """Five clicks: the fourth's thread may come to show something when the fifth's run is there already, or has ended."""
    runs: Registry[Measured] = Registry()
    first, second, third = (Measured(name, "me") for name in "abc")
    for run in (first, second, third):
        runs.begin(run)
    if replaced:
        runs.supersede(third)
    third.finished.clear()
    runs.supersede(second)
    assert [*runs] == ([third] if replaced else [second, third])
    assert not third.finished.is_set()
    runs.supersede(third)
    assert [*runs] == [third]


def test_the_oldest_finished_runs_go_first() -> None:
    runs: Registry[Measured] = Registry(Keeper(dataclasses.replace(PUBLIC, kept_bytes=20)))
    made = [Measured(name, name) for name in "abcd"]
    made[1].finished.set()
    for run in made:
        runs.begin(run)
    assert [run.id for run in runs] == ["a", "c", "d"], "those at work are kept, however many"


def test_h3_who_begins_waits_for_no_earlier_run() -> None:
    class Busy(Measured):
        def halt(self, end: str = "stopped") -> None:
            self.told = True

    def waited(timeout: float | None = None) -> bool:
        raise AssertionError("waited for a run")

    runs, first = Registry[Busy](), Busy("a", "me")
    first.finished.wait = waited
    runs.begin(first)
    runs.begin(Busy("b", "me"))
    assert first.told
    assert not first.finished.is_set()


@pytest.mark.parametrize("asked", [None, 3, ["a"], "", "b"])
def test_a_run_is_found_by_its_id_alone(asked: Any) -> None:
    runs: Registry[Measured] = Registry()
    runs.begin(Measured("a", "me"))
    assert runs.get(asked) is None
    assert runs.get("a").id == "a"
