"""B4: a device by its name; one that is not here is refused by name."""

from __future__ import annotations

import pytest
import torch

from loopviz.model.devices import resolve_device


class NoAccelerator:
    @staticmethod
    def is_available() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 0


class Two(NoAccelerator):
    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 2


def test_the_cpu_is_always_here(monkeypatch):
    assert resolve_device("cpu") == resolve_device("cpu:0") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


def test_auto_takes_the_accelerator_unless_it_cannot_hold_the_dtype(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert resolve_device("auto", torch.float32) == torch.device("mps")
    assert resolve_device("auto", torch.float64) == torch.device("cpu")


@pytest.mark.parametrize("name", ["", "foo", "meta", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "CUDA", "gpu", "cuda:٣"])
def test_a_name_of_no_device_is_refused(name):
    with pytest.raises(ValueError, match=r"^device='.*': must be auto, cpu, cuda, mps"):
        resolve_device(name)


def test_a_device_that_is_not_here_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch, "cuda", NoAccelerator)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"^device='{name}': not available here .*; use device='cpu'"):
            resolve_device(name)
    with pytest.raises(ValueError, match="device='cpu:1': there is one CPU"):
        resolve_device("cpu:1")


def test_the_second_of_two_is_here_and_the_third_is_not(monkeypatch):
    monkeypatch.setattr(torch, "cuda", Two)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device='cuda:2': there are 2, numbered from 0"):
        resolve_device("cuda:2")
