"""Moving through a finished run: forward by edits, back by a snapshot, and always what the run looked like there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from loopviz.app.explore import replay, snapshot
from loopviz.app.explore.run import Run, messages
from loopviz.app.profile import LOCAL
from loopviz.app.sessions.messages import dumps
from loopviz.panels import PANELS, Focus, apply, figure_json
from loopviz.trace import Trace
from tests.app.page_double import unpack
from tests.trace.synthetic import make_meta, random_trace

PLACE: dict[str, Any] = {"run": "r", "epoch": 3, "end": "length"}


def as_sent(answer: dict[str, Any]) -> dict[str, Any]:
    return json.loads(dumps(answer))


def whole(trace: Trace, tokens: int, focus: Focus) -> dict[str, Any]:
    """The figures of the first tokens of a trace, made without any of the code under test."""
    begun = Trace(trace.meta, trace.frames[:tokens])
    return as_sent({name: panel.data(begun, focus) for name, panel in PANELS.items()})


def bare(value: Any) -> Any:
    """JSON without what says nothing: plotly drops entries that are None, and then empty."""
    if isinstance(value, dict):
        kept = {key: bare(entry) for key, entry in value.items()}
        return {key: entry for key, entry in kept.items() if entry not in (None, {}, [])}
    return [bare(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("focus", [Focus(), Focus(token=2, step=1, pins=(1, 3)), Focus(token=99, lang="zh")])
def test_what_is_drawn_without_checks_is_what_plotly_accepts(name: str, focus: Focus) -> None:
    for trace in (random_trace(20, 8), Trace(make_meta()), random_trace(21, 5, blocks=[])):
        checked = figure_json(PANELS[name].figure(trace, focus))
        assert bare(as_sent(PANELS[name].data(trace, focus))) == bare(as_sent(checked))


@settings(max_examples=15, deadline=None)
@given(
    hs.integers(0, 5000),
    hs.sampled_from(["fixed_count", "dynamic_stop"]),
    hs.integers(0, 14),
    hs.integers(0, 14),
    hs.booleans(),
    hs.sampled_from([None, 0, 4]),
)
def test_edits_lead_from_one_place_to_the_other(
    seed: int, strategy: str, one: int, other: int, split: bool, token: int | None
) -> None:
    trace = random_trace(seed, 12, strategy=strategy)
    first, last = sorted((one, other))
    focus = Focus(token=token)
    shown = as_sent(replay.snapshot(trace, focus, PANELS, **PLACE, shown=first))
    answer = as_sent(replay.advance(trace, focus, PANELS, **PLACE, first=first, last=last, split=split))
    figures, rows = shown["figures"], shown["tokens"]
    at = shown["seq"]
    for step in answer["steps"]:
        assert step["first"] == at
        assert not split or step["last"] == at + 1
        for name, ops in step["ops"].items():
            apply(figures[name], unpack(ops))
        rows, at = rows + step["tokens"], step["last"]
        assert step["next"] == snapshot.next_text(snapshot.until(trace, at))
    assert at == min(last, len(trace))
    assert figures == {name: made for name, made in whole(trace, at, focus).items() if name in figures}
    assert rows == as_sent({"rows": [snapshot.token_row(frame) for frame in trace.frames[:at]]})["rows"]
    assert answer["epoch"] == PLACE["epoch"], "the edits fit the figures that are there"


def test_back_is_a_snapshot_of_another_epoch() -> None:
    trace = random_trace(1, 10)
    answer = as_sent(replay.advance(trace, Focus(), PANELS, **PLACE, first=8, last=3))
    assert (answer["kind"], answer["seq"], answer["total"], answer["epoch"]) == ("snapshot", 3, len(trace), 4)
    assert answer["figures"].items() <= whole(trace, 3, Focus()).items()
    assert answer["next"] == trace.frames[2]["next_text"]


@pytest.mark.parametrize(("first", "last"), [(-5, 10**9), (10**9, 10**9), (0, 0)])
def test_places_beyond_the_run_are_its_ends(first: int, last: int) -> None:
    trace = random_trace(2, 9)
    answer = replay.advance(trace, Focus(), PANELS, **PLACE, first=first, last=last)
    assert answer["kind"] == "steps"
    assert answer["steps"][-1]["last"] == min(last, len(trace))


def test_one_answer_is_bounded() -> None:
    trace = random_trace(3, 60)
    answer = replay.advance(trace, Focus(), PANELS, **PLACE, first=0, last=10**6, split=True)
    assert len(answer["steps"]) == LOCAL.answer_messages < len(trace)


def test_a_run_still_made_cannot_be_moved_through() -> None:
    trace = random_trace(4, 8)
    run = Run(trace.meta, PANELS)
    for frame in trace.frames[:5]:
        run.add(frame)
    assert run.advance(0, 2)["seq"] == 5
    assert run.look(Focus(), shown=2)["seq"] == 5


def test_a_finished_run_is_looked_at_where_the_visitor_is() -> None:
    trace = random_trace(5, 8)
    run = Run(trace.meta, PANELS)
    list(messages(run, iter(trace.frames)))
    answer = as_sent(run.look(Focus(token=1), shown=3))
    assert (answer["seq"], answer["total"]) == (3, 8)
    assert answer["figures"].items() <= whole(trace, 3, Focus(token=1)).items()
    assert run.look(Focus())["seq"] == 8


def test_panels_that_are_off_are_not_drawn_and_may_be_turned_on_later() -> None:
    trace = random_trace(6, 6)
    name = next(iter(snapshot.drawable(trace, PANELS)))
    run = Run(trace.meta, {})
    for frame in trace.frames[:3]:
        run.add(frame)
    assert run.snapshot()["figures"] == {}
    answer = as_sent(run.look(Focus(), {name: PANELS[name]}))
    for frame in trace.frames[3:]:
        run.add(frame)
    message = as_sent(run.frames_message())
    assert message["ops"].keys() <= {name}
    apply(answer["figures"][name], unpack(message["ops"].get(name, [])))
    assert answer["figures"][name] == whole(trace, 6, Focus())[name]


class _Needy:
    """A panel that needs what no run records unless asked."""

    NEEDS = ("exit",)

    def data(self, trace: Trace, focus: Focus) -> Any:
        raise AssertionError("drawn without what it needs")

    patch = summary = data


def test_a_panel_whose_data_was_not_recorded_is_left_to_the_page() -> None:
    meta = make_meta()
    meta["settings"].pop("extras", None)
    trace = Trace(meta, random_trace(7, 4).frames)
    shown = replay.snapshot(trace, Focus(), {"needy": _Needy()}, **PLACE)
    assert (shown["figures"], shown["summaries"], shown["extras"]) == ({}, {}, [])
    assert replay.advance(trace, Focus(), {"needy": _Needy()}, **PLACE, first=0, last=4)["steps"][0]["ops"] == {}


def test_what_could_come_next_is_the_models_own_distribution() -> None:
    """A6: not a lens of the loop, which names words the model would never have said."""
    trace = random_trace(8, 6, extras=("exit",))
    assert snapshot.alternatives(trace, Focus()) is None
    frame = trace.frames[2]
    found = snapshot.alternatives(trace, Focus(token=2))
    assert [row[0] for row in found["rows"][:5]] == frame["next_topk_texts"]
    assert [row[1] for row in found["rows"][:5]] == pytest.approx(frame["next_topk_logprobs"], abs=1e-4)
    assert found["said"] == frame["next_text"]
    assert snapshot.alternatives(trace, Focus(token=99)) is None
    assert snapshot.alternatives(random_trace(9, 4, blocks=[]), Focus(token=1))["rows"], "a plain Llama has one as well"
    assert snapshot.alternatives(random_trace(9, 4, record="off"), Focus(token=1)) is None


def test_the_word_that_came_is_among_those_that_could_come_next() -> None:
    for seed in range(20):
        trace = random_trace(seed, 3)
        rows, frame = snapshot.alternatives(trace, Focus(token=1))["rows"], trace.frames[1]
        assert sum(came for *_, came in rows) == 1
        assert len(rows) == 5 + (frame["next_id"] not in frame["next_topk_ids"])
        if frame["next_id"] not in frame["next_topk_ids"]:
            assert rows[-1] == [frame["next_text"], round(frame["next_logprob"], 4), True]


@pytest.mark.parametrize(
    ("block", "extras", "prefix"), [((4, 5), (), ""), ((1, 2), ("exit",), "exit_"), ((1, 2), (), None)]
)
def test_what_could_come_next_in_an_older_file_is_shown_only_where_it_is_the_models_own(block, extras, prefix) -> None:
    trace = random_trace(8, 3, blocks=[block], extras=extras)
    trace.frames[1].update(next_topk_ids=[], next_topk_logprobs=[], next_topk_texts=[])
    found = snapshot.alternatives(trace, Focus(token=1))
    if prefix is None:
        assert found is None
    else:
        assert [row[0] for row in found["rows"][:5]] == trace.frames[1]["blocks"][0]["steps"][f"{prefix}topk_texts"][-1]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_run_s_settings_are_told_in_a_line(lang: str) -> None:
    lines = {
        snapshot.about(make_meta(strategy=strategy, kv_mode=mode, slots=slots, blocks=blocks), lang)
        for strategy in ("fixed_count", "dynamic_stop")
        for mode, slots in (("virtual_layers", 1), ("virtual_layers", 3), ("merge_strategy", 1))
        for blocks in ([], [(2, 3)], [(0, 1), (3, 4)])
    }
    assert len(lines) == 6 * 2 + 1, "each says something else, but for those without a loop"


def test_a_word_keeps_its_colour_while_a_run_is_replayed() -> None:
    trace = random_trace(5, 9, strategy="dynamic_stop", max_steps=9)
    palettes = [replay.snapshot(trace, Focus(), {}, **PLACE, shown=n)["palette"] for n in (1, 4, 9)]
    assert palettes[0] == palettes[1] == palettes[2] == snapshot.palette(trace)
    assert len([colour for colour in palettes[0] if colour]) > 1
