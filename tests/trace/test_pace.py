"""Tokens a second: one definition, by the clock of the run itself."""

from __future__ import annotations

import time

import pytest

from loopviz.engine import Steering, StreamSettings, stream, summarize
from loopviz.trace import Trace
from loopviz.trace.pace import Pace, Sharing, sharing_of, tokens_per_second
from tests.engine import tiny
from tests.trace.synthetic import make_meta, random_trace


def test_the_time_from_the_prompts_pass_to_the_last_token_counts():
    trace = random_trace(1, 9, prompt_tokens=4)
    for frame in trace.frames:
        frame["wall_ms"] = 500.0 if frame["phase"] == "prompt" else 500.0 + 100 * (frame["index"] - 3)
    assert tokens_per_second(trace.frames) == pytest.approx(10)
    assert tokens_per_second(trace.frames[:4]) is None, "nothing was generated yet"
    assert tokens_per_second([]) is None
    assert summarize(trace).tokens_per_second == tokens_per_second(trace.frames)


def test_a_file_without_the_clock_has_no_rate():
    trace = random_trace(1, 9)
    for frame in trace.frames:
        frame["wall_ms"] = None
    assert tokens_per_second(trace.frames) is None
    assert Pace(5.0, 2, 5.0).rate is None, "no time has passed"


def run(clock, between=lambda token: None, tokens=12, stop_after=None):
    """A run under a clock that a test turns, whose consumer does something after every frame."""
    model, tokenizer, steering = tiny.model(seed=1, loop_layers=(1, 2), loop_count=3), tiny.tokenizer(), Steering()
    settings = StreamSettings(max_new_tokens=tokens)
    trace = Trace(make_meta())
    for frame in stream(model, tokenizer, "Once upon a time", settings, steering=steering):
        trace.append(frame)
        if len(trace) >= frame["pass_tokens"]:
            clock[0] += 0.05  # what each token takes, all in all
        between(steering)
        if stop_after is not None and len(trace) == stop_after:
            break
    return trace


def test_messages_live_changes_and_stop_do_not_change_it(monkeypatch):
    """A4: 198 tokens/s were shown of a run of 11.5, for the page's clock stood still while something was said."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    quiet = tokens_per_second(run(clock).frames)
    assert quiet == pytest.approx(20)
    changed = run(clock, lambda steering: steering.set_loop(loop_count=2))
    assert changed.frames[-1]["blocks"][0]["n_steps"] == 2
    assert tokens_per_second(changed.frames) == pytest.approx(quiet)
    prompt = changed.frames[0]["pass_tokens"]
    assert tokens_per_second(run(clock, stop_after=prompt + 5).frames) == pytest.approx(quiet)


def test_the_page_and_the_cost_panel_say_what_the_trace_says():
    """The page's script computes it from the rows it is sent; the panel and the summary from the frames."""
    from loopviz.app.explore.snapshot import token_row
    from loopviz.panels import PANELS, Focus

    trace = random_trace(1, 9, prompt_tokens=4)
    rows = [token_row(frame) for frame in trace.frames]
    generated = [row for row in rows if not row[3]]
    rate = 1000 * len(generated) / (rows[-1][5] - rows[len(rows) - len(generated) - 1][5])
    assert rate == pytest.approx(tokens_per_second(trace.frames), rel=1e-3)
    assert f"{rate:.3g} tokens/s by the clock" in PANELS["cost"].summary(trace, Focus())


def test_runs_that_shared_the_passes_of_generated_tokens_are_counted():
    trace = random_trace(1, 6, prompt_tokens=2)
    for frame, runs in zip(trace.frames, (7, 7, 1, 3, 4, None), strict=True):
        frame["pass_runs"] = runs
    assert sharing_of(trace.frames) == Sharing(3, 8), (
        "the prompt's pass, and one of which it is not known, do not count"
    )
    assert summarize(trace).runs_per_pass == sharing_of(trace.frames).mean == pytest.approx(8 / 3)
    assert sharing_of(trace.frames).shared
    assert not sharing_of(trace.frames[:3]).shared
    assert Sharing().mean is None
