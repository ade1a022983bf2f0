"""The line before the places: fair by visitor, and who waits knows how many are before, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from loopviz.app.sessions.fair_share import LATER, PASSED, REST, Visitor
from loopviz.app.sessions.waiting_line import Ahead, LineFull, Places, rounded

ANNA, BEN = Visitor("anna", "1.1.1.1"), Visitor("ben", "2.2.2.2")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


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


def test_strangers_are_given_places_in_the_order_of_coming() -> None:
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


def test_one_visitor_has_not_all_places_and_who_comes_next_waits_for_none(stack: ExitStack) -> None:
    """Fifteen tabs had all fifteen: who came then waited until one of them ended."""
    places = Places(4, clock=Clock(), most_own=2)
    own = [stack.enter_context(places.join("explore", ANNA)) for _ in range(4)]
    assert [place.ahead() for place in own[:2]] == [None, None]
    assert own[2].ahead() == Ahead(0, ("explore", "explore"), own=True)
    assert own[3].ahead() == Ahead(1, ("explore", "explore"), own=True)
    other = stack.enter_context(places.join("lab", BEN, seconds=40))
    assert other.ahead() is None
    assert own[2].ahead() == Ahead(0, ("explore", "explore"), own=True), "it waits for her own alone"
    third = stack.enter_context(places.join("explore", Visitor("carl", "3.3.3.3")))
    assert third.ahead() is None
    late = stack.enter_context(places.join("explore", BEN))
    assert late.ahead() == Ahead(0, ("explore", "explore", "lab", "explore"), 40), (
        "all places are taken; hers wait for her own"
    )


def test_nobody_gives_way_to_one_who_may_not_have_the_place(stack: ExitStack) -> None:
    clock = Clock()
    places = Places(2, clock=clock, most_own=1)
    stack.enter_context(places.join("explore", ANNA))
    measures = stack.enter_context(places.join("lab", BEN, later=True))
    stack.enter_context(places.join("explore", ANNA))
    clock.now = 2 * REST
    assert not measures.wanted()
    stack.enter_context(places.join("explore", Visitor("carl", "3.3.3.3")))
    assert measures.wanted()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


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


def test_the_next_place_goes_to_the_visitor_who_has_used_least() -> None:
    """Ten tabs of one visitor stood before everybody who came after."""
    clock = Clock()
    places = Places(1, clock=clock)
    with ExitStack() as stack:
        first = ExitStack()
        first.enter_context(places.join("explore", ANNA))
        tabs = [stack.enter_context(places.join("explore", ANNA)) for _ in range(10)]
        clock.now = 20
        other = stack.enter_context(places.join("explore", BEN))
        assert other.ahead() == Ahead(0, ("explore",))
        assert [tab.ahead().waiting for tab in tabs] == [*range(1, 11)]
        first.close()
        assert other.ahead() is None


def test_nobody_fills_the_line_alone() -> None:
    """With a line of 64 one visitor's 64 tabs shut everybody else out."""
    places = Places(1, longest=8)
    with ExitStack() as stack:
        stack.enter_context(places.join("explore", ANNA))
        for _ in range(4):
            stack.enter_context(places.join("explore", ANNA))
        with pytest.raises(LineFull) as own:
            stack.enter_context(places.join("explore", ANNA))
        assert (own.value.waiting, own.value.own) == (4, True)
        with pytest.raises(LineFull) as near:  # by another name from the same address, which a stranger makes up
            stack.enter_context(places.join("explore", Visitor("new", ANNA.address)))
        assert not near.value.own
        for n in range(4):
            stack.enter_context(places.join("explore", Visitor(f"{n}", f"{n}")))
        with pytest.raises(LineFull):
            stack.enter_context(places.join("explore", BEN))


def test_who_waits_knows_for_how_long() -> None:
    clock = Clock()
    places = Places(1, clock=clock)
    with ExitStack() as stack:
        stack.enter_context(places.join("explore", ANNA, seconds=40.0))
        next_one = stack.enter_context(places.join("explore", BEN, seconds=20.0))
        last = stack.enter_context(places.join("explore"))
        assert next_one.ahead() == Ahead(0, ("explore",), 40)
        assert last.ahead() == Ahead(1, ("explore",), 60)
        clock.now = 14
        assert next_one.ahead().seconds == 25
        clock.now = 200  # five times as long as it was thought to take
        assert next_one.ahead().seconds is None


def test_what_is_made_may_know_better_how_long_it_still_takes() -> None:
    places = Places(1)
    with places.join("lab", later=True) as measured, places.join("lab") as waits:
        assert waits.ahead().seconds is None
        measured.left = lambda: 7.2
        assert waits.ahead().seconds == 7
        measured.left = lambda: None
        assert waits.ahead().seconds is None


def test_how_long_is_learnt_from_those_before() -> None:
    clock = Clock()
    places = Places(1, clock=clock)
    with places.join("learn"):
        clock.now = 6
    with places.join("learn"), places.join("learn") as waits:
        assert waits.ahead().seconds == 6


@pytest.mark.parametrize(("seconds", "said"), [(0.2, 1), (3.4, 3), (37, 35), (38, 40), (64, 60), (80, 90)])
def test_a_guess_is_said_as_coarsely_as_it_is(seconds: float, said: float) -> None:
    assert rounded(seconds) == said


# --- letting others go before -------------------------------------------------------------------------------------------


def test_a_measurement_lets_a_run_of_explore_go_before_and_has_its_place_again() -> None:
    clock = Clock()
    places = Places(1, clock=clock)
    with places.join("lab", ANNA, later=True) as measured:
        assert list(measured.give_way(never)) == [], "nobody waits"
        with ExitStack() as stack:
            run = stack.enter_context(places.join("explore", BEN))
            assert list(measured.give_way(never)) == [], "it has only just begun"
            clock.now = REST + 1
            states = measured.give_way(never)
            assert next(states) == Ahead(0, ("explore",), gave_way=True)
            assert run.ahead() is None
            assert places.taken() == 1
            clock.now += 3
        assert list(states) == []
        assert measured.ahead() is None
    assert places.now() == (0, 0)


def test_what_gave_way_counts_for_those_behind_it_as_what_is_left_of_it() -> None:
    """It was counted as if it were to begin anew."""
    clock = Clock()
    places = Places(1, clock=clock)
    with places.join("lab", ANNA, later=True, seconds=40.0) as measured:
        clock.now = 30
        with places.join("explore", BEN, seconds=5.0):
            states = measured.give_way(never)
            assert next(states).seconds == 5
            with places.join("lab", ANNA, later=True, seconds=20.0) as behind:
                clock.now = 31
                assert behind.ahead().waiting == 1
                assert behind.ahead().seconds == rounded(4 + 10)


def test_a_run_of_explore_lets_nobody_go_before_and_measurements_not_each_other() -> None:
    clock = Clock()
    places = Places(1, clock=clock)
    with places.join("explore", ANNA) as run, places.join("explore", BEN):
        clock.now = 60
        assert not run.wanted()
    with places.join("lab", ANNA, later=True) as measured, places.join("compare", BEN, later=True):
        clock.now = 120
        assert not measured.wanted()


def test_a_measurement_does_not_rest_for_one_who_has_used_far_more() -> None:
    """One who runs Explore in ten tabs would keep another's comparison from ever going on."""
    clock = Clock()
    places = Places(2, clock=clock)
    with ExitStack() as stack:
        stack.enter_context(places.join("explore", ANNA))
        compared = stack.enter_context(places.join("compare", BEN, later=True))
        stack.enter_context(places.join("explore", ANNA))
        clock.now = REST + 1
        assert compared.wanted(), "both have used a few seconds"
    with places.join("explore", ANNA):
        clock.now += 400
        with places.join("compare", Visitor("new", ""), later=True) as compared, places.join("explore", ANNA):
            clock.now += REST + 1
            assert places._shares.owed(ANNA, clock.now) > LATER + REST + 1
            assert not compared.wanted()


def test_who_rests_and_is_not_wanted_any_more_leaves() -> None:
    clock, gone = Clock(), threading.Event()
    places = Places(1, clock=clock)
    with places.join("lab", later=True) as measured, places.join("explore"):
        clock.now = REST + 1
        states = measured.give_way(gone.is_set)
        next(states)
        gone.set()
        assert list(states) == []
    assert places.now() == (0, 0)


def test_those_that_others_go_before_do_not_take_all_the_places() -> None:
    """Eight measurements at once, each with passes of its own, left a run an eighth of the processor."""
    clock = Clock()
    places = Places(3, longest=2, clock=clock, most_later=1)
    with ExitStack() as stack:
        lab = stack.enter_context(places.join("lab", ANNA, later=True, seconds=30.0))
        waits = stack.enter_context(places.join("compare", BEN, later=True))
        assert lab.ahead() is None
        assert waits.ahead() == Ahead(0, ("lab",), 30.0), "two places are free, and none for it"
        stack.enter_context(places.join("lab", Visitor("cem", "3.3.3.3"), later=True))
        with pytest.raises(LineFull), places.join("lab", ANNA, later=True):
            pass
        runs = [stack.enter_context(places.join("explore")) for _ in range(2)]
        assert [run.ahead() for run in runs] == [None, None], "a free place is theirs, whoever waits"
        assert places.taken() == 3
    with ExitStack() as stack:
        first = ExitStack()
        first.enter_context(places.join("lab", later=True))
        waits = stack.enter_context(places.join("compare", later=True))
        first.close()
        assert waits.ahead() is None
    assert places.taken() == 0


def test_a_measurement_gives_way_to_a_run_and_not_to_another_measurement() -> None:
    clock = Clock()
    places = Places(2, clock=clock, most_later=1)
    with ExitStack() as stack:
        lab = stack.enter_context(places.join("lab", ANNA, later=True))
        stack.enter_context(places.join("compare", BEN, later=True))
        clock.now = REST + 1
        assert not lab.wanted(), "a place is free"
        stack.enter_context(places.join("explore"))
        assert not lab.wanted(), "only a measurement waits"
        stack.enter_context(places.join("explore"))
        assert lab.wanted()


def test_who_waits_while_every_place_is_taken_waits_for_those_that_can_make_room() -> None:
    """A measurement behind another was told the time of the runs, which make no room for it; a run, that of the measurement it passes."""
    clock = Clock()
    places = Places(3, clock=clock, most_later=1)
    with ExitStack() as stack:
        stack.enter_context(places.join("lab", ANNA, later=True, seconds=600.0))
        for _ in range(2):
            stack.enter_context(places.join("explore", seconds=10.0))
        waits = stack.enter_context(places.join("lab", BEN, later=True, seconds=300.0))
        clock.now = 90  # it has waited for so long that nobody's rank is better
        run = stack.enter_context(places.join("explore", seconds=10.0))
        assert waits.ahead() == Ahead(0, ("lab",), 510.0)
        assert run.ahead().waiting == 0


def test_who_rests_has_no_place_and_waits_for_one_anew() -> None:
    places, pressed = Places(1), threading.Event()
    with places.join("teach", later=True) as teach:
        with places.join("lab") as waiting:
            states = teach.step_aside(pressed.is_set, never)
            pressed.set()
            ahead = next(states)
            assert (ahead.running, ahead.gave_way) == (("lab",), True)
            assert waiting.ahead() is None, "it has the place meanwhile"
        assert list(states) == [], "and leaves it"
        assert places.taken() == 1
        assert list(teach.step_aside(never, lambda: True)) == [], "who ends while it rests waits for nothing"
    assert places.taken() == 0
    assert list(teach.step_aside(never, never)) == [], "who has none gives none up"


# --- memory that all share ----------------------------------------------------------------------------------------------


def test_what_does_not_fit_beside_what_runs_waits_for_memory_and_others_go_meanwhile() -> None:
    clock = Clock()
    places = Places(4, clock=clock, share=10)
    with ExitStack() as stack:
        first = ExitStack()
        first.enter_context(places.join("lab", ANNA, seconds=30.0, need=6))
        large = stack.enter_context(places.join("explore", BEN, need=5))
        assert large.ahead() == Ahead(0, ("lab",), 30, memory=True), "three places are free"
        small = stack.enter_context(places.join("learn", need=4))
        bare = stack.enter_context(places.join("ttt"))
        assert (small.ahead(), bare.ahead()) == (None, None)
        first.close()
        assert large.ahead() is None, "five and four of ten"
    assert places.now() == (0, 0)


def test_when_there_will_be_enough_memory_is_told_by_those_that_end_first() -> None:
    places = Places(4, clock=Clock(), share=10)
    with ExitStack() as stack:
        for seconds, need in ((20.0, 1), (40.0, 4), (90.0, 4)):
            stack.enter_context(places.join("explore", seconds=seconds, need=need))
        waits = stack.enter_context(places.join("explore", need=5))
        assert waits.ahead() == Ahead(0, ("explore",) * 3, 40, memory=True)
        assert stack.enter_context(places.join("lab", need=9)).ahead().seconds is None, "somebody is before it"


def test_what_runs_alone_has_memory_however_much_it_needs() -> None:
    places = Places(3, share=10)
    with places.join("explore", need=50) as huge, places.join("lab", need=1) as other, places.join("ttt") as bare:
        assert huge.ahead() is None
        assert other.ahead().memory
        assert bare.ahead() is None
    with places.join("ttt") as bare, places.join("explore", need=50) as huge:
        assert (bare.ahead(), huge.ahead()) == (None, None), "beside what needs none"
    assert places.taken() == 0


def test_what_was_passed_often_enough_is_passed_no_more() -> None:
    """Small ones that come one after the other would keep a large one waiting for ever."""
    clock = Clock()
    places = Places(8, clock=clock, share=10)
    with ExitStack() as stack:
        ends = [ExitStack() for _ in range(2)]
        for end in ends:
            end.enter_context(places.join("explore", need=3))
        large = stack.enter_context(places.join("explore", BEN, need=8))
        for turn in range(PASSED):
            clock.now += 1
            ends.append(ExitStack())
            small = ends[-1].enter_context(places.join("explore", need=3))
            assert small.ahead() is None, "they fit, and it does not"
            ends.pop(0).close()
            assert large.ahead().memory, turn
        clock.now += 1
        late = stack.enter_context(places.join("explore", need=1))
        assert late.ahead() == Ahead(1, ("explore",) * 2, memory=True), "what is left is kept for the large one"
        bare = stack.enter_context(places.join("explore"))
        assert bare.ahead() is None, "which takes none of it"
        ends.pop(0).close()
        assert large.ahead().memory
        ends.pop(0).close()
        assert (large.ahead(), late.ahead()) == (None, None)
    assert places.now() == (0, 0)


def test_who_waits_for_memory_and_leaves_keeps_it_from_nobody() -> None:
    clock = Clock()
    places = Places(8, clock=clock, share=10)
    with ExitStack() as stack:
        stack.enter_context(places.join("explore", need=5))
        with places.join("explore", BEN, need=9) as large:
            large.passed = PASSED
            clock.now = 1
            late = stack.enter_context(places.join("explore", need=1))
            assert late.ahead().memory
        assert late.ahead() is None


def test_the_line_for_memory_has_an_end_though_places_are_free() -> None:
    places = Places(8, longest=2, share=10)
    with ExitStack() as stack:
        stack.enter_context(places.join("explore", need=9))
        for _ in range(2):
            stack.enter_context(places.join("explore", need=9))
        with pytest.raises(LineFull), places.join("explore", need=9):
            pass
        assert stack.enter_context(places.join("explore", need=1)).ahead() is None, "which need not wait"


def test_a_measurement_that_gives_way_keeps_its_memory_and_gives_way_to_what_fits_beside_it() -> None:
    clock = Clock()
    places = Places(1, clock=clock, share=10)
    with places.join("lab", ANNA, later=True, need=6) as measured:
        clock.now = REST + 1
        with places.join("explore", BEN, need=5) as large:
            assert not measured.wanted(), "it would not fit beside what this holds"
            with places.join("explore", Visitor("cem", "3.3.3.3"), need=4) as small:
                states = measured.give_way(never)
                assert next(states).gave_way
                assert (small.ahead(), large.ahead().waiting) == (None, 0)
            assert list(states) == [], "its place again, for memory it has"
            assert measured.ahead() is None
    assert places.now() == (0, 0)


def test_who_rests_aside_and_ends_there_leaves_its_memory() -> None:
    def ended() -> bool:
        raise RuntimeError

    places = Places(2, share=10)
    with ExitStack() as stack:
        aside = stack.enter_context(ExitStack())
        teach = aside.enter_context(places.join("teach", later=True, need=6))
        waits = stack.enter_context(places.join("lab", need=5))
        with pytest.raises(RuntimeError):
            list(teach.step_aside(ended, never))
        assert places.taken() == 0
        assert waits.ahead().memory, "it computes nothing, and has what it holds"
        aside.close()
        assert waits.ahead() is None
