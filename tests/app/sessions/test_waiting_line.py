"""The line before the places: first come, first served, and who waits knows how many are before."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from loopviz.app.sessions.waiting_line import Ahead, LineFull, Places


def never() -> bool:
    return False


def test_who_waits_knows_how_many_are_before_and_who_runs() -> None:
    """A30: "waiting for a free place" said neither."""
    places = Places(2)
    with ExitStack() as stack:
        have = [stack.enter_context(places.join(page)) for page in ("explore", "lab")]
        first, second = (stack.enter_context(places.join("explore")) for _ in range(2))
        assert [place.ahead() for place in have] == [None, None]
        assert first.ahead() == Ahead(0, ("explore", "lab"))
        assert second.ahead() == Ahead(1, ("explore", "lab"))
        assert list(have[0].wait(never)) == []


def test_places_are_given_in_the_order_of_coming() -> None:
    places, served, entered = Places(1), [], threading.Semaphore(0)
    gates = [threading.Event() for _ in range(4)]

    def visitor(n: int) -> None:
        with places.join("explore") as place:
            entered.release()
            for _ in place.wait(never):
                pass
            served.append(n)
            gates[n].wait(10)

    threads = []
    for n in range(4):
        threads.append(threading.Thread(target=visitor, args=(n,)))
        threads[-1].start()
        entered.acquire()
    for n in range(4):
        for _ in range(1000):
            if len(served) > n:
                break
            threading.Event().wait(0.01)
        assert served == list(range(n + 1))
        assert places.taken() == 1
        gates[n].set()
    for thread in threads:
        thread.join(10)
    assert places.taken() == 0


def test_the_line_has_an_end_and_who_waits_keeps_their_turn() -> None:
    places = Places(1, longest=2)
    with ExitStack() as stack:
        places_held = [stack.enter_context(places.join("explore")) for _ in range(3)]
        for _ in range(50):
            with pytest.raises(LineFull), places.join("explore"):
                pass
        assert [place.ahead() for place in places_held] == [None, Ahead(0, ("explore",)), Ahead(1, ("explore",))]
    with places.join("lab") as place:
        assert place.ahead() is None


def test_c1_a_place_that_is_kept_is_given_on_when_the_last_who_needs_it_leaves() -> None:
    places = Places(1)
    with places.join("lab") as place:
        leave = place.keep()
    assert places.taken() == 1, "the block has ended, the work in it has not"
    with places.join("explore") as waiting:
        assert waiting.ahead() == Ahead(0, ("lab",))
        leave()
        assert waiting.ahead() is None
        leave()
        assert waiting.ahead() is None, "once is enough"
    assert places.taken() == 0


def test_who_does_not_want_it_any_more_leaves_the_line() -> None:
    places, gone = Places(1), threading.Event()
    with places.join("explore"), places.join("compare") as place:
        states = place.wait(gone.is_set)
        assert next(states) == Ahead(0, ("explore",))
        gone.set()
        assert list(states) == []
    assert places.taken() == 0
