"""Whether autograd is on never changes a value (numerics D1: slots that a pass opened over a past were missed)."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .tiny import build, close, ids, precision

WAYS = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "gradients": nullcontext}


def run(model, program, padded, ways):
    """Logits of every pass of ``program``: (new tokens, loop fields that change before the pass)."""
    view, cache, found, seen = model.with_loop(), None, [], 0
    total = sum(n for n, _ in program)
    tokens = ids(total, rows=2)
    mask = torch.ones_like(tokens)
    if padded:
        mask[1, :2] = 0
    for (n, fields), way in zip(program, ways, strict=True):
        view.set_loop(**fields)
        with WAYS[way]():
            out = view(tokens[:, seen : seen + n], attention_mask=mask[:, : seen + n], past_key_values=cache)
        seen, cache = seen + n, out.past_key_values
        found.append(out.logits.detach().clone())
    return found


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "loop_count": st.integers(1, 5),
        "virtual_attention_mode": st.sampled_from(["parallel", "serial"]),
        "loop_strategy": st.sampled_from(["fixed_count", "dynamic_stop"]),
        "loop_damping": st.sampled_from([1.0, 0.4]),
    },
)
PROGRAMS = st.lists(st.tuples(st.integers(1, 4), CHANGES), min_size=2, max_size=4)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    PROGRAMS,
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["sdpa", "eager"]),
    st.lists(st.sampled_from(list(WAYS)), min_size=4, max_size=4),
)
def test_a_pass_gives_the_same_with_gradients_and_without(program, slots, padded, attention, mixed):
    loop = {"loop_layers": (1, 2), "virtual_layer_count": slots, "cosine_threshold": 0.9, "min_loop_count": 5}
    model = build({**loop, "loop_count": 1}, attn_implementation=attention).double()
    program = [(program[0][0] + 2, program[0][1]), *program[1:]]
    n = len(program)
    with precision(torch.float64) as tolerance:
        expected = run(model, program, padded, ["no_grad"] * n)
        for ways in (["inference_mode"] * n, ["gradients"] * n, mixed[:n]):
            found = run(model, program, padded, ways)
            close(found[0][:, 2 * padded :], expected[0][:, 2 * padded :], tolerance)  # padding says nothing
            for ours, theirs in zip(found[1:], expected[1:], strict=True):
                close(ours, theirs, tolerance)


@pytest.mark.parametrize("new_tokens", [1, 2])
def test_parallel_slots_opened_over_a_past_are_seen_with_gradients(new_tokens):
    """D1 as found: one step, then three, five slots; silently wrong for one new token, an error for two."""
    model = build({"loop_layers": (0, 0), "loop_count": 1, "virtual_layer_count": 5}, num_hidden_layers=1).double()
    program = [(4, {}), (new_tokens, {"loop_count": 3})]
    with precision(torch.float64) as tolerance:
        off, on = (run(model, program, False, [way] * 2) for way in ("no_grad", "gradients"))
        close(on[1], off[1], tolerance)
    parallel_matters = run(model.with_loop(virtual_attention_mode="serial"), program, False, ["no_grad"] * 2)
    assert not torch.allclose(parallel_matters[1], off[1]), "both ways of attending agree: the test would prove nothing"
