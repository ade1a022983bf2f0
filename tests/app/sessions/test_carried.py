"""A run that is taken along to another page is found there by its id, for a while, in memory that counts."""

from __future__ import annotations

from loopviz.app.profile import LOCAL
from loopviz.app.sessions.carried import Carried, CarriedRun
from loopviz.app.sessions.memory_budget import Keeper
from tests.trace.synthetic import random_trace


def run(name: str) -> CarriedRun:
    return CarriedRun(name, random_trace(tokens=3), "tiny", own=True)


def test_a_run_is_found_by_its_id_alone() -> None:
    keeper = Keeper(LOCAL)
    kept = Carried(keeper)
    mine = run("mine")
    kept.take(mine)
    assert kept.get("mine") is mine
    assert kept.get("yours") is None
    assert kept.get(["mine"]) is None
    assert keeper.total == mine.nbytes > 0


def test_what_nobody_looks_at_goes_and_what_is_looked_at_stays() -> None:
    now = [0.0]
    keeper = Keeper(LOCAL)
    kept = Carried(keeper, clock=lambda: now[0])
    kept.take(run("old"))
    kept.take(run("looked at"))
    now[0] = LOCAL.carried_seconds - 1
    assert kept.get("looked at") is not None
    now[0] = LOCAL.carried_seconds + 1
    assert kept.get("old") is None
    assert kept.get("looked at") is not None
    now[0] = 3 * LOCAL.carried_seconds
    kept.take(run("new"))
    assert len(kept) == 1
    assert keeper.total == kept.get("new").nbytes  # type: ignore[union-attr]


def test_of_too_many_the_least_needed_goes() -> None:
    kept = Carried(Keeper(LOCAL))
    for i in range(LOCAL.carried_runs):
        kept.take(run(str(i)))
    kept.get("0")
    kept.take(run("more"))
    assert len(kept) == LOCAL.carried_runs
    assert kept.get("0") is not None
    assert kept.get("1") is None


def test_memory_counts_as_everybody_s() -> None:
    import dataclasses

    one = run("0").nbytes
    keeper = Keeper(dataclasses.replace(LOCAL, kept_bytes=2 * one + one // 2))
    kept = Carried(keeper)
    for i in range(3):
        kept.take(run(str(i)))
    assert [kept.get(str(i)) is not None for i in range(3)] == [False, True, True]


def test_a_run_that_is_taken_along_twice_counts_once() -> None:
    keeper = Keeper(LOCAL)
    kept = Carried(keeper)
    first, again = run("mine"), run("mine")
    kept.take(first)
    kept.take(again)
    assert keeper.total == again.nbytes
    keeper.touch(first)  # what was displaced is weighed and let go of late: nothing of the newer one's goes with it
    keeper.leave(first)
    assert keeper.total == again.nbytes
    assert kept.get("mine") is again
    keeper.leave(again)
    assert keeper.total == 0
