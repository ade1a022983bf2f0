"""The fused LayerNorm-L2 backward against autograd, once and twice differentiated."""

import pytest
import torch

from loopviz.ttt.norm_loss import HeadNorm, loss, loss_gradient


def given(K: int = 3, D: int = 8, N: int = 2):
    torch.manual_seed(0)
    z, target = torch.randn(2, N, K, D, dtype=torch.double)
    gain, bias = torch.randn(2, N, 1, D, dtype=torch.double)
    return z, target, gain, bias


def test_the_norm_is_layer_norm_with_eps_1e_6():
    z, _, gain, bias = given()
    expected = torch.stack([torch.nn.functional.layer_norm(z[i], (8,), gain[i, 0], bias[i, 0], 1e-6) for i in range(2)])
    torch.testing.assert_close(HeadNorm(gain, bias)(z), expected)


def test_the_gradient_is_autograds():
    z, target, gain, bias = given()
    norm = HeadNorm(gain, bias)
    z.requires_grad_()
    (expected,) = torch.autograd.grad(loss(z, target, norm).sum(), z)
    found = loss_gradient(z.detach(), norm.pull(target), gain.square())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert expected.abs().max() > 0.1


def test_the_gradient_is_the_formula_of_the_paper():
    z, target, gain, bias = given()
    sigma = (z.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    x = (z - z.mean(-1, keepdim=True)) / sigma
    h = (gain * x + bias - target) * gain
    expected = (8 * h - h.sum(-1, keepdim=True) - x * (h * x).sum(-1, keepdim=True)) / (8 * sigma)
    found = loss_gradient(z, HeadNorm(gain, bias).pull(target), gain.square())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_gradient_can_be_differentiated_again():
    z, target, gain, bias = (each.requires_grad_() for each in given(K=2, D=4, N=1))

    def gradient(*values):
        norm = HeadNorm(*values[2:])
        return loss_gradient(values[0], norm.pull(values[1]), norm.gain.square())

    assert torch.autograd.gradcheck(gradient, (z, target, gain, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_keeps_its_dtype(dtype):
    z, target, gain, bias = (each.to(dtype) for each in given())
    norm = HeadNorm(gain, bias)
    assert loss_gradient(z, norm.pull(target), gain.square()).dtype == dtype == loss(z, target, norm).dtype
