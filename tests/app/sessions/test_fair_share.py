"""Who is next: use costs waiting, is forgotten, and has an upper end."""

from __future__ import annotations

import math
import random
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.app.sessions.fair_share import CROWD, HALF_LIFE, LATER, OWED, Lengths, Shares, Visitor, expected
from loopviz.app.sessions.waiting_line import Place, Places

ANNA, BEN = Visitor("anna", "1.1.1.1"), Visitor("ben", "2.2.2.2")


def test_what_was_used_fades_by_half_in_a_half_life_and_goes_on_while_a_place_is_held() -> None:
    shares = Shares()
    shares.begin(ANNA, 0)
    assert shares.owed(ANNA, 1) == pytest.approx(1, rel=0.01)
    shares.end(ANNA, 10)
    used = shares.owed(ANNA, 10)
    assert used == pytest.approx(10, rel=0.05)
    assert shares.owed(ANNA, 10 + HALF_LIFE) == pytest.approx(used / 2)
    assert shares.owed(BEN, 10) == 0


def test_what_is_owed_has_an_upper_end() -> None:
    shares = Shares()
    for _ in range(8):
        shares.begin(ANNA, 0)
    assert shares.owed(ANNA, 1e6) == OWED


def test_an_address_counts_less_than_a_visitor() -> None:
    """Behind one may be a school; or a stranger who is somebody new with every click."""
    shares, others = Shares(), [Visitor(f"{n}", "1.1.1.1") for n in range(20)]
    for other in others:
        shares.begin(other, 0)
        shares.end(other, 4)
    new = Visitor("new", "1.1.1.1")
    assert shares.owed(new, 4) == pytest.approx(80 / CROWD, rel=0.05)
    assert shares.owed(others[0], 4) == pytest.approx(4 + 76 / CROWD, rel=0.05)
    assert shares.owed(BEN, 4) == 0


def test_a_second_of_a_place_costs_a_second_of_waiting() -> None:
    shares = Shares()
    shares.begin(ANNA, 0)
    shares.end(ANNA, 20)
    came = 30.0
    assert shares.rank(ANNA, came, 40) > shares.rank(BEN, 40, 40), "20 s used, 10 s waited"
    assert shares.rank(ANNA, came, 55) < shares.rank(BEN, 55, 55), "20 s used, 25 s waited"
    assert shares.rank(BEN, 30, 80, later=True) > shares.rank(BEN, 30, 80)
    assert shares.rank(BEN, 30, 30 + LATER + 1, later=True) < shares.rank(Visitor("new", "3"), 91, 91)


def test_who_has_just_had_a_place_has_waited_since_then() -> None:
    shares = Shares()
    shares.begin(ANNA, 100)
    assert shares.rank(ANNA, 0, 100) == 0, "not 100 s waited: that was another turn"


def test_strangers_are_not_remembered_for_ever() -> None:
    shares = Shares()
    for n in range(5_000):
        visitor = Visitor(f"{n}", f"{n}")
        shares.begin(visitor, n)
        shares.end(visitor, n)
    assert len(shares._meters) < 2_500


# --- how long -----------------------------------------------------------------------------------------------------------


def test_how_long_something_takes_is_its_estimate_held_against_what_others_took() -> None:
    lengths = Lengths()
    assert lengths.of("explore", None) is None
    assert lengths.of("explore", 8) == 8
    lengths.took("explore", 4, 8)
    assert lengths.of("explore", 20) == 10
    assert lengths.of("explore", None) == 4
    assert lengths.of("lab", None) is None


def test_what_takes_far_longer_than_was_thought_says_nothing() -> None:
    assert Lengths.left(10, 4) == 6
    assert Lengths.left(10, 12) == 1
    assert Lengths.left(10, 30) is None
    assert Lengths.left(None, 0) is None


@pytest.mark.parametrize(
    ("running", "waiting", "seconds"),
    [
        ([5, 9], [], 5),
        ([5, 9], [10], 9),
        ([5, 9], [10, 10], 15),
        ([5, None], [], 5),
        ([None, None], [], None),
        ([5, None], [None], None),
        ([5, 9], [None], 9),
    ],
)
def test_the_expected_wait_is_when_a_place_is_free_behind_those_before(
    running: list[float | None], waiting: list[float | None], seconds: float | None
) -> None:
    assert expected(running, waiting) == seconds


# --- the line, under any visitors ---------------------------------------------------------------------------------------


@dataclass
class Wish:
    """Somebody's run: when it comes, and how long it takes."""

    visitor: Visitor
    comes: float
    takes: float
    later: bool = False
    place: Place | None = None
    began: float = math.inf
    came: float = math.inf
    leave: ExitStack = field(default_factory=ExitStack)


def simulate(wishes: list[Wish], most: int, until: float = math.inf) -> None:
    """Play them on a clock of our own, a step a second; each closes as it is done."""
    now = [0.0]
    places = Places(most, clock=lambda: now[0])
    waiting, coming = [], sorted(wishes, key=lambda wish: wish.comes)
    while (coming or waiting) and now[0] < until:
        while coming and coming[0].comes <= now[0]:
            wish = coming.pop(0)
            wish.place = wish.leave.enter_context(places.join("explore", wish.visitor, later=wish.later))
            wish.came = now[0]
            waiting.append(wish)
        assert len(places._have) <= most
        assert len(places._have) == min(most, len(waiting)), "a place is free while somebody waits"
        for wish in list(waiting):
            if wish.place is not None and wish.place.ahead() is None:
                wish.began = min(wish.began, now[0])
                if now[0] >= wish.began + wish.takes:
                    wish.leave.close()
                    waiting.remove(wish)
        now[0] += 1


wishes_of = st.lists(
    st.builds(
        Wish,
        visitor=st.sampled_from([ANNA, BEN, Visitor("carl", "2.2.2.2"), Visitor("", "3.3.3.3")]),
        comes=st.integers(0, 60).map(float),
        takes=st.integers(0, 30).map(float),
        later=st.booleans(),
        place=st.none(),
        began=st.just(math.inf),
        came=st.just(math.inf),
        leave=st.builds(ExitStack),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(wishes=wishes_of, most=st.integers(1, 3))
def test_never_more_than_may_run_at_a_time_and_everybody_gets_a_place(wishes: list[Wish], most: int) -> None:
    simulate(wishes, most)
    assert all(math.isfinite(wish.began) for wish in wishes)
    work = sum(wish.takes + 1 for wish in wishes)
    assert all(wish.began - wish.came <= work for wish in wishes)


@settings(max_examples=15, deadline=None)
@given(tabs=st.integers(2, 20), takes=st.integers(1, 12), seed=st.integers(0, 99))
def test_no_visitor_gets_more_than_a_share_while_others_wait(tabs: int, takes: int, seed: int) -> None:
    """However many tabs one has: beside one who always has one run waiting, in a place for one, both get half of it."""
    chance = random.Random(seed)
    heavy = [Wish(ANNA, float(n % 3), float(takes)) for n in range(tabs) for _ in range(40)]
    chance.shuffle(heavy)
    other = [Wish(BEN, 0.0, float(takes)) for _ in range(200)]
    until = 40.0 * (takes + 2)
    simulate([*heavy, *other], 1, until)
    had = [sum(min(wish.takes, until - wish.began) for wish in of if wish.began < until) for of in (heavy, other)]
    assert min(had) >= 0.4 * sum(had), had


@settings(max_examples=15, deadline=None)
@given(tabs=st.integers(1, 30), takes=st.integers(1, 20))
def test_a_heavy_visitors_clicks_do_not_make_others_wait(tabs: int, takes: int) -> None:
    """Who comes now and then waits for what runs, and not for what waits."""
    heavy = [Wish(ANNA, 0.0, float(takes)) for _ in range(tabs * 3)]
    others = [Wish(Visitor(f"{n}", f"{n}"), 60.0 + 45 * n, 1.0) for n in range(4)]
    simulate([*heavy, *others], 1, 400.0)
    assert all(other.began - other.came <= takes + 2 for other in others)


def test_a_flood_of_newcomers_does_not_starve_the_heavy_one() -> None:
    """Each of them has used nothing; who has used the most there is waits no longer than that costs."""
    flood = [Wish(Visitor(f"{n}", f"{n}"), float(n), 2.0) for n in range(700)]
    heavy = [Wish(ANNA, 0.0, 300.0), Wish(ANNA, 300.0, 5.0)]
    simulate([*heavy, *flood], 1, 1_500.0)
    last = heavy[1]
    passed = [wish for wish in flood if last.came + OWED < wish.came and wish.began < last.began]
    assert math.isfinite(last.began)
    assert passed == [], "who came later than what it owes has passed it"


def test_measurements_go_behind_runs_of_explore_and_have_their_turn() -> None:
    runs = [Wish(Visitor(f"{n}", f"{n}"), 2.0 * n, 2.0) for n in range(100)]  # a place's worth, without end
    measured = Wish(BEN, 1.0, 5.0, later=True)
    simulate([*runs, measured], 1, 200.0)
    soon = [run for run in runs if run.comes < 20]
    assert all(run.began < measured.began for run in soon)
    assert measured.began - measured.came <= LATER + 10
