"""What plain data takes in memory, held against what Python hands out for it."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loopviz.trace import EXTRAS, Trace
from loopviz.trace.weight import deep_bytes
from tests.trace.synthetic import make_meta, random_trace


def taken(make: Any) -> tuple[Any, int]:
    """What `make` makes, and what Python has handed out for it."""
    make()
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        return made, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


WRITTEN = json.dumps(random_trace(3, 80, extras=EXTRAS, hidden=32, max_steps=5).frames)


@pytest.mark.parametrize(
    "make",
    [
        lambda: json.loads(WRITTEN),
        lambda: [i * 1.5 for i in range(50_000)],
        lambda: [i + 1_000 for i in range(50_000)],
        lambda: [f"piece {i}" for i in range(20_000)],
        lambda: {f"k{i}": [i, None, True] for i in range(10_000)},
        lambda: np.zeros((500, 500)),
        lambda: [np.zeros(1_000)[:1] for _ in range(100)],  # a view keeps all of its base
        lambda: np.zeros((500, 500))[::2, ::2],
        lambda: pd.DataFrame({"a": np.arange(50_000), "b": np.arange(50_000) * 0.5}),
    ],
)
def test_what_is_said_is_what_is_taken(make: Any) -> None:
    made, really = taken(make)
    assert 0.85 < deep_bytes(made) / really < 1.5


def test_nothing_counts_twice_and_kept_objects_of_python_not_at_all() -> None:
    row = [0.5] * 100
    assert deep_bytes([row, row]) < deep_bytes(row) + 200
    assert deep_bytes([None, True, 7]) == deep_bytes([1, 2, False])
    round_trip: list[Any] = []
    round_trip.append(round_trip)
    assert deep_bytes(round_trip) > 0
    base = np.zeros(10_000)
    assert deep_bytes([base[:1], base[1:]]) < 90_000


def test_a_trace_weighs_its_frames_once_and_as_it_grows() -> None:
    whole = random_trace(5, 20, extras=EXTRAS)
    trace, before = Trace(make_meta(extras=EXTRAS)), 0
    for frame in whole.frames:
        trace.append(frame)
        assert trace.nbytes > before
        before = trace.nbytes
    assert trace.nbytes == pytest.approx(whole.nbytes, rel=0.02)
    assert trace.nbytes == pytest.approx(deep_bytes(whole.frames), rel=0.1)
    before = trace.nbytes
    states = trace.states
    assert trace.nbytes >= before + states.nbytes
