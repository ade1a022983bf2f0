"""The roofline's passes are those that ran: bytes and operations by hand, and the roof the machine's."""

from __future__ import annotations

import pytest

from loopviz.anatomy import roofline
from loopviz.anatomy.roofline import Machine
from loopviz.checks import FieldError
from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks.roofline import RooflineParams
from tests.lab.subject import TEXT, subject

TASK = TASKS["roofline"]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One that has 4 operations a byte, and is measured in no time."""
    made = Machine(bytes_per_second=1e9, flops_per_second=4e9)
    monkeypatch.setattr(roofline, "measure", lambda kind="cpu", dtype=None: made)
    return made


@pytest.mark.parametrize(
    ("loop", "runs", "keys"),  # in parallel each run of a looped layer reads all its slots
    [
        ({}, 5, 5),
        ({"loop_layers": (1, 2), "loop_count": 4, "virtual_layer_count": 4, "virtual_attention_mode": "serial"}, 11, 11),
        ({"loop_layers": (1, 2), "loop_count": 4, "virtual_layer_count": 4, "virtual_attention_mode": "parallel"}, 11, 3 + 8 * 4),
        ({"loop_layers": (1, 2), "loop_count": 4, "virtual_layer_count": 3}, 11, 3 + 8 * 3),
        ({"loop_layers": (0, 4), "loop_count": 2}, 10, 10 * 2),
        ({"loop_layers": (0, 4), "loop_count": 2, "kv_cache_mode": "merge_strategy"}, 10, 10),
    ],
)  # fmt: skip
def test_bytes_and_operations_of_each_pass_by_hand(loop: dict, runs: int, keys: int) -> None:
    tiny = subject(**loop)
    rows = (
        Experiment(TASK, tiny, RooflineParams(text=TEXT, tokens=40, past=8, at_once=(1, 5, 32, 33), tries=1)).run().rows
    )
    assert [row["at_once"] for row in rows] == [1, 5, 32], "what does not fit is left out"
    H, F, D, N, K, V = 32, 48, 8, 4, 2, tiny.model.config.vocab_size
    weights = 2 * H * N * D + 2 * H * K * D + 3 * H * F + 2 * H
    for row in rows:
        n = row["at_once"]
        read = 4 * (runs * weights + keys * 2 * K * D * (8 + n) + V * H)
        made = 2 * (runs * n * weights + keys * 2 * sum(8 + t + 1 for t in range(n)) * N * D + V * H)
        assert row["layer_runs"] == runs
        assert row["bytes"] == pytest.approx(read, rel=1e-12)
        assert row["gflop"] == pytest.approx(made / 1e9, rel=1e-12)
        assert row["intensity"] == pytest.approx(made / read, rel=1e-12)
        assert row["bound"] == ("memory" if made / read < 4 else "arithmetic")
        assert row["least_ms"] == pytest.approx(1e3 * max(read / 1e9, made / 4e9), rel=1e-12)
        assert row["ms"] > 0
        assert row["gflops"] == pytest.approx(row["gflop"] / row["ms"] * 1e3, rel=1e-9)
        assert row["ms_each"] == pytest.approx(row["ms"] / n)
    assert rows[0]["bound"] == "memory", "one token does half an operation a byte"
    assert rows[-1]["intensity"] > 10 * rows[0]["intensity"]


def test_a_text_too_short_for_any_pass_is_refused() -> None:
    with pytest.raises(FieldError, match="text"):
        Experiment(TASK, subject(), RooflineParams(text="ab cd", at_once=(64,))).run()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_figure_and_headline(lang: str) -> None:
    frame = Experiment(TASK, subject(), RooflineParams(text=TEXT, tokens=40, past=8, at_once=(1, 16))).run().frame
    roof, reached = TASK.plot(frame, lang).data
    assert max(roof.y) == 4.0
    at = list(roof.x).index(4.0)
    assert roof.y[at] == 4.0, "slope and top meet at the balance"
    assert list(reached.x) == frame["intensity"].tolist()
    said = TASK.headline(frame.to_dict("records"), lang)
    assert "1 GB" in said
    assert "4 GFLOP" in said
    assert not TASK.plot(frame.iloc[:0], lang).data


@pytest.mark.parametrize(
    ("lang", "memory", "arithmetic", "cache"),
    [
        ("en", "by arithmetic memory is the limit", "by arithmetic the operations are the limit", "unless what it reads stays in the processor's cache"),
        ("zh", "按算术受限于内存", "按算术受限于运算", "除非所读的留在处理器缓存里"),
    ],
)  # fmt: skip
def test_what_follows_from_arithmetic_is_not_told_as_measured(
    lang: str, memory: str, arithmetic: str, cache: str
) -> None:
    """A small model's weights stay in the processor's cache, and it waits for no memory."""
    frame = Experiment(TASK, subject(), RooflineParams(text=TEXT, tokens=40, past=8, at_once=(1, 16))).run().frame
    said = TASK.headline(frame.to_dict("records"), lang)
    assert said.index(cache) < said.index(memory) < said.index(arithmetic)
    least = next(column for column in TASK.columns if column.name == "least_ms")
    assert ("cache" if lang == "en" else "缓存") in least.words[lang]


def test_what_measuring_the_machine_holds_is_counted() -> None:
    work = TASK.work(subject(), RooflineParams(text=TEXT, tokens=40, past=8, at_once=(1,)))
    assert work.states == roofline.measuring_bytes("cpu", 4)
