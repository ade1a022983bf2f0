"""A run's loop changed while it runs: between two passes, from a token on that the trace names, or refused by name."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import torch

from loopviz.engine import Steering, StreamSettings, run, run_meta, stream
from loopviz.model import LoopCache
from loopviz.trace import Trace, check_meta, file
from tests.engine.tiny import model, tokenizer

LOOP: dict[str, Any] = {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 4}
PROMPT = "Once upon a"
WORDS = StreamSettings(max_new_tokens=8)


def steered(changes: dict[int, dict[str, Any]], settings: StreamSettings = WORDS, **loop: Any) -> Trace:
    """A run whose loop is changed when these tokens are to be read."""
    used, steering = model(**{**LOOP, **loop}), Steering()
    trace = Trace(run_meta(used, tokenizer(), PROMPT, settings, steering=steering))
    frames = stream(used, tokenizer(), PROMPT, settings, steering=steering)
    for token, fields in changes.items():
        steering.set_loop(token=token, **fields)
    for frame in frames:
        trace.append(frame)
    return trace


def said(trace: Trace) -> list[dict[str, Any]]:
    """What does not depend on the clock or on the machine."""
    timed = ("pass_ms", "wall_ms", "parts", "memory")
    frames = [{key: value for key, value in frame.items() if key not in timed} for frame in trace.frames]
    for frame in frames:
        frame["blocks"] = [{**block, "steps": {**block["steps"], "ms": None}} for block in frame["blocks"]]
    return frames


def test_tokens_before_the_change_are_those_of_an_unchanged_run_and_later_ones_take_the_new_loop() -> None:
    plain, trace = steered({}), steered({8: {"loop_count": 6}})
    at = trace.meta["changes"][0]["index"]
    assert at == 8 > trace.meta["prompt_tokens"]
    assert said(trace)[:at] == said(plain)[:at]
    assert [frame["blocks"][0]["n_steps"] for frame in trace.frames] == [3] * at + [6] * (len(trace) - at)
    assert trace.meta["blocks"][0]["count"] == 3, "the run began with it"
    assert trace.meta["changes"][0]["loop"] == {"loop_count": 6}
    assert trace.meta["changes"][0]["blocks"][0]["max_steps"] == 6
    assert said(trace)[at:] != said(plain)[at : len(trace)]


@pytest.mark.parametrize(
    "fields",
    [
        {"loop_count": 6},  # more steps than V: the slot that was empty begins with each token's latest K/V
        {"loop_count": 1},
        {"loop_damping": 0.5},
        {"virtual_attention_mode": "serial"},
        {"loop_strategy": "dynamic_stop", "min_loop_count": 4, "convergence_criterion": "cosine"},
    ],
    ids=str,
)
def test_a_change_is_what_the_model_itself_makes_of_it(fields: dict[str, Any]) -> None:
    """The run's numbers against the model's own passes, with `set_loop` between two of them."""
    trace, at = steered({8: fields}), 8
    own = model(**LOOP)
    cache, ids = LoopCache(own.config), [frame["token_id"] for frame in trace.frames]
    prompt = trace.meta["prompt_tokens"]
    with torch.inference_mode():
        for start, stop in [(0, prompt), *((t, t + 1) for t in range(prompt, len(ids)))]:
            if start == at:
                own.set_loop(**fields)
            out = own(torch.tensor([ids[start:stop]]), past_key_values=cache, use_cache=True)
            last = trace.frames[stop - 1]
            expected = out.logits[0, -1].float().log_softmax(-1)[last["next_id"]]
            assert last["next_logprob"] == pytest.approx(float(expected), abs=1e-4)
            assert last["blocks"][0]["n_steps"] == int(own.last_pass.steps[0])
            used = cache.occupancy().bytes_used
            assert last["kv"]["bytes_used"] == used


def test_changes_wait_for_their_token_and_those_of_one_moment_are_one() -> None:
    trace = steered({7: {"loop_count": 2, "loop_damping": 0.5}, 9: {"loop_count": 5}})
    assert [(change["index"], change["loop"]) for change in trace.meta["changes"]] == [
        (7, {"loop_count": 2, "loop_damping": 0.5}),
        (9, {"loop_count": 5}),
    ]
    used, steering = model(**LOOP), Steering()
    frames = stream(used, tokenizer(), PROMPT, WORDS, steering=steering)
    for count in (4, 5, 6):
        steering.set_loop(loop_count=count)
    assert next(frames)["blocks"][0]["n_steps"] == 6, "asked for before the first pass: it reads the prompt so"
    assert [(change["index"], change["loop"]) for change in steering.changes] == [(0, {"loop_count": 6})]
    frames.close()
    assert used.config.loop_count == 3, "the model is everybody's"


def test_a_change_never_read_under_is_not_told() -> None:
    assert steered({100: {"loop_count": 6}}).meta["changes"] == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"loop_layers": (1, 3)}, "loop_layers=.*cache holds this run's tokens"),
        ({"loop_count": 2, "kv_cache_mode": "merge_strategy"}, "kv_cache_mode='merge_strategy'.*start a new run"),
        ({"virtual_layer_count": 2}, "virtual_layer_count=2: decides how the KV cache"),
        ({"loop_count": 11}, "loop_count=11.*max_loop_count=10"),
        ({"loop_cuont": 2}, "loop_cuont"),
        ({"token": -1, "loop_count": 2}, "token=-1"),
    ],
    ids=str,
)
def test_what_cannot_change_is_refused_by_name_and_changes_nothing(fields: dict[str, Any], words: str) -> None:
    steering = Steering()
    frames = stream(model(**LOOP), tokenizer(), PROMPT, WORDS, steering=steering)
    with pytest.raises(ValueError, match=words):
        steering.set_loop(**fields)
    assert {frame["blocks"][0]["n_steps"] for frame in frames} == {3}
    assert steering.changes == []


def test_a_change_is_checked_against_what_was_asked_before() -> None:
    steering = Steering()
    frames = stream(model(**LOOP), tokenizer(), PROMPT, WORDS, steering=steering)
    steering.set_loop(max_loop_count=3)
    with pytest.raises(ValueError, match="loop_count=4"):
        steering.set_loop(loop_count=4)
    frames.close()


def test_one_steering_one_run() -> None:
    steering = Steering()
    frames = stream(model(**LOOP), tokenizer(), PROMPT, WORDS, steering=steering)
    with pytest.raises(ValueError, match="another run"):
        stream(model(**LOOP), tokenizer(), PROMPT, WORDS, steering=steering)
    frames.close()


def test_c6_changes_can_be_asked_for_before_the_run() -> None:
    """What is known beforehand needs no thread and no callback; it comes to what asking in time comes to."""
    steering = Steering()
    steering.set_loop(token=8, loop_count=6)
    steering.set_loop(token=9, loop_damping=0.5)
    before = run(model(**LOOP), tokenizer(), PROMPT, WORDS, steering=steering)
    assert said(before) == said(steered({8: {"loop_count": 6}, 9: {"loop_damping": 0.5}}))
    assert [change["index"] for change in before.meta["changes"]] == [8, 9]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"loop_count": 0}, "loop_count=0"),
        ({"virtual_layer_count": 2}, "start a new run"),
    ],
)
def test_c6_a_change_asked_for_before_is_checked_when_the_run_begins(fields: dict[str, Any], says: str) -> None:
    steering = Steering()
    steering.set_loop(token=8, **fields)
    with pytest.raises(ValueError, match=says):
        stream(model(**LOOP), tokenizer(), PROMPT, WORDS, steering=steering)
    assert steering.changes == []


def test_c6_a_field_that_there_is_not_is_refused_at_once() -> None:
    steering = Steering()
    with pytest.raises(ValueError, match="loop_counts=2: not a loop field"):
        steering.set_loop(token=8, loop_counts=2)
    stream(model(**LOOP), tokenizer(), PROMPT, WORDS, steering=steering).close()  # nothing has been asked for


def test_changes_from_another_thread_while_frames_come() -> None:
    steering, used = Steering(), model(**LOOP)
    settings = StreamSettings(max_new_tokens=40)
    frames, counts = stream(used, tokenizer(), PROMPT, settings, steering=steering), []
    turning = threading.Thread(target=lambda: [steering.set_loop(loop_count=1 + i % 6) for i in range(60)])
    for frame in frames:
        counts.append(frame["blocks"][0]["n_steps"])
        if len(counts) == 8:
            turning.start()
    turning.join()
    expected, held = [], 3
    for t in range(len(counts)):
        held = next((change["loop"]["loop_count"] for change in steering.changes if change["index"] == t), held)
        expected.append(held)
    assert counts == expected
    assert counts[-1] == 6


def test_the_change_is_in_the_file(tmp_path: Any) -> None:
    trace = steered({8: {"loop_count": 6}})
    check_meta(trace.meta)
    file.save(trace, tmp_path / "run.loopviz")
    assert file.load(tmp_path / "run.loopviz") == trace
    assert json.loads(json.dumps(trace.meta)) == trace.meta


def test_run_takes_a_steering_too() -> None:
    steering, counts = Steering(), []

    def watch(frame: Any) -> None:
        counts.append(frame["blocks"][0]["n_steps"])
        if len(counts) == 8:
            steering.set_loop(loop_count=1)

    trace = run(model(**LOOP), tokenizer(), PROMPT, WORDS, on_frame=watch, steering=steering)
    assert trace.meta["changes"][0]["index"] == 8
    assert counts[7:9] == [3, 1]
