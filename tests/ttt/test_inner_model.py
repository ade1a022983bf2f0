"""The inner gradients, written by hand, against autograd."""

import pytest
import torch

from loopviz.ttt.inner_model import NAMES, gelu, gradients, read, shapes
from loopviz.ttt.norm_loss import HeadNorm, loss

N, K, D = 3, 5, 4


def given(kind: str):
    torch.manual_seed(1)
    theta = tuple(torch.randn(shape, dtype=torch.double) for shape in shapes(kind, N, D).values())
    keys, target = torch.randn(2, N, K, D, dtype=torch.double)
    gain, bias = torch.randn(2, N, 1, D, dtype=torch.double)
    return theta, keys, target, HeadNorm(gain, bias)


@pytest.mark.parametrize("kind", NAMES)
def test_every_tokens_gradient_is_autograds(kind):
    theta, keys, target, norm = given(kind)
    found = gradients(theta, keys, norm.pull(target), norm.gain.square())
    torch.testing.assert_close(found.read, read(theta, keys))
    for token in range(K):
        leaves = [each.clone().requires_grad_() for each in theta]
        at = slice(token, token + 1)
        expected = torch.autograd.grad(loss(read(leaves, keys[:, at]), target[:, at], norm).sum(), leaves)
        for depth, (inputs, outputs) in enumerate(zip(found.inputs, found.outputs, strict=True)):
            weight = inputs[:, at].transpose(1, 2) @ outputs[:, at]
            torch.testing.assert_close(weight, expected[2 * depth], rtol=0, atol=1e-11)
            torch.testing.assert_close(outputs[:, at], expected[2 * depth + 1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", NAMES)
def test_they_can_be_differentiated_again(kind):
    theta, keys, target, norm = given(kind)

    def outputs(keys, target, *theta):
        found = gradients(theta, keys, norm.pull(target), norm.gain.square())
        return tuple(found.outputs)

    leaves = [each[:1, :2].clone() if each.shape[1] == K else each[:1].clone() for each in (keys, target, *theta)]
    norm = HeadNorm(norm.gain[:1], norm.bias[:1])
    assert torch.autograd.gradcheck(outputs, [each.requires_grad_() for each in leaves])


def test_gelu_s_gradient_is_the_published_constants():
    z = torch.linspace(-4, 4, 81, dtype=torch.double)
    tanh = torch.tanh(0.79788456 * z * (1 + 0.044715 * z * z))
    published = 0.5 * z * ((1 - tanh * tanh) * (0.79788456 + 0.1070322243 * z * z)) + 0.5 * (1 + tanh)
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(gelu(leaf).sum(), leaf)
    torch.testing.assert_close(published, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", NAMES)
def test_names_and_shapes_go_together(kind):
    assert tuple(shapes(kind, 2, 6)) == NAMES[kind]
    assert shapes("mlp", 2, 6)["W2"] == (2, 24, 6)
