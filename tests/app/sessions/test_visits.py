"""Whose a session is: a browser's by the name it says, else an address'; who has neither is nobody else."""

from __future__ import annotations

from loopviz.app.sessions.visits import Visits


def test_two_without_name_and_address_are_two() -> None:
    """Behind a socket all strangers were one, with one share of the line."""
    visits = Visits(10)
    for session in ("one", "two"):
        visits.meet(session, "", "")
    assert visits.of("one") != visits.of("two")


def test_tabs_of_one_browser_are_one() -> None:
    visits = Visits(10)
    for session, address in (("one", "10.0.0.1"), ("two", "10.0.0.1"), ("three", "10.0.0.2")):
        visits.meet(session, "a" * 16 if session != "three" else "b" * 16, address)
    assert visits.of("one") == visits.of("two") != visits.of("three")
