"""Every word and number a panel prints: of any trace none is empty of meaning, and each is the trace's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopviz.figures import labels
from loopviz.panels import LANGUAGES, PANELS, Focus
from loopviz.panels.kit import follower
from loopviz.trace import Trace
from tests.panels.cases import focuses, looped, wild_traces

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# what a number that is none looks like, a zero below zero, and one of many
EMPTY = re.compile(r"\b(None|nan|NaN|inf|Infinity|undefined undefined|null)\b|[{}]")
MINUS_ZERO = re.compile(r"(?<![\w.])[-−]0(?:\.0+)?(?![\d.])")
ONE_OF_MANY = re.compile(
    r"(?<![\d.,–]) ?1 (generated )?(tokens|loops|loop steps|words|times(?!,| the bytes)|layer passes|texts)\b"
)


def walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every text and number of a figure, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from walk(inner, (*path, i))
    else:
        yield path, value


def plainly_named(trace: Trace) -> Trace:
    """The trace with tokens that cannot be mistaken for what is looked for."""
    for frame in trace.frames:
        frame["text"], frame["next_text"] = f" w{frame['index']}", f" w{frame['index'] + 1}"
        frame["next_topk_texts"] = [f" k{i}" for i in range(len(frame["next_topk_texts"]))]
        for block in frame["blocks"]:
            for name in ("topk_texts", "exit_topk_texts"):
                block["steps"][name] = [[f" t{i}" for i in range(len(row))] for row in block["steps"][name]]
            block["stop_reason"] = {"<i>": "acceleration"}.get(block["stop_reason"], block["stop_reason"])
    return trace


@pytest.mark.parametrize("name", PANELS)
@relaxed
@given(trace=wild_traces(), focus=focuses)
def test_no_panel_prints_what_is_no_word_and_no_number(name: str, trace: Trace, focus: Focus) -> None:
    """Kind 8: summaries, titles, hover texts; no None, no nan, no zero below zero, no "1 loops"."""
    trace, panel = plainly_named(trace), PANELS[name]
    figure, said = panel.data(trace, focus), panel.summary(trace, focus)
    assert json.dumps(figure, allow_nan=False)
    for path, value in [*walk(figure), (("summary",), said)]:
        if isinstance(value, float):
            assert value != 0 or math.copysign(1, value) > 0, (path, "a zero below zero")
        if not isinstance(value, str) or "template" in path or "formula" in path:
            continue
        if "hovertemplate" not in path and "texttemplate" not in path:
            assert not EMPTY.search(value), (path, value)
        assert not MINUS_ZERO.search(value), (path, value)
        if focus.lang == "en":
            assert not ONE_OF_MANY.search(value), (path, value)


def numbers(pattern: str, said: str) -> tuple[str, ...]:
    found = re.search(pattern, said)
    assert found, (pattern, said)
    return found.groups()


@relaxed
@given(trace=wild_traces(), token=st.integers(0, 8), block=st.integers(0, 1))
def test_what_a_summary_counts_is_what_the_trace_holds(trace: Trace, token: int, block: int) -> None:
    trace = plainly_named(trace)
    if token >= len(trace) or block >= len(trace.meta["blocks"]):
        return
    focus = Focus(token=token, block=block)
    frame, said = trace.frames[token], {name: panel.summary(trace, focus) for name, panel in PANELS.items()}
    ran = frame["blocks"][block]
    counts = [other["blocks"][block]["n_steps"] for other in trace.frames]
    for name in ("convergence", "token_loop_map", "loops_per_token", "state_trajectory"):
        if name in ("convergence", "state_trajectory") and "stopped by" not in said[name]:
            continue  # not recorded, or axes that wait for more states
        assert numbers(r"token (\d+) “", said[name]) == (str(token),)
        assert numbers(r"(\d+) loops?(?: steps?)?, stopped by", said[name]) == (str(ran["n_steps"]),)
    pattern = r"(\d+) tokens? took ([\d.]+) loop steps on average, from (\d+) to (\d+)"
    mean = f"{sum(counts) / len(counts):.2f}"
    assert numbers(pattern, said["loops_per_token"]) == (str(len(trace)), mean, str(min(counts)), str(max(counts)))
    pattern = r"for (\d+) tokens? in .*loops per token from (\d+) to (\d+), ([\d.]+) on average"
    assert numbers(pattern, said["token_loop_map"]) == (str(len(trace)), str(min(counts)), str(max(counts)), mean)
    for size in ("used", "allocated", "plain", "unrolled"):
        assert labels.show_bytes(frame["kv"][f"bytes_{size}"]) in said["kv_occupancy"]
    assert numbers(r"of the (\d+) tokens? read", said["kv_occupancy"]) == (str(token + 1),)
    ids = follower.said(ran, follower.lens_of(trace.meta, focus)).ids
    if any(ids):
        flips = sum(one[:1] != other[:1] for one, other in pairwise(ids))
        assert numbers(r"It changes (\d+) times?", said["would_say"]) == (str(flips),)


@pytest.mark.parametrize(
    ("template", "values", "said"),
    [
        ("{steps} loops, stopped", {"steps": 1}, "1 loop, stopped"),
        ("{steps} loops, stopped", {"steps": 11}, "11 loops, stopped"),
        ("{mean} loops a token", {"mean": "2.1"}, "2.1 loops a token"),
        ("{tokens} tokens took {n} loop steps", {"tokens": "1", "n": 2}, "1 token took 2 loop steps"),
        ("{saved} of {all} layer passes", {"saved": 1, "all": "1"}, "1 of 1 layer pass"),
        ("“{text}” {n} times", {"text": "1 loops", "n": 1}, "“1 loops” 1 time"),
        ("循环 {n} 步", {"n": 1}, "循环 1 步"),
    ],
)
def test_one_of_a_thing_is_said_in_the_singular(template: str, values: dict[str, Any], said: str) -> None:
    assert labels.fill(template, **values) == said


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(("ids", "key"), [([1, 1, 1], "always"), ([1, 2, 2], "since"), ([1, 1, 2], None), ([1], None)])
def test_since_when_a_word_has_been_ahead(lang: str, ids: list[int], key: str | None) -> None:
    """ "As since step 1" was said of a word that never changed."""
    trace = looped(4, max_steps=6)
    block = trace.frames[3]["blocks"][0]
    block["n_steps"] = len(ids)
    block["steps"] |= {
        "topk_ids": [[one, 9] for one in ids],
        "topk_texts": [[f" {one}", " x"] for one in ids],
        "topk_logprobs": [[-0.5, -1.5] for _ in ids],
    }
    words = PANELS["would_say"].TEXTS[lang]
    title = PANELS["would_say"].data(trace, Focus(lang=lang))["layout"]["title"]["text"]
    assert (words["always"] in title) == (key == "always")
    assert (words["since"].format(step=2) in title) == (key == "since")


@pytest.mark.parametrize("name", PANELS)
def test_what_a_panel_says_instead_of_a_figure_fits_a_phone(name: str) -> None:
    """Whatever marks it holds: a sentence with “quotes” was left in one line, and cut."""
    for trace, focus in (
        (Trace(looped().meta), Focus()),
        (looped(record="off", extras=()), Focus(lens="exit")),
        (looped(blocks=[]), Focus()),
        (looped(), Focus(block=3)),
        (looped(), Focus(token=99)),
    ):
        notice = PANELS[name].data(trace, focus)["layout"]["annotations"][0]
        assert all(labels.columns(labels.plain(line)) <= 36 for line in notice["text"].split("<br>")), notice["text"]
