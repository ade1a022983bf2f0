"""One rule, four models: each against the few lines that its paper has, and TTT-Linear against the layer."""

import pytest
import torch

from loopviz.ttt.inner_rules import RULES, InnerRule, run_rule
from loopviz.ttt.norm_loss import HeadNorm

from .tiny import build, ids, record

T, D = 11, 6
EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture
def text():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, T, D, dtype=torch.double)
    return q, torch.nn.functional.normalize(k, dim=-1), v, torch.rand(T, dtype=torch.double)


def deltanet(q, k, v, beta):
    """Yang et al. 2024: S_t = S_{t-1}(I − β k kᵀ) + β v kᵀ, o_t = S_t q_t."""
    S, out = torch.zeros(D, D, dtype=q.dtype), []
    for t in range(len(q)):
        S = S @ (torch.eye(D, dtype=q.dtype) - beta[t] * torch.outer(k[t], k[t])) + beta[t] * torch.outer(v[t], k[t])
        out.append(S @ q[t])
    return torch.stack(out)


def test_linear_attention_is_masked_attention_without_softmax(text):
    q, k, v, beta = text
    expected = (q @ k.T).tril() @ (beta[:, None] * v)
    torch.testing.assert_close(run_rule(RULES["linear_attention"], *text).outputs, expected, **EXACT)


def test_deltanet(text):
    torch.testing.assert_close(run_rule(RULES["deltanet"], *text).outputs, deltanet(*text), **EXACT)


def test_gated_deltanet(text):
    q, k, v, beta = text
    alpha = torch.rand(T, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    S, expected, eye = torch.zeros(D, D, dtype=q.dtype), [], torch.eye(D, dtype=q.dtype)
    for t in range(T):
        S = alpha[t] * S @ (eye - beta[t] * torch.outer(k[t], k[t])) + beta[t] * torch.outer(v[t], k[t])
        expected.append(S @ q[t])
    found = run_rule(RULES["gated_deltanet"], *text, fade=alpha)
    torch.testing.assert_close(found.outputs, torch.stack(expected), **EXACT)
    torch.testing.assert_close(found.weights.T, S, **EXACT)
    kept = run_rule(RULES["gated_deltanet"], *text, fade=torch.ones(T, dtype=torch.double))
    torch.testing.assert_close(kept.outputs, deltanet(*text), **EXACT)


def test_what_a_mini_batch_has_gathered_fades_with_the_rest(text):
    """Where the gradients do not ask W, a mini-batch may be as long as it likes."""
    alpha = torch.rand(T, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    one, four = (
        run_rule(
            InnerRule(delta=False, decay=True, mini_batch=M),
            *text,
            fade=alpha,
            scale=torch.ones(M, dtype=torch.double),
        )
        for M in (1, 4)
    )
    torch.testing.assert_close(four.outputs, one.outputs, **EXACT)
    torch.testing.assert_close(four.weights, one.weights, **EXACT)


def test_ttt_with_mini_batch_one_no_norm_no_bias_no_residual_is_deltanet(text):
    rule = InnerRule(delta=True, decay=False, bias=False, norm=False, residual=False, mini_batch=1)
    q, k, v, beta = text
    scale = torch.tensor([0.7], dtype=torch.double)  # the token scale of the only slot
    found = run_rule(rule, q, k, v, beta, scale=scale).outputs
    torch.testing.assert_close(found, deltanet(q, k, v, 0.7 * beta), **EXACT)


@pytest.mark.parametrize("M", [1, 4])
def test_ttt_linear_is_what_the_layer_computes(M, no_gradients):
    model = build(dtype=torch.double, mini_batch_size=M)
    steps, layer = record(model), model.model.ttt_layers[0]
    learn, left = layer._learn, []
    layer._learn = lambda *args: left.append(learn(*args)) or left[-1]
    model(ids(10, rows=2))
    step, p = steps[0], layer
    found = run_rule(
        InnerRule(bias=True, norm=True, residual=True, mini_batch=M),
        step.query,
        step.keys,
        step.values,
        step.lr,
        scale=p.token_scale(1 / torch.arange(1, M + 1, dtype=torch.double)),
        norm=HeadNorm(p.ttt_norm_weight[:, None], p.ttt_norm_bias[:, None]),
        weights=p.W1.expand(2, -1, -1, -1),
        bias=p.b1[:, 0].expand(2, -1, -1),
    )
    torch.testing.assert_close(found.outputs, left[0][0], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.before, step.loss_before, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.after, step.loss_after, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.drift, step.drift, rtol=0, atol=1e-10)


@pytest.mark.parametrize("switch", ["delta", "decay", "bias", "norm", "residual", "mini_batch"])
def test_every_switch_changes_what_is_read(switch, text):
    on = {"delta": True, "decay": True, "bias": True, "norm": True, "residual": True, "mini_batch": 3}
    fade = torch.full((T,), 0.5, dtype=torch.double)
    off = {**on, switch: 1 if switch == "mini_batch" else False}
    one, other = (
        run_rule(InnerRule(**each), *text, fade=fade if each["decay"] else None).outputs for each in (on, off)
    )
    assert (one - other).abs().max() > 1e-3


def test_the_written_token_is_read_back_exactly_where_the_step_is_whole(text):
    q, k, v, _ = text
    found = run_rule(RULES["deltanet"], q, k, v, torch.ones(T, dtype=torch.double))
    torch.testing.assert_close(found.after, torch.zeros(T, dtype=torch.double), **EXACT)
    assert (found.before > 0.1).all()
    assert found.drift[0] == pytest.approx(float(v[0].norm()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keys": torch.zeros(3, D)}, "keys of shape [3, 6]: must be [11, 6]"),
        ({"rate": torch.zeros(3)}, "rate of shape [3]: must be [11]"),
        ({"scale": torch.ones(2)}, "scale of shape [2]: must be [1]"),
        ({"fade": torch.ones(T)}, "fade: is given, and this rule has no decay; leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, said, text):
    given = dict(zip(("query", "keys", "values", "rate"), text, strict=True))
    with pytest.raises(ValueError, match=r"must be|decay") as caught:
        run_rule(RULES["deltanet"], **{**given, **change})
    assert str(caught.value) == said


def test_decay_without_what_to_fade_by_and_other_values_are_refused(text):
    with pytest.raises(ValueError, match=r"^fade: is missing"):
        run_rule(RULES["gated_deltanet"], *text)
    with pytest.raises(ValueError, match=r"^mini_batch=0: must be a whole number >= 1"):
        InnerRule(mini_batch=0)
    with pytest.raises(ValueError, match=r"^norm='yes': must be True or False"):
        InnerRule(norm="yes")
    with pytest.raises(ValueError, match="at least one token"):
        run_rule(RULES["deltanet"], *(torch.zeros(0, D) for _ in range(3)), torch.zeros(0))
