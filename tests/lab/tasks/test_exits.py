"""The exit bench as a task: its rows, its check against really running, its words and its plot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from loopviz.figures import theme
from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks import exits
from loopviz.lab.tasks.exits import ExitParams, plot
from loopviz.loop_fields import PUBLISHED_CRITERIA
from tests.lab.subject import TEXT, subject

TASK = TASKS["exits"]
LOOP = {"loop_layers": (1, 3), "loop_damping": 0.5, "virtual_layer_count": 2, "min_loop_count": 2}
PARAMS = {"text": TEXT, "limit_tokens": 20, "window": 8, "batch": 2, "loop": LOOP, "max_loops": 5}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    params = ExitParams(
        **PARAMS, unit="pass", check=True, cosine=(0.935, 0.97, 0.98, 0.991), kl=(0.16, 0.087, 0.05, 0.02)
    )
    experiment = Experiment(TASK, subject(), params)
    experiment.run()
    assert experiment.done == experiment.total
    return experiment.frame


def test_a_pass_really_runs_as_replayed(table: pd.DataFrame) -> None:
    checked = table[table["policy"].isin(["count", "cosine", "kl"])]
    assert (checked["real_agrees"] == 1).all()
    assert checked["real_kl_mean"].to_numpy() == pytest.approx(checked["kl_mean"].to_numpy(), abs=1e-5)
    assert checked["real_kl_worst"].to_numpy() == pytest.approx(checked["kl_worst"].to_numpy(), abs=1e-4)
    assert checked["real_changed"].to_list() == checked["changed"].to_list()
    assert checked["mean_loops"].nunique() > 5
    assert table.loc[~table["policy"].isin(["count", "cosine", "kl"]), "real_loops"].isna().all()


def test_every_policy_and_threshold_has_its_row(table: pd.DataFrame) -> None:
    assert table[table["policy"] == "count"]["threshold"].to_list() == [1, 2, 3, 4, 5]
    assert set(table["policy"]) == {"count", "cosine", "kl", "rel_delta", "acceleration", "argmax", "entropy"}
    rules = table[table["policy"] != "count"]
    assert (rules["mean_loops"] >= 2).all(), "the floor holds for every rule"
    assert table["saved"].to_list() == pytest.approx((1 - table["mean_loops"] / 5).to_list())
    last = table[table["threshold"].eq(5) & table["policy"].eq("count")].iloc[0]
    assert (last["saved"], last["changed"], last["pareto_kl"]) == (0, 0, True)


@pytest.mark.parametrize("unit", ["pass", "token"])
@pytest.mark.parametrize("layers", [(1, 3), (2, 4)])
def test_a_gate_is_one_of_the_rules_and_really_chooses_as_replayed(unit: str, layers: tuple[int, int]) -> None:
    """All loops run under a gate, so that nothing of earlier tokens' loops depends on what it chooses."""
    gated = subject(**{**LOOP, "loop_layers": layers}, exit_selection="gate", exit_threshold=0.5)
    with torch.no_grad():
        gated.model.model.loop_gates["0"].weight.normal_(0, 2, generator=torch.Generator().manual_seed(1))
    none = {"cosine": (), "kl": (), "rel_delta": (), "acceleration": (), "argmax": (), "entropy": ()}
    params = ExitParams(**{**PARAMS, "loop": {}}, unit=unit, check=True, gate=(0.2, 0.5, 0.9, 1.0), **none)
    experiment = Experiment(TASK, gated, params)
    frame = experiment.run().frame
    assert experiment.done == experiment.total == 5 + 4
    rows = frame[frame["policy"] == "gate"]
    assert rows["threshold"].to_list() == [0.2, 0.5, 0.9, 1.0]
    assert set(rows["floor"]) == {1}
    assert (rows["real_agrees"] == 1).all()
    assert rows["mean_loops"].to_list() == pytest.approx(rows["real_loops"].to_list())
    if layers[1] < 4:  # what follows the block sees the states chosen for the other tokens
        return
    assert rows["real_kl_mean"].to_numpy() == pytest.approx(rows["kl_mean"].to_numpy(), abs=1e-5)
    assert rows["mean_loops"].is_monotonic_increasing
    assert rows["mean_loops"].nunique() > 2
    assert (rows["mean_loops"] % 1 != 0).any(), "tokens decide alone, in one pass too"
    found = TASK.settings(gated, rows.iloc[1].to_dict(), params)
    assert (found["exit_selection"], found["exit_threshold"], found["loop_count"]) == ("gate", 0.5, 5)


def test_huginns_rules_really_stop_as_replayed() -> None:
    """A window in one pass: its last token's words decide, at thresholds that this model meets somewhere in between."""
    from loopviz.lab.reading import exit_replay

    tiny, loop = subject(), {**LOOP, "max_loop_count": 9, "virtual_layer_count": 1, "min_loop_count": 1}
    view = exit_replay.max_loop_view(tiny.view(loop), {}, 9)
    ids = torch.tensor(tiny.tokenizer(TEXT)["input_ids"][:24]).view(3, 8)
    kept: list[torch.Tensor] = []
    run = exit_replay.ExitRun.join(exit_replay.record(view, ids, "pass", kept, published=True))
    seen = set()
    for name in PUBLISHED_CRITERIA:
        score = run.scores[exit_replay.POLICIES[name].score]
        for threshold in (PUBLISHED_CRITERIA[name], float(np.quantile(score[:, 2:], 0.4)) + 1e-6):
            stop = exit_replay.exit_steps(run, name, threshold)
            real = exit_replay.real_run(
                view.with_loop(**exit_replay.settings_of(name, threshold, 1, 9)), ids, "pass", list(kept)
            )
            assert real.loops.tolist() == stop.tolist(), (name, threshold)
            seen |= {*stop}
    assert len(seen) > 3
    params = ExitParams(**PARAMS, published=True)
    table = Experiment(TASK, tiny, params).run().frame
    own = table[table["policy"].isin([*PUBLISHED_CRITERIA])]
    assert dict(zip(own["policy"], own["threshold"], strict=True)) == dict(PUBLISHED_CRITERIA)


@pytest.mark.parametrize("published", [False, True])
def test_all_that_is_kept_of_a_run_is_foreseen(published: bool) -> None:
    """The rules huginn_* watch five numbers more."""
    from loopviz.lab.reading import exit_replay

    gated = subject(**LOOP, exit_selection="gate", exit_threshold=0.5)
    view = exit_replay.max_loop_view(gated.view({"exit_selection": "last"}), {}, 5)
    ids = torch.tensor(gated.tokenizer(TEXT)["input_ids"][:8])[None]
    (run,) = exit_replay.record(view, ids, "pass", published=published)
    held = sum(part.nbytes for part in (*run.scores.values(), run.kl_paid, run.same))
    foreseen = exits.SCORES + published * exits.PUBLISHED_SCORES
    assert 2 * held / run.kl_paid.size <= foreseen * exits.SCORE_BYTES < 2.4 * held / run.kl_paid.size
    works = [TASK.work(gated, ExitParams(**PARAMS, published=asked)) for asked in (False, True)]
    assert works[1].kept - works[0].kept >= exits.PUBLISHED_SCORES * exits.SCORE_BYTES * 20 * 5


def test_decoding_is_measured_against_the_replay_token_by_token() -> None:
    params = ExitParams(
        **PARAMS, check=True, cosine=(0.96,), kl=(), rel_delta=(), acceleration=(), argmax=(), entropy=()
    )
    frame = Experiment(TASK, subject(), params).run().frame
    cosine = frame[frame["policy"] == "cosine"].iloc[0]
    assert 2 < cosine["mean_loops"] < 5
    assert abs(cosine["real_kl_mean"] - cosine["kl_mean"]) > 1e-4, (
        "earlier tokens that stop too leave other keys behind"
    )
    assert frame[frame["threshold"] == 5].iloc[0]["real_kl_mean"] == pytest.approx(0, abs=1e-6)


def test_the_floor_and_the_most_loops_are_the_models_own_unless_given() -> None:
    loop = {**LOOP, "max_loop_count": 4}
    params = ExitParams(text=TEXT, limit_tokens=6, window=6, loop=loop)
    assert TASK.cells(subject(), params) == 4 + 6 + 5 + 5 + 5 + 4 + 4
    rows = Experiment(TASK, subject(), ExitParams(text=TEXT, limit_tokens=6, window=6, loop=loop, floor=3)).run().frame
    assert rows[rows["policy"] != "count"]["mean_loops"].min() >= 3


def test_a_models_own_slots_do_not_lift_the_floor() -> None:
    """With a slot a loop (the bundled models), 13 of 29 rules had stopped at exactly that many loops."""
    bundled = subject(loop_layers=(1, 3), loop_damping=0.5, virtual_layer_count=8, loop_count=8, min_loop_count=2)
    params = ExitParams(
        text=TEXT, limit_tokens=12, window=6, max_loops=8, check=True, cosine=(0.9, 0.96), kl=(0.1, 0.01)
    )
    frame = Experiment(TASK, bundled, params).run().frame
    rules = frame[frame["policy"] != "count"]
    assert set(rules["floor"]) == {2}
    assert rules["mean_loops"].min() < 4
    one = Experiment(TASK, bundled, replace(params, loop={"virtual_layer_count": 1})).run().frame
    pd.testing.assert_frame_equal(frame, one)  # what is measured is the model with one slot
    for row in frame.to_dict("records"):
        found = TASK.settings(bundled, row, params)
        if found is not None:
            assert found["virtual_layer_count"] == 1
            bundled.view(found)
    asked = ExitParams(text=TEXT, limit_tokens=12, window=6, max_loops=8, loop={"virtual_layer_count": 4})
    rules = Experiment(TASK, bundled, asked).run().frame.query("policy != 'count'")
    assert set(rules["floor"]) == {4}


def test_fewer_loops_than_the_models_slots_and_floor_can_be_asked_for() -> None:
    """`--max-loops 3` was refused for a virtual_layer_count that nobody had set."""
    plain = subject()
    params = ExitParams(text=TEXT, limit_tokens=8, window=8, loop={"loop_layers": (1, 2)}, max_loops=3)
    frame = Experiment(TASK, plain, params).run().frame
    assert set(frame.query("policy != 'count'")["floor"]) == {3}
    frame = Experiment(TASK, plain, replace(params, floor=1)).run().frame
    assert frame.query("policy != 'count'")["mean_loops"].min() < 3


def test_a_model_that_stops_by_itself_is_recorded_whatever_its_slots_are() -> None:
    thing = subject(loop_layers=(1, 2), virtual_layer_count=5, min_loop_count=5, loop_strategy="dynamic_stop")
    assert len(
        Experiment(TASK, thing, ExitParams(text=TEXT, limit_tokens=6, window=6, floor=2, max_loops=6)).run().rows
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"unit": "text"}, "unit='text'"),
        ({"cosine": (1.5,)}, "cosine=1.5"),
        ({"argmax": (0,)}, "argmax=0"),
        ({"max_loops": -1}, "max_loops=-1"),
        ({"window": 1}, "window=1"),
        ({"file": "x"}, "exactly one"),
    ],
)
def test_wrong_parameters_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExitParams(**{**PARAMS, **wrong})


def test_settings_that_cannot_run_are_refused_before_anything_is_run() -> None:
    with pytest.raises(ValueError, match="virtual_layer_count=2: must be <= min_loop_count=1"):
        next(TASK.run(subject(), ExitParams(**{**PARAMS, "floor": 1})))
    with pytest.raises(ValueError, match="0 looped blocks"):
        TASK.cells(subject(), ExitParams(**{**PARAMS, "loop": None}))
    with pytest.raises(ValueError, match="window=300: must be <= 256"):
        next(TASK.run(subject(), ExitParams(**{**PARAMS, "window": 300})))


def test_the_recording_can_be_left_before_there_is_a_row() -> None:
    experiment = Experiment(TASK, subject(), ExitParams(**PARAMS))
    assert next(iter(experiment)) is None
    experiment.close()
    assert experiment.done == 0
    assert not experiment.complete
    assert plot(experiment.frame, "en").layout.annotations[0].text == "No rows yet"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_has_a_curve_a_policy_and_rings_the_front(table: pd.DataFrame, lang: str) -> None:
    figure = plot(table, lang)
    policies = list(dict.fromkeys(table["policy"]))
    assert [trace.name for trace in figure.data[:-1]] == policies
    front = table[table["pareto_kl"].astype(bool)]
    assert sorted(figure.data[-1].x) == sorted(front["saved"])
    assert figure.layout.template.layout.paper_bgcolor == theme.template()["layout"]["paper_bgcolor"]
    assert not plot(table.iloc[:0], lang).data
