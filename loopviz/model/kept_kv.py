"""Keys and values in 8 bits (`kv_cache_dtype`): rounded once, by token and head, as they are written; numbers again as they are read.

Every token's key and value of a head, `x` `[D]`, is kept as D numbers of one byte and one scale `s`, float32:

    int8: s = max|x| / 127, kept are round(x / s); no number is off by more than s / 2
    fp8 (E4M3, torch's float8_e4m3fn): s = max|x| / 448, kept are x / s to the nearest of that format; a number is off by at most
        1/16 of itself, or by s / 1024 where it is smaller than s / 64

What attention reads is s times what is kept, of the pass's own tokens too: a prompt's tokens find the K/V of those before them as decoding
would. What was kept is copied where a slot is filled or opened, never rounded again; a merge folds the steps' own K/V, and what
comes of it is rounded when the loop is over.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from loopviz.checks import FieldError
from loopviz.loop_fields import EXACT as EXACT

# int4 as int8, with 7 for 127: to measure what 4 bits would do. No cache keeps them: nothing here puts two numbers into a byte.
_LARGEST = {"int8": 127.0, "fp8": 448.0, "int4": 7.0}
ROUNDINGS = tuple(_LARGEST)
# A smaller scale would be a subnormal number, which some processors take for 0: such a head is kept as zeros.
_LEAST_SCALE = torch.finfo(torch.float32).tiny


def rounded(x: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """K or V `[..., D]` as they are kept: their bits `[..., D]`, int8 whatever the format, and the scales `[..., 1]`, float32.

    A head with a number that is not finite has a scale that is not finite either: nothing of it is read as a number.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = (wide.abs().amax(-1, keepdim=True) / _LARGEST[dtype]).float()
    scale = scale.masked_fill(scale < _LEAST_SCALE, 0.0)
    parts = wide / scale.masked_fill(scale == 0, 1.0)
    # float8 is kept by its bits: few operations know the format, and all that is done with kept numbers is to move them
    bits = parts.to(torch.float8_e4m3fn).view(torch.int8) if dtype == "fp8" else parts.round().to(torch.int8)
    return bits, scale


def restored(bits: Tensor, scale: Tensor, kept: str, dtype: torch.dtype) -> Tensor:
    """What :func:`rounded` kept, as numbers of `dtype`."""
    wide = torch.promote_types(dtype, torch.float32)
    numbers = bits.view(torch.float8_e4m3fn) if kept == "fp8" else bits
    return (numbers.to(wide) * scale).to(dtype)


def as_kept(x: Tensor, kept: str) -> Tensor:
    """K or V `[..., D]` as they will be read."""
    return x if kept == EXACT else restored(*rounded(x, kept), kept, x.dtype)


def check_without_gradients(dtypes: list[str]) -> None:
    """Refuse to round K/V while gradients are recorded: there are none through rounding, and what is taught would be something else.

    Raises:
        FieldError: naming the field.
    """
    if torch.is_grad_enabled():
        for dtype in dtypes:
            if dtype != EXACT:
                raise FieldError("kv_cache_dtype", dtype, "kv_no_gradient")


def check_device(dtype: str, device: torch.device) -> None:
    """Refuse a format that torch cannot keep on a device.

    Raises:
        FieldError: naming the field.
    """
    if dtype == "fp8" and not _knows_fp8(device):
        raise FieldError("kv_cache_dtype", dtype, "kv_no_fp8", device=device, torch=torch.__version__)


@lru_cache
def _knows_fp8(device: torch.device) -> bool:
    try:
        torch.ones(1, device=device).to(torch.float8_e4m3fn).to(torch.float32)
    except (AttributeError, RuntimeError, TypeError):  # a torch without it; a device without it (MPS says TypeError)
        return False
    return True
