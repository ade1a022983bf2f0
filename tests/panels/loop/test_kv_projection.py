"""The projection: the bytes of models people deploy, counted by hand and from a run that has such a model's shape."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.panels import PANELS, Focus, figure_json
from loopviz.panels.kit.focus import BATCHES, CONTEXTS
from loopviz.panels.loop.kv_projection import MODELS, plain_bytes
from loopviz.trace import Trace
from tests.panels.cases import looped
from tests.trace.synthetic import make_meta, random_frames

panel = PANELS["kv_projection"]


def bars(trace, **focus):
    """Bytes drawn: ``{(kind, model): bytes}``."""
    data = figure_json(panel.figure(trace, Focus(**focus)))["data"]
    kinds = ("plain", "used", "unrolled")
    return {
        (kind, y): x for kind, bar in zip(kinds, data, strict=True) for x, y in zip(bar["x"], bar["y"], strict=True)
    }


@pytest.mark.parametrize(
    ("model", "a_token"),
    [  # 2 (K and V) x layers x heads x dim x 2 bytes, multiplied out on paper
        ("SmolLM2-135M", 23_040),
        ("Llama-3.2-1B", 32_768),
        ("Llama-3.2-3B", 114_688),
        ("Llama-3-8B", 131_072),
        ("Llama-3-70B", 327_680),
    ],
)
def test_bytes_of_published_models(model, a_token):
    assert plain_bytes(model, 1, 1) == a_token
    assert plain_bytes(model, 32768, 8) == a_token * 32768 * 8


def test_every_model_was_counted():
    assert set(MODELS) == {"SmolLM2-135M", "Llama-3.2-1B", "Llama-3.2-3B", "Llama-3-8B", "Llama-3-70B"}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("batch", BATCHES)
def test_a_quarter_of_the_layers_with_three_slots_by_hand(context, batch):
    trace = looped(layers=8, blocks=[(2, 3)], slots=3, max_steps=5, strategy="fixed_count")
    shown = bars(trace, context=context, batch=batch)
    llama = 131_072 * context * batch
    assert shown["plain", "Llama-3-8B"] == llama
    assert shown["used", "Llama-3-8B"] == pytest.approx(llama * (6 * 1 + 2 * 3) / 8, rel=1e-3)
    assert shown["unrolled", "Llama-3-8B"] == pytest.approx(llama * (6 * 1 + 2 * 5) / 8, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from(sorted(MODELS)),
    seed=st.integers(0, 999),
    tokens=st.integers(1, 12),
    slots=st.integers(1, 4),
    kv_mode=st.sampled_from(["virtual_layers", "merge_strategy"]),
    strategy=st.sampled_from(["fixed_count", "dynamic_stop"]),
    blocks=st.sampled_from([[], [(0, 0)], [(3, 8)], [(1, 2), (5, 15)]]),
    context=st.sampled_from(CONTEXTS),
    batch=st.sampled_from(BATCHES),
)
def test_a_run_of_the_models_own_shape_projects_to_its_own_bytes(
    model, seed, tokens, slots, kv_mode, strategy, blocks, context, batch
):
    layers, heads, dim, _ = MODELS[model]
    meta = make_meta(layers=layers, blocks=blocks, slots=slots, kv_mode=kv_mode, strategy=strategy)
    meta["shape"] |= {"kv_heads": heads, "head_dim": dim, "itemsize": 2}
    trace = Trace(meta, random_frames(seed, meta, tokens, states=False))
    shown, kv = bars(trace, context=context, batch=batch), trace.frames[-1]["kv"]
    for kind in ("plain", "used", "unrolled"):
        assert shown[kind, model] == pytest.approx(kv[f"bytes_{kind}"] / tokens * context * batch, rel=1e-3)


def test_the_summary_by_hand():
    trace = looped(layers=8, blocks=[(2, 3)], slots=3, max_steps=5, strategy="fixed_count")
    said = panel.summary(trace, Focus(context=2048, batch=8))
    for part in (
        "takes 1.5 times",
        "unrolled one 2 times",
        "2,048 tokens and batch 8",
        "2.147 GB plain",
        "3.221 GB",
        "4.295 GB",
    ):
        assert part in said


def test_loops_are_averaged_up_to_the_selected_token():
    trace = looped(tokens=6, blocks=[(2, 3)], max_steps=6)
    unit = 2 * 4 * 2 * 4
    loops = [1, 6, 2, 5, 3, 4]
    for t, frame in enumerate(trace.frames):
        frame["blocks"][0]["n_steps"] = loops[t]
        frame["kv"]["bytes_unrolled"] = unit * sum(6 + 2 * (n - 1) for n in loops[: t + 1])
    at_two = bars(trace, token=2)["unrolled", "Llama-3-70B"]  # mean 3 loops
    assert at_two == pytest.approx(327_680 * 8192 * (6 + 2 * 2) / 6, rel=1e-3)


def test_8_bits_are_a_byte_a_number_and_a_scale_a_head_of_each_model():
    trace = looped(layers=8, blocks=[(2, 3)], slots=3, max_steps=5, strategy="fixed_count", kv_dtype="int8")
    shown = bars(trace, context=8192, batch=1)
    for model, a_token, dim in (("Llama-3-8B", 131_072, 128), ("SmolLM2-135M", 23_040, 64)):
        kept = a_token * 8192 * (6 * 1 + 2 * 3) / 8 * (dim + 4) / (2 * dim)
        assert shown["used", model] == pytest.approx(kept, rel=1e-3)
        assert shown["unrolled", model] == pytest.approx(a_token * 8192 * (6 * 1 + 2 * 5) / 8, rel=1e-3)
    title = figure_json(panel.figure(trace, Focus()))["layout"]["title"]["text"]
    assert f"this run × {1.5 * 132 / 256:.3g}" in title


def test_a_plain_llama_costs_what_it_costs():
    shown = bars(looped(blocks=[]))
    for model in MODELS:
        assert shown["plain", model] == shown["used", model] == shown["unrolled", model]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_choices_are_the_focus_fields(lang):
    focus = Focus(lang=lang, context=32768, batch=64)
    choices = figure_json(panel.figure(looped(), focus))["layout"]["meta"]["choices"]
    assert [value for value, _ in choices["context"]["options"]] == list(CONTEXTS)
    assert [value for value, _ in choices["batch"]["options"]] == list(BATCHES)
    assert (choices["context"]["value"], choices["batch"]["value"]) == (32768, 64)
    assert all(label for choice in choices.values() for _, label in choice["options"])


def test_a_bar_that_does_not_move_is_not_sent():
    trace = looped(tokens=8, strategy="fixed_count")
    for frame in trace.frames:
        frame["kv"] |= {"bytes_used": 300 * (frame["index"] + 1), "bytes_plain": 200 * (frame["index"] + 1)}
        frame["kv"]["bytes_unrolled"] = 500 * (frame["index"] + 1)
    assert panel.patch(Trace(trace.meta, trace.frames[:7]), trace.frames[7], Focus()) == []
