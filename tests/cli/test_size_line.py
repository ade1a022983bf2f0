"""What a model takes is told on stderr before its weights are read, of what its headers say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loopviz.cli import size_line
from loopviz.cli.options import load
from loopviz.cli.size_line import packed_need, parameters, size
from loopviz.model.checkpoints import inspect
from loopviz.model.checkpoints.load import PreparedCheckpoint, prepare_checkpoint

MakeFolder = Callable[..., Path]


@pytest.fixture
def before_weights(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What stderr has when weights are about to be read, by read; of models of any size."""
    monkeypatch.setattr(size_line, "LEAST", 0)
    seen: list[str] = []
    read = PreparedCheckpoint.load_model

    def watched(prepared: PreparedCheckpoint) -> object:
        seen.append(told(capfd))
        return read(prepared)

    monkeypatch.setattr(PreparedCheckpoint, "load_model", watched)
    return seen


def told(capfd: pytest.CaptureFixture[str]) -> str:
    """Our lines of stderr."""
    return "".join(one for one in capfd.readouterr().err.splitlines(keepends=True) if one.startswith("loopviz: "))


def line(folder: Path, need: int) -> str:
    """What is expected of a folder, of its tensors themselves."""
    tensors = load_file(folder / "model.safetensors").values()
    count, stored = sum(one.numel() for one in tensors), sum(one.nbytes for one in tensors)
    return f"loopviz: {folder}: {parameters(count)} parameters, {size(stored)} stored, needs about {size(need)} of memory\n"


def test_it_is_told_before_a_weight_is_read_and_once(llama_folder: MakeFolder, before_weights: list[str]) -> None:
    folder = llama_folder()
    load(str(folder), torch.float32, {"loop_layers": (1, 1)})
    assert before_weights == [line(folder, prepare_checkpoint(folder).need)]
    before_weights.clear()
    load(str(folder), torch.bfloat16, {})
    assert before_weights == [line(folder, prepare_checkpoint(folder, dtype=torch.bfloat16).need)], "read in half of it"


def test_a_precision_needs_what_it_is_made_of_too(llama_folder: MakeFolder, before_weights: list[str]) -> None:
    folder = llama_folder()
    load(str(folder), torch.float32, {}, precision="int8")
    found = prepare_checkpoint(folder)
    assert before_weights[0] == line(folder, found.need + 2 * found.found.n_weights)
    assert not any("parameters" in later for later in before_weights[1:])


def test_of_a_small_model_nothing_is_told(llama_folder: MakeFolder, capfd: pytest.CaptureFixture[str]) -> None:
    load(str(llama_folder()), torch.float32, {})
    assert told(capfd) == ""


def test_what_is_packed_needs_float32_too_where_that_is_read_first(
    llama_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prepare_checkpoint(llama_folder())
    half = packed_need(found, "nf4", torch.bfloat16)
    assert half == found.need, "three bytes a number on the way to a packed one, and four of float32"
    monkeypatch.setattr(inspect, "available_memory", lambda: found.need - 1)  # float32 is left out, and that is noted
    assert packed_need(found, "nf4", torch.bfloat16) < half
    assert packed_need(found, "nf4", torch.float32) > found.need, "five bytes a number"


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (parameters(135_300_000), "135.3 M"),
        (parameters(1_400_000_000), "1.40 B"),
        (parameters(24_576), "24,576"),
        (size(541_200_000), "0.54 GB"),
        (size(98_304), "98.3 kB"),
        (size(13_400_000), "13.4 MB"),
    ],
)
def test_sizes_are_told_as_people_write_them(shown: str, said: str) -> None:
    assert shown == said
