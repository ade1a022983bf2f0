"""Which way matrices lie: by times that are given, kept once measured, and through every door that a model is run by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from loopviz.cli.measure import _subject
from loopviz.cli.options import load
from loopviz.engine.lowered import lowered
from loopviz.lab import TASKS
from loopviz.model.checkpoints import layout_choice
from loopviz.model.checkpoints.layout_choice import FILE, arrange
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.model.side_by_side import whole_of

WIDE = {"hidden_size": 128, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 4}


def times(monkeypatch: pytest.MonkeyPatch, asked: list[tuple[int, ...]]) -> None:
    """Maps that widen gain by columns, all others do not."""

    def timed(weights: list[torch.nn.Parameter]) -> dict[str, tuple[float, float]]:
        out, into = weights[0].shape
        asked.append((out, into))
        return {"rows": (1.0, 1.0), "columns": (0.5, 1.0) if out > into else (2.0, 1.0)}

    monkeypatch.setattr(layout_choice, "timed", timed)


def lies_by_columns(model: torch.nn.Module) -> set[tuple[int, ...]]:
    return {tuple(each.shape) for each in model.parameters() if not each.is_contiguous()}


def test_each_shape_lies_as_it_is_read_quickest_and_that_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, llama_folder: Callable[..., Path]
) -> None:
    folder, asked = llama_folder(**WIDE), []
    times(monkeypatch, asked)
    for _ in range(2):
        model = load_checkpoint(folder).model
        found = arrange(model)
        assert found[(160, 128)] == "columns"
        assert found[(128, 128)] == found[(128, 160)] == "rows"
        assert (160, 128) in lies_by_columns(model)
        assert not lies_by_columns(model) & {(128, 128), (128, 160)}
    assert len(asked) == len(found), "the second time nothing is measured"
    (kept,) = json.loads((own_cache / FILE).read_text()).values()
    assert set(kept.values()) == {"rows", "columns"}


@pytest.mark.parametrize("held", [torch.float16, torch.bfloat16, torch.int8], ids=str)
def test_half_and_int8_lie_side_by_side_where_that_is_quicker_and_that_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, llama_folder: Callable[..., Path], held: torch.dtype
) -> None:
    folder, asked = llama_folder(**WIDE), []

    def measured(found: list[list[torch.nn.Module]]) -> str:
        asked.append(len(found[0]))
        return "beside" if len(found[0]) == 2 else "apart"

    monkeypatch.setattr(layout_choice, "measured", measured)
    for _ in range(2):
        model = load_checkpoint(folder, dtype=held).model
        assert arrange(model) == {}, "of float32 there is nothing"
        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            assert whole_of([attention.q_proj, attention.k_proj, attention.v_proj]) is None
            assert whole_of([mlp.gate_proj, mlp.up_proj]) is not None
    assert sorted(asked) == [2, 3], "the second time nothing is measured"
    (kept,) = json.loads((own_cache / FILE).read_text()).values()
    assert sorted(kept.values()) == ["apart", "beside"]


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', None])
def test_a_cache_that_says_nothing_of_it_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, llama_folder: Callable[..., Path], text: str | None
) -> None:
    folder, asked = llama_folder(**WIDE), []
    times(monkeypatch, asked)
    arrange(load_checkpoint(folder).model)
    file, once = own_cache / FILE, len(asked)
    if text is None:
        (key,) = json.loads(file.read_text())
        text = json.dumps({key: {"160x128x8": "diagonal"}})
    file.write_text(text)
    assert "columns" in arrange(load_checkpoint(folder).model).values()
    assert len(asked) == 2 * once


def test_every_door_a_model_is_run_by_lays_it_so_and_no_other(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, llama_folder: Callable[..., Path]
) -> None:
    folder = llama_folder(**WIDE)
    times(monkeypatch, [])
    assert not lies_by_columns(load_checkpoint(folder).model), "as it was read, for whoever compares bits"
    assert (160, 128) in lies_by_columns(lowered(lambda: load_checkpoint(folder), "exact").model)
    assert (160, 128) in lies_by_columns(_subject(str(folder), "float32", "cpu", TASKS["perplexity"]).model)
    assert not lies_by_columns(load(str(folder), torch.float32, {}).model), "it may be taught, or saved"
    assert not lies_by_columns(_subject(str(folder), "float64", "cpu", TASKS["perplexity"]).model)
