"""Folders of safetensors: what loads, and everything that must be refused before its weights are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2Config, LlamaForCausalLM

from loopviz.engine import StreamSettings, run
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints import inspect
from loopviz.model.checkpoints.load import UNTRAINED, CheckpointError, as_loop_llama, load_checkpoint, to_loop_config
from tests.conftest import make_llama, make_tokenizer

IDS = torch.tensor([[5, 17, 300, 2, 9, 44]])
MakeFolder = Callable[..., Path]


def edit_json(file: Path, **changes: object) -> None:
    """Change (or, with None, drop) values of a JSON file."""
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize("shard_size", ["1GB", "40KB"], ids=["single", "sharded"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_folder_loads_as_the_llama_it_is(llama_folder: MakeFolder, shard_size: str, tied: bool) -> None:
    folder = llama_folder(max_shard_size=shard_size, tie_word_embeddings=tied)
    assert (folder / "model.safetensors").exists() == (shard_size == "1GB")
    loaded = load_checkpoint(folder)
    plain = LlamaForCausalLM.from_pretrained(folder)
    assert isinstance(loaded.model, LoopLlamaForCausalLM)
    assert not loaded.model.training
    assert torch.equal(loaded.model(IDS).logits, plain(IDS).logits)
    assert (loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight) == tied
    assert loaded.source == "local folder"
    assert loaded.stored == "F32"


def test_the_loop_is_chosen_at_load(llama_folder: MakeFolder) -> None:
    folder = llama_folder()
    looped = load_checkpoint(folder, loop_layers=(1, 1), loop_count=2).model
    assert looped.config.loop_layers == (1, 1)
    # Two steps through layer 1 without a cache are a Llama whose layers are 0, 1, 1, 2.
    unrolled = LlamaForCausalLM.from_pretrained(folder)
    layers = unrolled.model.layers
    unrolled.model.layers = torch.nn.ModuleList([layers[0], layers[1], layers[1], layers[2]])
    unrolled.config.num_hidden_layers = 4
    looped.set_loop(virtual_attention_mode="serial")
    expected = unrolled(IDS, use_cache=False).logits
    assert torch.equal(looped(IDS, use_cache=False).logits, expected)
    assert not torch.equal(load_checkpoint(folder).model(IDS).logits, expected)


def test_a_stored_loop_comes_back_and_can_be_changed(llama_folder: MakeFolder, tmp_path: Path) -> None:
    loaded = load_checkpoint(llama_folder(), loop_layers=(0, 1), loop_injection="linear", loop_norm=True)
    with torch.no_grad():
        loaded.model.model.loop_injections["0"].weight.add_(0.01)
    folder = tmp_path / "stored"
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    again = load_checkpoint(folder)
    assert again.model.config.loop_layers == (0, 1)
    assert torch.equal(again.model(IDS).logits, loaded.model(IDS).logits)
    changed = load_checkpoint(folder, loop_count=7).model
    assert (changed.config.loop_count, changed.config.loop_injection) == (7, "linear")


def test_what_the_loop_adds_to_a_plain_llama_starts_neutral(llama_folder: MakeFolder) -> None:
    folder = llama_folder()
    plain = load_checkpoint(folder, loop_layers=(1, 1), loop_count=2).model
    injected = load_checkpoint(folder, loop_layers=(1, 1), loop_count=2, loop_injection="linear").model
    torch.testing.assert_close(injected(IDS).logits, plain(IDS).logits, rtol=0, atol=1e-5)  # W = [I | 0]


def test_the_tokenizer_comes_along(llama_folder: MakeFolder, tiny_tokenizer) -> None:
    loaded = load_checkpoint(llama_folder())
    text = "The loop 循环 went round. 🔁"
    assert loaded.tokenizer(text).input_ids == tiny_tokenizer(text).input_ids
    assert loaded.tokenizer.chat_template == tiny_tokenizer.chat_template
    assert loaded.model.generation_config.eos_token_id == loaded.tokenizer.eos_token_id == 1


def test_generation_ends_at_the_tokenizers_mark_when_the_checkpoint_is_silent(llama_folder: MakeFolder) -> None:
    folder = llama_folder(eos_token_id=None)
    assert load_checkpoint(folder).model.generation_config.eos_token_id == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype(llama_folder: MakeFolder, dtype: torch.dtype) -> None:
    model = load_checkpoint(llama_folder(), dtype=dtype).model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_stages_are_told_in_order(llama_folder: MakeFolder) -> None:
    told: list[tuple[str, float | None]] = []
    load_checkpoint(llama_folder(), progress=lambda stage, share: told.append((stage, share)))
    assert told == [("tokenizer", None), ("weights", None), ("ready", 1.0)]


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_weights_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if the loader goes on to the weights."""

    def read(*args: object, **kwargs: object) -> None:
        pytest.fail("weights were read")  # no `Exception`: the border around the files lets it pass

    monkeypatch.setattr(LoopLlamaForCausalLM, "from_pretrained", read)


@pytest.mark.usefixtures("no_weights_read")
class TestRefused:
    def test_not_a_llama(self, tmp_path: Path) -> None:
        GPT2Config().save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"model_type='gpt2'.*'llama', 'loop_llama'"):
            load_checkpoint(tmp_path)

    def test_remote_code_is_neither_needed_nor_run(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder()
        (folder / "evil.py").write_text("raise SystemExit('this must never run')")
        edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
        edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
        config = inspect.read_config(folder)
        assert not hasattr(config, "auto_map")
        assert "auto_map" not in to_loop_config(config).to_dict()
        with pytest.raises(pytest.fail.Exception, match="weights were read"):  # so it would load, as a Llama
            load_checkpoint(folder)

    @pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
    def test_pickle(self, llama_folder: MakeFolder, pickle: str) -> None:
        folder = llama_folder()
        (folder / "model.safetensors").rename(folder / pickle)
        with pytest.raises(CheckpointError, match=rf"{pickle} .*pickle .*never read"):
            load_checkpoint(folder)
        with pytest.raises(CheckpointError, match=r"pickle .*never read"):
            load_checkpoint(folder / pickle)

    def test_no_weights(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder()
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="has no weights"):
            load_checkpoint(folder)

    def test_missing_shard(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder(max_shard_size="40KB")
        shard = sorted(folder.glob("model-*.safetensors"))[1]
        shard.unlink()
        with pytest.raises(CheckpointError, match=rf"1 of \d+ shards are missing, the first is {shard.name}"):
            load_checkpoint(folder)

    def test_shards_without_their_index(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder(max_shard_size="40KB")
        (folder / "model.safetensors.index.json").unlink()
        with pytest.raises(CheckpointError, match=r"model-00001-of-\d+\.safetensors but neither"):
            load_checkpoint(folder)

    @pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x.bin", ""])
    def test_an_index_that_leaves_the_folder(self, llama_folder: MakeFolder, name: str) -> None:
        folder = llama_folder(max_shard_size="40KB")
        index = folder / "model.safetensors.index.json"
        weight_map = json.loads(index.read_text())["weight_map"]
        edit_json(index, weight_map={**weight_map, next(iter(weight_map)): name})
        with pytest.raises(CheckpointError, match="not the plain name"):
            load_checkpoint(folder)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0, 1, exclude_max=True))
    def test_truncated_file(self, llama_folder: MakeFolder, share: float) -> None:
        folder = llama_folder()
        file = folder / "model.safetensors"
        data = file.read_bytes()
        file.write_bytes(data[: int(share * len(data))])
        with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged or not finished"):
            load_checkpoint(folder)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_missing_tensor(self, llama_folder: MakeFolder, data: st.DataObject) -> None:
        folder = llama_folder()
        tensors = load_file(folder / "model.safetensors")
        name = data.draw(st.sampled_from(sorted(tensors)))
        del tensors[name]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(folder)
        assert name in str(error.value)

    def test_unexpected_tensor(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder()
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            CheckpointError, match=r"unexpected, the first is model\.layers\.0\.self_attn\.q_proj\.bias"
        ):
            load_checkpoint(folder)

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("num_hidden_layers", 4, "num_hidden_layers=4 .*weights have 3 layers"),
            ("num_hidden_layers", 10**12, "weights have 3 layers"),
            ("intermediate_size", 48, r"has shape \(\d+, \d+\), the configuration asks for"),
            ("vocab_size", 400, r"has shape \(320, 32\), the configuration asks for \(400, 32\)"),
            ("num_attention_heads", 5, "config.json"),
            ("hidden_size", "many", "config.json: not a Llama configuration"),
            ("quantization_config", {"quant_method": "gptq"}, "quantised safetensors are not read"),
        ],
    )
    def test_configuration_of_another_model(
        self, llama_folder: MakeFolder, field: str, value: object, said: str
    ) -> None:
        folder = llama_folder()
        edit_json(folder / "config.json", **{field: value})
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(folder)

    def test_quantised_tensors(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder()
        tensors = {name: tensor.to(torch.int8) for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"dtype='I8'.*only float weights"):
            load_checkpoint(folder)

    @pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
    def test_damaged_json(self, llama_folder: MakeFolder, file: str, content: bytes) -> None:
        folder = llama_folder()
        (folder / file).write_bytes(content)
        with pytest.raises(CheckpointError, match=file):
            load_checkpoint(folder)

    def test_no_tokenizer(self, llama_folder: MakeFolder) -> None:
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
            load_checkpoint(llama_folder(tokenizer=None))

    def test_tokenizer_with_more_ids_than_the_embedding(self, llama_folder: MakeFolder) -> None:
        with pytest.raises(
            CheckpointError, match=r"has id 319.*embedding has 300 rows.*20 tokens that ordinary text is cut into"
        ):
            load_checkpoint(llama_folder(vocab_size=300))

    def test_tokenizer_that_lacks_the_end_mark(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder(vocab_size=1000, eos_token_id=[1, 999])
        with pytest.raises(CheckpointError, match="eos_token_id=999"):
            load_checkpoint(folder)

    def test_too_little_memory(self, llama_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = llama_folder()
        n_bytes = 4 * sum(p.numel() for p in make_llama().parameters())
        monkeypatch.setattr(inspect, "available_memory", lambda: n_bytes)
        with pytest.raises(CheckpointError, match=r"dtype=torch\.float32: .* needs about .* GB of memory"):
            load_checkpoint(folder)
        monkeypatch.setattr(inspect, "available_memory", lambda: 2 * n_bytes)
        with pytest.raises(pytest.fail.Exception, match="weights were read"):
            load_checkpoint(folder)

    def test_wrong_loop_fields(self, llama_folder: MakeFolder) -> None:
        folder = llama_folder()
        with pytest.raises(ValueError, match=r"loop_layers=\(1, 3\): layer 3 is not in a 3-layer model"):
            load_checkpoint(folder, loop_layers=(1, 3))
        with pytest.raises(ValueError, match="loop_cont=4: not a loop field"):
            load_checkpoint(folder, loop_cont=4)
        with pytest.raises(ValueError, match=r"dtype=torch\.int16"):
            load_checkpoint(folder, dtype=torch.int16)


def test_available_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_read = Path.read_text
    limits = {"/sys/fs/cgroup/memory.max": "1000000\n", "/sys/fs/cgroup/memory.current": "400000\n"}
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: limits.get(str(self)) or real_read(self, *a, **k))
    assert inspect.available_memory() == 600_000
    limits["/sys/fs/cgroup/memory.max"] = "max\n"
    assert inspect.available_memory() > 600_000


# --- as_loop_llama -----------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    layers=st.integers(1, 4),
    kv_heads=st.sampled_from([1, 2, 4]),
    tied=st.booleans(),
    length=st.integers(1, 12),
    attention=st.sampled_from(["eager", "sdpa"]),
)
def test_as_loop_llama_without_a_loop_is_the_same_model(
    seed: int, layers: int, kv_heads: int, tied: bool, length: int, attention: str
) -> None:
    llama = make_llama(
        seed,
        num_hidden_layers=layers,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
        attn_implementation=attention,
    )
    loop = as_loop_llama(llama, loop_layers=None)
    ids = torch.randint(2, 320, (2, length))
    mask = torch.ones_like(ids)
    mask[1, : length // 2] = 0
    assert torch.equal(loop(ids, attention_mask=mask).logits, llama(ids, attention_mask=mask).logits)
    settings_ = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}
    assert torch.equal(loop.generate(ids, **settings_), llama.generate(ids, **settings_))
    ours, theirs = dict(loop.named_parameters()), dict(llama.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in theirs)


def test_as_loop_llama_makes_the_loops_own_weights() -> None:
    llama = make_llama().to(torch.float64)
    loop = as_loop_llama(llama, loop_layers=(1, 2), loop_injection="linear", loop_norm=True)
    injection, norm = loop.model.loop_injections["0"].weight, loop.model.loop_norms["0"].weight
    assert injection.dtype == norm.dtype == torch.float64
    assert torch.equal(injection, torch.eye(32, 64, dtype=torch.float64))
    assert torch.equal(norm, torch.ones(32, dtype=torch.float64))
    assert not any(tensor.is_meta for tensor in [*loop.parameters(), *loop.buffers()])
    assert loop(IDS).logits.isfinite().all()
    assert llama.config.model_type == "llama"  # left as it was


def test_as_loop_llama_refuses_other_models() -> None:
    with pytest.raises(ValueError, match="llama=Linear: must be a LlamaForCausalLM"):
        as_loop_llama(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="loop_conut=3: not a loop field"):
        as_loop_llama(make_llama(), loop_conut=3)


def test_to_loop_config_keeps_every_field_of_the_llama() -> None:
    llama = make_llama(
        rope_parameters={"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0}, attention_bias=True, head_dim=16
    ).config
    loop = to_loop_config(llama, loop_layers=[(0, 0), (2, 2)], loop_count=2)
    skipped = {"model_type", "architectures", "transformers_version", "_name_or_path"}
    for name, value in llama.to_dict().items():
        if name not in skipped:
            assert loop.to_dict()[name] == value, name
    assert loop.model_type == "loop_llama"
    assert loop.loop_layers == [(0, 0), (2, 2)]


def test_a_failed_load_leaves_the_folder_as_it_was(llama_folder: MakeFolder) -> None:
    folder = llama_folder()
    shutil.copyfile(folder / "config.json", folder / "keep.json")
    edit_json(folder / "config.json", num_hidden_layers=9)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_loop_with_weights_nobody_trained_is_told(llama_folder: MakeFolder, tmp_path: Path) -> None:
    """researcher A2: an untrained injection ran without a word."""
    plain = llama_folder()
    loop = {"loop_layers": (0, 1), "loop_injection": "linear", "loop_norm": True}
    fresh = load_checkpoint(plain, **loop)
    told = {(note.code, note.values["field"]) for note in fresh.notes}
    assert told == {(UNTRAINED, "loop_injection"), (UNTRAINED, "loop_norm")}
    assert load_checkpoint(plain, loop_layers=(0, 1), loop_injection="add").notes == ()

    fresh.model.save_pretrained(tmp_path / "trained")
    fresh.tokenizer.save_pretrained(tmp_path / "trained")
    assert load_checkpoint(tmp_path / "trained").notes == ()
    (left,) = load_checkpoint(tmp_path / "trained", loop_norm=False).notes
    assert (left.code, left.values) == ("trained_left_out", {"field": "loop_norm", "block": 0})
    two = load_checkpoint(tmp_path / "trained", loop_layers=[(0, 0), (1, 1)])
    assert [(note.code, note.values["block"]) for note in two.notes] == [(UNTRAINED, 1), (UNTRAINED, 1)]


# --- published as they are ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [320, 32000, -1])
def test_pad_id_outside(llama_folder: MakeFolder, pad: int) -> None:
    """[PAD] added to the tokenizer only: nothing is padded here, so the model runs; what is left out is said."""
    folder = llama_folder()
    expected = load_checkpoint(folder).model(IDS).logits
    for file in ("config.json", "generation_config.json"):
        edit_json(folder / file, pad_token_id=pad)
    loaded = load_checkpoint(folder)
    assert torch.equal(loaded.model(IDS).logits, expected)
    assert loaded.model.config.pad_token_id is loaded.model.generation_config.pad_token_id is None
    assert {note.code for note in loaded.notes} == {"pad_token_id_dropped"}
    assert f"pad_token_id={pad} in {folder / 'config.json'}" in str(loaded.notes[0])


def test_tokenizer_one_longer(llama_folder: MakeFolder) -> None:
    """A mark the embedding has no row for: the model runs as in transformers, and a text that holds it is refused."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    loaded = load_checkpoint(llama_folder(tokenizer=tokenizer))
    assert loaded.notes[0].values["tokens"] == {"[PAD]": 320}
    assert "'[PAD]' (320)" in str(loaded.notes[0])
    assert loaded.tokenizer("The loop").input_ids == tokenizer("The loop").input_ids
    for ask in (
        lambda: loaded.tokenizer("a [PAD]"),
        lambda: loaded.tokenizer(["a", "b[PAD]"]),
        lambda: loaded.tokenizer("a [PAD]", return_tensors="pt"),
        lambda: loaded.tokenizer.encode("[PAD]"),
        lambda: run(loaded.model, loaded.tokenizer, "a [PAD]", StreamSettings(max_new_tokens=1)),
    ):
        with pytest.raises(ValueError, match=r"the token '\[PAD\]' \(320\) has no row in the model's embedding of 320"):
            ask()
    assert len(run(loaded.model, loaded.tokenizer, "a", StreamSettings(max_new_tokens=2)).frames) >= 1


def test_a_tokenizer_with_a_mark_too_many_is_saved_as_the_plain_one(llama_folder: MakeFolder, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<own word>"])
    loaded = load_checkpoint(llama_folder(tokenizer=tokenizer))
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again("a <own word>").input_ids == tokenizer("a <own word>").input_ids


def test_a_chat_model_ends_at_the_tokenizers_end_of_turn_too(llama_folder: MakeFolder) -> None:
    """Llama 3 Instruct: generation_config names the end of a text, the tokenizer the end of a turn."""
    folder = llama_folder(eos_token_id=5)
    loaded = load_checkpoint(folder)
    assert loaded.model.generation_config.eos_token_id == [5, 1]
    assert [note.code for note in loaded.notes] == ["end_mark_added"]
    edit_json(folder / "generation_config.json", eos_token_id=[5, 7, 1])
    loaded = load_checkpoint(folder)
    assert loaded.model.generation_config.eos_token_id == [5, 7, 1]
    assert loaded.notes == ()


def test_a_tied_checkpoint_with_a_head_of_its_own_is_read_as_transformers_reads_it(llama_folder: MakeFolder) -> None:
    folder = llama_folder(tie_word_embeddings=False)
    edit_json(folder / "config.json", tie_word_embeddings=True)
    plain = LlamaForCausalLM.from_pretrained(folder)
    assert torch.equal(load_checkpoint(folder).model(IDS).logits, plain(IDS).logits)


def test_biases_the_configuration_does_not_speak_of_are_named(llama_folder: MakeFolder) -> None:
    folder = llama_folder(attention_bias=True)
    edit_json(folder / "config.json", attention_bias=False)
    with pytest.raises(CheckpointError, match=r'k_proj\.bias.*"attention_bias": true') as error:
        load_checkpoint(folder)
    assert "again" not in str(error.value)


def test_a_tensor_in_two_shards_is_refused(llama_folder: MakeFolder) -> None:
    folder = llama_folder(max_shard_size="40KB")
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    tensors = load_file(first)
    save_file({**tensors, **load_file(second)}, first, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="is in two shards"):
        load_checkpoint(folder)


def test_a_tokenizer_model_alone_is_named(llama_folder: MakeFolder) -> None:
    folder = llama_folder(tokenizer=None)
    (folder / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json; tokenizer\.model alone is not read"):
        load_checkpoint(folder)


def test_nothing_is_said_of_a_checkpoint_in_order(llama_folder: MakeFolder) -> None:
    assert load_checkpoint(llama_folder()).notes == ()
