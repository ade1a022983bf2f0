"""Oracle 7: saved and loaded, a LoopLlama is the same model; Auto classes know it; a plain Llama loads as one."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM, LoopLlamaModel

from .tiny import SHAPE, build, close, ids

FULL = {
    "loop_layers": [(0, 1), (3, 3)],
    "loop_count": [2, 3],
    "loop_injection": ["linear", "add"],
    "loop_norm": [True, False],
    "loop_damping": 0.5,
    "kv_cache_mode": ["merge_strategy", "virtual_layers"],
}


@pytest.mark.parametrize("loop", [None, FULL, {**FULL, "loop_injection": "linear", "loop_norm": True}], ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_saved_and_loaded_is_the_same_model(loop, tied, tmp_path):
    model = build(loop, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    tokens = ids(6)
    expected = model(tokens).logits
    for loader in (LoopLlamaForCausalLM, AutoModelForCausalLM):
        loaded, info = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is LoopLlamaForCausalLM
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert torch.equal(loaded(tokens).logits, expected)
        assert loaded.config.loop_blocks() == model.config.loop_blocks()
        original = dict(model.named_parameters())
        assert {n for n, _ in loaded.named_parameters()} == set(original)
        assert all(torch.equal(p, original[n]) for n, p in loaded.named_parameters())


def test_loop_weights_matter_and_are_saved(tmp_path):
    """Round trips of weights that change nothing would prove nothing."""
    model = build(FULL)
    tokens = ids(6)
    before = model(tokens).logits
    plain = {n for n, _ in build(None).named_parameters()}
    extra = [(n, p) for n, p in model.named_parameters() if n not in plain]
    assert sorted(tuple(p.shape) for _, p in extra) == [(32,), (32, 64)]
    for _, parameter in extra:
        with torch.no_grad():
            parameter.add_(0.2 * torch.randn_like(parameter))
        after = model(tokens).logits
        assert (after - before).abs().max() > 1e-3
        before = after
    model.save_pretrained(tmp_path)
    assert torch.equal(LoopLlamaForCausalLM.from_pretrained(tmp_path)(tokens).logits, before)


def test_a_fresh_linear_injection_starts_as_no_injection():
    torch.manual_seed(0)
    linear = LoopLlamaForCausalLM(LoopLlamaConfig(**SHAPE, loop_layers=(1, 2), loop_injection="linear")).eval()
    torch.manual_seed(0)
    none = LoopLlamaForCausalLM(LoopLlamaConfig(**SHAPE, loop_layers=(1, 2))).eval()
    none.load_state_dict({n: v for n, v in linear.state_dict().items() if n in none.state_dict()})
    torch.testing.assert_close(linear(ids(5)).logits, none(ids(5)).logits, atol=1e-5, rtol=1e-5)


def test_auto_classes(tmp_path):
    model = build({"loop_layers": (1, 2)})
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is LoopLlamaConfig
    assert type(AutoConfig.for_model("loop_llama")) is LoopLlamaConfig
    assert type(AutoModelForCausalLM.from_config(config)) is LoopLlamaForCausalLM
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is LoopLlamaModel
    assert torch.equal(base(ids(4)).last_hidden_state, model.model(ids(4)).last_hidden_state)


def save_plain_llama(folder, **changes):
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes})).eval()
    llama.save_pretrained(folder)
    return llama


def test_a_plain_llama_folder_loads_as_loop_llama(tmp_path):
    llama = save_plain_llama(tmp_path)
    loaded, info = LoopLlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(loaded(ids(6)).logits, llama(ids(6)).logits)
    assert isinstance(loaded.config, LoopLlamaConfig)
    assert loaded.config.loop_blocks() == []


def test_a_plain_llama_folder_loaded_with_a_loop_is_saved_as_loop_llama(tmp_path):
    llama = save_plain_llama(tmp_path / "plain")
    fields = {"loop_layers": (1, 2), "loop_count": 2, "virtual_attention_mode": "serial"}
    loaded = LoopLlamaForCausalLM.from_pretrained(tmp_path / "plain", **fields)
    assert [(b.a, b.b, b.count) for b in loaded.config.loop_blocks()] == [(1, 2, 2)]
    assert all(torch.equal(p, llama.get_parameter(n)) for n, p in loaded.named_parameters())
    looped = loaded(ids(6)).logits
    assert not torch.allclose(looped, llama(ids(6)).logits)
    loaded.save_pretrained(tmp_path / "looped")
    stored = json.loads((tmp_path / "looped" / "config.json").read_text())
    assert stored["model_type"] == "loop_llama"
    assert stored["architectures"] == ["LoopLlamaForCausalLM"]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "looped")
    assert type(again) is LoopLlamaForCausalLM
    assert torch.equal(again(ids(6)).logits, looped)


@pytest.mark.parametrize("injection", ["linear"])
def test_a_plain_llama_folder_loaded_with_learned_injection_starts_neutral(tmp_path, injection):
    """Weights that the folder lacks start at `[I | 0]`, not at whatever memory held."""
    save_plain_llama(tmp_path)
    fields = {"loop_layers": (1, 2), "loop_count": 2}
    linear = LoopLlamaForCausalLM.from_pretrained(tmp_path, **fields, loop_injection=injection)
    none = LoopLlamaForCausalLM.from_pretrained(tmp_path, **fields)
    torch.testing.assert_close(linear(ids(5)).logits, none(ids(5)).logits, atol=1e-5, rtol=1e-5)
    normed = LoopLlamaForCausalLM.from_pretrained(tmp_path, **fields, loop_norm=True)
    plain = {n for n, _ in none.named_parameters()}
    (weight,) = [p for n, p in normed.named_parameters() if n not in plain]
    assert torch.equal(weight, torch.ones(SHAPE["hidden_size"]))


def test_bad_block_at_load_is_refused_by_name(tmp_path):
    save_plain_llama(tmp_path)
    with pytest.raises(ValueError, match="loop_layers"):
        LoopLlamaForCausalLM.from_pretrained(tmp_path, loop_layers=(2, 4))


def test_half_precision_round_trip(tmp_path):
    model = build(FULL).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = LoopLlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    original = dict(model.named_parameters())
    assert all(torch.equal(p, original[n]) for n, p in loaded.named_parameters())
    close(loaded(ids(6)).logits.float(), build(FULL)(ids(6)).logits, 0.2)
