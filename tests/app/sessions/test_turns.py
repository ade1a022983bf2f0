"""While others run too, a visitor's own runs are made one at a time; by herself all at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from loopviz.app.sessions import turns
from loopviz.app.sessions.fair_share import Visitor
from loopviz.app.sessions.turns import AWAY, TURN
from loopviz.app.sessions.waiting_line import Place, Places

ANNA, BEN = Visitor("anna", "1.1.1.1"), Visitor("ben", "2.2.2.2")
STEP = 0.01


def never() -> bool:
    return False


class Made:
    """Steps that take a while: who is in one with whom is noted.

    Args:
        step: seconds that one takes.
    """

    def __init__(self, step: float = STEP) -> None:
        self.step = step
        self.steps: Counter[str] = Counter()
        self.at_once: Counter[int] = Counter()  # by how many of the same visitor compute
        self._now: list[str] = []
        self._lock = threading.Lock()

    def by(self, name: str, whose: str = "anna") -> Iterator[str]:
        while True:
            with self._lock:
                self._now.append(whose)
                self.at_once[self._now.count(whose)] += whose == "anna"
            time.sleep(self.step)
            with self._lock:
                self._now.remove(whose)
            self.steps[name] += 1
            yield name


def going(stack: ExitStack, turn: Callable[[], Iterator[str]]) -> threading.Event:
    """Somebody who takes steps in a thread, until told."""
    over = threading.Event()

    def go() -> None:
        for _ in turn():
            if over.is_set():
                break

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    stack.callback(thread.join, 10)
    stack.callback(over.set)
    return over


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(STEP)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def given(stack: ExitStack, places: Places, visitor: Visitor, later: bool = False) -> Place:
    return stack.enter_context(places.join("lab" if later else "explore", visitor, later=later))


def test_by_herself_a_visitor_has_all_her_runs_at_once(stack: ExitStack) -> None:
    places, made = Places(9), Made()
    for n in range(3):
        place = given(stack, places, ANNA)
        going(stack, lambda n=n, place=place: place.turn.of(made.by(f"{n}"), never))
    until(lambda: made.at_once[3] > 5)


def test_beside_another_one_at_a_time_and_each_has_its_turn(stack: ExitStack) -> None:
    places, made = Places(9), Made()
    other = given(stack, places, BEN)
    going(stack, lambda: other.turn.of(made.by("ben", "ben"), never))
    for n in range(3):
        place = given(stack, places, ANNA)
        going(stack, lambda n=n, place=place: place.turn.of(made.by(f"{n}"), never))
    until(lambda: all(made.steps[f"{n}"] > 5 for n in range(3)))
    assert set(made.at_once) - {0} == {1}
    assert made.steps["ben"] > 0.5 * sum(made.steps[f"{n}"] for n in range(3)), "who has one waits for no turn"
    stack.close()


def test_when_the_other_has_gone_all_go_on(stack: ExitStack) -> None:
    places, made = Places(9), Made()
    other = stack.enter_context(ExitStack())
    given(other, places, BEN)
    for n in range(2):
        place = given(stack, places, ANNA)
        going(stack, lambda n=n, place=place: place.turn.of(made.by(f"{n}"), never))
    until(lambda: made.steps["0"] > 2 and made.steps["1"] > 2)
    assert made.at_once[2] == 0
    other.close()
    until(lambda: made.at_once[2] > 5)


def test_one_that_is_over_waits_for_no_turn(stack: ExitStack) -> None:
    places, made, halted = Places(9), Made(), threading.Event()
    given(stack, places, BEN)
    first, second = given(stack, places, ANNA), given(stack, places, ANNA)
    holds = threading.Event()

    def long() -> Iterator[str]:
        holds.wait(10)
        yield "long"

    stack.callback(holds.set)
    going(stack, lambda: first.turn.of(long(), never))
    until(lambda: bool(first.turn.lane.computing))
    going(stack, lambda: second.turn.of(made.by("second"), halted.is_set))
    until(lambda: bool(second.turn.lane.waiting))
    assert not made.steps
    halted.set()
    until(lambda: made.steps["second"] > 0)
    assert second.turn.waited > 0
    holds.set()


def test_who_does_not_come_back_for_its_next_step_has_the_turn_no_more(stack: ExitStack) -> None:
    """A page that reads slowly would hold up the other tabs of its browser."""
    places, made = Places(9), Made()
    given(stack, places, BEN)
    slow, other = given(stack, places, ANNA), given(stack, places, ANNA)
    steps = slow.turn.of(made.by("slow"), never)
    next(steps)
    began = time.monotonic()
    next(other.turn.of(made.by("other"), never))
    assert AWAY * 0.5 < time.monotonic() - began < TURN * 0.9, "not at once: it is in its turn"
    steps.close()


def test_measurements_wait_for_the_runs_of_their_visitor_and_never_these_for_them(stack: ExitStack) -> None:
    places, made = Places(9), Made()
    given(stack, places, BEN)
    run, lab = given(stack, places, ANNA), given(stack, places, ANNA, later=True)
    over = going(stack, lambda: run.turn.of(made.by("run"), never))
    until(lambda: made.steps["run"] > 0)
    going(stack, lambda: lab.turn.of(made.by("lab"), never))
    until(lambda: made.steps["run"] > 20)
    assert made.steps["lab"] == 0
    over.set()
    until(lambda: made.steps["lab"] > 2)
    before = made.steps["run"]
    again = run.turn.of(made.by("run"), never)
    next(again)
    assert made.steps["run"] == before + 1
    again.close()


def test_a_measurement_of_another_stops_no_run_from_being_made_at_once(stack: ExitStack) -> None:
    """It lets others go before anyway."""
    places, made = Places(9), Made()
    given(stack, places, BEN, later=True)
    for n in range(2):
        place = given(stack, places, ANNA)
        going(stack, lambda n=n, place=place: place.turn.of(made.by(f"{n}"), never))
    until(lambda: made.at_once[2] > 5)


def test_who_has_had_more_time_than_another_waits_until_that_one_has_caught_up(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of 64 loops had a core for itself beside five that shared one."""
    monkeypatch.setattr(turns, "AHEAD", 0.1)
    places, shared, deep = Places(9), Made(), Made(0.05)
    for n in range(4):
        place = given(stack, places, Visitor(f"{n}", ""))
        going(stack, lambda n=n, place=place: place.turn.of(shared.by(f"{n}", ""), never, lambda step: 4))
    place = given(stack, places, ANNA)
    going(stack, lambda: place.turn.of(deep.by("deep"), never))
    until(lambda: min(shared.steps[f"{n}"] for n in range(4)) > 40)
    before = deep.steps["deep"], shared.steps["0"]
    until(lambda: shared.steps["0"] > before[1] + 200)
    had = 0.05 * (deep.steps["deep"] - before[0]), STEP / 4 * (shared.steps["0"] - before[1])
    assert 0.5 < had[0] / had[1] < 2.5, (
        "as much time as each of the others; a step takes a little longer than it sleeps"
    )
    assert place.turn.waited > 0


def test_who_was_away_has_saved_nothing_up(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "AHEAD", 0.1)
    places, made = Places(9), Made()
    run = given(stack, places, ANNA)
    going(stack, lambda: run.turn.of(made.by("run"), never))
    other = given(stack, places, BEN)
    until(lambda: made.steps["run"] > 60)
    going(stack, lambda: other.turn.of(made.by("ben", "ben"), never))
    until(lambda: made.steps["ben"] > 5)
    before = made.steps["run"]
    until(lambda: made.steps["ben"] > 30)
    assert made.steps["run"] > before + 10


def test_what_nobody_else_wanted_is_owed_to_nobody(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came while another's run paused was given all that this had had alone: it stood for as long."""
    monkeypatch.setattr(turns, "AHEAD", 0.1)
    places, made = Places(9), Made()
    run = given(stack, places, ANNA)
    alone = run.turn.of(made.by("run"), never)
    for _ in range(100):
        next(alone)
    time.sleep(2 * AWAY)  # its page reads slowly
    other = given(stack, places, BEN)
    going(stack, lambda: other.turn.of(made.by("ben", "ben"), never))
    until(lambda: made.steps["ben"] > 3)
    began = time.monotonic()
    next(alone)
    assert time.monotonic() - began < 0.5, "it had had a second"
    alone.close()


def test_what_is_made_is_closed_with_its_turns_and_its_errors_pass(stack: ExitStack) -> None:
    place, closed = given(stack, Places(9), ANNA), []

    def steps() -> Iterator[int]:
        try:
            yield 1
            raise ValueError("no")
        finally:
            closed.append(True)

    turns = place.turn.of(steps(), never)
    assert next(turns) == 1
    turns.close()
    assert closed == [True]
    with pytest.raises(ValueError, match="no"):
        list(place.turn.of(steps(), never))
    assert not place.turn.lane.computing
