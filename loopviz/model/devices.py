"""Where a model runs: a device by its name, refused by name where this machine has none."""

from __future__ import annotations

import torch

KINDS = ("cpu", "cuda", "mps", "xpu")


def resolve_device(name: str, dtype: torch.dtype | None = None) -> torch.device:
    """The device that a name means on this machine.

    Args:
        name: `auto` (an accelerator if there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`.
        dtype: that it must be able to hold.

    Raises:
        ValueError: no such kind of device, or none of it here, by name.
    """
    wanted = "auto, " + ", ".join(KINDS) + ", or one of several as cuda:1"
    if name == "auto":
        return torch.device("cpu") if (found := _present()) is None or not _holds(found, dtype) else found
    kind, colon, number = name.partition(":")
    if kind not in KINDS or (colon and not (number.isascii() and number.isdigit() and len(number) < 4)):
        raise ValueError(f"device={name!r}: must be {wanted}")
    if kind == "cpu":
        if int(number or 0) > 0:
            raise ValueError(f"device={name!r}: there is one CPU; write cpu")
        return torch.device("cpu")
    module = getattr(torch, kind)
    if not module.is_available():
        built = "this PyTorch was built without it" if _unbuilt(kind) else "this machine shows none to PyTorch"
        raise ValueError(f"device={name!r}: not available here ({built}); use device='cpu'")
    count = module.device_count()
    if int(number or 0) >= count:
        raise ValueError(f"device={name!r}: there {'is 1' if count == 1 else f'are {count}'}, numbered from 0")
    device = torch.device(name)
    if not _holds(device, dtype):
        if dtype is torch.int8:
            raise ValueError(
                f"device={name!r}: layers of int8 run on the CPU alone; use dtype float16 or bfloat16, or the CPU"
            )
        raise ValueError(f"device={name!r}: has no {str(dtype).removeprefix('torch.')}; use dtype float32, or the CPU")
    return device


def _present() -> torch.device | None:
    """The accelerator of this machine that `auto` means."""
    if not torch.accelerator.is_available():
        return None
    found = torch.accelerator.current_accelerator()
    return found if found is not None and found.type in KINDS else None


def _holds(device: torch.device, dtype: torch.dtype | None) -> bool:
    return device.type == "cpu" if dtype is torch.int8 else not (device.type == "mps" and dtype == torch.float64)


def _unbuilt(kind: str) -> bool:
    backend = getattr(torch.backends, kind, None)
    built = getattr(backend, "is_built", None)
    return built is not None and not built()
