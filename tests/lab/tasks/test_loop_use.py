"""Loop counts over a text: every token once, as many loops as it runs alone, groups that add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from loopviz.lab import TASKS, Experiment
from loopviz.lab.reading.intervals import FIGURE_DRAWS, mean_interval
from loopviz.lab.reading.token_classes import CLASSES, token_classes
from loopviz.lab.tasks.loop_use import LoopUseParams, distribution, means, plot
from loopviz.model import LoopCache
from tests.lab.subject import TEXT, subject

TASK = TASKS["loop_use"]
LOOP = {
    "loop_layers": (1, 2),
    "loop_damping": 0.5,
    "loop_strategy": "dynamic_stop",
    "virtual_layer_count": 1,
    "min_loop_count": 1,
    "max_loop_count": 6,
    "convergence_criterion": "cosine",
    "cosine_threshold": 0.9,
}
PARAMS = {"text": TEXT, "limit_tokens": 23, "window": 10, "batch": 2, "loop": LOOP}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    experiment = Experiment(TASK, subject(), LoopUseParams(**PARAMS))
    experiment.run()
    assert experiment.done == experiment.total == 23
    return experiment.frame


def test_every_token_is_read_once_and_runs_as_many_loops_as_in_a_run_of_its_own(table: pd.DataFrame) -> None:
    tiny = subject()
    ids = tiny.tokenizer(TEXT)["input_ids"][:23]
    assert sorted(table["index"]) == list(range(23))
    by_index = table.set_index("index").sort_index()
    assert by_index["position"].to_list() == [*range(10), *range(10), *range(3)]
    assert by_index["loops"].nunique() > 2, "all alike: the test says little"
    view = tiny.view(LOOP)
    for start in (10, 20):
        cache = LoopCache(view.config)
        for index in range(start, min(start + 10, 23)):
            with torch.no_grad():
                view(torch.tensor([[ids[index]]]), past_key_values=cache)
            assert by_index.loc[index, "loops"] == int(view.last_pass.steps[0])
            assert by_index.loc[index, "reason"] == view.last_pass.reasons[0][0]


def test_tokens_carry_their_text_and_class(table: pd.DataFrame) -> None:
    texts = table.sort_values("index")["token"].to_list()
    assert TEXT.startswith("".join(texts))
    assert table.sort_values("index")["class"].to_list() == token_classes(texts)


def test_groups_add_up(table: pd.DataFrame) -> None:
    for by, groups in (("class", set(table["class"])), ("position", {0, 4, 8})):
        found = distribution(table, by, bins=3)
        assert set(found["group"]) == groups
        assert found["tokens"].sum() == len(table)
        assert found.groupby("group")["share"].sum().to_list() == pytest.approx([1] * len(groups))
    first = table[(table["position"] < 4) & (table["loops"] == 2)]
    counted = distribution(table, "position", bins=3).query("group == 0 and loops == 2")["tokens"].sum()
    assert counted == len(first)
    with pytest.raises(ValueError, match="by='token'"):
        distribution(table, "token")


def test_each_block_has_its_rows() -> None:
    loop = {**LOOP, "loop_layers": [(0, 0), (2, 3)]}
    params = LoopUseParams(**{**PARAMS, "limit_tokens": 4, "loop": loop})
    frame = Experiment(TASK, subject(), params).run().frame
    assert frame.groupby("index")["block"].apply(list).to_list() == [[0, 1]] * 4


@pytest.mark.parametrize("loop", [None, {"loop_layers": (1, 2)}, {"loop_strategy": "dynamic_stop"}])
def test_a_model_that_does_not_stop_by_itself_is_refused(loop: dict | None) -> None:
    with pytest.raises(ValueError, match="every token runs the same number of loops"):
        TASK.cells(subject(), LoopUseParams(**{**PARAMS, "loop": loop}))


def test_what_is_usual_fits_a_model_that_was_trained_with_a_fixed_count() -> None:
    tiny = subject(loop_layers=(1, 2), loop_count=8, virtual_layer_count=8)
    params = LoopUseParams(text=TEXT, limit_tokens=12)
    assert {row["reason"] for row in Experiment(TASK, tiny, params).run().rows} <= {"kl", "max"}
    with pytest.raises(ValueError, match=r"virtual_layer_count=8: .*merge_strategy='last'"):
        TASK.cells(tiny, LoopUseParams(text=TEXT, loop={"loop_strategy": "dynamic_stop"}))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_stacks_shares_and_draws_means(table: pd.DataFrame, lang: str) -> None:
    figure = plot(table, lang)
    bars, line = figure.data[:-1], figure.data[-1]
    assert len(bars) == table["loops"].nunique()
    assert sum(sum(bar.x) for bar in bars) == pytest.approx(table["class"].nunique())
    assert line.y[0] == pytest.approx(table[table["position"] == 0]["loops"].mean())
    assert len(line.y) == 10
    assert not plot(table.iloc[:0], lang).data


def test_the_summary_has_a_row_a_class_and_one_for_all(table: pd.DataFrame) -> None:
    found = TASK.summary(table).set_index("class")
    assert list(found.index) == [name for name in CLASSES if name in set(table["class"])] + ["all"]
    for name, row in found.iterrows():
        loops = table["loops"] if name == "all" else table.loc[table["class"] == name, "loops"]
        assert row["tokens"] == len(loops)
        assert row["mean_loops"] == pytest.approx(loops.mean())
        if len(loops) > 1:
            assert row["error"] == pytest.approx(loops.astype(float).std(ddof=1) / len(loops) ** 0.5)
        shares = {int(column.split()[0]): share for column, share in row.items() if column.endswith("loops, %")}
        assert set(shares) == set(table["loops"])
        assert sum(shares.values()) == pytest.approx(100, abs=0.05 * len(shares))
        for count, share in shares.items():
            assert share == pytest.approx(100 * (loops == count).mean(), abs=0.051)
    assert len(TASK.summary(table.iloc[:0])) == 0


def test_each_block_has_its_summary(table: pd.DataFrame) -> None:
    two = pd.concat([table, table.assign(block=1, loops=1)])
    found = TASK.summary(two)
    assert found[found["block"] == 1]["mean_loops"].tolist() == [1.0] * (len(found) // 2)


@pytest.mark.parametrize("by", ["class", "position"])
def test_means_have_intervals_over_windows(by: str) -> None:
    """Whole windows are drawn: a figure of 160 rows is one of a few means, each with how sure it is."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "index": 10 * window + position,
            "position": position,
            "class": ("name", "other")[position % 2],
            "loops": int(loops),
        }
        for window in range(16)
        for position, loops in enumerate(rng.integers(1, 6, 10) + window % 3)
    ]
    table = pd.DataFrame(rows).assign(token="x", block=0, reason="kl")
    found = means(table, by, bins=5).set_index("group")
    for name, own in found.iterrows():
        same = table[table["class"] == name] if by == "class" else table[table["position"] // 2 * 2 == name]
        by_window = same.groupby(same["index"] // 10)["loops"]
        wanted = mean_interval(by_window.sum().to_numpy(float), by_window.count().to_numpy(), FIGURE_DRAWS, 0)
        assert own["mean"] == pytest.approx(same["loops"].mean())
        assert (own["low"], own["high"]) == pytest.approx(wanted)
    figure = plot(table, "en")
    line = figure.data[-1]
    drawn = means(table, "position")
    assert list(line.error_y.array) == pytest.approx((drawn["high"] - drawn["mean"]).tolist())
    assert list(line.error_y.arrayminus) == pytest.approx((drawn["mean"] - drawn["low"]).tolist())
    named = means(table, "class").set_index("group").loc["name"]
    assert f"name<br>{named['mean']:.2f} ({named['low']:.2f}–{named['high']:.2f})" in figure.data[0].y


def test_of_few_windows_there_is_no_interval(table: pd.DataFrame) -> None:
    assert means(table, "class")[["low", "high"]].isna().all(axis=None)
    assert plot(table, "en").data[-1].error_y.visible is False
