"""The exit bench's replay: agrees with really running where it says so, and is worked out right where it is pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from loopviz.lab.reading import exit_replay
from loopviz.lab.reading.exit_replay import ExitRun, exit_steps, max_loop_view, outcome, real_run, record, settings_of
from loopviz.model import LoopCache
from loopviz.trace import metrics
from tests.model import tiny

N = 6
FLOOR = 2
LOOP = {"loop_layers": (1, 2), "loop_damping": 0.5, "virtual_layer_count": 2, "min_loop_count": FLOOR}
MODES = {
    "parallel": {"virtual_attention_mode": "parallel"},
    "serial": {"virtual_attention_mode": "serial"},
    "ema": {"kv_cache_mode": "merge_strategy"},
}
IDS = torch.randint(1, 97, (3, 6), generator=torch.Generator().manual_seed(3))


def recorded(
    model: Any, loop: dict[str, Any], unit: str, ids: torch.Tensor = IDS
) -> tuple[ExitRun, list[torch.Tensor]]:
    own: list[torch.Tensor] = []
    return ExitRun.join(record(max_loop_view(model, loop, N), ids, unit, own)), own


def apart(run: ExitRun, policy: str) -> list[float]:
    """Thresholds over the whole range, each amid a wide gap between the scores that occur: rounding cannot decide."""
    scores = np.sort(exit_replay.unit_means(run.scores[policy], run.unit)[:, FLOOR - 1 :].ravel())
    widest = [part[np.argmax(np.diff(scores)[part])] for part in np.array_split(np.arange(len(scores) - 1), 4)]
    return [float(scores[gap] + scores[gap + 1]) / 2 for gap in widest]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", ["cosine", "kl"])
def test_a_full_pass_stops_where_the_replay_says_and_pays_what_it_says(mode: str, policy: str) -> None:
    loop = LOOP | MODES[mode]
    model = tiny.build(loop)
    run, own = recorded(model, loop, "pass")
    seen = set()
    for threshold in apart(run, policy):
        stop = exit_steps(run, policy, threshold, FLOOR)
        real = real_run(model.with_loop(**loop | settings_of(policy, threshold, FLOOR, N)), IDS, "pass", own)
        np.testing.assert_array_equal(real.loops, stop)
        at = (np.arange(len(stop)), stop - 1)
        np.testing.assert_allclose(real.kl_paid, run.kl_paid[at], atol=1e-4)
        np.testing.assert_array_equal(real.changed, ~run.same[at])
        seen |= set(stop.tolist())
    assert len(seen) >= 3, "the thresholds stop the rows at the same steps: the test says little"


@pytest.mark.parametrize(("mode", "policy"), [("parallel", "cosine"), ("serial", "kl"), ("ema", "cosine")])
def test_one_token_that_stops_after_a_context_at_the_most_loops_is_replayed_exactly(mode: str, policy: str) -> None:
    loop = LOOP | MODES[mode]
    model = tiny.build(loop)
    run, own = recorded(model, loop, "token")
    threshold = apart(run, policy)[1]
    stop = exit_steps(run, policy, threshold, FLOOR).reshape(-1, len(IDS))  # [T, B]
    paid = run.kl_paid.reshape(IDS.shape[1], len(IDS), N)
    stopping = model.with_loop(**loop | settings_of(policy, threshold, FLOOR, N))
    assert len(set(stop[[2, 5]].ravel().tolist())) > 1
    for t in (2, 5):
        cache = LoopCache(model.config)
        most = max_loop_view(model, loop, N)
        with torch.no_grad():
            for i in range(t):
                most(IDS[:, i : i + 1], past_key_values=cache)
            logits = stopping(IDS[:, t : t + 1], past_key_values=cache).logits
        assert stopping.last_pass.steps[0].tolist() == stop[t].tolist()
        kl = metrics.kl(own[t], metrics.log_probs(logits))[:, 0]
        np.testing.assert_allclose(kl, paid[t, np.arange(len(IDS)), stop[t] - 1], atol=1e-4)


@pytest.mark.parametrize("policy", ["cosine", "kl"])
def test_decoding_agrees_exactly_where_no_key_depends_on_the_step_of_exit(policy: str) -> None:
    loop = LOOP | {"loop_layers": (1, 3), "kv_cache_mode": "merge_strategy", "merge_strategy": "first"}
    model = tiny.build(loop)  # 4 layers: nothing after the block
    run, own = recorded(model, loop, "token")
    seen = set()
    for threshold in apart(run, policy)[1:3]:
        stop = exit_steps(run, policy, threshold, FLOOR)
        view = model.with_loop(**loop | settings_of(policy, threshold, FLOOR, N))
        real = real_run(view, IDS, "token", own)
        np.testing.assert_array_equal(real.loops, stop)
        np.testing.assert_allclose(real.kl_paid, run.kl_paid[np.arange(len(stop)), stop - 1], atol=1e-4)
        seen |= set(stop.tolist())
    assert len(seen) >= 3


def test_decoding_differs_where_keys_depend_on_it_and_the_difference_is_measured() -> None:
    loop = LOOP | MODES["serial"]
    model = tiny.build(loop)
    run, own = recorded(model, loop, "token")
    threshold = apart(run, "cosine")[1]
    stop = exit_steps(run, "cosine", threshold, FLOOR)
    view = model.with_loop(**loop | settings_of("cosine", threshold, FLOOR, N))
    real = real_run(view, IDS, "token", own)
    first = slice(0, len(IDS))  # the first token has no past to differ
    np.testing.assert_array_equal(real.loops[first], stop[first])
    np.testing.assert_allclose(real.kl_paid[first], run.kl_paid[np.arange(3), stop[:3] - 1], atol=1e-4)
    assert np.abs(real.kl_paid - run.kl_paid[np.arange(len(stop)), stop - 1]).max() > 1e-2


def test_a_fixed_count_is_the_same_model_with_that_count() -> None:
    loop = LOOP | MODES["parallel"]
    model = tiny.build(loop)
    run, own = recorded(model, loop, "pass")
    stop = exit_steps(run, "count", 3)
    assert stop.tolist() == [3] * IDS.numel()
    with torch.no_grad():
        logits = model.with_loop(**loop, loop_count=3)(IDS, use_cache=False).logits
    kl = metrics.kl(own[0], metrics.log_probs(logits)).flatten()
    np.testing.assert_allclose(run.kl_paid[:, 2], kl, atol=1e-4)


def test_all_steps_cost_nothing() -> None:
    run, _ = recorded(tiny.build(LOOP), LOOP, "token")
    found = outcome(run, np.full(len(run.unit), N))
    assert found == {
        "mean_loops": N,
        "saved": 0,
        "changed": 0,
        "kl_mean": pytest.approx(0, abs=1e-6),
        "kl_worst": pytest.approx(0, abs=1e-6),
    }


def test_scores_are_the_formulas_on_the_states() -> None:
    model = tiny.build(LOOP)
    view = max_loop_view(model, LOOP, N)
    (states, _), *_ = exit_replay.passes(view, IDS[:1], "pass")
    s = states[:, 0].double()  # [N + 1, T, H]
    run, _ = recorded(model, LOOP, "pass", IDS[:1])
    delta = s[1:] - s[:-1]
    expected = (delta[1:] - delta[:-1]).norm(dim=-1) / s[2:].norm(dim=-1)
    assert np.isnan(run.scores["acceleration"][:, 0]).all()
    np.testing.assert_allclose(run.scores["acceleration"][:, 1:], expected.T, rtol=1e-4)
    with torch.no_grad():
        p = model.lens(states[:, 0]).double().softmax(-1)
    entropy = -(p * p.log()).sum(-1)
    np.testing.assert_allclose(run.scores["entropy"], (entropy[1:] - entropy[:-1]).abs().T, atol=1e-4)
    kl = (p[:-1] * (p[:-1].log() - p[1:].log())).sum(-1)  # what the step before says of this one, not the other way
    np.testing.assert_allclose(run.scores["kl"], kl.T, atol=1e-4)
    best = p.argmax(-1)
    np.testing.assert_array_equal(run.scores["argmax"], (best[1:] == best[:-1]).T)
    np.testing.assert_allclose(run.scores["rel_delta"], (delta.norm(dim=-1) / s[1:].norm(dim=-1)).T, rtol=1e-4)


def made(scores: dict[str, list[list[float]]], unit: list[int] | None = None) -> ExitRun:
    arrays = {name: np.array(rows, dtype=float) for name, rows in scores.items()}
    shape = next(iter(arrays.values())).shape
    return ExitRun(np.array(unit or range(shape[0])), arrays, np.zeros(shape), np.ones(shape, dtype=bool))


def test_two_hits_in_a_row_and_hits_below_the_floor_count() -> None:
    run = made({"acceleration": [[np.nan, 0.1, 9, 0.1, 0.1, 0.1], [np.nan, 0.1, 0.1, 9, 9, 9], [np.nan] + [9] * 5]})
    assert exit_steps(run, "acceleration", 1).tolist() == [5, 3, 6]
    assert exit_steps(run, "acceleration", 1, floor=3).tolist() == [5, 3, 6]
    assert exit_steps(run, "acceleration", 1, floor=4).tolist() == [5, 6, 6]


def test_the_threshold_of_argmax_is_how_many_steps_it_must_stay() -> None:
    run = made({"argmax": [[0, 1, 1, 0, 1, 1, 1]]})
    assert [int(exit_steps(run, "argmax", k)[0]) for k in (1, 2, 3, 4)] == [2, 3, 7, 7]


def test_tokens_of_a_unit_stop_together_on_their_mean() -> None:
    run = made({"kl": [[4, 0, 0], [0, 4, 0], [1, 1, 1]]}, unit=[0, 0, 1])
    assert exit_steps(run, "kl", 1).tolist() == [3, 3, 1]
    assert exit_steps(run, "kl", 2).tolist() == [1, 1, 1]


def test_joined_runs_keep_their_units_apart() -> None:
    run = ExitRun.join([made({"kl": [[1], [2]]}, unit=[0, 0]), made({"kl": [[3], [4]]})])
    assert run.unit.tolist() == [0, 0, 1, 2]
    assert run.scores["kl"].ravel().tolist() == [1, 2, 3, 4]


def test_pareto_marks_what_nothing_beats() -> None:
    #        beaten by 2nd, best, same as best, cheaper, dearer and saves less
    saved, paid = [0.5, 0.6, 0.6, 0.2, 0.1], [0.3, 0.3, 0.3, 0.1, 0.2]
    assert exit_replay.pareto(saved, paid) == [False, True, True, True, False]


def test_what_cannot_be_replayed_is_refused_by_name() -> None:
    model = tiny.build(LOOP)
    with pytest.raises(ValueError, match=r"loop_layers=\[\(0, 0\), \(2, 3\)\]: 2 looped blocks"):
        max_loop_view(model, LOOP | {"loop_layers": [(0, 0), (2, 3)]}, N)
    with pytest.raises(ValueError, match="policy='gate'"):
        exit_steps(made({"kl": [[1]]}), "gate", 1)


@pytest.mark.parametrize("policy", ["cosine", "kl"])
def test_a_chosen_point_becomes_the_models_own_settings(policy: str) -> None:
    model = tiny.build(LOOP)
    view = model.with_loop(**LOOP | settings_of(policy, 0.5, 3, N))
    block = view.config.loop_blocks()[0]
    assert (block.dynamic, block.criterion, block.floor, block.max_steps) == (True, policy, 3, N)
    assert getattr(block, exit_replay.POLICIES[policy].setting) == 0.5
    assert model.with_loop(**LOOP | settings_of("count", 4.0, 1, N)).config.loop_blocks()[0].max_steps == 4
    assert settings_of("entropy", 0.5, 3, N) is None


def test_the_floor_is_the_models_own_or_its_slots() -> None:
    model = tiny.build(LOOP)
    for slots, least, steps, floor in ((2, 3, 6, 3), (4, 2, 6, 4), (1, 1, 6, 1), (2, 5, 4, 4)):
        view = max_loop_view(model, LOOP | {"virtual_layer_count": slots, "min_loop_count": least}, steps)
        assert exit_replay.own_floor(view) == floor


def test_a_chooser_of_layers_cannot_be_replayed():
    """It may end a token before the last step: there is no state to exit from."""
    model = tiny.build({"loop_layers": (1, 2), "layer_chooser": "influence"})
    with pytest.raises(ValueError, match=r"layer_chooser='influence'.*'none'"):
        max_loop_view(model, {}, 3)
    assert max_loop_view(model, {"layer_chooser": "none"}, 3).config.loop_count == 3
