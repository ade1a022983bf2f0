"""Fixtures of the model's tests."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def no_gradients() -> Iterator[None]:
    """As in use: with autograd on, K/V take another path (`gradients=True` in the test of any configuration)."""
    with torch.no_grad():
        yield
