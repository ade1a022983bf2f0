"""What packing a model's layers costs is said as it is loaded. bitsandbytes is optional: here a double rounds the layers in its place."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loopviz.cli.options import load
from loopviz.engine.lowered import short_logits
from loopviz.engine.packing_cost import packed_beside_exact
from loopviz.model.checkpoints import inspect, packing
from loopviz.model.checkpoints.errors import CheckpointError, Note
from loopviz.model.checkpoints.load import LoadedCheckpoint, load_checkpoint, prepare_checkpoint
from loopviz.model.precision import weight_bytes
from tests.engine.test_lowered import by_hand


@torch.no_grad()
def rounded(model: Any, kind: str) -> Any:
    """Packs as bitsandbytes would, as far as numbers go: every weight of a layer to 15 values, held in a byte's worth less."""
    for layer in model.model.layers:
        for parameter in layer.parameters():
            if parameter.dim() == 2:
                scale = parameter.abs().max() / 7
                parameter.copy_((parameter / scale).round() * scale)
    return model


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bitsandbytes that is there."""
    monkeypatch.setattr(packing, "check_asked", lambda kind, dtype: None)
    monkeypatch.setattr(packing, "pack", rounded)


def beside(folder: Path, **change: Any) -> LoadedCheckpoint:
    how: dict[str, Any] = {
        "prepared": lambda: prepare_checkpoint(folder),
        "packed": lambda: load_checkpoint(folder, quantization="nf4", dtype=torch.bfloat16),
    }
    return packed_beside_exact("nf4", torch.bfloat16, **{**how, **change})


@pytest.mark.usefixtures("packs")
def test_what_packing_costs_is_said_in_numbers(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder()
    exact, loaded = load_checkpoint(folder), beside(folder)
    assert [note.code for note in loaded.notes] == ["quantization", "quantization_cost"]
    values = loaded.notes[-1].values
    kl, same = by_hand(*(short_logits(each.model, each.tokenizer).float() for each in (exact, loaded)))
    assert kl > 0
    assert values["kl"] == f"{kl:.2g}"
    assert values["same"] == f"{100 * same:.0f}"
    assert float(values["size"]) == pytest.approx(weight_bytes(loaded.model) / 1e6, rel=5e-3)
    assert float(values["exact_size"]) == pytest.approx(2 * float(values["size"]), rel=2e-2), "bfloat16 beside float32"
    assert "{" not in str(loaded.notes[-1])


@pytest.mark.usefixtures("packs")
def test_a_command_says_it_of_what_it_loads_and_not_of_what_is_to_be_trained(
    llama_folder: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(llama_folder())
    load(folder, torch.float32, {"loop_layers": (1, 1), "loop_count": 2}, quantization="nf4")
    said = capfd.readouterr().err
    assert "packed as nf4: on " in said
    assert "nats (KL) from float32's" in said
    load(folder, torch.float32, {}, quantization="nf4", untrained=True)
    assert "nats (KL)" not in capfd.readouterr().err


@pytest.mark.usefixtures("packs")
def test_float32_and_what_is_packed_are_never_in_memory_together(llama_folder: Callable[..., Path]) -> None:
    folder, held = llama_folder(), []

    def prepared() -> Any:
        found = prepare_checkpoint(folder)

        def read() -> LoadedCheckpoint:
            loaded = found.load()
            held.append(weakref.ref(loaded.model))
            return loaded

        return SimpleNamespace(found=found.found, need=found.need, load=read)

    def packed() -> LoadedCheckpoint:
        (exact,) = held
        assert exact() is None
        return load_checkpoint(folder, quantization="nf4")

    assert beside(folder, prepared=prepared, packed=packed).notes[-1].code == "quantization_cost"


@pytest.mark.usefixtures("packs")
def test_what_cannot_be_measured_is_loaded_all_the_same_and_says_why(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = llama_folder()
    found = prepare_checkpoint(folder)
    packed = SimpleNamespace(found=SimpleNamespace(packing="as nf4"))  # its files hold no floats
    assert beside(folder, prepared=lambda: packed).notes[-1].code == "quantization_no_floats"

    half = prepare_checkpoint(folder, quantization="nf4", dtype=torch.bfloat16).need
    assert half < found.need, "it fits packed"
    monkeypatch.setattr(inspect, "available_memory", lambda: half)
    note = beside(folder).notes[-1]
    assert note.code == "quantization_no_room"
    assert note.values["need"] == f"{found.need / 1e9:,.2f}"


@pytest.mark.usefixtures("packs")
def test_numbers_that_run_over_once_packed_are_said_to(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    @torch.no_grad()
    def broken(model: Any, kind: str) -> Any:
        model.model.norm.weight.fill_(float("inf"))
        return model

    monkeypatch.setattr(packing, "pack", broken)
    note: Note = beside(llama_folder()).notes[-1]
    assert note.code == "quantization_overflow"


def test_without_bitsandbytes_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    read = {"prepared": lambda: pytest.fail("its files were read"), "packed": lambda: pytest.fail("it was loaded")}
    with pytest.raises(CheckpointError, match=r"requirements-bnb\.txt"):
        packed_beside_exact("nf4", torch.float32, **read)
