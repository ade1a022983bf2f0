"""The model: any length from any state, padding, rows of their own, dtypes, saving and loading, what is refused."""

import copy
import json
import pickle
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

from loopviz.app.controls.refusal import told
from loopviz.checks import inside
from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.model.interrupt import Interrupted, interruptible
from loopviz.ttt import InnerLossError, TTTCache, TTTConfig, TTTForCausalLM, TTTModel

from .reference import Reference
from .tiny import ALL_ON, DATA, build, close, ids, record

KINDS = [{}, {"ttt_layer_type": "mlp"}, ALL_ON, {**ALL_ON, "ttt_layer_type": "mlp"}]
NAMES = ["linear", "mlp", "linear_all", "mlp_all"]
SIXTEEN = {"mini_batch_size": 16, "num_hidden_layers": 1}
DOUBLE = 1e-9
kinds = pytest.mark.parametrize("fields", KINDS, ids=NAMES)


@kinds
@pytest.mark.parametrize("M", [1, 3, 4])
def test_any_mini_batch_size_is_the_formulas_token_by_token(fields, M, no_gradients):
    model = build(dtype=torch.double, mini_batch_size=M, rms_norm_eps=1e-3, **fields)
    tokens, reference = ids(7), Reference(model)
    close(model(tokens).logits[0], reference(tokens[0].tolist()), 2e-5)  # transformers' RMSNorm is float32 inside


@kinds
def test_without_the_inner_loop_the_logits_are_others(fields, no_gradients):
    """Else all these tests would prove little."""
    model, tokens = build(**fields), ids(12)
    learned, not_learned = model(tokens).logits, model(tokens, inner_lr_scale=0).logits
    assert (learned - not_learned).abs().max() > 1


# -- any length from any state -----------------------------------------------------------------------------------------


@kinds
def test_decode_is_prefill_at_all_lengths_up_to_40(fields, no_gradients):
    model, tokens = build(**SIXTEEN, **fields), ids(43, rows=2)
    whole = model(tokens).logits
    for n in range(1, 41):
        cache = TTTCache(model)
        close(model(tokens[:, :n], past_key_values=cache).logits, whole[:, :n], 1e-4)
        for t in (n, n + 1, n + 2):
            close(model(tokens[:, t : t + 1], past_key_values=cache).logits, whole[:, t : t + 1], 1e-4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.lists(st.integers(1, 19), min_size=1, max_size=4))
def test_any_chunks_are_one_pass(fields, sizes):
    model, tokens = build(mini_batch_size=6, **fields), ids(sum(sizes), rows=2)
    with torch.no_grad():
        whole, cache, found = model(tokens).logits, TTTCache(model), []
        for part in tokens.split(sizes, dim=1):
            found.append(model(part, past_key_values=cache).logits)
    close(torch.cat(found, dim=1), whole, 1e-4)
    assert cache.lengths == [sum(sizes)] * 2
    assert cache.get_seq_length() == sum(sizes)


@kinds
def test_published_defect_several_tokens_from_inside_a_mini_batch(fields, no_gradients):
    """There: "fractional update not supported yet", a shape error, and silently wrong numbers with a convolution."""
    model, tokens = build(**SIXTEEN, **fields), ids(40)
    whole = model(tokens).logits
    for first, second in ((5, 4), (5, 11), (5, 30), (16, 5), (17, 23)):
        cache = TTTCache(model)
        model(tokens[:, :first], past_key_values=cache)
        out = model(tokens[:, first : first + second], past_key_values=cache).logits
        close(out, whole[:, first : first + second], 1e-4)


# -- padding, rows of their own ----------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("side", ["left", "right"])
def test_published_defect_padding_was_ignored(side, fields, no_gradients):
    model, lengths = build(**fields), (11, 4, 7)
    tokens, mask = ids(11, rows=3), torch.zeros(3, 11, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, slice(11 - n, 11) if side == "left" else slice(0, n)] = 1
    found = model(tokens, attention_mask=mask).logits
    for row in range(3):
        alone = model(tokens[row : row + 1, mask[row].bool()]).logits[0]
        close(found[row, mask[row].bool()], alone)
    assert (model(tokens).logits[1, mask[1].bool()] - found[1, mask[1].bool()]).abs().max() > (
        1 if side == "left" else -1
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_rows_padded_anywhere_in_any_chunks_are_their_texts_alone(data):
    model = build(num_hidden_layers=1, **data.draw(st.sampled_from(KINDS)))
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    n = sum(sizes)
    real = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=2, max_size=2)))
    tokens, cache, found, seen = ids(n, rows=2), TTTCache(model), [], 0
    with torch.no_grad():
        for size in sizes:
            whole_mask = data.draw(st.booleans())  # a column for what was read before too, as generate() gives it
            mask = real[:, 0 if whole_mask else seen : seen + size].long()
            part = tokens[:, seen : seen + size]
            found.append(model(part, attention_mask=mask, past_key_values=cache).logits)
            seen += size
        for row in range(2):
            if real[row].any():
                alone = model(tokens[row : row + 1, real[row]]).logits[0]
                close(torch.cat(found, dim=1)[row, real[row]], alone, 1e-4)
    assert cache.lengths == real.sum(1).tolist()


@kinds
def test_rows_at_their_own_places_decode_together(fields, no_gradients):
    model, tokens = build(**fields), ids(12, rows=2)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :4] = 0
    cache = TTTCache(model)
    model(tokens[:, :7], attention_mask=mask, past_key_values=cache)
    assert cache.lengths == [7, 3]
    for t in range(7, 12):
        out = model(tokens[:, t : t + 1], past_key_values=cache).logits
        close(out[0], model(tokens[:1, : t + 1]).logits[0, -1:], 1e-4)
        close(out[1], model(tokens[1:, 4 : t + 1]).logits[0, -1:], 1e-4)


def test_padding_at_the_right_repeats_what_the_text_says_and_at_the_left_says_nothing(no_gradients):
    model, tokens = build(tie_word_embeddings=False), ids(6, rows=2)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    logits = model(tokens, attention_mask=mask).logits
    assert torch.equal(logits[0, 3:], logits[0, 2].expand(3, -1))
    assert not logits[1, :3].any()


def test_a_pass_of_nothing_but_padding_changes_nothing(no_gradients):
    model, tokens = build(**ALL_ON), ids(9)
    cache = TTTCache(model)
    model(tokens[:, :5], past_key_values=cache)
    before = copy.deepcopy(cache)
    model(tokens[:, :3], attention_mask=torch.zeros(1, 3), past_key_values=cache)
    assert cache.lengths == [5]
    assert cache.seqlen_offset == 8
    for mine, other in (
        (cache.ttt_params_dict, before.ttt_params_dict),
        (cache.conv_states_dic, before.conv_states_dic),
    ):
        for name in other:
            assert all(torch.equal(mine[name][layer], other[name][layer]) for layer in other[name])


# -- dtypes, devices of the outer loop ---------------------------------------------------------------------------------


@kinds
def test_published_defect_the_inner_loop_ran_in_the_weights_dtype(fields, no_gradients):
    model = build(dtype=torch.bfloat16, **fields)
    steps, cache = record(model), TTTCache(model)
    out = model(ids(11), past_key_values=cache)
    assert out.logits.dtype == torch.bfloat16
    for step in steps:
        assert {step.keys.dtype, step.lr.dtype, step.loss_before.dtype, step.drift.dtype} == {torch.float32}
    held = cache.ttt_params_dict
    assert {value.dtype for layers in held.values() for value in layers.values()} == {torch.float32}
    # the state is what float32 makes of the same keys, values and rates, not what bfloat16 would
    twin = build(dtype=torch.bfloat16, **fields).float()
    rounded = held["W1_states"][0].to(torch.bfloat16).float()
    assert not torch.equal(rounded, held["W1_states"][0])
    close(held["W1_states"][0], _states(twin, ids(11))["W1_states"][0], 0.05)


def _states(model, tokens):
    cache = TTTCache(model)
    model(tokens, past_key_values=cache)
    return cache.ttt_params_dict


def test_under_autocast_the_inner_loop_stays_float32(no_gradients):
    model = build()
    steps = record(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(ids(9))
    assert steps[0].keys.dtype == torch.float32 == steps[0].loss_after.dtype


# -- gradients ---------------------------------------------------------------------------------------------------------


@kinds
def test_every_parameter_learns_through_the_inner_steps(fields):
    model, tokens = build(dtype=torch.double, tie_word_embeddings=False, **fields), ids(7, rows=2)
    mask = torch.ones(2, 7)
    mask[1, :2] = 0
    model(tokens, attention_mask=mask, labels=tokens.masked_fill(mask == 0, -100)).loss.backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().max() > 0, name


def test_a_gradient_is_the_slope_of_the_loss():
    model, tokens = build(dtype=torch.double, **ALL_ON), ids(9, rows=2)
    value = model.model.layers[0].seq_modeling_block.learnable_ttt_lr_bias

    def loss():
        """In float64: the model's own is float32."""
        return torch.nn.functional.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    assert float(loss()) == pytest.approx(float(model(tokens, labels=tokens).loss), rel=1e-6)
    loss().backward()
    with torch.no_grad():
        slopes, step = (
            [],
            3e-3,
        )  # the norms are float32 in every dtype: of a smaller step their rounding is what one sees
        for sign in (1, -1):
            value[0, 0] += sign * step
            slopes.append(loss())
            value[0, 0] -= sign * step
    assert float(value.grad[0, 0]) == pytest.approx(float(slopes[0] - slopes[1]) / (2 * step), rel=1e-3)


# -- saving, loading, classes ------------------------------------------------------------------------------------------


@kinds
def test_published_defect_what_was_saved_came_back_as_something_else(fields, tmp_path, no_gradients):
    """There: buffers that are not saved came back uninitialised. Here nothing is a buffer."""
    model, tokens = build(tie_word_embeddings=False, **fields), ids(21)
    assert list(model.named_buffers()) == []
    expected = model(tokens).logits
    model.save_pretrained(tmp_path)
    for again in (
        TTTForCausalLM.from_pretrained(tmp_path),
        AutoModelForCausalLM.from_pretrained(tmp_path),
        TTTForCausalLM.from_pretrained(tmp_path, low_cpu_mem_usage=True, device_map=None),
    ):
        assert type(again) is TTTForCausalLM
        assert torch.equal(again(tokens).logits, expected)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is TTTModel
    close(again.lm_head(base(tokens).last_hidden_state), expected)
    assert AutoConfig.from_pretrained(tmp_path).to_dict()["ttt_layer_type"] == model.config.ttt_layer_type


def test_dtype_and_keywords_of_loading(tmp_path):
    build().save_pretrained(tmp_path)
    model, info = TTTForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, ttt_base_lr=0.5, output_loading_info=True
    )
    assert model.dtype == torch.bfloat16
    assert model.config.ttt_base_lr == 0.5
    assert not info["missing_keys"]


def test_tied_weights_are_one(tmp_path):
    model = build()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    again = TTTForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_first_values_are_the_published_ones():
    model = TTTForCausalLM(
        TTTConfig(vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, **ALL_ON)
    )
    layer = model.model.ttt_layers[0]
    assert not layer.b1.any()
    assert not layer.learnable_token_idx.any()
    assert not layer.ttt_norm_bias.any()
    assert (layer.ttt_norm_weight == 1).all()
    assert 0.015 < layer.W1.std() < 0.025
    assert 0.015 < layer.learnable_ttt_lr_weight.std() < 0.025
    assert layer.conv_q.weight.abs().max() > 0.3  # 1/sqrt(4) at most


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"output_attentions": True}, r"^output_attentions=True: a TTT layer has no attention; .*dual_matrices"),
        ({"position_ids": torch.arange(3)[None]}, r"^position_ids: a TTT model counts every row's tokens by itself"),
        ({"head_mask": torch.ones(1)}, r"^head_mask=.*: a TTT model takes no such argument"),
        ({"attention_mask": torch.ones(1, 5)}, r"^attention_mask of shape \[1, 5\]: must be \[1, 3\]"),
        ({"attention_mask": torch.ones(1, 1, 3, 3)}, r"^attention_mask of shape \[1, 1, 3, 3\]: must be \[1, 3\]"),
        ({"past_key_values": DynamicCache()}, r"^past_key_values=DynamicCache: a TTT model keeps weights"),
        ({"inner_lr_scale": -1}, r"^inner_lr_scale=-1: must be a finite number >= 0"),
        ({"inner_lr_scale": float("nan")}, r"^inner_lr_scale=nan: must be a finite number >= 0"),
        ({"inner_lr_scale": torch.ones(2, 3)}, r"^inner_lr_scale of shape \[2, 3\]: must be a number, or \[1, 3\]"),
        ({"inputs_embeds": torch.zeros(1, 3, 12)}, r"^input_ids, inputs_embeds.*: give exactly one of them"),
    ],
)
def test_what_is_given_wrongly_is_refused_by_name(given, said):
    with pytest.raises(ValueError, match=said):
        build()(ids(3), **given)


def test_another_familys_configuration_is_refused():
    with pytest.raises(ValueError, match=r"^config=LlamaConfig: a TTT model is made of a TTTConfig"):
        TTTForCausalLM(LlamaConfig())


def test_no_input_at_all_is_refused():
    with pytest.raises(ValueError, match="give exactly one of them; neither is given"):
        build()()


def test_checkpoints_of_another_family_or_half_ones_are_refused(tmp_path):
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=31, hidden_size=12, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2)
    )
    llama.save_pretrained(tmp_path / "llama")
    with pytest.raises(CheckpointError, match=r"model_type='llama': a TTT model's configuration says 'ttt'"):
        TTTForCausalLM.from_pretrained(tmp_path / "llama")
    said = json.loads((tmp_path / "llama" / "config.json").read_text())
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**build().config.to_dict(), "num_hidden_layers": 1}))
    with pytest.raises(CheckpointError, match=r"lacks .* more; it is not whole, or of another model"):
        TTTForCausalLM.from_pretrained(tmp_path / "llama")
    assert said["model_type"] == "llama"
    build(use_gate=True).save_pretrained(tmp_path / "gate")
    gated = json.loads((tmp_path / "gate" / "config.json").read_text())
    (tmp_path / "gate" / "config.json").write_text(json.dumps({**gated, "use_gate": False}))
    with pytest.raises(CheckpointError, match=r"has, and its config\.json has no place for, .*g_proj"):
        TTTForCausalLM.from_pretrained(tmp_path / "gate")
    (tmp_path / "gate" / "config.json").write_text(json.dumps({**gated, "hidden_size": 16}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        TTTForCausalLM.from_pretrained(tmp_path / "gate")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TTTForCausalLM.from_pretrained(tmp_path / "nowhere")


def test_a_folder_of_the_official_layout_opens_as_it_is():
    assert (DATA / "linear" / "config.json").is_file()
    _, info = TTTForCausalLM.from_pretrained(DATA / "mlp_all", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("fields", [{}, ALL_ON], ids=["linear", "linear_all"])
def test_an_inner_loss_that_is_no_number_says_where_and_when_and_keeps_nothing(fields, no_gradients):
    model, tokens = build(**fields), ids(15, rows=2)
    cache, steps = TTTCache(model), record(model)
    model(tokens[:, :6], past_key_values=cache)
    before, told = copy.deepcopy(cache), len(steps)
    scale = torch.ones(2, 9)
    scale[1, 3] = 3e38  # the weights after this token's mini-batch are infinite
    with pytest.raises(InnerLossError) as caught:
        model(tokens[:, 6:], past_key_values=cache, inner_lr_scale=scale)
    error = caught.value
    assert isinstance(error, ValueError)
    assert (error.layer, error.row) == (0, 1)
    assert error.position == error.token + 6
    assert error.token >= 3
    assert str(error).startswith(
        f"inner loss = {'nan' if 'nan' in str(error) else 'inf'} at layer 0, head {error.head}, row 1"
    )
    assert "lower ttt_base_lr or inner_lr_scale" in str(error)
    assert len(steps) == told
    assert (cache.lengths, cache.seqlen_offset) == (before.lengths, before.seqlen_offset)
    assert torch.equal(
        model(tokens[:, 6:], past_key_values=cache).logits, model(tokens[:, 6:], past_key_values=before).logits
    )


def test_an_inner_loss_error_goes_to_another_process():
    error = InnerLossError(0, 1, 2, 3, 4, float("nan"), broken=False)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InnerLossError
    assert (str(again), again.layer, again.head, again.row, again.token, again.position) == (str(error), 0, 1, 2, 3, 4)
    assert told(again, "zh") == told(error, "zh")


def test_an_inner_loss_error_is_told_on_pages_in_their_language():
    error = InnerLossError(0, 1, 2, 3, 4, float("nan"), broken=False)
    assert told(error, "en") == str(error)
    assert told(error, "zh").startswith("inner_loss=nan：在第 0 层、第 1 头、词元 4")
    within = inside("text", error)
    assert str(within).startswith("text: inner_loss=nan: is no number any more at layer 0, head 1, token 4")
    assert told(inside("runs", within), "zh").startswith("runs: text：inner_loss=nan：在第 0 层")


def test_broken_weights_before_a_layer_are_not_blamed_on_its_inner_steps(no_gradients):
    model = build()
    model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(InnerLossError, match=r"at layer 1, .*not finite already") as caught:
        model(ids(5))
    assert caught.value.layer == 1


def test_numbers_that_break_after_the_inner_loop_are_not_its_fault(no_gradients):
    model = build(num_hidden_layers=1)
    model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    assert not torch.isfinite(model(ids(5)).logits).all()


def test_a_long_pass_that_may_be_stopped_is_the_same(no_gradients):
    model, tokens = build(ttt_layer_type="mlp"), ids(300)
    with interruptible(threading.Event()):
        found = model(tokens).logits
    assert torch.equal(found, model(tokens).logits)


def test_a_stop_inside_a_pass_leaves_the_cache_as_it_was(no_gradients):
    model, stop, tokens = build(), threading.Event(), ids(12)
    cache = TTTCache(model)
    model(tokens[:, :5], past_key_values=cache)
    before = copy.deepcopy(cache)
    model.model.layers[1].register_forward_pre_hook(lambda *args: stop.set())
    with pytest.raises(Interrupted), interruptible(stop):
        model(tokens[:, 5:], past_key_values=cache)
    assert cache.lengths == before.lengths
    held, other = cache.ttt_params_dict, before.ttt_params_dict
    assert all(torch.equal(held[name][layer], other[name][layer]) for name in other for layer in other[name])
