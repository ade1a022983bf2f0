"""What hooks are told, against the reference; that without a hook nothing is computed for one."""

import pytest
import torch

from loopviz.ttt import TTTCache

from .reference import Reference
from .tiny import ALL_ON, build, close, ids, record

pytestmark = pytest.mark.usefixtures("no_gradients")
KINDS = [{}, {"ttt_layer_type": "mlp"}, ALL_ON]
kinds = pytest.mark.parametrize("fields", KINDS, ids=["linear", "mlp", "linear_all"])


@kinds
def test_inner_losses_by_layer_head_and_token(fields):
    model = build(dtype=torch.double, rms_norm_eps=1e-3, **fields)
    steps, tokens = record(model), ids(11)
    model(tokens)
    reference = Reference(model)
    reference(tokens[0].tolist())
    assert [step.layer for step in steps] == [0, 1]
    for step, before, after in zip(steps, reference.before, reference.after, strict=True):
        close(step.loss_before[0].T, torch.tensor(before), 1e-4)
        close(step.loss_after[0].T, torch.tensor(after), 1e-4)


@kinds
def test_in_any_chunks_with_padding_it_is_told_the_same_of_every_token(fields):
    model = build(dtype=torch.double, **fields)
    tokens, real = ids(13, rows=2), torch.ones(2, 13, dtype=torch.bool)
    real[1, [0, 1, 6]] = False
    alone = []
    for row in range(2):
        steps = record(view := model.view())
        view(tokens[row : row + 1, real[row]])
        alone.append(steps)
    steps, cache = record(view := model.view()), TTTCache(view)
    for start, stop in ((0, 5), (5, 6), (6, 13)):
        view(tokens[:, start:stop], attention_mask=real[:, start:stop], past_key_values=cache)
    for layer in range(2):
        mine = [step for step in steps if step.layer == layer]
        for name in ("loss_before", "loss_after", "drift", "gathered", "lr", "keys", "values", "query"):
            found = torch.cat([getattr(step, name) for step in mine], dim=2)
            for row in range(2):
                close(found[row][:, real[row]], getattr(alone[row][layer], name)[0], 1e-7)
                assert not found[row][:, ~real[row]].any()
        found = torch.cat([step.token_scale for step in mine], dim=1)
        places = torch.cat([step.positions for step in mine], dim=1)
        for row in range(2):
            close(found[row, real[row]], alone[row][layer].token_scale[0])
            assert places[row, real[row]].tolist() == list(range(int(real[row].sum())))


def test_drift_is_how_far_the_weights_are_from_the_first_ones():
    model = build(dtype=torch.double)
    steps, cache = record(model), TTTCache(model)
    layer = model.model.ttt_layers[0]
    for t in range(6):
        model(ids(6)[:, t : t + 1], past_key_values=cache)
        now = model.current_weights(cache, 0)
        away = [(now[name][0] - getattr(layer, name)).square().sum((-1, -2)) for name in ("W1", "b1")]
        step = steps[2 * t]
        close(step.drift[0, :, 0], (away[0] + away[1]).sqrt(), 1e-9)
        for name, value in step.weights.items():
            close(value[:, :, -1], now[name], 1e-9)
    norms = (layer.W1.square().sum((-1, -2)) + layer.b1.square().sum((-1, -2))).sqrt()
    close(steps[0].start_norm, norms, 1e-12)


def test_what_is_gathered_begins_anew_with_every_mini_batch():
    model = build()
    steps = record(model)
    model(ids(12))
    gathered = steps[0].gathered[0]
    lone = record(view := model.view())
    view(ids(12), inner_lr_scale=torch.tensor([[1.0] * 4 + [0.0] * 8]))
    assert not lone[0].gathered[0][:, 4:].any()
    close(lone[0].gathered[0][:, :4], gathered[:, :4])
    close(lone[0].drift[0][:, 4:], lone[0].drift[0][:, 3:4].expand(-1, 8))


def test_the_rate_and_the_scale_are_the_formulas():
    model = build()
    steps = record(model)
    out = model(ids(9), output_hidden_states=True)
    block = model.model.layers[1]
    layer, x = block.seq_modeling_block, block.seq_norm(out.hidden_states[1])[0]
    for h in range(2):
        rate = torch.sigmoid(x @ layer.learnable_ttt_lr_weight[h, 0] + layer.learnable_ttt_lr_bias[h, 0]) / 6
        close(steps[1].lr[0, h], rate)
    scale = (1 / torch.arange(1, 5) + layer.learnable_token_idx).clamp(min=0)
    close(steps[1].token_scale[0], torch.cat((scale, scale, scale[:1])))


def test_a_token_scale_is_never_below_zero():
    model = build()
    model.model.ttt_layers[0].learnable_token_idx[2] = -5
    steps = record(model)
    model(ids(4))
    assert float(steps[0].token_scale[0, 2]) == 0
    assert (steps[0].token_scale[0, [0, 1, 3]] > 0).all()


def test_the_dual_forms_matrix():
    model = build()
    steps = record(model)
    mask = torch.ones(2, 6)
    mask[1, :1] = 0
    model(ids(6, rows=2), attention_mask=mask)
    step = steps[0]
    found = step.dual_matrices()
    assert [each.tokens.tolist() for each in found] == [[[0, 1, 2, 3], [1, 2, 3, 4]], [[4, 5], [5, -1]]]
    for each in found:
        for row in range(2):
            columns = [t for t in each.tokens[row].tolist() if t >= 0]
            n = len(columns)
            scores = step.query[row, :, columns] @ step.keys[row, :, columns].transpose(1, 2)
            eta = step.token_scale[row, columns][:, None] * step.lr[row, :, None, columns]
            close(each.values[row, :, :n, :n], (eta * scores).tril())


def test_rotary_positions_begin_anew_with_every_mini_batch():
    model = build(num_hidden_layers=1)
    steps = record(model)
    tokens = torch.full((1, 8), 5)
    model(tokens)
    keys, query = steps[0].keys[0], steps[0].query[0]
    close(keys[:, :4], keys[:, 4:])
    close(query[:, :4], query[:, 4:])
    assert (keys[:, 0] - keys[:, 1]).abs().max() > 0.1
    assert torch.equal(steps[0].values[0][:, 0], steps[0].values[0][:, 1])  # values are not turned


def test_what_the_state_still_holds_of_earlier_tokens():
    model = build(dtype=torch.double)
    steps, cache = record(model), TTTCache(model)
    model(ids(9, rows=2), past_key_values=cache)
    step = steps[1]
    found = model.reconstruction(cache, 1, step.keys, step.values)
    assert found.shape == (2, 2, 9)
    close(found[:, :, -1], step.loss_after[:, :, -1], 1e-9)  # of the last token these are the weights it left
    cache.forget()
    fresh = model.reconstruction(cache, 1, step.keys, step.values)
    close(fresh[:, :, :4], step.loss_before[:, :, :4], 1e-9)  # of the first mini-batch, what they were asked at first
    with pytest.raises(ValueError, match="has read nothing yet"):
        model.reconstruction(TTTCache(model), 1, step.keys, step.values)


def test_without_a_hook_nothing_is_computed_for_one(monkeypatch):
    from loopviz.ttt import modeling

    model, made = build(), []
    monkeypatch.setattr(modeling, "InnerStep", lambda *args: made.append(args))
    expected = model(ids(9)).logits
    assert made == []
    handle = model.register_inner_hook(lambda step: None)
    assert torch.equal(model(ids(9)).logits, expected)
    assert len(made) == 2
    handle.remove()
    model(ids(9))
    assert len(made) == 2


def test_a_hook_of_a_view_is_not_the_models():
    model = build()
    steps = record(model.view())
    model(ids(4))
    assert steps == []


def test_hooks_are_told_after_the_cache_has_moved():
    model, seen = build(), []
    cache = TTTCache(model)
    model.register_inner_hook(lambda step: seen.append((step.layer, list(cache.lengths))))
    model(ids(3), past_key_values=cache)
    assert seen == [(0, [3]), (1, [3])]


def test_watching_changes_no_number_and_no_gradient():
    model, tokens = build(scan_checkpoint_group_size=1), ids(10)
    with torch.enable_grad():
        expected = torch.autograd.grad(model(tokens, labels=tokens).loss, list(model.parameters()))
        steps = record(model)
        found = torch.autograd.grad(model(tokens, labels=tokens).loss, list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert not steps[0].loss_before.requires_grad
    assert len(steps) == 2
