"""Every tensor of every folder that the official code made (data/*/README.md says how): 1e-4, gradients 5e-4."""

import pytest
import torch

from loopviz.ttt import TTTCache

from .tiny import DATA, ORACLES, close, oracle, record

LOGITS, GRADIENTS = 1e-4, 5e-4
GROUPS = ("logits_", "cache_", "layer0_", "inner_loss_", "grad_")
SINGLE = {"input_ids", "hidden_states", "loss"}


@pytest.mark.parametrize("name", ORACLES)
def test_no_tensor_of_a_folder_is_left_out(name):
    assert {path.name for path in DATA.iterdir()} == set(ORACLES)
    _, expected = oracle(name)
    assert all(key in SINGLE or key.startswith(GROUPS) for key in expected)


@pytest.mark.parametrize("name", ORACLES)
def test_logits_of_one_pass(name, no_gradients):
    model, expected = oracle(name)
    keys = [key for key in expected if key.startswith("logits_prefill_")]
    assert len(keys) == 5
    for key in keys:
        n = int(key.rsplit("_", 1)[1])
        close(model(expected["input_ids"][:, :n]).logits, expected[key], LOGITS)


@pytest.mark.parametrize("name", ORACLES)
def test_logits_of_double_precision(name, no_gradients):
    model, expected = oracle(name)
    logits = model.double()(expected["input_ids"]).logits
    model.float()
    close(logits, expected["logits_f64"], LOGITS)


@pytest.mark.parametrize("name", ORACLES)
def test_logits_and_cache_of_one_token_a_pass(name, no_gradients):
    model, expected = oracle(name)
    ids = expected["input_ids"]
    keys = [key for key in expected if key.startswith("logits_decode_after_")]
    assert len(keys) == 4
    for key in keys:
        n = int(key.rsplit("_", 1)[1])
        cache = TTTCache(model, batch_size=2)
        found = [model(ids[:, :n], past_key_values=cache).logits]
        found += [model(ids[:, t : t + 1], past_key_values=cache).logits for t in range(n, 40)]
        close(torch.cat(found, dim=1), expected[key], LOGITS)
    held = {**cache.ttt_params_dict, **cache.conv_states_dic}
    assert {f"cache_{key}" for key in held} == {key for key in expected if key.startswith("cache_")}
    for key, layers in held.items():
        close(torch.stack([layers[index] for index in sorted(layers)]), expected[f"cache_{key}"], LOGITS)


@pytest.mark.parametrize("name", ORACLES)
def test_what_enters_and_leaves_the_inner_loop(name, no_gradients):
    model, expected = oracle(name)
    model = model.view()
    steps, cache = record(model), TTTCache(model)
    layer = model.model.ttt_layers[0]
    learn, left = layer._learn, []
    layer._learn = lambda *args: left.append(learn(*args)) or left[-1]
    try:
        model(expected["input_ids"][:, :32], past_key_values=cache)
    finally:
        del layer._learn
    step = steps[0]
    eta = step.lr[:, :, None] * step.token_scale[:, None, :, None]  # [B, H, 32, 32], of which only blocks are used
    found = {
        "XQ": step.query.unflatten(2, (2, 16)),
        "XK": step.keys.unflatten(2, (2, 16)),
        "XV": step.values.unflatten(2, (2, 16)),
        "ttt_lr_eta": step.lr.unflatten(2, (2, 1, 16)),
        "token_eta": step.token_scale[:, None].expand(-1, 3, -1).unflatten(2, (2, 16, 1)),
        "eta": torch.stack([eta[:, :, :16, :16], eta[:, :, 16:, 16:]], dim=2),
        "out": left[0][0].transpose(1, 2).flatten(2),
        **{f"after_{key}": layers[0] for key, layers in cache.ttt_params_dict.items() if key.endswith("_states")},
    }
    assert {f"layer0_{key}" for key in found} == {key for key in expected if key.startswith("layer0_")}
    for key, value in found.items():
        close(value, expected[f"layer0_{key}"], LOGITS)


@pytest.mark.parametrize("name", ORACLES)
def test_hidden_states(name, no_gradients):
    model, expected = oracle(name)
    raw = []
    handle = model.model.layers[-1].register_forward_hook(lambda module, args, out: raw.append(out[0]))
    out = model(expected["input_ids"], output_hidden_states=True)
    handle.remove()
    assert len(out.hidden_states) == 3  # embeddings, first block, second block normed
    close(torch.stack([out.hidden_states[1], raw[0], out.hidden_states[2]]), expected["hidden_states"], LOGITS)


@pytest.mark.parametrize("name", ORACLES)
def test_loss_and_gradients_through_the_inner_steps(name):
    model, expected = oracle(name)
    out = model(expected["input_ids"], labels=expected["input_ids"])
    close(out.loss, expected["loss"], LOGITS)
    parameters = dict(model.model.layers[0].seq_modeling_block.named_parameters())
    keys = [key for key in expected if key.startswith("grad_")]
    assert len(keys) == 4
    found = torch.autograd.grad(out.loss, [parameters[key.removeprefix("grad_")] for key in keys])
    for key, value in zip(keys, found, strict=True):
        close(value, expected[key], GRADIENTS)
        assert expected[key].abs().max() > 2 * GRADIENTS, "nothing would pass by accident"


@pytest.mark.parametrize("name", ORACLES)
def test_inner_loss_before_and_after_each_tokens_own_update(name, no_gradients):
    model, expected = oracle(name)
    model = model.view()
    steps = record(model)
    model(expected["input_ids"])
    for key, curves in (("before", [s.loss_before for s in steps]), ("after", [s.loss_after for s in steps])):
        close(torch.stack([curve[0].T for curve in curves]), expected[f"inner_loss_{key}"], LOGITS)
