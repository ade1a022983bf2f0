"""TTTCache: what it holds, rows chosen and repeated, forgetting, steering, and caches of another model."""

import copy
import pickle

import pytest
import torch

from loopviz.ttt import TTTCache, TTTConfig

from .tiny import ALL_ON, SHAPE, build, close, ids

pytestmark = pytest.mark.usefixtures("no_gradients")


def filled(model, n: int = 6, rows: int = 3) -> TTTCache:
    cache = TTTCache(model)
    model(ids(n, rows=rows), past_key_values=cache)
    return cache


def states(cache):
    return {**cache.ttt_params_dict, **cache.conv_states_dic}


def same(one: TTTCache, other: TTTCache) -> bool:
    mine, yours = states(one), states(other)
    equal = all(torch.equal(mine[name][layer], yours[name][layer]) for name in mine for layer in mine[name])
    return equal and mine.keys() == yours.keys() and one.lengths == other.lengths


def test_it_comes_of_a_pass_that_is_asked_for_it():
    model = build()
    assert model(ids(3)).past_key_values is None  # use_cache is False in the published configuration
    cache = model(ids(3), use_cache=True).past_key_values
    assert isinstance(cache, TTTCache)
    assert cache.lengths == [3]
    again = model(ids(2), past_key_values=cache).past_key_values
    assert again is cache
    assert cache.lengths == [5]
    kept = copy.deepcopy(cache)
    with pytest.raises(ValueError, match=r"use_cache=False: with past_key_values"):
        model(ids(2), past_key_values=cache, use_cache=False)  # it was read by an empty memory, without a word
    assert same(cache, kept)


@pytest.mark.parametrize("fields", [{}, {"ttt_layer_type": "mlp"}, ALL_ON])
def test_its_bytes_are_constant_in_the_context_and_as_published(fields):
    model = build(**fields)
    sizes = {filled(model, n).nbytes for n in (1, 3, 4, 9, 40)}
    H, D, C, rows, layers = 2, 6, 12, 3, 2
    inner = 2 * H * (D * D + D) if fields.get("ttt_layer_type") != "mlp" else 2 * H * (8 * D * D + 5 * D)
    convs = 3 * C * 4 if fields is ALL_ON else 0
    assert sizes == {4 * rows * layers * (inner + convs)}


def test_names_of_the_published_code():
    cache = filled(build(ttt_layer_type="mlp", **ALL_ON))
    names = {f"{name}_{what}" for name in ("W1", "b1", "W2", "b2") for what in ("states", "grad")}
    assert set(cache.ttt_params_dict) == names
    assert set(cache.conv_states_dic) == {"pre_conv", "ttt_conv_q", "ttt_conv_k"}
    assert cache.seqlen_offset == 6
    assert cache.ttt_params_dict["W1_states"][1].shape == (3, 2, 6, 24)


def test_nothing_carries_a_gradient_from_pass_to_pass():
    model = build(**ALL_ON)
    with torch.enable_grad():
        cache = filled(model)
        assert not any(value.requires_grad for layers in states(cache).values() for value in layers.values())
        model(ids(5, rows=3), past_key_values=cache, labels=ids(5, rows=3)).loss.backward()


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"ttt_layer_type": "mlp", **ALL_ON}])
def test_rows_are_chosen_repeated_and_reordered_whole(fields):
    model, tokens = build(**fields), ids(6, rows=3)
    mask = torch.ones(3, 6)
    mask[1, :4] = 0
    for change, rows in (
        (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 1])), [2, 0, 1]),
        (lambda cache: cache.batch_select_indices(torch.tensor([1])), [1]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
    ):
        cache = TTTCache(model)
        model(tokens, attention_mask=mask, past_key_values=cache)
        change(cache)
        assert cache.batch_size == len(rows)
        assert cache.lengths == [[6, 2, 6][row] for row in rows]
        more = ids(5, rows=len(rows), seed=3)
        found = model(more, past_key_values=cache).logits
        for at, row in enumerate(rows):
            text = torch.cat((tokens[row, mask[row].bool()], more[at]))[None]
            close(found[at], model(text).logits[0, -5:], 1e-4)


def test_a_copy_goes_on_by_itself_and_belongs_to_the_same_model():
    model = build(**ALL_ON)
    cache = filled(model)
    twin = copy.deepcopy(cache)
    assert same(cache, twin)
    model(ids(3, rows=3), past_key_values=twin)
    assert not same(cache, twin)
    assert cache.lengths == [6, 6, 6]


def test_it_goes_to_another_process_and_is_still_the_models():
    model = build(**ALL_ON)
    cache = filled(model)
    twin = pickle.loads(pickle.dumps(cache))
    assert same(cache, twin)
    more = ids(3, rows=3)
    assert torch.equal(model(more, past_key_values=twin).logits, model(more, past_key_values=cache).logits)
    twin.forget()
    assert torch.equal(twin.ttt_params_dict["W1_states"][0][0], model.model.ttt_layers[0].W1)


@pytest.mark.parametrize("rows", [1, 2])
def test_writing_into_a_state_does_not_change_the_model(rows):
    model = build()
    cache, layer = filled(model, 2, rows), model.model.ttt_layers[0]
    before = layer.W1.clone()
    cache.ttt_params_dict["W1_states"][0].zero_()
    cache.forget()
    cache.ttt_params_dict["W1_states"][0].zero_()
    assert torch.equal(layer.W1, before)


def test_reset_is_as_new():
    model = build(**ALL_ON)
    cache = filled(model)
    cache.inner_lr_scale = 0.0
    cache.reset()
    assert cache.inner_lr_scale == 1
    assert (cache.lengths, cache.seqlen_offset, cache.batch_size, cache.nbytes) == ([], 0, -1, 0)
    model(ids(6, rows=3), past_key_values=cache)
    assert same(cache, filled(model))


def test_tokens_cannot_be_taken_back():
    cache = filled(build())
    cache.crop(0)
    with pytest.raises(ValueError, match=r"^crop\(-2\): a TTTCache cannot give tokens back"):
        cache.crop(-2)


# -- forgetting and steering -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 6, 8])  # at the end of a mini-batch, and inside one
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_forget_sets_the_weights_back_to_the_first_ones_where_the_text_is(kind, n):
    model = build(ttt_layer_type=kind)
    cache = filled(model, n)
    cache.forget()
    layer = model.model.ttt_layers[1]
    for name in layer.names:
        assert torch.equal(cache.ttt_params_dict[f"{name}_states"][1], getattr(layer, name).expand(3, -1, -1, -1))
        assert not cache.ttt_params_dict[f"{name}_grad"][1].any()
    assert cache.lengths == [n] * 3
    if n % 4 == 0:  # the next token begins a mini-batch: as if it were the first of a text
        close(model(ids(5, rows=3), past_key_values=cache).logits, model(ids(5, rows=3)).logits)


def test_forget_of_rows_and_layers_leaves_the_others():
    model = build(**ALL_ON)
    cache, kept = filled(model), filled(model)
    cache.forget(rows=[1], layers=[0])
    held, other = cache.ttt_params_dict, kept.ttt_params_dict
    assert torch.equal(held["W1_states"][0][1], model.model.ttt_layers[0].W1)
    for name in held:
        assert torch.equal(held[name][1], other[name][1])
        assert torch.equal(held[name][0][[0, 2]], other[name][0][[0, 2]])
    for name, layers in cache.conv_states_dic.items():
        assert all(torch.equal(layers[layer], kept.conv_states_dic[name][layer]) for layer in layers)
    with pytest.raises(ValueError, match=r"^rows=\[5\]: there is no 5; this cache has 0\.\.2"):
        cache.forget(rows=[5])
    with pytest.raises(ValueError, match=r"^layers=\[0, 2\]: there is no 2"):
        cache.forget(layers=[0, 2])


def test_forgetting_changes_what_follows():
    model, more = build(), ids(3, rows=3)
    cache, kept = filled(model), filled(model)
    cache.forget()
    found, expected = model(more, past_key_values=cache).logits, model(more, past_key_values=kept).logits
    assert (found - expected).abs().max() > 0.5


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_inner_learning_rate_is_scaled_from_the_next_token_on(kind):
    model, tokens = build(ttt_layer_type=kind), ids(12, rows=2)
    factors = torch.tensor([1.0] * 3 + [0.0] * 4 + [2.5] * 5).expand(2, -1)
    expected = model(tokens, inner_lr_scale=factors).logits
    cache, found = TTTCache(model), []
    for t in range(12):
        cache.inner_lr_scale = float(factors[0, t])
        found.append(model(tokens[:, t : t + 1], past_key_values=cache).logits)
    close(torch.cat(found, dim=1), expected, 1e-4)
    assert (expected - model(tokens).logits).abs().max() > 0.5
    with pytest.raises(ValueError, match=r"^inner_lr_scale=-0\.5: must be a finite number >= 0"):
        cache.inner_lr_scale = -0.5
    assert cache.inner_lr_scale == 2.5


def test_at_rate_zero_nothing_is_learned():
    model = build()
    cache = TTTCache(model)
    cache.inner_lr_scale = 0
    model(ids(9), past_key_values=cache)
    assert torch.equal(cache.ttt_params_dict["W1_states"][0][0], model.model.ttt_layers[0].W1)
    assert not cache.ttt_params_dict["W1_grad"][0].any()


# -- another model's, or of another size -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 1},
        {"hidden_size": 8},
        {"num_attention_heads": 3},
        {"ttt_layer_type": "mlp"},
        {"mini_batch_size": 8},
        {"pre_conv": True},
        {"share_qk": True},
        {"conv_kernel": 3},
    ],
)
def test_a_cache_of_another_model_is_refused_by_name_and_left_alone(fields):
    model = build(**fields)
    for cache in (filled(build()), TTTCache(build()), TTTCache(TTTConfig(**SHAPE))):
        kept = copy.deepcopy(cache)
        (name,) = fields
        with pytest.raises(ValueError, match=rf"^past_key_values: this cache was made for a model with {name}="):
            model(ids(2, rows=3), past_key_values=cache)
        assert same(cache, kept)


def test_a_cache_filled_by_other_weights_is_refused():
    cache = filled(build(seed=1))
    with pytest.raises(ValueError, match="filled by a model with other weights"):
        build(seed=2)(ids(2, rows=3), past_key_values=cache)
    again = build(seed=1)  # the same weights in another object: a copy, another process
    again(ids(2, rows=3), past_key_values=cache)
    again.view()(ids(2, rows=3), past_key_values=cache)


@pytest.mark.parametrize("fill", [True, False])
def test_published_defect_a_cache_of_another_batch_size(fill):
    model = build()
    cache = filled(model) if fill else TTTCache(model, batch_size=3)
    kept = copy.deepcopy(cache)
    with pytest.raises(ValueError, match=r"^past_key_values: this cache is of 3 row\(s\), and this pass has 2"):
        model(ids(4, rows=2), past_key_values=cache)
    assert same(cache, kept)


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_batch_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="must be a whole number >= 1"):
        TTTCache(build(), batch_size=size)


def test_what_is_no_ttt_model_has_no_such_cache():
    with pytest.raises(ValueError, match=r"^TTTCache\(int\): give the TTT model it is for, or its TTTConfig"):
        TTTCache(3)


def test_it_holds_no_keys_and_values():
    cache = TTTCache(build())
    with pytest.raises(ValueError, match="holds no keys and values"):
        cache.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0)
    with pytest.raises(ValueError, match="no mask of attention"):
        cache.get_mask_sizes(1, 0)
