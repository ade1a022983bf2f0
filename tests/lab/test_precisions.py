"""The table of precisions on a tiny model: its numbers are those computed here by other ways."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.lab import TASKS, precisions
from loopviz.lab.experiment import Experiment
from loopviz.lab.precisions import Cost, Plan, convergence_floor, costs, markdown
from loopviz.lab.task import Subject
from loopviz.lab.tasks import checkpoint, grouped_queries, rope_length
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.model.precision import plain_state, quantise
from loopviz.model.quantization import pack
from tests.conftest import TEXT, make_llama
from tests.lab.small import subject

WORDS = " ".join(TEXT) * 2
PLAN = Plan(tokens=40, window=12, loops=8, prompt=5, new=3, rounds=2)
LOOP: dict[str, Any] = {"loop_layers": (1, 1), "loop_count": 2}


def probabilities(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [value / math.fsum(powers) for value in powers]


def test_every_number_of_the_table(llama_folder: Callable[..., Path]) -> None:
    folder = str(llama_folder())
    found = costs(folder, WORDS, plan=PLAN, loop=LOOP)
    assert [row.held for row in found] == ["float32", "float16", "bfloat16", "int8"]
    tokenizer = load_checkpoint(folder).tokenizer
    ids = tokenizer(WORDS, add_special_tokens=False)["input_ids"][:40]
    models = {row.held: load_checkpoint(folder, dtype=getattr(torch, row.held), **LOOP).model for row in found}
    for row in found:
        divergences, same = [], []
        for at in range(0, 40, 12):
            part = torch.tensor([ids[at : at + 12]])
            with torch.no_grad():
                exact, other = (models[held](part).logits[0].float().tolist() for held in ("float32", row.held))
            for one, two in zip(exact, other, strict=True):
                p, q = probabilities(one), probabilities(two)
                divergences.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
                same.append(one.index(max(one)) == two.index(max(two)))
        assert row.n_tokens == len(same) == 40
        assert row.kl == pytest.approx(statistics.fmean(divergences), rel=1e-3, abs=1e-12)
        assert row.same == statistics.fmean(same)
        held = {tensor.data_ptr(): tensor.nbytes for tensor in models[row.held].state_dict().values()}
        assert row.n_bytes == sum(held.values())
        assert row.decode_ms > 0
        assert row.prefill_ms > 0
    assert found[0].kl == 0
    assert 0 < found[1].kl < found[2].kl  # float16 keeps three bits more than bfloat16


def test_the_floor_is_the_least_of_what_late_loops_change(llama_folder: Callable[..., Path]) -> None:
    model = load_checkpoint(llama_folder(), loop_layers=(1, 1), loop_damping=0.5).model
    ids = torch.tensor([[5, 17, 300, 2, 9, 44, 3]])
    view = model.with_loop(loop_count=6)
    states: list[list[list[float]]] = []

    def keep(step: Any) -> None:
        states.extend([step.previous[0].double().tolist()] if not states else [])
        states.append(step.state[0].double().tolist())

    view.register_loop_hook(keep)
    with torch.no_grad():
        view(ids, use_cache=False)
    late = []
    for before, after in itertools.pairwise(states[3:]):  # steps 4, 5 and 6 of 6
        changes = [math.dist(a, b) / math.hypot(*a) for a, b in zip(after, before, strict=True)]
        late.append(statistics.median(changes))
    assert len(late) == 3
    assert convergence_floor(model, ids, 6) == pytest.approx(min(late), rel=1e-5)


def test_half_cannot_settle_as_far_as_float32() -> None:
    """arrows-loop comes to rest: float32 goes on to its own rounding, a half stops at its."""
    floors = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        loaded = load_checkpoint("arrows-loop", dtype=dtype)
        ids = torch.tensor([loaded.tokenizer("b>c f>a a>b")["input_ids"]])
        floors.append(convergence_floor(loaded.model, ids, 24))
    exact, float16, bfloat16 = floors
    assert exact is not None
    assert float16 is not None
    assert bfloat16 is not None
    assert 10 * exact < float16 < bfloat16


def test_a_model_without_a_loop_has_no_floor(llama_folder: Callable[..., Path]) -> None:
    assert convergence_floor(load_checkpoint(llama_folder()).model, torch.tensor([[1, 2]]), 8) is None


def test_what_cannot_be_held_is_left_out_and_told(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder()
    llama: Any = make_llama()
    with torch.no_grad():
        llama.model.layers[0].mlp.up_proj.weight[0, 0] = float("inf")
    llama.save_pretrained(folder)
    told: list[str] = []
    found = costs(str(folder), WORDS, ("int8",), PLAN, told=told.append)
    assert [row.held for row in found] == ["float32"]
    assert "not held in int8" in told[0]
    assert "up_proj" in told[0]


def test_a_text_without_two_tokens_is_refused(llama_folder: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="at least 2 are needed"):
        costs(str(llama_folder()), "", ("int8",), PLAN)


def test_formats_take_turns_and_the_first_round_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def timed(model: Any, ids: Any, plan: Plan) -> tuple[float, list[float]]:
        ran.append(model)
        n = float(len(ran))
        return n, [n, n + 100]

    monkeypatch.setattr(precisions, "_timed", timed)
    found = precisions._in_turns({"a": "a", "b": "b"}, torch.zeros(1, 9), Plan(rounds=2))  # type: ignore[dict-item]
    assert ran == ["b", "a", "a", "b", "b", "a"]
    assert found == {"a": (statistics.median([3, 103, 6, 106]), 4.5), "b": (statistics.median([4, 104, 5, 105]), 4.5)}


def test_the_table_is_markdown_with_an_empty_cell_for_no_loop() -> None:
    rows = [
        Cost("m", "float32", 0.0, 1.0, 9, None, 4_000_000, 12.345, 1.5),
        Cost("m", "int8", 0.00123, 0.987, 9, 1.5e-3, 1_000_000, 6.0, 0.5),
    ]
    lines = markdown(rows, "A processor").splitlines()
    assert lines[0] == "A processor"
    assert lines[4] == "| m | float32 | 0 | 100.0 % |  | 4.0 | 12.3 | 1.5 |"
    assert lines[5] == "| m | int8 | 0.0012 | 98.7 % | 1.5e-03 | 1.0 | 6 | 0.5 |"


def test_tasks_that_read_weights_read_what_int8_stands_for() -> None:
    """Their numbers are those of the floats that the whole numbers stand for, but for the rounding of what is computed."""
    held = subject()
    plain = Subject(LoopLlamaForCausalLM(copy.deepcopy(held.model.config)).eval(), held.tokenizer, "plain", "")
    quantise(held.model)
    plain.model.load_state_dict(plain_state(held.model))
    for task, params in (
        (TASKS[grouped_queries.NAME], grouped_queries.GroupedParams(text=WORDS, limit_tokens=30, window=30, draws=0)),
        (TASKS[rope_length.NAME], rope_length.LengthParams(text=WORDS, tokens=40, stretches=3)),
    ):
        found, wanted = (Experiment(task, each, params).run().rows for each in (held, plain))
        assert len(found) == len(wanted) > 0
        for one, other in zip(found, wanted, strict=True):
            for name, value in other.items():
                if isinstance(value, float) and math.isfinite(value) and name not in ("seconds", "ms"):
                    assert one[name] == pytest.approx(value, rel=0.1, abs=0.05), (task.name, name)


def test_a_checkpoint_of_int8_is_found_sound() -> None:
    held = subject()
    numbers = sum(parameter.numel() for parameter in held.model.parameters())
    quantise(held.model)
    rows = Experiment(TASKS[checkpoint.NAME], held, checkpoint.CheckpointParams(limit_tokens=40, window=20)).run().rows
    said = {row["check"]: row for row in rows}
    assert said["dtype"]["value"] == "int8"
    assert said["sizes"]["number"] == numbers
    assert said["cache"]["verdict"] == said["finite"]["verdict"] == "fine"


def test_layers_packed_by_bitsandbytes_are_rows_of_the_same_table(llama_folder: Callable[..., Path]) -> None:
    pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")
    folder = str(llama_folder())
    found = costs(folder, WORDS, ("int8",), PLAN, loop=LOOP, quantizations=("nf4", "int8"))
    assert [row.held for row in found] == ["float32", "int8", "nf4 (bitsandbytes)", "int8 (bitsandbytes)"]
    exact, _, nf4, int8 = found
    assert 0 < int8.kl < nf4.kl
    assert nf4.n_bytes < exact.n_bytes
    assert nf4.floor is not None
    assert min(nf4.decode_ms, nf4.prefill_ms) > 0
    assert "| nf4 (bitsandbytes) |" in markdown(found, "here")


def test_tasks_that_read_weights_read_what_packed_ones_stand_for() -> None:
    pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")
    held = subject()
    numbers = sum(parameter.numel() for parameter in held.model.parameters())
    plain = Subject(LoopLlamaForCausalLM(copy.deepcopy(held.model.config)).eval(), held.tokenizer, "plain", "")
    pack(held.model, "nf4")
    plain.model.load_state_dict(plain_state(held.model))
    for task, params in (
        (TASKS[grouped_queries.NAME], grouped_queries.GroupedParams(text=WORDS, limit_tokens=30, window=30, draws=0)),
        (TASKS[rope_length.NAME], rope_length.LengthParams(text=WORDS, tokens=40, stretches=3)),
    ):
        found, wanted = (Experiment(task, each, params).run().rows for each in (held, plain))
        assert len(found) == len(wanted) > 0
        for one, other in zip(found, wanted, strict=True):
            for name, value in other.items():
                if isinstance(value, float) and math.isfinite(value) and name not in ("seconds", "ms"):
                    assert one[name] == pytest.approx(value, rel=1e-3, abs=1e-4), (task.name, name)
    rows = Experiment(TASKS[checkpoint.NAME], held, checkpoint.CheckpointParams(limit_tokens=40, window=20)).run().rows
    said = {row["check"]: row for row in rows}
    assert said["dtype"]["value"] == "nf4 (bitsandbytes), else float32"
    assert said["sizes"]["number"] == numbers
    assert said["cache"]["verdict"] == said["finite"]["verdict"] == "fine"
