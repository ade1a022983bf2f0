"""Traces and focuses for the panels' tests: wilder than a real run, for what a panel must survive."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

from loopviz.panels import LANGUAGES, METRICS, PANELS, Focus
from loopviz.panels.kit.focus import BATCHES, CONTEXTS, LENSES
from loopviz.trace import Trace
from tests.trace.synthetic import make_meta, random_frames, random_trace, traces

CRITERIA = ("cosine", "kl", "either", "both", "acceleration")


@st.composite
def wild_traces(draw: st.DrawFn) -> Trace:
    """Traces with undefined numbers anywhere, cosines of one and above, registered criteria, and any slot counts."""
    trace = draw(traces(max_tokens=9))
    rng = random.Random(draw(st.integers(0, 2**32)))
    for spec in trace.meta["blocks"]:
        spec["criterion"] = rng.choice(CRITERIA)
        spec["kl_threshold"] = rng.choice([0.0, 5e-4, 0.01])
        spec["cosine_threshold"] = rng.choice([1.0, 0.999, 0.5])
    for frame in trace.frames:
        frame["kv"]["slots"] = [[rng.choice([0, n, n + 1]) for n in layer] for layer in frame["kv"]["slots"]]
        frame["parts"] = {part: rng.choice([ms, ms, None, 0.0]) for part, ms in frame["parts"].items()}
        frame["pass_ms"] = rng.choice([frame["pass_ms"], frame["pass_ms"], None, 0.0])
        frame["pass_runs"] = None if frame["index"] % 4 == 3 else frame["pass_runs"]
        frame["wall_ms"] = rng.choice([frame["wall_ms"], frame["wall_ms"], None])
        for block in frame["blocks"]:
            block["stop_reason"] = rng.choice([block["stop_reason"], "acceleration", "<i>"])
            for name in ("cosine", "kl", "rel_delta", "norm", "entropy", "ms"):
                column = block["steps"][name]
                for r in range(len(column)):
                    column[r] = rng.choice([column[r], column[r], column[r], None, 0.0, 1.0, 1.0000001])
    return trace


focuses = st.builds(
    Focus,
    token=st.none() | st.integers(0, 10),
    block=st.integers(0, 2),
    step=st.none() | st.integers(1, 7),
    metric=st.sampled_from(METRICS),
    lang=st.sampled_from(LANGUAGES),
    pins=st.lists(st.integers(0, 10), max_size=6, unique=True).map(tuple),
    layer=st.none() | st.integers(0, 7),
    lens=st.sampled_from(LENSES),
    dims=st.sampled_from((2, 3)),
    context=st.sampled_from(CONTEXTS),
    batch=st.sampled_from(BATCHES),
)


def wire_size(ops: list[dict[str, Any]]) -> int:
    """Bytes of Ops as they are sent: as compact JSON, without the parts of a path that the Op before had as well."""
    sent, before = [], []
    for op in ops:
        path = op["path"]
        shared = next(
            (i for i, (a, b) in enumerate(zip(path, before, strict=False)) if a != b), min(len(path), len(before))
        )
        sent.append([["set", "append", "splice"].index(op["op"]), shared, *path[shared:], op["value"]])
        before = path
    return len(json.dumps(sent, separators=(",", ":"), ensure_ascii=False).encode())


def looped(tokens: int = 8, **meta: Any) -> Trace:
    """A trace of one dynamic-stop block that records what every panel needs, unless ``meta`` says otherwise."""
    needed = {need for panel in PANELS.values() for need in getattr(panel, "NEEDS", ())}
    return random_trace(
        3, tokens, **{"strategy": "dynamic_stop", "max_steps": 6, "extras": tuple(sorted(needed)), **meta}
    )


def smollm2(tokens: int = 512, blocks: list[tuple[int, int]] | None = None) -> Trace:
    """A trace of SmolLM2-135M's shape: 30 layers, 5 slots, 4 loops in layers 10-14."""
    meta = make_meta(layers=30, blocks=blocks or [(10, 14)], max_steps=4, slots=5, prompt_tokens=16)
    meta["shape"] |= {"hidden": 576, "kv_heads": 3, "head_dim": 64, "vocab": 49152}
    frames = random_frames(1, meta, tokens)
    for frame in frames:  # the ordinary case: every slot holds every token
        frame["kv"]["slots"] = [[frame["index"] + 1] * len(layer) for layer in frame["kv"]["slots"]]
    return Trace(meta, frames)
