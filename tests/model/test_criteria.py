"""When a loop stops: thresholds mean what they say in every precision, and what decides is what is shown."""

from __future__ import annotations

import pytest
import torch

from loopviz.engine import StreamSettings, run
from loopviz.model import CriterionContext, LoopLlamaConfig, LoopLlamaForCausalLM, measures
from tests.engine import tiny as engine_tiny

from .tiny import DYNAMIC, build, ids

HALF = [torch.bfloat16, torch.float16]
SLOW = {
    **DYNAMIC,
    "loop_damping": 0.15,
    "min_loop_count": 1,
    "virtual_layer_count": 1,
    "virtual_attention_mode": "serial",
    "max_loop_count": 30,
}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("criterion", ["cosine", "kl", "either", "both"])
def test_no_step_stops_below_the_threshold_it_shows(dtype, criterion):
    """numerics D2, case_bfloat16_cosine: decided in bfloat16, where 0.993 can count as 1, and shown in float32."""
    loop = {**SLOW, "convergence_criterion": criterion, "cosine_threshold": 0.999, "kl_threshold": 2e-3}
    model = engine_tiny.model(**loop).to(dtype)
    trace = run(model, engine_tiny.tokenizer(), "a small dog", StreamSettings(max_new_tokens=12))
    steps = trace.steps
    written = trace.tokens.loc[trace.tokens["phase"] == "generated", "index"]
    stopped = 0
    for token in written:
        rows = steps[steps["token"] == token]
        cosine = [value >= 0.999 for value in rows["cosine"]]
        kl = [value <= 2e-3 for value in rows["kl"]]
        rule = {
            "cosine": cosine,
            "kl": kl,
            "either": [a or b for a, b in zip(cosine, kl, strict=True)],
            "both": [a and b for a, b in zip(cosine, kl, strict=True)],
        }[criterion]
        assert not any(rule[:-1]), "it went on above the threshold"
        stopped += rule[-1]
        assert rule[-1] or len(rule) == 30, "it stopped below the threshold"
    assert stopped, "no token converged: nothing was tested"


@pytest.mark.parametrize("dtype", HALF)
def test_thresholds_that_half_precision_cannot_tell_apart_differ(dtype):
    model = build({**SLOW, "convergence_criterion": "cosine", "loop_damping": 0.3}).to(dtype)
    counts = []
    for threshold in (0.99, 0.999, 0.9995):
        model.set_loop(cosine_threshold=threshold)
        with torch.no_grad():
            model(ids(5))
        counts.append(int(model.last_pass.steps[0]))
    assert counts == sorted(counts)
    assert len(set(counts)) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_a_state_that_stands_still_reaches_every_threshold(dtype, scale):
    """numerics D3: rounding put cos(s, s) below 1 in 7 to 18 % of cases."""
    states = torch.randn(500, 48, generator=torch.Generator().manual_seed(0)).mul(scale).to(dtype)
    assert bool((measures.cosine(states, states) == 1).all())
    block = LoopLlamaConfig(**{**DYNAMIC, "cosine_threshold": 1.0, "num_hidden_layers": 4}).loop_blocks()[0]
    still = CriterionContext(2, states[None], states[None].clone(), None, block, None)
    assert bool(still.cosine_holds().all())
    moving = CriterionContext(2, states[None], states[None] + 0.1 * scale * torch.randn(1, 500, 48), None, block, None)
    assert not bool(moving.cosine_holds().any())


def test_a_zero_state_that_stays_has_no_direction_and_stands_still():
    zero, one = torch.zeros(1, 2, 8), torch.ones(1, 2, 8)
    block = LoopLlamaConfig(**{**DYNAMIC, "cosine_threshold": 1.0, "num_hidden_layers": 4}).loop_blocks()[0]
    assert bool(CriterionContext(2, zero, zero, None, block, None).cosine_holds())
    assert not bool(CriterionContext(2, zero, one, None, block, None).cosine_holds())


def test_a_block_that_does_nothing_stops_at_its_floor():
    for seed in range(20):
        model = build({**DYNAMIC, "cosine_threshold": 1.0, "loop_layers": (1, 1)}, seed=seed)
        with torch.no_grad():
            model.model.layers[1].self_attn.o_proj.weight.zero_()
            model.model.layers[1].mlp.down_proj.weight.zero_()
            model(ids(5, seed=seed))
        assert int(model.last_pass.steps[0]) == 2
        assert model.last_pass.reasons[0] == ["cosine"]


def test_the_report_says_what_was_compared():
    model = build({**DYNAMIC, "convergence_criterion": "either", "kl_threshold": 0.0})
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    states: list[tuple] = []
    model.register_loop_hook(lambda event: states.append((event.previous, event.state)))
    with torch.no_grad():
        model(ids(4, rows=2), attention_mask=mask)
    measured = model.last_pass.measured[0]
    assert min(measured) == 2, "before the floor nobody asks"
    for r, found in measured.items():
        previous, state = states[r - 1]
        each = measures.cosine(state, previous)
        wanted = [each[0].mean(), each[1, 2:].mean()]
        torch.testing.assert_close(found["cosine"], torch.stack(wanted))


def test_kl_needs_a_head():
    model = LoopLlamaForCausalLM(build({**DYNAMIC, "convergence_criterion": "kl"}).config)
    model.model.lens = None
    with pytest.raises(ValueError, match="output head"):
        model(ids(3))
