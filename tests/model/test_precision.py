"""int8 layers against what they stand for in float64, and against the bound that rounding puts on them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.layers import NormedProjection
from loopviz.model.precision import (
    MOST,
    PROJECTIONS,
    Int8Embedding,
    Int8Linear,
    PrecisionError,
    has_one_table,
    held_in,
    held_name,
    is_quantised,
    plain_state,
    quantise,
    quantise_rows,
    weight_bytes,
    weight_count,
)

from .tiny import DYNAMIC, MODES, TWO, build

ROUNDED = 2.0**-8  # bfloat16 keeps eight bits of a number
EXACT_ULP = 2.0**-24  # of float32, in which the kernel adds up


def made(out: int, into: int, seed: int = 0, bias: bool = False) -> nn.Linear:
    """A random linear map whose rows are of very different sizes, one of them zero."""
    torch.manual_seed(seed)
    plain = nn.Linear(into, out, bias=bias)
    with torch.no_grad():
        plain.weight.normal_().mul_(10.0 ** torch.randint(-4, 4, (out, 1)))
        plain.weight[0] = 0
    return plain


def sums(weight: Tensor, x: Tensor) -> Tensor:
    """Of absolute values: what every bound here is a share of."""
    return x.double().abs() @ weight.double().abs().T


def allowed(int8: Int8Linear, x: Tensor) -> Tensor:
    """How far an int8 map may be from its own weights in float64: activations rounded, sums in float32, the end rounded."""
    terms = sums(int8.weight, x)
    inside = terms * (ROUNDED + int8.in_features * EXACT_ULP)
    y = x.double() @ int8.weight.double().T
    return inside + ROUNDED * (y.abs() + inside)


@settings(max_examples=60)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 9), st.integers(0, 10**6))
def test_it_is_what_its_own_weights_say_within_the_rounding_of_bfloat16(
    into: int, out: int, rows: int, seed: int
) -> None:
    plain = made(out, into, seed)
    int8, x = Int8Linear(plain), torch.randn(rows, into)
    off = (int8(x).double() - x.double() @ int8.weight.double().T).abs()
    assert (off <= allowed(int8, x)).all()


@settings(max_examples=60)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 10**6))
def test_no_weight_is_off_by_more_than_half_a_step_of_its_row(into: int, out: int, seed: int) -> None:
    weight = made(out, into, seed).weight.detach()
    quantised, scale = quantise_rows(weight)
    steps = weight.double().abs().amax(1) / 127
    assert (scale.double() >= steps).all()
    assert (scale.double() <= steps * (1 + 2**-7) + 1e-37).all()  # at most the next bfloat16 above
    off = (quantised.double() * scale.double()[:, None] - weight.double()).abs()
    assert (off <= scale.double()[:, None] / 2 * (1 + 1e-6)).all()  # the division is float32's
    assert quantised.abs().max() <= 127


@settings(max_examples=40)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 10**6))
def test_against_exact_it_is_off_by_half_a_step_a_weight_and_the_rounding(into: int, out: int, seed: int) -> None:
    plain = made(out, into, seed, bias=True)
    int8, x = Int8Linear(plain), torch.randn(3, into)
    steps = plain.weight.detach().double().abs().amax(1) / 127 * (1 + 2**-7)  # a scale is rounded up to bfloat16
    bound = x.double().abs().sum(1, keepdim=True) * steps / 2 * (1 + 1e-6) + allowed(int8, x)
    exact = x.double() @ plain.weight.double().T + plain.bias.double()
    bound += 2 * EXACT_ULP * (exact.abs() + bound)  # the bias is added in float32
    assert ((int8(x).double() - exact).abs() <= bound + 1e-30).all()


@pytest.mark.parametrize("into", [32, 48, 576])
def test_a_row_is_computed_from_itself_alone(into: int) -> None:
    int8 = Int8Linear(made(40, into))
    x = torch.randn(7, into) * 10.0 ** torch.arange(-3, 4)[:, None]
    together = int8(x)
    for row in range(7):
        torch.testing.assert_close(int8(x[row : row + 1])[0], together[row], rtol=2 * ROUNDED, atol=0)
    broken = x.clone()
    broken[3] = float("nan")
    rest = [0, 1, 2, 4, 5, 6]
    assert torch.equal(int8(broken)[rest], together[rest])


def test_shapes_dtypes_and_no_rows_at_all() -> None:
    int8 = Int8Linear(made(5, 33, bias=True))
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert int8(torch.zeros(2, 3, 33, dtype=dtype)).dtype == dtype
    assert int8(torch.zeros(2, 3, 33)).shape == (2, 3, 5)
    assert int8(torch.zeros(0, 33)).shape == (0, 5)
    assert torch.equal(int8(torch.zeros(1, 33))[0], int8.bias)


# -- models ----------------------------------------------------------------------------------------------------------------------------

LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two_blocks": TWO,
    "dynamic": DYNAMIC,
    **{name: {"loop_layers": (1, 2), "loop_count": 3, **mode} for name, mode in MODES.items()},
}


def stands_for(model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
    """The model of floats that an int8 model stands for, in float64."""
    twin = LoopLlamaForCausalLM(copy.deepcopy(model.config)).eval()
    twin.load_state_dict(plain_state(model))
    return twin.double()


def in_chunks(model: LoopLlamaForCausalLM, ids: Tensor, chunks: tuple[int, ...]) -> Tensor:
    cache, at, found = None, 0, []
    for size in chunks:
        out = model(ids[:, at : at + size], past_key_values=cache, use_cache=True)
        cache, at = out.past_key_values, at + size
        found.append(out.logits)
    return torch.cat(found, 1)


@pytest.mark.parametrize("name", LOOPS)
@torch.no_grad()
def test_every_way_of_looping_computes_what_its_weights_stand_for(name: str) -> None:
    loop = LOOPS[name]
    if name == "dynamic":  # a decision near its threshold may fall otherwise; here what is computed is compared
        loop = {**loop, "cosine_threshold": 1e-6}
    model = quantise(build(loop, initializer_range=0.1))
    exact = stands_for(model)
    ids = torch.randint(0, 97, (2, 9))
    for chunks in ((9,), (4, 1, 1, 3)):
        found, wanted = in_chunks(model, ids, chunks), in_chunks(exact, ids, chunks)
        # a wrong slot, or a pass's order lost, is a hundred times more
        assert (found - wanted).abs().max() < 4 * ROUNDED * wanted.abs().max()


@torch.no_grad()
def test_views_share_it_and_states_stay_in_float32() -> None:
    model = build(initializer_range=0.1)
    before, ids = model.with_loop(loop_layers=(1, 2), loop_count=3), torch.randint(0, 97, (1, 5))
    quantise(model)
    assert is_quantised(before), "the layers are shared; its head stays"
    assert isinstance(before.lm_head, nn.Linear)
    view = model.with_loop(loop_layers=(1, 2), loop_count=3)
    seen: list[torch.dtype] = []
    handle = view.register_loop_hook(lambda step: seen.append(step.state.dtype))
    logits = view(ids).logits
    handle.remove()
    assert seen == [torch.float32] * 3
    assert torch.equal(logits, model.with_loop(loop_layers=(1, 2), loop_count=3)(ids).logits)
    assert is_quantised(view)
    assert view(ids, past_key_values=None, use_cache=True).past_key_values.layers[1].dtype == torch.float32


@torch.no_grad()
def test_what_is_saved_is_read_back_bit_for_bit(tmp_path: Any) -> None:
    model, ids = quantise(build(attention_bias=True)), torch.randint(0, 97, (1, 6))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, str(tmp_path / "int8"))
    other = quantise(build(attention_bias=True, seed=1))
    assert not torch.equal(other(ids).logits, model(ids).logits)
    other.load_state_dict(load_file(str(tmp_path / "int8")))
    assert torch.equal(other(ids).logits, model(ids).logits)
    with pytest.raises(RuntimeError, match="quantised"):
        build(attention_bias=True).load_state_dict(load_file(str(tmp_path / "int8")))


@torch.no_grad()
def test_norms_on_queries_and_keys_stay() -> None:
    plain = build(qk_norm="head")
    model = quantise(build(qk_norm="head"))
    projection = model.model.layers[0].self_attn.q_proj
    assert isinstance(projection, Int8Linear)
    x = torch.randn(1, 4, 32)
    float_one = copy.deepcopy(plain.model.layers[0].self_attn.q_proj)
    assert isinstance(float_one, NormedProjection)
    float_one.weight.copy_(projection.weight)
    torch.testing.assert_close(projection(x), float_one(x), rtol=0, atol=8 * ROUNDED)
    assert set(plain_state(model)) == set(plain.state_dict())


def test_casting_the_model_leaves_the_kernels_numbers_alone() -> None:
    model = quantise(build())
    ids = torch.randint(0, 97, (1, 4))
    before = copy.deepcopy(model.state_dict())
    model.double().to(torch.float16).float()
    for name, tensor in model.state_dict().items():
        if name.endswith(("quantised", "scale")):
            assert tensor.dtype == before[name].dtype
            assert torch.equal(tensor, before[name])
    with torch.no_grad():
        assert model.double()(ids).logits.dtype == torch.float64
        assert model.to(torch.bfloat16)(ids).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_and_numbers_are_counted_once(tied: bool) -> None:
    plain = build(tie_word_embeddings=tied, attention_bias=True)
    n = plain.num_parameters()
    matrices = [weight for weight in plain.parameters() if weight.dim() == 2]
    held, rows = sum(map(torch.numel, matrices)), sum(map(len, matrices))
    assert (weight_count(plain), weight_bytes(plain)) == (n, 4 * n)
    model = quantise(plain)
    padding = 4 * 32 * 16  # of four layers' down_proj, [32, 48]: to 64 columns
    assert (weight_count(model), weight_bytes(model)) == (n, 4 * (n - held) + held + padding + 2 * rows)
    assert len(matrices) == len(PROJECTIONS) * model.config.num_hidden_layers + (1 if tied else 2)
    assert has_one_table(model) is tied


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_an_embedding_gives_the_rows_that_its_matrix_stands_for(tied: bool) -> None:
    plain = build(tie_word_embeddings=tied)
    table = plain.model.embed_tokens.weight.detach().clone()
    embedding = quantise(plain).model.embed_tokens
    assert isinstance(embedding, Int8Embedding)
    ids = torch.randint(0, 97, (2, 5))
    assert torch.equal(embedding(ids), embedding.weight[ids])
    scale = table.abs().amax(1, keepdim=True) / MOST
    assert ((embedding.weight - table).abs() <= scale * 0.51).all(), "half a step, the scale rounded up"
    assert tied is torch.equal(embedding.weight, plain.lm_head.weight)
    twin = copy.deepcopy(plain)
    assert torch.equal(twin(ids).logits, plain(ids).logits)
    assert (twin.model.embed_tokens.table is twin.lm_head) is tied


def test_what_a_model_is_held_in_is_said() -> None:
    model = build()
    assert (held_in(model), held_name(model)) == (torch.float32, "float32")
    assert held_name(build().to(torch.float16)) == "float16"
    assert (held_in(quantise(model)), held_name(model.with_loop(loop_layers=(1, 2)))) == (torch.int8, "int8")


def test_twice_is_once() -> None:
    model = quantise(build())
    before = copy.deepcopy(model.state_dict())
    quantise(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# -- refusals --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_refused_by_name_and_nothing_is_changed(value: float) -> None:
    model = build()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3, 4] = value
    with pytest.raises(
        PrecisionError, match=r"model\.layers\.2\.mlp\.up_proj has 1 weights that are not finite.*exact"
    ):
        quantise(model)
    assert not is_quantised(model)
    assert model.model.layers[0].self_attn.q_proj.weight.requires_grad


def test_what_is_no_linear_map_is_refused_by_name() -> None:
    model = build()
    model.model.layers[1].self_attn.q_proj = nn.Bilinear(2, 2, 2)
    with pytest.raises(PrecisionError, match=r"layers\.1\.self_attn\.q_proj is a Bilinear"):
        quantise(model)


def test_another_device_is_refused_by_name() -> None:
    with pytest.raises(PrecisionError, match="q_proj is on meta"):
        quantise(build().to("meta"))
    int8 = Int8Linear(made(4, 4)).to("meta")
    with pytest.raises(PrecisionError, match="not on meta"):
        int8(torch.zeros(1, 4, device="meta"))


def test_gradients_are_refused_by_name_and_none_are_asked_for() -> None:
    model, ids = quantise(build()), torch.randint(0, 97, (1, 4))
    assert model(ids).logits.requires_grad is False  # with gradients on: nothing of the model takes any
    states = torch.zeros(1, 4, 32, requires_grad=True)
    with pytest.raises(PrecisionError, match=r"no_grad"):
        model(inputs_embeds=states)
    with torch.no_grad():
        model(inputs_embeds=states)


def test_whole_numbers_are_refused_by_name() -> None:
    model = build()
    projection = model.model.layers[0].mlp.down_proj
    projection.weight = nn.Parameter(projection.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(PrecisionError, match=r"down_proj holds torch\.int8"):
        quantise(model)


def test_a_model_of_int8_is_saved_in_no_folder_that_could_not_be_read(tmp_path: Path) -> None:
    """It was, and the folder was refused."""
    model = quantise(build())
    with pytest.raises(ValueError, match="its layers hold int8, which no folder is read from"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
