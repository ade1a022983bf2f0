"""A panel's follower: works every token out once, starts afresh when the reader moves, forgets traces that are gone."""

from __future__ import annotations

import gc

import pytest

from loopviz.panels import PANELS, Focus, passing
from loopviz.panels.kit import follower as shared
from loopviz.panels.kit.follower import Follower
from loopviz.trace import Trace
from tests.panels.cases import looped


def followed(follower, trace, focus, asked):
    def chosen(count, frame):
        asked.append(count)
        return {("layout", "title", "text"): None if frame is None else (frame["index"], focus.lang)}

    return follower.patch(trace, trace.coming, focus, chosen)


def test_every_token_is_worked_out_once_while_the_newest_is_followed():
    whole, follower, asked = looped(6), Follower(), []
    trace = Trace(whole.meta)
    for frame in whole.frames:
        trace.coming = frame
        (op,) = followed(follower, trace, Focus(), asked)
        assert op["value"] == (frame["index"], "en")
        trace.append(frame)
    assert asked == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("moved", [Focus(lang="zh"), Focus(block=1)])
def test_another_focus_starts_from_its_own_figure(moved):
    whole, follower, asked = looped(3), Follower(), []
    trace = Trace(whole.meta)
    for frame, focus in zip(whole.frames, (Focus(), Focus(), moved), strict=True):
        trace.coming = frame
        followed(follower, trace, focus, asked)
        trace.append(frame)
    assert asked == [0, 1, 2, 2, 3]


def test_a_fixed_selection_brings_nothing_once_it_is_there():
    whole, follower, asked = looped(5), Follower(), []
    trace, got = Trace(whole.meta), []
    for frame in whole.frames:
        trace.coming = frame
        got.append([op["value"] for op in followed(follower, trace, Focus(token=2), asked)])
        trace.append(frame)
    assert got == [[], [], [(2, "en")], [], []]


def test_nothing_is_kept_of_a_trace_that_is_gone():
    whole, follower = looped(2), Follower()
    trace = Trace(whole.meta)
    trace.coming = whole.frames[0]
    followed(follower, trace, Focus(), [])
    assert follower._kept
    del trace
    gc.collect()
    assert not follower._kept


def test_frames_sent_together_are_worked_out_once():
    whole, follower, asked = looped(6), Follower(), []
    trace, got = Trace(whole.meta), []
    for frame in whole.frames:
        trace.coming = frame
        with passing(frame["index"] not in (1, 5)):
            got.append([op["value"] for op in followed(follower, trace, Focus(), asked)])
        trace.append(frame)
    assert got == [[], [(1, "en")], [], [], [], [(5, "en")]]
    assert asked == [0, 2, 6]


@pytest.mark.parametrize(
    ("blocks", "extras", "block", "chosen", "lens"),
    [
        ([(2, 3)], (), 0, None, "direct"),
        ([(2, 3)], ("exit",), 0, None, "exit"),
        ([(2, 3)], ("exit",), 0, "direct", "direct"),
        ([(2, 3)], (), 0, "exit", "exit"),
        ([(2, 5)], (), 0, None, "same"),
        ([(2, 5)], ("exit",), 0, "exit", "same"),
        ([(0, 1), (3, 4)], ("exit",), 0, None, "direct"),
        ([(0, 1), (3, 4)], ("exit",), 1, None, "exit"),
    ],
)
@pytest.mark.parametrize("name", ["would_say", "text_by_loop"])
def test_words_are_read_through_the_true_lens_and_it_is_named(name, blocks, extras, block, chosen, lens):
    """A6: what the model would really say wherever that is known, unless a reader chooses otherwise."""
    trace, focus = looped(blocks=blocks, extras=extras), Focus(block=block, lens=chosen)
    assert shared.lens_of(trace.meta, focus) == lens
    figure, silent = PANELS[name].data(trace, focus), chosen == "exit" and not extras and lens == "exit"
    choice = figure["layout"]["meta"]["choices"]["lens"]
    assert choice["value"] in [value for value, _ in choice["options"]]
    assert ("act" in figure["layout"]["meta"]) == silent, "a button that runs again with the lens, where it is lacking"
    if not silent:
        assert shared.lens_name(trace.meta, focus) in figure["layout"]["title"]["text"]
        assert shared.lens_name(trace.meta, focus) in PANELS[name].summary(trace, focus)


def test_where_no_layer_follows_the_block_there_is_no_lens_to_choose():
    figure = PANELS["would_say"].data(looped(blocks=[(2, 5)]), Focus())
    assert len(figure["layout"]["meta"]["choices"]["lens"]["options"]) == 1
