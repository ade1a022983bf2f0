"""The check agrees where both compute the same, says so where they do not, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading

import pytest
import torch
from transformers import LlamaForCausalLM as TheirLlama
from transformers.modeling_outputs import CausalLMOutputWithPast

from loopviz.anatomy import llama, parity, rope
from loopviz.checks import FieldError
from loopviz.model.checkpoints.find import APART, BUNDLED
from loopviz.model.checkpoints.load import as_loop_llama, load_checkpoint
from loopviz.model.interrupt import Interrupted, interruptible
from tests.anatomy.pairs import LLAMA_3, configuration, pair, random_configuration, tokens
from tests.conftest import make_llama
from tests.engine import tiny

SMALL = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
AS_WIDE = {"vocab_size": 211, "intermediate_size": 256, "num_hidden_layers": 2}  # as the article: 1024
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LLAMAS = sorted(model.name for model in (*BUNDLED, *APART) if model.name != "stories-ttt")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_articles_kind_agrees_in_every_dtype(dtype):
    rows = parity.compare(parity.article(**SMALL), dtype)
    assert [row.attention for row in rows] == ["eager", "sdpa"]
    for row in rows:
        assert row.agrees, row.why()
        assert row.logits == 4 * 125 * 211
        assert row.equal == (row.why() == "every bit agrees")
        assert row.equal or row.why().startswith("rounding: ")
    if dtype == torch.float64:
        assert rows[1].max_delta_logit < 1e-10
        assert rows[1].delta_loss < 1e-10
    assert rows[0].own_delta_logit == rows[1].own_delta_logit > 0, "in float64 too: its eager softmax is float32"


@pytest.mark.parametrize("name", LLAMAS)
def test_every_bundled_model_agrees_as_plain_llama(name):
    loaded = load_checkpoint(name)
    for row in parity.compare(parity.of_model(loaded.model, name), torch.float64):
        assert row.agrees, row.why()
        assert row.attention == "eager" or row.max_delta_logit < 1e-10


def test_a_loop_is_left_out_with_its_weights():
    plain = make_llama(seed=3)
    looped = as_loop_llama(plain, loop_layers=(1, 1), loop_count=4, loop_injection="linear", loop_norm=True)
    ids = torch.arange(9)
    theirs, ours = parity.build(parity.of_model(looped, "m", ids), torch.float32, torch.device("cpu"))
    assert type(theirs) is TheirLlama
    with torch.no_grad():
        assert torch.equal(theirs(ids[None]).logits, plain(ids[None]).logits)
        assert not torch.allclose(ours(ids[None])[1], looped(ids[None]).logits, atol=1e-3)
    assert not hasattr(parity.plain_config(looped.config), "loop_layers")


def test_weights_are_shared_and_not_held_twice():
    model = make_llama(tie_word_embeddings=True)
    theirs, ours = parity.build(parity.of_model(model, "m"), torch.float32, torch.device("cpu"))
    held = {weight.data_ptr() for weight in model.parameters()}
    assert {weight.data_ptr() for weight in ours.parameters()} == held
    assert {weight.data_ptr() for weight in theirs.parameters()} == held


def test_another_dtype_leaves_the_model_as_it_was():
    model = make_llama()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    subject = parity.of_model(model, "m")
    parity.compare(subject, torch.bfloat16)
    list(parity.positions(subject, torch.float64))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert model.dtype == torch.float32


def test_llama_3_positions_agree_too():
    model, _ = pair(configuration(rope_parameters=dict(LLAMA_3)), torch.float32)
    for row in parity.compare(parity.of_model(model, "m"), torch.float64):
        assert row.agrees, row.why()


@pytest.mark.parametrize("seed", range(12))
def test_no_llama_without_fault_is_called_faulty(seed, monkeypatch):
    """In every dtype, on models of every kind."""
    monkeypatch.setattr(parity, "SEED", seed)
    model, _ = pair(random_configuration(seed), torch.float32)
    for subject in (parity.of_model(model, "m"), parity.article(**SMALL)):
        for dtype in DTYPES:
            for row in parity.compare(subject, dtype):
                assert row.agrees, (row.max_delta_logit, row.why())


def turn_neighbours(x, cos, sin, right=llama.rotate):
    order, back = rope.halves_order(x.shape[-1]), rope.pairs_order(x.shape[-1])
    return right(x[..., order], cos, sin)[..., back]


def norm_without_mean(self, x, right=llama.LlamaRMSNorm.forward):
    return right(self, x - x.mean(-1, keepdim=True))


FAULTS = {
    "neighbours turned": (llama, "rotate", turn_neighbours),
    "nothing turned": (llama, "rotate", lambda x, cos, sin: x),
    "frequencies half as large": (
        llama,
        "rotary_frequencies",
        lambda config, right=llama.rotary_frequencies: right(config) / 2,
    ),
    "heads dealt out in turn": (llama, "repeat_kv", lambda x, times: x.repeat(1, times, 1, 1)),
    "a norm that takes the mean away": (llama.LlamaRMSNorm, "forward", norm_without_mean),
    "no residual": (
        llama.LlamaDecoderLayer,
        "forward",
        lambda self, x, *more: x + self.mlp(self.post_attention_layernorm(x)),
    ),
}


OF_POSITIONS = ["neighbours turned", "nothing turned", "frequencies half as large"]  # hidden best by rounding


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_llama_that_computes_something_else_is_seen(monkeypatch, fault, dtype):
    monkeypatch.setattr(*FAULTS[fault])
    for row in parity.compare(parity.of_model(make_llama(seed=1), "m"), dtype):
        assert not row.agrees
        assert not row.equal
        assert "do not compute the same" in row.why()


@functools.cache
def wide() -> parity.Subject:
    """Of the article's width; its weights are made once in each dtype, which no fault changes."""
    subject = parity.article(**AS_WIDE)
    return dataclasses.replace(subject, weights=functools.cache(subject.weights))


@functools.cache
def logits_of_theirs(dtype: torch.dtype, attention: str) -> torch.Tensor:
    """What transformers makes of it: all faults are of ours, so once is enough, as that is what takes seconds."""
    theirs, _ = parity.build(wide(), dtype, torch.device("cpu"))
    theirs.set_attn_implementation(attention)
    batch = wide().batch
    with torch.no_grad():
        return theirs(batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits


class Theirs:
    """transformers' model of `wide()` with its logits known."""

    def __init__(self, model: TheirLlama) -> None:
        self.model, self.loss_function = model, model.loss_function

    @classmethod
    def beside(cls, build):
        """`build`, with this in the place of transformers' model."""

        def built(*given):
            theirs, ours = build(*given)
            return cls(theirs), ours

        return built

    def set_attn_implementation(self, attention: str) -> None:
        self.attention = attention

    def __call__(self, ids, *, attention_mask, use_cache):
        assert torch.equal(ids, wide().batch.input_ids)
        assert torch.equal(attention_mask, wide().batch.attention_mask)
        return CausalLMOutputWithPast(logits=logits_of_theirs(self.model.dtype, self.attention))


@pytest.mark.parametrize(
    ("fault", "dtype"),
    [*((fault, torch.bfloat16) for fault in FAULTS), *((fault, torch.float16) for fault in OF_POSITIONS)],
    ids=str,
)
def test_a_fault_at_the_width_of_the_article_is_seen_in_half_precision_too(monkeypatch, fault, dtype):
    """Its weights are small, so attention moves a logit little: of a model 64 wide a fault of positions hides below the
    rounding of bfloat16 (half of the bound), and no bound that lets rounding pass can tell it; so the width is real."""
    for attention in parity.ATTENTIONS:
        logits_of_theirs(dtype, attention)  # before the fault
    monkeypatch.setattr(*FAULTS[fault])
    monkeypatch.setattr(parity, "build", Theirs.beside(parity.build))
    for row in parity.compare(wide(), dtype):
        assert not row.agrees, (row.max_delta_logit, row.bound)


def test_a_nan_is_no_agreement():
    (row, _) = parity.compare(parity.article(**SMALL), torch.float32)
    assert row.agrees
    assert not dataclasses.replace(row, max_delta_logit=float("nan"), equal=False).agrees
    assert not dataclasses.replace(row, own_delta_logit=float("nan"), max_delta_logit=1.0, equal=False).agrees


def test_a_nan_in_a_later_row_of_the_batch_is_not_passed_over():
    logits = torch.ones(3, 2, 5)
    logits[1, 1, 2] = float("nan")
    assert math.isnan(parity._largest(logits))
    assert math.isnan(parity._largest(logits, torch.ones(3, 2, 5)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_loss_of_the_wrong_labels_is_seen_though_every_logit_agrees(dtype, monkeypatch):
    right = llama.shifted_loss

    def unshifted(logits, labels, mask=None):
        return right(logits, labels.roll(1, dims=1), mask)

    monkeypatch.setattr(llama, "shifted_loss", unshifted)
    monkeypatch.setattr(parity, "shifted_loss", unshifted)
    rows = parity.compare(parity.article(**SMALL), dtype)
    assert all(row.max_delta_logit <= row.bound for row in rows)
    closest = min(rows, key=lambda row: row.max_delta_logit)
    assert not closest.agrees, "beside the other of transformers' ways rounding may be as large as this"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_loss_that_differs_alone_is_no_agreement(dtype):
    row = min(parity.compare(parity.article(**SMALL), dtype), key=lambda row: row.max_delta_logit)
    assert not dataclasses.replace(row, loss_ours=row.loss_theirs + 0.01).agrees
    assert not dataclasses.replace(row, real_ours=row.real_theirs + 0.01).agrees


def test_padding_is_left_out_of_the_loss_on_either_side():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels = torch.arange(10).view(2, 5)
    made = parity._real_labels(parity.Batch(labels, mask, labels))
    assert made.tolist() == [[-100, -100, -100, 3, 4], [-100, 6, 7, -100, -100]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_does_not_fit_is_refused_before_weights_are_made(monkeypatch, dtype):
    made = []
    subject = dataclasses.replace(parity.article(), weights=made.append)
    need = parity.memory(subject, dtype)
    monkeypatch.setattr(parity, "available_memory", lambda: need - 1)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"article, {kind}: needs [\d.]+ GB of memory and [\d.]+ GB are free"):
        parity.compare(subject, dtype)
    assert made == []


def test_memory_counts_weights_logits_and_what_is_held_already():
    article = parity.article()
    need = parity.memory(article, torch.float32)
    weights, logits = 4 * 449_324_032, 4 * 4 * 125 * 128256
    assert weights + 5 * logits <= need <= 1.2 * (weights + 5 * logits)  # three of logits, two in the loss
    assert parity.memory(article, torch.float64) > need > parity.memory(article, torch.bfloat16)
    model = make_llama()
    subject = parity.of_model(model, "m")
    more = parity.memory(dataclasses.replace(subject, held=lambda dtype: 0), torch.float32)
    assert more > parity.memory(subject, torch.float32)


def test_weights_of_the_article_are_the_same_every_time_and_in_every_dtype():
    config = parity.article(**SMALL).config
    one, other = parity.random_weights(config, torch.float32), parity.random_weights(config, torch.float32)
    half = parity.random_weights(config, torch.bfloat16)
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    assert all(torch.equal(weight.bfloat16(), half[name]) for name, weight in one.items())
    assert one["model.layers.0.mlp.up_proj.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert (one["model.norm.weight"] == 1).all()


def test_a_model_with_a_rule_of_positions_that_is_not_written_is_refused_by_name():
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 32}
    with pytest.raises(ValueError, match="rope_type='yarn': must be one of default, linear, llama3"):
        parity.of_model(TheirLlama(configuration(rope_parameters=yarn)), "m")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_laws_of_positions_hold_on_a_models_own_queries_and_keys(dtype):
    model, _ = pair(configuration(attention_bias=True, num_key_value_heads=1), torch.float32)
    pairs, distance, sinusoidal = parity.positions(parity.of_model(model, "m"), dtype)
    assert pairs.holds
    assert distance.holds
    assert not sinusoidal.holds
    assert sinusoidal.as_expected, "nothing says that it must"
    assert pairs.scores > 0.1


def test_a_broken_law_of_positions_is_seen(monkeypatch):
    monkeypatch.setattr(rope, "projection_to_pairs", lambda projection, n_heads: projection)
    model, _ = pair(configuration(), torch.float32)
    pairs, _, _ = parity.positions(parity.of_model(model, "m"), torch.float32)
    assert not pairs.as_expected


@pytest.mark.parametrize("context", [64, 8192, 131_072])
def test_sinusoids_in_the_place_of_rotations_are_seen_at_any_context(context, monkeypatch):
    """A law of 131,072 positions in float32 would allow half of a score: no further than 8,192 is looked at."""
    model, _ = pair(configuration(max_position_embeddings=context), torch.float32)
    attention = model.model.layers[0].self_attn
    with torch.no_grad():  # scores as large as a trained model's: what is added is a fifth of them
        attention.q_proj.weight.mul_(6)
        attention.k_proj.weight.mul_(6)
    subject = parity.of_model(model, "m")
    _, distance, sinusoidal = parity.positions(subject, torch.float32)
    assert distance.holds
    assert not sinusoidal.holds
    assert distance.furthest == sinusoidal.furthest == min(context, 8192) - 1

    def added(x, frequencies, places):
        return x + rope.sinusoidal(places, x.shape[-1]).to(x.dtype)

    monkeypatch.setattr(rope, "rotate_halves", added)
    _, distance, _ = parity.positions(subject, torch.float32)
    assert not distance.as_expected


@pytest.mark.parametrize(
    ("device", "free", "where"),
    [
        ("cuda:1", "0.002", "on cuda:1"),
        ("mps", "0.001", r"on this machine \(mps's own is not asked\)"),
        ("cpu", "0.001", ""),
    ],
)
def test_memory_is_asked_of_the_device_that_computes(device, free, where, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: asked.append(place) or (2 * 10**6, 8 * 10**9))
    monkeypatch.setattr(parity, "available_memory", lambda: 10**6)
    place = torch.device(device)
    with pytest.raises(ValueError, match=rf"and {free} GB are free ?{where}; leave it out"):
        parity.check_memory(parity.article(), torch.float32, place)
    assert asked == ([place] if place.type == "cuda" else [])


def test_a_prompt_is_read_as_it_is():
    ids = tokens(1, 9)[0]
    subject = parity.of_model(make_llama(), "m", ids)
    assert torch.equal(subject.batch.input_ids, ids[None])
    assert subject.batch.attention_mask.all()
    for row in parity.compare(subject, torch.float32):
        assert row.agrees, row.why()


def test_a_check_can_be_left_in_the_middle_of_a_pass():
    subject, stop, layers = parity.article(**SMALL), threading.Event(), []
    build = parity.build

    def count(*_):
        layers.append(1)
        if len(layers) == 3:
            stop.set()

    def watched(*given):
        models = build(*given)
        for model in models:
            for layer in model.model.layers:
                layer.register_forward_hook(count)
        return models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "build", watched)
        with pytest.raises(Interrupted), interruptible(stop):
            parity.compare(subject, torch.float32)
    assert len(layers) == 3, "no layer begins after it"
    with interruptible(threading.Event()):
        assert parity.compare(subject, torch.float32)[0].equal


@pytest.mark.parametrize(
    ("field", "value"), [("norm_placement", "branch"), ("qk_norm", "head"), ("embedding_scale", 2.0)], ids=str
)
def test_a_model_whose_layers_are_no_llama_s_is_refused_by_name(field: str, value: object) -> None:
    """Both would leave out what it has, and agree on another model."""
    model = tiny.model(**{field: value})
    with pytest.raises(FieldError, match=f"{field}=.*: must be .*: llama.py writes out a plain Llama's layers"):
        parity.of_model(model, "m")
