"""The door from an engine to the Lab: an engine goes in, rows and descriptions come out."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from loopviz.engine.local import LocalEngine
from loopviz.lab import TASKS, measure
from loopviz.model.checkpoints.load import as_loop_llama
from loopviz.model.interrupt import check
from tests.conftest import make_llama

TEXT = "Once upon a time there was a small dog. The dog saw a bird. " * 4


@pytest.fixture(scope="module")
def engine(tiny_tokenizer: Any) -> LocalEngine:
    return LocalEngine("tiny", as_loop_llama(make_llama(num_hidden_layers=6)).eval(), tiny_tokenizer, "made here")


def counted(subject: Any, params: Any) -> int:
    """What a task does that reads a long text before anything is measured."""
    check()
    return 1


TASK = dataclasses.replace(
    TASKS["perplexity"],
    cells=counted,
    settings=lambda subject, row, params: {"loop_layers": (1, 2), "loop_count": row["loops"]} if row else None,
)
PARAMS = TASK.params(text=TEXT, window=16, loops=(1, 3), paths=("full",), loop={"loop_layers": [1, 2]})


def test_an_engine_is_measured_by_rows_of_plain_data(engine: LocalEngine, tmp_path: Path) -> None:
    subject = measure.subject_of(engine)
    assert (subject.name, subject.source, subject.model) == ("tiny", "made here", engine.model)
    experiment = measure.begin(TASK, subject, PARAMS, tmp_path, threading.Event())
    assert experiment is not None
    for _ in experiment:
        pass
    assert experiment.complete
    assert [row["loops"] for row in experiment.rows] == [1, 3]
    assert json.loads(json.dumps(experiment.rows)) == experiment.rows


def test_a_measurement_that_is_taken_back_before_it_began_is_none(engine: LocalEngine, tmp_path: Path) -> None:
    stop = threading.Event()
    assert measure.begin(TASK, measure.subject_of(engine), PARAMS, tmp_path, stop) is not None
    stop.set()
    assert measure.begin(TASK, measure.subject_of(engine), PARAMS, tmp_path, stop) is None


def test_the_model_of_a_row_is_described_and_a_row_of_none_is_not(engine: LocalEngine) -> None:
    subject = measure.subject_of(engine)
    described = measure.model_of_row(TASK, subject, {"loops": 3}, PARAMS)
    assert described is not None
    assert described.name == "tiny"
    assert [(block.a, block.b, block.count) for block in described.blocks] == [(1, 2, 3)]
    assert measure.model_of_row(TASK, subject, {}, PARAMS) is None
    assert measure.model_of_row(dataclasses.replace(TASK, settings=None), subject, {"loops": 3}, PARAMS) is None
