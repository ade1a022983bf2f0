"""The strip and the ring: the law of panels, numbers that are the trace's, and what a token may cost on the wire."""

from __future__ import annotations

import copy
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopviz.figures.labels import sig
from loopviz.panels import Focus, apply, hero, passing
from loopviz.panels.hero import strip
from loopviz.panels.kit import follower
from loopviz.trace import Trace, blocks_at
from tests.panels.cases import focuses, looped, wild_traces, wire_size
from tests.trace.synthetic import change_loop, make_meta, random_frames, random_trace

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def fold(trace: Trace, focus: Focus, together: int = 1) -> dict:
    shown, grown = hero.data(Trace(trace.meta), focus), Trace(trace.meta)
    for i, frame in enumerate(trace.frames):
        with passing((i + 1) % together > 0 and i + 1 < len(trace)):
            apply(shown, json.loads(json.dumps(hero.patch(grown, frame, focus), allow_nan=False)))
        grown.append(frame)
    return shown


@relaxed
@given(trace=wild_traces(), focus=focuses, together=st.integers(1, 4))
def test_folding_patches_gives_the_whole(trace, focus, together):
    before = copy.deepcopy(trace.frames)
    assert fold(trace, focus, together) == hero.data(trace, focus)
    assert trace.frames == before


@pytest.mark.parametrize("focus", [Focus(), Focus(token=5), Focus(token=13)], ids=["newest", "fixed", "later"])
def test_the_law_holds_across_a_change_of_the_loop(focus):
    trace = looped(tokens=1)
    change_loop(trace.meta, 7, max_steps=20, count=20, kl_threshold=1e-5)
    change_loop(trace.meta, 12, max_steps=2, count=2, strategy="fixed_count")
    changed = Trace(trace.meta, random_frames(5, trace.meta, 16))
    assert fold(changed, focus) == hero.data(changed, focus)


def numbers_of(trace: Trace, focus: Focus) -> tuple[dict, dict, dict]:
    """The strip, the frame and the block it is about."""
    at = focus.selected(len(trace))
    frame = trace.frames[at]
    return hero.data(trace, focus), frame, frame["blocks"][focus.block]


@relaxed
@given(trace=wild_traces(), focus=focuses)
def test_every_cell_is_what_the_trace_has(trace, focus):
    at = focus.selected(len(trace))
    if at is None or focus.block >= len(trace.frames[at]["blocks"]):
        return
    shown, _, block = numbers_of(trace, focus)
    count = block["n_steps"]
    steps = shown["steps"] or list(range(1, count + 1))
    assert len(steps) <= max(16, count if shown["silent"] else 0)
    assert len(shown["says"]) in (0, len(steps))
    assert len(shown["moved"]) == len(steps)
    assert shown["token"] == at
    assert shown["why"] == block["stop_reason"]
    if not count:
        assert steps == [0]
        return
    said, word = follower.said(block, follower.lens_of(trace.meta, focus)), None
    for cell, step in enumerate(steps):
        column = block["steps"][shown["measure"]]
        value = column[step - 1] if column else None
        if shown["measure"] == "cosine" and value is not None:
            value = 1 - value
        assert shown["moved"][cell] == sig(value, 2)
        if not shown["says"]:
            continue
        word = shown["says"][cell] if shown["says"][cell] is not None else word
        assert word == said.texts[step - 1][0] or said.ids[step - 1][0] == said.ids[steps[cell - 1] - 1][0]
        assert abs(shown["p"][cell] / 100 - math.exp(said.logprobs[step - 1][0])) <= 0.005


def ran(count: int, **meta) -> Trace:
    described = make_meta(strategy="dynamic_stop", max_steps=count, floor=count, prompt_tokens=1, **meta)
    return Trace(described, random_frames(3, described, 3))


def test_of_many_loops_the_first_the_last_and_the_changes_have_cells():
    trace = ran(64)
    shown, _, block = numbers_of(trace, Focus(token=2))
    assert len(shown["steps"]) == 16
    assert {1, 64} <= set(shown["steps"])
    assert block["n_steps"] == 64


def test_a_word_of_its_own_pass_is_settled_by_its_own_number():
    trace = looped(tokens=8)
    for frame in trace.frames[4:]:
        shown, _, block = numbers_of(trace, Focus(token=frame["index"]))
        assert shown["settled"] == sig(block["steps"][shown["measure"]][-1], strip.DIGITS[shown["measure"]])
        spec = blocks_at(trace.meta, frame["index"])[0]
        assert shown["limit"] == sig(spec[f"{shown['measure']}_threshold"], strip.DIGITS[shown["measure"]])


def test_a_prompt_s_words_are_settled_by_the_mean_of_their_pass_and_only_the_last_says_it():
    trace = random_trace(4, 6, strategy="dynamic_stop", max_steps=3, floor=3, prompt_tokens=4)
    for frame in trace.frames:
        frame["blocks"][0]["stop_reason"] = "kl"
    assert [hero.data(trace, Focus(token=t))["settled"] for t in range(3)] == [None] * 3
    mean = math.fsum(frame["blocks"][0]["steps"]["kl"][-1] for frame in trace.frames[:4]) / 4
    assert hero.data(trace, Focus(token=3))["settled"] == sig(mean, 3)


def test_a_plain_model_says_what_it_says():
    trace = random_trace(4, 6, blocks=[])
    shown = hero.data(trace, Focus())
    assert shown["steps"] == [0]
    assert shown["says"] == [trace.frames[-1]["next_topk_texts"][0]]
    assert shown["silent"] == shown["why"] == ""
    assert hero.stack(trace.meta) == {"layers": 6, "blocks": []}


def test_words_that_were_not_recorded_are_said_to_be_missing():
    trace = random_trace(4, 6, record="off")
    for lang in ("en", "zh"):
        shown = hero.data(trace, Focus(lang=lang))
        assert shown["silent"]
        assert shown["says"] == []


def test_the_exit_lens_is_read_where_it_was_recorded():
    trace = random_trace(4, 6, extras=("exit",))
    shown, _, block = numbers_of(trace, Focus())
    assert shown["lens"] == "exit"
    assert shown["says"][0] == block["steps"]["exit_topk_texts"][0][0]


def test_a_token_costs_at_most_300_bytes():
    """Issue 13: the hero costs <= 300 B a token, on average over a run that stops by itself; following the newest."""
    sizes = []
    for count in (1, 2, 5, 8):
        trace = looped(tokens=60, max_steps=count, prompt_tokens=4)
        grown = Trace(trace.meta)
        for frame in trace.frames:
            sizes.append(wire_size(hero.patch(grown, frame, Focus())))
            grown.append(frame)
    assert sum(sizes) / len(sizes) <= 300
    assert max(sizes) <= 700


def test_every_key_is_of_the_empty_one():
    assert set(hero.data(looped(tokens=3), Focus())) == set(strip._EMPTY)
