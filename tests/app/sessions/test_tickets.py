"""A page's later start takes the place of the former, in whatever order the requests come."""

from __future__ import annotations

import random
import threading

import pytest

from loopviz.app.profile import LOCAL, PUBLIC
from loopviz.app.sessions.tickets import Starts, number


def test_a_later_start_replaces_the_former() -> None:
    starts = Starts()
    first, second = starts.begin("me", 1), starts.begin("me", 2)
    assert first.over.is_set()
    assert first.replaced
    assert not second.over.is_set()
    other = starts.begin("you", 1)
    assert not other.over.is_set()
    assert not second.over.is_set(), "another page's start ends nothing here"


def test_a_start_that_was_overtaken_ends_nothing_and_is_over() -> None:
    """A3: requests of two clicks may come in the other order."""
    starts = Starts()
    second, first = starts.begin("me", 2), starts.begin("me", 1)
    assert not second.over.is_set()
    assert first.over.is_set()
    assert first.replaced


@pytest.mark.parametrize("seed", range(20))
def test_of_many_at_once_only_the_highest_number_goes_on(seed: int) -> None:
    starts, numbers = Starts(), list(range(1, 13))
    random.Random(seed).shuffle(numbers)
    begun = []
    threads = [threading.Thread(target=lambda n=n: begun.append(starts.begin("me", n))) for n in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [start.n for start in begun if not start.over.is_set()] == [12]


def test_stop_ends_what_was_asked_for_before_it_and_nothing_later() -> None:
    starts = Starts()
    running = starts.begin("me", 3)
    starts.stop("me", 4)  # pressed when the page had asked for four
    assert running.over.is_set()
    assert not running.replaced, "it is told that it was stopped"
    assert starts.begin("me", 4).over.is_set(), "it was still on its way"
    later = starts.begin("me", 5)
    assert not later.over.is_set()
    starts.stop("me", 4)
    assert not later.over.is_set()


def test_a_ticket_ends_its_start_before_and_after_it_has_come() -> None:
    starts = Starts()
    start = starts.begin("me", 1, "ticket-1")
    starts.cancel("ticket-1")
    assert start.over.is_set()
    starts.cancel("ticket-2")
    assert starts.begin("me", 2, "ticket-2").over.is_set()
    assert not starts.begin("me", 3, "ticket-3").over.is_set()
    for wrong in (None, 3, "", "x" * 1000, ["ticket-3"]):
        starts.cancel(wrong)


def test_who_leaves_wants_nothing_any_more() -> None:
    starts = Starts()
    start = starts.begin("me", 1)
    starts.leave("me")
    assert start.over.is_set()
    assert start.replaced, "there is nobody to tell"


def test_no_more_pages_are_remembered_than_fit() -> None:
    starts = Starts(keep=10)
    for n in range(50):
        starts.begin(f"page {n}", 1, f"ticket {n}")
        starts.stop(f"page {n}", 1)
        starts.cancel(f"ticket {n}")
    assert len(starts._newest) == len(starts._halted) == len(starts._back) == 10
    assert min(LOCAL.pages, PUBLIC.pages) > 1000


@pytest.mark.parametrize(("asked", "read"), [(1, 1), (0, None), (-1, None), (True, None), ("1", None), (1.5, None), (2**60, None), (None, None)])  # fmt: skip
def test_a_number_is_a_whole_number(asked: object, read: int | None) -> None:
    assert number(asked) == read
