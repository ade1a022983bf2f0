"""The causal convolution, in any pieces, with rows of different lengths."""

from itertools import pairwise

import pytest
import torch

from loopviz.ttt import TTTConfig
from loopviz.ttt.conv import causal_conv, convolve

from .tiny import SHAPE


def given(kernel: int):
    torch.manual_seed(0)
    conv = causal_conv(TTTConfig(**SHAPE, conv_kernel=kernel)).double()
    return conv, torch.randn(2, 9, 12, dtype=torch.double)


def by_hand(conv, x):
    weight, kernel = conv.weight[:, 0], conv.kernel_size[0]
    out = [
        conv.bias + sum(weight[:, -1 - back] * x[:, t - back] for back in range(min(kernel, t + 1))) for t in range(9)
    ]
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("kernel", [1, 2, 4, 12])
@pytest.mark.parametrize("cuts", [(0, 9), (0, 1, 9), (0, 3, 5, 9), tuple(range(10))])
def test_any_pieces_give_the_whole(kernel, cuts, no_gradients):
    conv, x = given(kernel)
    last, found = None, []
    for start, stop in pairwise(cuts):
        out, last = convolve(conv, x[:, start:stop], last, [stop - start] * 2)
        found.append(out)
    torch.testing.assert_close(torch.cat(found, dim=1), by_hand(conv, x), rtol=0, atol=1e-12)
    expected = torch.nn.functional.pad(x.transpose(1, 2), (kernel, 0))[..., -kernel:]
    assert torch.equal(last, expected)


def test_a_row_with_fewer_tokens_keeps_its_own_last_inputs(no_gradients):
    conv, x = given(3)
    _, last = convolve(conv, x, None, [9, 4])
    assert torch.equal(last[0], x[0, 6:9].T)
    assert torch.equal(last[1], x[1, 1:4].T)
    _, unmoved = convolve(conv, x, last, [9, 0])
    assert torch.equal(unmoved[1], last[1])
