"""Random well-formed traces for the tests of everything that reads one: a plain seeded function, and hypothesis strategies.

The numbers are drawn, but they obey the rules a real run obeys (token counts, slot occupancy, bytes, lengths), so that a
reader may rely on those rules.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate
from typing import Any

import numpy as np
from hypothesis import strategies as st

from loopviz.loop_fields import before
from loopviz.trace import EXTRAS, SCHEMA_VERSION, Frame, Trace, blocks_at, encode_floats, encode_states
from loopviz.trace.schema import NEXT_LISTS, PARTS, empty_steps

PIECES = [
    " the",
    "Once",
    " upon",
    "\n",
    "é",
    "",
    "你好",
    "🙂",
    "<b>",
    "${x}",
    "`",
    '"',
    "\\n",
    "{{value}}",
    " ",
    "\u202e",
    "a\tb",
]
REASONS = {"fixed_count": ["count"], "dynamic_stop": ["cosine", "kl", "max"]}


_SHAPE = {"kv_heads": 2, "head_dim": 4, "itemsize": 4, "vocab": 64}


def make_meta(
    *,
    layers: int = 6,
    blocks: list[tuple[int, int]] | None = None,
    hidden: int = 8,
    strategy: str = "fixed_count",
    kv_mode: str = "virtual_layers",
    max_steps: int = 4,
    slots: int = 2,
    top_k: int = 5,
    prompt: str = "Once upon a time",
    prompt_tokens: int = 4,
    extras: tuple[str, ...] = (),
    **block_fields: Any,
) -> dict[str, Any]:
    """A Meta of a model of ``layers`` layers with the looped ``blocks`` (default one, (2, 3); [] is a plain Llama).

    ``extras`` are what the run records beyond every run: "exit", "keys", "attention".
    """
    blocks = [(2, 3)] if blocks is None else blocks
    return {
        "version": SCHEMA_VERSION,
        "model": "synthetic",
        "prompt": prompt,
        "prompt_tokens": prompt_tokens,
        "top_k": top_k,
        "shape": {"layers": layers, "hidden": hidden, "heads": 4, **_SHAPE},
        "loop": {"loop_layers": [list(b) for b in blocks] or None, "loop_count": max_steps},
        "blocks": [
            {
                "layers": list(b),
                "strategy": strategy,
                "count": max_steps,
                "max_steps": max_steps,
                "floor": min(2, max_steps),
                "criterion": "either",
                "cosine_threshold": 0.95,
                "kl_threshold": 0.01,
                "kv_mode": kv_mode,
                "slots": slots if kv_mode == "virtual_layers" else 1,
                "attention_mode": "parallel",
                "merge": "ema",
                "ema_alpha": 0.7,
                "damping": 1.0,
                "injection": "none",
                "norm": False,
                "chooser": "none",
                "layer_threshold": 0.0,
                **before(4),
                **block_fields,
            }
            for b in blocks
        ],
        "settings": {"max_new_tokens": 8, "do_sample": False, "seed": 0, "extras": list(extras)},
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"loopviz": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
    }


def _top(rng: random.Random, meta: dict[str, Any], n: int) -> tuple[list, list, list]:
    ids = [rng.sample(range(meta["shape"]["vocab"]), meta["top_k"]) for _ in range(n)]
    logs = [sorted((-rng.expovariate(0.5) - 1e-3 for _ in row), reverse=True) for row in ids]
    return ids, logs, [[PIECES[j % len(PIECES)] for j in row] for row in ids]


def _numbers(rng: random.Random, meta: dict[str, Any], n: int) -> dict[str, Any]:
    """The columns every full recording has."""
    vocab = meta["shape"]["vocab"]
    ids, logs, texts = _top(rng, meta, n)
    steps = {
        "cosine": [1 - math.exp(-r) * rng.random() for r in range(1, n + 1)],
        "kl": [math.exp(-r) * rng.random() for r in range(1, n + 1)],
        "rel_delta": [math.exp(-r / 2) * rng.random() for r in range(1, n + 1)],
        "norm": [rng.uniform(1, 100) for _ in range(n)],
        "entropy": [rng.uniform(0, math.log(vocab)) for _ in range(n)],
        "rank": [rng.randint(1, vocab) for _ in range(n)],
        "topk_ids": ids,
        "topk_logprobs": logs,
        "topk_texts": texts,
        "ms": [rng.uniform(0.1, 9) for _ in range(n)],
    }
    if rng.random() < 0.2 and n:
        steps["cosine"][0] = None  # a zero state has no direction
    return steps


def _exit(rng: random.Random, meta: dict[str, Any], n: int) -> dict[str, Any]:
    """The exit lens' columns."""
    ids, logs, texts = _top(rng, meta, n)
    return {
        "exit_rank": [rng.randint(1, meta["shape"]["vocab"]) for _ in range(n)],
        "exit_logprob": [-rng.expovariate(0.5) for _ in range(n)],
        "exit_topk_ids": ids,
        "exit_topk_logprobs": logs,
        "exit_topk_texts": texts,
    }


def _gate(rng: random.Random, spec: dict[str, Any], n: int) -> dict[str, Any]:
    """What an exit gate says of a token: lambdas at random, and by them everything else."""
    rates, stays, p = [rng.random() for _ in range(n - 1)], 1.0, []
    for rate in rates:
        p.append(rate * stays)
        stays *= 1 - rate
    p.append(stays)
    cdf = list(accumulate(p))
    first = next((r for r, reached in enumerate(cdf, 1) if reached >= spec["exit_threshold"]), n)
    return {"p": p, "cdf": cdf, "read_out": first if spec["exit_selection"] == "gate" else None}


def _attention(rng: random.Random, meta: dict[str, Any], spec: dict[str, Any], n: int, t: int) -> dict[str, Any]:
    """One layer's attention: rows that sum to one; serial and merge modes read one slot a step."""
    draw = np.random.default_rng(rng.getrandbits(32))
    slots, many = spec["slots"], spec["kv_mode"] == "virtual_layers" and spec["attention_mode"] == "parallel"
    shares = draw.dirichlet(np.ones(slots), size=n) if many else np.eye(slots)[np.arange(n) % slots]
    change = [[None if r == 0 else rng.random() for _ in range(meta["shape"]["heads"])] for r in range(n)]
    weights = draw.dirichlet(np.ones(t + 1), size=n)
    return {"weights": encode_floats(weights), "slots": encode_floats(shares), "change": change}


def _block_frame(
    rng: random.Random,
    apart: random.Random,
    i: int,
    meta: dict[str, Any],
    t: int,
    record: str,
    states: bool,
    extras: tuple[str, ...],
) -> dict[str, Any]:
    spec, hidden = blocks_at(meta, t)[i], meta["shape"]["hidden"]
    fixed = spec["strategy"] == "fixed_count"
    n = spec["max_steps"] if fixed else rng.randint(spec["floor"], spec["max_steps"])
    ended = ""  # by the chooser of layers
    a, b = spec["layers"]
    ran: list[list[int]] = []
    if spec["chooser"] != "none":
        if apart.random() < 0.4:
            n, ended = apart.choice([0, apart.randint(0, n)]), spec["chooser"]
        ran = [sorted(apart.sample(range(a, b + 1), apart.randint(1, b - a + 1))) for _ in range(n)]
    on = record == "full"
    steps = empty_steps() | (_numbers(rng, meta, n) if on else {})
    packed = None
    if on and states and n:
        packed = encode_states(np.random.default_rng(rng.getrandbits(32)).normal(size=(n + 1, hidden)))
    frame = {
        "block": i,
        "layers": list(spec["layers"]),
        "n_steps": n,
        "stop_reason": ended
        or ("count" if fixed else "max" if n == spec["max_steps"] else rng.choice(["cosine", "kl"])),
        "layers_run": ran,
        "steps": steps,
        "states": packed,
        "key_cosine": [],
        "attention": None,
        "gate": None,
    }
    layers = b - a + 1
    if spec["exit_selection"] != "last" and n:
        frame["gate"] = _gate(random.Random(f"{t} {i} {n} gate"), spec, n)
    if "exit" in extras and i == len(meta["blocks"]) - 1:
        steps |= _exit(apart, meta, n)
    if "keys" in extras and n:
        frame["key_cosine"] = [[None, *(1 - math.exp(-r) * apart.random() for r in range(1, n))] for _ in range(layers)]
    if "attention" in extras and n:
        frame["attention"] = {"layers": [_attention(apart, meta, spec, n, t) for _ in range(layers)]}
    return frame


def layer_runs(block: dict[str, Any]) -> int:
    """Layer runs that one token took in a block."""
    if block["layers_run"]:
        return sum(map(len, block["layers_run"]))
    return block["n_steps"] * (block["layers"][1] - block["layers"][0] + 1)


def random_frames(
    seed: int,
    meta: dict[str, Any],
    tokens: int,
    *,
    record: str = "full",
    states: bool = True,
    finish: str | None = "length",
    extras: tuple[str, ...] | None = None,
) -> list[Frame]:
    """``tokens`` frames that fit ``meta``; the first ``meta["prompt_tokens"]`` of them are the prompt, one pass.

    ``extras`` are those of ``meta["settings"]`` unless given.
    """
    extras = tuple(meta["settings"].get("extras", ())) if extras is None else extras
    rng = random.Random(seed)
    shape, prompt = meta["shape"], min(meta["prompt_tokens"], tokens)
    unit = 2 * shape["head_dim"] * shape["kv_heads"] * shape["itemsize"]
    held = [[0] for _ in range(shape["layers"])]
    for spec in meta["blocks"]:
        for layer in range(spec["layers"][0], spec["layers"][1] + 1):
            held[layer] = [0] * spec["slots"]
    texts = [rng.choice(PIECES) for _ in range(tokens + 1)]
    ids = [rng.randrange(shape["vocab"]) for _ in range(tokens + 1)]
    prompt_ms, unrolled, frames = rng.uniform(5, 50), 0, []
    for t in range(tokens):
        apart = random.Random(f"{seed} {t}")  # with or without an extra, the other numbers of a seed are the same
        parts = {part: apart.uniform(0.1, 9) for part in PARTS}
        says = random.Random(f"{seed} {t} says")  # of its own: the numbers of a seed stay what they are
        own = [column[0] for column in _top(says, meta, 1)] if record == "full" else [[], [], []]
        memory = {"process": apart.randint(10**8, 10**9), "device": apart.choice([None, 10**7])}
        blocks = [_block_frame(rng, apart, i, meta, t, record, states, extras) for i in range(len(meta["blocks"]))]
        for layer, slots in enumerate(held):
            owner = next((i for i, s in enumerate(meta["blocks"]) if s["layers"][0] <= layer <= s["layers"][1]), None)
            written = 1 if owner is None else blocks[owner]["n_steps"] or 1  # a skipped token is kept too
            for slot in range(min(len(slots), written) if not any(slots) else len(slots)):
                slots[slot] = t + 1 if slot < written or slots[slot] else 0
        used = unit * sum(map(sum, held))
        extra = sum(layer_runs(b) - (b["layers"][1] - b["layers"][0] + 1) for b in blocks)
        unrolled += unit * (shape["layers"] + extra)
        frames.append(
            {
                "version": SCHEMA_VERSION,
                "index": t,
                "phase": "prompt" if t < prompt else "generated",
                "token_id": ids[t],
                "text": texts[t],
                "next_id": ids[t + 1],
                "next_text": texts[t + 1],
                "next_logprob": -rng.expovariate(0.5),
                **dict(zip(NEXT_LISTS, own, strict=True)),
                "pass_tokens": prompt if t < prompt else 1,
                "pass_runs": 1 if t < prompt else 1 + t % 3,
                "pass_ms": prompt_ms if t < prompt else rng.uniform(5, 50),
                "wall_ms": 60.0 * (max(t, prompt - 1) + 1),
                "parts": parts,
                "memory": memory,
                "blocks": blocks,
                "kv": {
                    "slots": [list(slots) for slots in held],
                    "bytes_used": used,
                    "bytes_allocated": used + 3 * unit,
                    "bytes_plain": unit * shape["layers"] * (t + 1),
                    "bytes_unrolled": unrolled,
                },
                "finish": finish if t == tokens - 1 else None,
            }
        )
    return frames


def random_trace(seed: int = 0, tokens: int = 8, *, record: str = "full", states: bool = True, **meta: Any) -> Trace:
    """A whole trace; ``meta`` goes to :func:`make_meta` (``extras=("exit", "keys", "attention")`` records everything)."""
    described = make_meta(**meta)
    return Trace(described, random_frames(seed, described, tokens, record=record, states=states))


@st.composite
def metas(draw: st.DrawFn) -> dict[str, Any]:
    """Metas of zero to two blocks, both strategies, both cache modes, any prompt text."""
    blocks = draw(st.sampled_from([[], [(0, 0)], [(2, 3)], [(0, 5)], [(1, 2), (4, 5)]]))
    return make_meta(
        blocks=blocks,
        hidden=draw(st.integers(1, 9)),
        strategy=draw(st.sampled_from(["fixed_count", "dynamic_stop"])),
        kv_mode=draw(st.sampled_from(["virtual_layers", "merge_strategy"])),
        max_steps=draw(st.integers(1, 6)),
        slots=draw(st.integers(1, 3)),
        top_k=draw(st.integers(0, 6)),
        prompt=draw(st.text(max_size=20)),
        prompt_tokens=draw(st.integers(1, 5)),
        attention_mode=draw(st.sampled_from(["parallel", "serial"])),
        chooser=draw(st.sampled_from(["none", "influence"])),
        exit_selection=draw(st.sampled_from(["last", "gate", "gate_weighted"])),
        exit_threshold=draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


def change_loop(meta: dict[str, Any], index: int, **fields: Any) -> None:
    """Let every block of ``meta`` have these ``BlockMeta`` fields from position ``index`` on, beside those before."""
    blocks = [{**block, **fields} for block in blocks_at(meta, index)]
    meta.setdefault("changes", []).append({"index": index, "loop": dict(fields), "blocks": blocks})


def _change_some(draw: st.DrawFn, meta: dict[str, Any]) -> None:
    for index in sorted(draw(st.sets(st.integers(0, 9), max_size=2))):
        strategy = draw(st.sampled_from(["fixed_count", "dynamic_stop"]))
        most = draw(st.integers(1, 9))
        fields = {"strategy": strategy, "count": most, "max_steps": most, "floor": min(2, most)}
        fields |= {
            "cosine_threshold": 0.9,
            "damping": 0.5,
            "attention_mode": draw(st.sampled_from(["parallel", "serial"])),
        }
        change_loop(meta, index, **fields)


@st.composite
def traces(draw: st.DrawFn, min_tokens: int = 0, max_tokens: int = 10) -> Trace:
    """Random traces, recorder on or off, with or without states and each extra, with arbitrary unicode pieces."""
    meta = draw(metas())
    record = draw(st.sampled_from(["full", "off"]))
    if draw(st.booleans()):
        _change_some(draw, meta)
    if record == "full":
        meta["settings"]["extras"] = [name for name in EXTRAS if draw(st.booleans())]
    frames = random_frames(
        draw(st.integers(0, 2**32)),
        meta,
        draw(st.integers(min_tokens, max_tokens)),
        record=record,
        states=draw(st.booleans()),
        finish=draw(st.sampled_from(["eos", "length", "context", None])),
    )
    for frame in frames:
        frame["text"] = draw(st.text(max_size=3))
    return Trace(meta, frames)
