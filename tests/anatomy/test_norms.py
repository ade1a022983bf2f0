"""RMSNorm, LayerNorm and BatchNorm against torch's own, and what is said of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from loopviz.anatomy import norms


@given(seed=st.integers(0, 999), tokens=st.integers(2, 9), width=st.integers(2, 9))
def test_each_is_torchs_own(seed, tokens, width):
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(norms.rms_norm(x), nn.functional.rms_norm(x, (width,), eps=0.0))
    torch.testing.assert_close(norms.layer_norm(x), nn.functional.layer_norm(x, (width,), eps=0.0))
    torch.testing.assert_close(norms.batch_norm(x), nn.functional.batch_norm(x, None, None, training=True, eps=1e-300))


def test_what_is_said_of_them():
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) + 0.5
    rows = {row.norm: row for row in norms.compare(x)}
    assert rows["rms"].cosine == pytest.approx(1) == rows["rms"].to_rms
    assert rows["rms"].alone == rows["layer"].alone == 0 < rows["batch"].alone
    assert rows["layer"].mean < 1e-12 < rows["rms"].mean
    assert rows["layer"].std == pytest.approx(1)
    assert rows["layer"].to_rms == pytest.approx(rows["layer"].cosine)
    assert rows["layer"].to_rms < 0.99
    centred = x - x.mean(-1, keepdim=True)
    assert {row.norm: round(row.to_rms, 9) for row in norms.compare(centred)}[
        "layer"
    ] == 1  # without a mean they are one


def test_a_token_of_zeros_stays_zero():
    for norm in norms.NORMS.values():
        assert not norm(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("shape", [(1, 4), (4,), (2, 2, 2)])
def test_what_is_no_text_is_refused(shape):
    with pytest.raises(ValueError, match="states"):
        norms.compare(torch.ones(shape))
