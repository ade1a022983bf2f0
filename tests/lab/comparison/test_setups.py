"""A sweep: which numbers of loops, and that each row is the model really so configured."""

from __future__ import annotations

import pytest

from loopviz.checks import FieldError
from loopviz.lab import Subject
from loopviz.lab.comparison.setups import counts_to, setups_of, shapes_of
from loopviz.lab.comparison.table import inward, pareto
from loopviz.lab.tasks.compare import CompareParams, Comparison
from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
from tests.conftest import make_llama

SERIAL = {"loop_layers": (1, 1), "loop_count": 3, "virtual_layer_count": 3, "virtual_attention_mode": "serial"}


@pytest.fixture(scope="module")
def subject(tiny_tokenizer):
    plain = make_llama()
    model = LoopLlamaForCausalLM(LoopLlamaConfig(**{**plain.config.to_dict(), "model_type": "loop_llama"})).eval()
    model.load_state_dict(plain.state_dict())
    return Subject(model, tiny_tokenizer, "tiny", "made here")


def compared(subject, **more):
    usual = {"prompt": "Once upon a time", "continuation": " there was a loop", "max_new_tokens": 5}
    return Comparison(subject, CompareParams(**{**usual, **more}))


def test_a_sweep_goes_by_powers_of_two_and_what_is_between_up_to_its_end():
    assert counts_to(16) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert counts_to(5) == [1, 2, 3, 4, 5]
    assert counts_to(2) == [1, 2]
    assert counts_to(1) == [1]


def test_a_row_of_a_sweep_is_that_configuration_at_its_number_of_loops(subject):
    """Notes that it leaves out are such as nobody reads: perplexity and text are those of the configuration itself."""
    swept = compared(subject, names=("p", "s"), loops=(None, SERIAL), sweeps=(0, 4))
    rows = [event.row for event in swept.events() if event.row is not None]
    assert [row["swept"] for row in rows] == [None, 1, 2, 3, 4]
    assert [row["setup"] for row in rows] == ["p", "s", "s", "s", "s"]
    for row in rows[1:]:
        alone = compared(subject, names=("p", "one"), loops=(None, {**SERIAL, "loop_count": row["swept"]}))
        other = next(e.row for e in alone.events() if e.row is not None and e.row["setup"] == "one")
        assert row["perplexity"] == pytest.approx(other["perplexity"], rel=1e-5)
        assert row["loops_mean"] == row["swept"] == other["loops_mean"]
        assert row["kv_bytes_per_token"] <= other["kv_bytes_per_token"]
    assert rows[1]["kv_bytes_per_token"] == rows[0]["kv_bytes_per_token"] < rows[3]["kv_bytes_per_token"]


def test_a_sweep_that_cannot_be_is_refused_by_name():
    with pytest.raises(FieldError, match="sweeps"):
        CompareParams(loops=(None, {}), sweeps=(4, 0))
    with pytest.raises(FieldError, match="sweeps"):
        CompareParams(loops=(None, {}), sweeps=(0, 0, 4))


def test_a_swept_baseline_is_the_row_of_fewest_loops(subject):
    swept = compared(subject, names=("s", "p"), loops=(SERIAL, None), sweeps=(3,))
    assert swept.baseline == 0
    assert swept.order == [0, 1, 2, 3]
    assert swept.setups[0].swept == 1


def test_what_a_sweep_costs_is_what_its_rows_cost(subject):
    shape = subject.shape(subject.view(SERIAL))
    assert [found.loops[0].steps for found in shapes_of(shape, 6)] == counts_to(6)
    assert shapes_of(shape, 0) == [shape]


def test_a_sweep_is_one_curve_of_the_picture():
    names = setups_of(("p", "loops"), (None, {}), (0, 3))
    rows = [
        {
            "setup": s.name,
            "swept": s.swept,
            "kv_bytes_per_token": 10.0 * (s.swept or 1),
            "perplexity": 5.0 - (s.swept or 0),
        }
        for s in names
    ]
    figure = pareto(rows, "kv_bytes_per_token", "perplexity", "en", [0, 1, 1, 1])
    curves = [trace for trace in figure["data"] if trace["mode"] == "lines+markers+text"]
    [curve] = curves
    assert curve["x"] == [10.0, 20.0, 30.0]
    assert curve["customdata"] == [1, 2, 3]
    assert curve["text"] == ["", "", "loops"]
    assert len([trace for trace in figure["data"] if trace["mode"] == "markers+text"]) == 1


def test_b10_a_name_at_an_end_of_the_picture_is_not_cut_off():
    points = [(0.0, 1.0), (5.0, 2.0), (10.0, 3.0)]
    assert inward(points, ["top center", "top center", "bottom center"], points) == [
        "top right",
        "top center",
        "bottom left",
    ]
    assert inward(points[:1], ["top center"], points[:1]) == ["top center"]
