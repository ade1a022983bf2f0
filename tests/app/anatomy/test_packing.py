"""Numbers on their way to the page keep the digits that are written of them, whatever their size."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from loopviz.app import contract
from loopviz.app.anatomy.packing import pack

WRITTEN = 5e-4  # of a number's size: half of the third digit at worst, which is written of it


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """As the page's script does."""
    contract.check(packed, (contract.PackedNumbers,), "packed")
    flat = np.frombuffer(base64.b64decode(packed["data"]), {"float16": "<f2", "float32": "<f4"}[packed["dtype"]])
    return flat.astype(np.float64).reshape(packed["shape"]) * packed["scale"]


def keeps_its_digits(packed: dict[str, Any], wanted: np.ndarray) -> None:
    """Each number of a tensor of float32; what is smaller than float32 can hold beside the largest has none."""
    np.testing.assert_allclose(unpack(packed), wanted, rtol=WRITTEN, atol=float(np.abs(wanted).max()) * 2.0**-136)


@pytest.mark.parametrize("size", [1e-9, 1.0, 3e8])
def test_a_tensor_of_any_size_keeps_its_digits(size: float) -> None:
    values = np.linspace(-size, size, 40)
    packed = pack(values)
    assert packed["dtype"] == "float16"  # half as many bytes
    keeps_its_digits(packed, values)


@pytest.mark.parametrize("size", [1e-9, 1.0, 3e8])
@pytest.mark.parametrize("exponent", [-13, -14, -15, -17, -24, -60, -120])
def test_a_number_far_below_the_largest_keeps_its_digits(size: float, exponent: int) -> None:
    """As a weight of attention beside one that is nearly all, or a state beside its outlier."""
    values = size * np.array([[1.0, -(2.0**exponent) * 1.0003], [0.0, 2.0**exponent * 1.37]])
    keeps_its_digits(pack(values), values)


def test_what_is_not_finite_is_not_a_number_and_zeros_stay() -> None:
    assert np.isnan(unpack(pack([1.0, np.inf, np.nan]))[1:]).all()
    assert np.isnan(unpack(pack([1.0, 1e-9, -np.inf, np.nan]))[2:]).all()
    assert np.isnan(unpack(pack([np.inf, np.nan]))).all()
    assert unpack(pack(np.zeros((2, 3)))).tolist() == [[0.0] * 3] * 2
    assert unpack(pack(np.zeros((0, 3)))).shape == (0, 3)
