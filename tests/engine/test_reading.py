"""The door through which a page reads a run again: the same here and elsewhere, one token at a time, ended and let go of."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from loopviz.anatomy.llama import probabilities
from loopviz.anatomy.reread import Reread
from loopviz.engine import StreamSettings, run
from loopviz.engine.local import LocalEngine
from loopviz.trace import Trace
from tests.anatomy.test_reread import KINDS, PROMPT
from tests.engine import tiny
from tests.engine.elsewhere import Elsewhere

WHERE = {"here": lambda engine: engine, "elsewhere": Elsewhere}


def made(kind: str) -> tuple[Any, Trace]:
    model = tiny.model(**KINDS[kind])
    return model, run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=6, record="full", seed=1))


def reading_of(kind: str, where: str = "here") -> tuple[Any, Trace, Any]:
    model, trace = made(kind)
    engine = WHERE[where](LocalEngine("tiny", model, tiny.tokenizer()))
    return model, trace, engine.read_again(trace)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_the_probe_s_wherever_its_model_runs(kind: str, where: str) -> None:
    model, trace, reading = reading_of(kind, where)
    for position in (2, len(trace) - 1):
        token = reading.read(position, threading.Event())
        probed = Reread(model, trace).probe(position)
        assert token.picture.position == position
        assert token.picture.agreement["is_the_runs"]
        runs = [(one.layer, -1 if one.block is None else one.block, one.step) for one in probed.layers]
        assert list(token.picture.runs) == runs
        assert ("normed" in token.picture.tensors) == (probed.final is not None), (
            "a loop may end in the model's last norm"
        )
        if probed.final is not None:
            np.testing.assert_array_equal(token.picture.tensors["normed"], probed.normed.numpy())
        for one in probed.layers:
            np.testing.assert_array_equal(token.layer(one.layer, one.step).tensors["result"], one.result.numpy())


@pytest.mark.parametrize("where", WHERE)
def test_what_is_drawn_from_is_llama_py_s(where: str) -> None:
    model, trace, reading = reading_of("serial", where)
    token = reading.read(len(trace) - 1, threading.Event())
    drawn = token.draw(0.7, 5, 0.9)
    logits = Reread(model, trace).probe(len(trace) - 1).logits
    wanted = probabilities(logits[None], 0.7, 5, 0.9)[0]
    order = logits.argsort(descending=True)[: len(drawn.rows)].tolist()
    for (_, logit, share, chance), place in zip(drawn.rows, order, strict=True):
        assert logit == pytest.approx(float(logits[place]))
        assert share == pytest.approx(float(logits.softmax(-1)[place]))
        assert chance == pytest.approx(float(wanted[place]))
    assert drawn.kept == int((wanted > 0).sum()) <= 5


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("how", "named"),
    [
        ((0.0, 0, 1.0), "temperature=0"),
        ((1e-5, 0, 1.0), "temperature=1e-05"),
        ((float("nan"), 0, 1.0), "temperature=nan"),
        ((1e9, 0, 1.0), "temperature=1"),
        ((1.0, -1, 1.0), "top_k=-1"),
        ((1.0, 0, 0.0), "top_p=0"),
    ],
)
def test_what_a_run_does_not_take_is_refused_of_a_draw_too(where: str, how: tuple[Any, ...], named: str) -> None:
    _, trace, reading = reading_of("serial", where)
    with pytest.raises(ValueError, match=named):
        reading.read(len(trace) - 1, threading.Event()).draw(*how)


@pytest.mark.parametrize("temperature", [1e-4, 0.01, 0.1, 1.0])
def test_a_chance_that_rounds_to_nothing_is_not_said_to_be_left_out(temperature: float) -> None:
    """Only top-k and top-p leave out."""
    _, trace, reading = reading_of("serial")
    token = reading.read(len(trace) - 1, threading.Event())
    drawn = token.draw(temperature, 0, 1.0)
    assert drawn.kept == drawn.vocabulary
    if temperature >= 0.01:
        assert all(chance > 0 for *_, chance in drawn.rows)
    assert token.draw(temperature, 7, 1.0).kept == 7
    fewer = token.draw(temperature, 0, 0.9)
    assert fewer.kept < drawn.vocabulary
    assert sum(chance > 0 for *_, chance in fewer.rows) == min(fewer.kept, len(fewer.rows))


@pytest.mark.parametrize("where", WHERE)
def test_what_is_not_there_is_said(where: str) -> None:
    _, trace, reading = reading_of("serial", where)
    with pytest.raises(ValueError, match="position=99"):
        reading.read(99, threading.Event())
    token = reading.read(3, threading.Event())
    with pytest.raises(ValueError, match=r"layer=1, step=9: .*it ran in 1, 2, 3"):
        token.layer(1, 9)
    other = tiny.model(seed=0, layers=4)
    with pytest.raises(ValueError, match="layers=4"):
        LocalEngine("other", other, tiny.tokenizer()).read_again(trace)


def test_one_token_s_tensors_at_a_time() -> None:
    _, _trace, reading = reading_of("serial")
    first = reading.read(3, threading.Event())
    held = reading.nbytes
    assert held > first.nbytes > 0
    second = reading.read(4, threading.Event())
    assert first.nbytes == 0
    assert second.nbytes > 0
    with pytest.raises(ValueError, match="read it again"):
        first.layer(1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_needed_is_said_before_and_is_enough(kind: str) -> None:
    _, trace, reading = reading_of(kind)
    for position in range(len(trace)):
        need = reading.need(position)
        reading.read(position, threading.Event())
        assert reading.nbytes <= need, position


def test_what_is_needed_is_of_the_dtype_that_reads_and_not_of_the_one_a_file_names() -> None:
    model, trace = made("serial")
    need = LocalEngine("tiny", model, tiny.tokenizer()).read_again(trace).need(5)
    trace.meta["shape"]["itemsize"] = 1
    assert LocalEngine("tiny", model, tiny.tokenizer()).read_again(trace).need(5) == need


def test_a_reading_that_is_stopped_goes_on_later() -> None:
    _, trace, reading = reading_of("serial")
    stop = threading.Event()
    stop.set()
    assert reading.read(len(trace) - 1, stop) is None
    token = reading.read(len(trace) - 1, threading.Event())
    assert token is not None
    assert token.picture.agreement["is_the_runs"]


def test_readers_take_turns() -> None:
    """Two at a time would write into one cache."""
    _, trace, reading = reading_of("serial")
    found: list[Any] = []

    def read(position: int) -> None:
        token = reading.read(position, threading.Event())
        found.append(token.picture.agreement["is_the_runs"])

    threads = [threading.Thread(target=read, args=(position,)) for position in (6, 2, len(trace) - 1, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
