"""What a folder of a published family may not be, each refused by name before a weight is read; and what is said of one that loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopviz.engine import StreamSettings, run
from loopviz.model.checkpoints import CheckpointError, load_checkpoint, load_model
from loopviz.model.checkpoints.inspect import inspect_folder, read_config
from loopviz.model.checkpoints.limits import count_weights
from loopviz.model.exit_gate import GATE_FILE, ExitGate, gate_bytes
from loopviz.trace.file import dumps, loads
from tests.conftest import make_tokenizer

from .official import DATA, ORACLES, copied, expected, opened

CONFIGS = [
    ("ouro", {"total_ut_steps": 0}, "total_ut_steps=0 in .*: must be a whole number >= 1"),
    ("ouro", {"early_exit_step": 2}, "early_exit_step=2 in .*: one loop for all tokens"),
    ("ouro", {"early_exit_threshold": 2}, r"early_exit_threshold=2 in .*: must be a number in \[0, 1\], or null"),
    ("ouro", {"use_sliding_window": True, "sliding_window": 16}, "sliding_window=16"),
    ("nanbeige", {"qk_layernorm": True}, "qk_layernorm=True in .*: norms of queries and keys: needs weights of its own"),
    ("nanbeige", {"enable_mhc": True}, "enable_mhc=True in .*: several residual streams"),
    ("nanbeige", {"emb_neighbor_num": 3}, "emb_neighbor_num=3 in .*: n-gram embeddings"),
    ("nanbeige", {"loop_share_kv": True}, "loop_share_kv=True"),
    ("nanbeige", {"loop_loss_weights": [0.3, "x"]}, "loop_loss_weights=.*: must be a list of numbers, or empty"),
    ("nanbeige", {"kv_channels": 16}, "kv_channels=16 in .*: head_dim=8 says otherwise"),
    ("nanbeige", {"enable_double_loop_split": True, "loop_middle_layers": 4}, "loop_middle_layers=4 in .*: there are 3 layers"),
    ("huginn", {"test_time_noise": 0.1}, "test_time_noise=0.1 in .*: noise in every loop"),
    ("huginn", {"injection_type": "add"}, "injection_type='add'"),
    ("huginn", {"qk_bias": False}, "qk_bias=False in .*: the weights are Huginn's"),
    ("huginn", {"init_values": {"std": -1, "embed_scale": 1}}, "init_values=.*: std must be a number >= 0"),
    ("huginn", {"n_layers_in_recurrent_block": 10**9}, "num_hidden_layers=1000000004 in .*, but there are"),
    ("huginn_retro_llama", {"qk_bias": True}, "qk_bias=True in .*: a Huginn's configuration"),
    ("huginn_retro_olmo2", {"initial_state_mode": "skip-adapter"}, "initial_state_mode='skip-adapter'"),
    ("looplm_naive", {"use_a_matrix": True}, "use_a_matrix=True in .*: a learned decay"),
    ("looplm_naive", {"init_std": -0.02}, "init_std=-0.02 in .*: must be a number >= 0"),
    ("ouro", {"model_type": "hrm_text"}, "model_type='hrm_text' in .*: an HRM-Text nests two loops"),
    ("ouro", {"model_type": "parcae"}, "model_type='parcae' in .*: must be one of 'llama', 'loop_llama', 'ouro', 'nanbeige'"),
    # one family's configuration over another's weights
    ("nanbeige", {"model_type": "ouro"}, "one of Ouro, and its tensors are not: 8 missing: model.early_exit_gate.bias"),
    ("ouro", {"model_type": "nanbeige"}, "one of Nanbeige 4.2, and its tensors are not: 8 unexpected: model.early_exit_gate.bias"),
    ("ouro", {"model_type": "looplm", "d_model": 32, "n_prelude": 1, "n_coda": 1, "n_q_heads": 4, "n_kv_heads": 4, "head_dim": 8,
              "dense_ffn": 48, "mu_rec": 4}, "one of LoopLM, and its tensors are not: .* missing: .*; .* unexpected: "),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "said"), CONFIGS)
def test_what_a_config_may_not_say(name, fields, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        load_model(copied(name, tmp_path / "f", fields))


def test_tensors_that_are_missing_extra_or_misshapen_are_listed_together(tmp_path):
    def spoil(weights):
        del weights["model.layers.1.input_layernorm_2.weight"]
        weights["model.layers.1.surprise"] = torch.zeros(2)
        weights["model.norm.weight"] = torch.ones(7)

    with pytest.raises(CheckpointError) as refused:
        load_model(copied("ouro", tmp_path / "f", {}, spoil))
    said = str(refused.value)
    assert "1 missing: model.layers.1.input_layernorm_2.weight" in said
    assert "1 unexpected: model.layers.1.surprise" in said
    assert "1 of another shape: model.norm.weight [7] instead of [32]" in said


def test_a_broken_gate_and_a_head_that_is_no_copy_are_refused(tmp_path):
    def broken(weights):
        weights["model.early_exit_gate.weight"][0, 3] = torch.nan

    def other(weights):
        weights["model.lm_head.weight"] = weights["model.lm_head.weight"] + 1

    with pytest.raises(
        CheckpointError, match=r"model\.early_exit_gate\.weight: the exit gate's weights are no numbers"
    ):
        load_model(copied("ouro", tmp_path / "a", {}, broken))
    with pytest.raises(
        CheckpointError, match=r"model\.lm_head\.weight: config.json says that it is model\.embed\.weight"
    ):
        load_model(copied("looplm_naive", tmp_path / "b", {}, other))


def test_a_broken_gate_in_our_own_format_is_refused_when_it_is_loaded(tmp_path):
    """It was loaded, and a run ended at its first pass."""
    opened("ouro").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.loop_gates.0.bias"][0] = torch.nan
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    said = r"model\.loop_gates\.0\.bias in .*: the exit gate's weights are no numbers \(NaN\); fetch the file again, or train"
    with pytest.raises(CheckpointError, match=said):
        load_model(tmp_path)
    ids = expected("ouro")["input_ids"]
    with torch.no_grad():
        ours = load_model(tmp_path, exit_selection="last")(ids).logits
        assert torch.equal(ours, opened("ouro").with_loop(exit_selection="last")(ids).logits), "it is not asked for"
    (tmp_path / GATE_FILE).write_bytes(gate_bytes(ExitGate(32), {}))
    assert bool(load_model(tmp_path).model.loop_gates["0"].bias.isfinite().all()), "the one beside it takes its place"


@pytest.mark.parametrize("name", ["ouro", "nanbeige"])
def test_a_head_that_is_the_embedding_may_be_stored_or_not_and_must_be_its_copy(name, tmp_path):
    def without(weights):
        del weights["lm_head.weight"]
        weights["model.rotary_emb.inv_freq"] = torch.ones(4)  # older exports store it: no weight

    def copy_of(weights):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    def other(weights):
        weights["lm_head.weight"] = torch.zeros_like(weights["lm_head.weight"])

    tied = {"tie_word_embeddings": True}
    one, two = (load_model(copied(name, tmp_path / of.__name__, tied, of)) for of in (without, copy_of))
    tokens = torch.arange(5)[None]
    assert torch.equal(one(tokens).logits, two(tokens).logits)
    assert one.lm_head.weight is one.model.embed_tokens.weight
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: config.json says that it is model\.embed_tokens"):
        load_model(copied(name, tmp_path / "other", tied, other))


@pytest.mark.parametrize("name", ORACLES)
def test_numbers_and_bytes_are_counted_without_a_weight_being_read(name):
    found, model = inspect_folder(DATA / name), opened(name)
    zeros = {"v_proj.bias", "o_proj.bias"} if name == "huginn" else set()  # made here, and stored nowhere
    own = [p for key, p in model.named_parameters() if not any(key.endswith(one) for one in zeros)]
    assert found.n_weights == sum(p.numel() for p in own)
    assert found.n_bytes == 4 * found.n_weights
    assert count_weights(found.config) == sum(p.numel() for p in model.parameters())


def test_marks_that_the_published_file_has_wrong_are_right():
    notes = []
    config = read_config(DATA / "ouro", notes)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert [note.code for note in notes] == ["family.ouro", "code_ignored", "marks_corrected"]


def test_losses_weights_override_the_number_of_loops_and_that_is_said(tmp_path):
    folder = copied("nanbeige", tmp_path / "f", {"loop_loss_weights": [0.3, 0.2, 0.1]})
    found = inspect_folder(folder)
    assert found.config.loop_count == 4
    assert [note.values for note in found.notes if note.code == "loops_overridden"] == [{"num_loops": 2, "loops": 4}]


def test_with_a_tokenizer_it_is_a_checkpoint_like_any_other(tmp_path):
    def wider(weights):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = torch.randn(320, weights[name].shape[1], generator=torch.Generator().manual_seed(3))

    folder = copied("ouro", tmp_path / "f", {"vocab_size": 320}, wider)
    make_tokenizer().save_pretrained(folder)
    loaded = load_checkpoint(folder, loop_count=2)
    assert loaded.model.config.loop_blocks()[0].count == 2
    assert 2 in as_list(loaded.model.generation_config.eos_token_id)
    assert "marks_corrected" in {note.code for note in loaded.notes}
    trace = run(loaded.model, loaded.tokenizer, "The loop", StreamSettings(max_new_tokens=3, extras=("exit",)))
    assert loads(dumps(trace)) == trace
    assert trace.meta["blocks"][0]["exit_selection"] == "gate"


def as_list(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", ORACLES)
def test_a_family_is_saved_as_a_loop_llama_and_comes_back(name, tmp_path):
    model, ids = opened(name), expected(name)["input_ids"]
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_model(Path(tmp_path))(ids).logits, model(ids).logits)


def test_a_loop_of_the_callers_own_leaves_trained_weights_out_and_adds_new_ones():
    ids = expected("huginn")["input_ids"]
    model = load_model(DATA / "huginn", loop_injection="none", loop_norm=True, dtype=torch.bfloat16)
    assert not model.model.loop_injections
    assert model.model.loop_norms["0"].weight.dtype == torch.bfloat16
    assert bool(torch.isfinite(model(ids).logits).all())


LOOPLM = ("d_model", "mu_rec", "n_prelude")


@pytest.mark.parametrize("called", [None, "parcae", "loop_lm", 7])
def test_looplm_is_known_by_its_own_fields_whatever_it_calls_itself(called, tmp_path):
    """Its published config.json was not seen: `model_type` of the oracle's folder is a guess."""
    folder = copied("looplm_naive", tmp_path / "f", {})
    raw = json.loads((folder / "config.json").read_text())
    del raw["model_type"]
    raw |= {} if called is None else {"model_type": called}
    (folder / "config.json").write_text(json.dumps(raw))
    assert [note.code for note in inspect_folder(folder).notes] == ["family.looplm"]
    ids = expected("looplm_naive")["input_ids"]
    with torch.no_grad():
        assert torch.equal(load_model(folder)(ids).logits, opened("looplm_naive")(ids).logits)
    for field in LOOPLM:  # any two of them are not enough
        (folder / "config.json").write_text(json.dumps({name: value for name, value in raw.items() if name != field}))
        with pytest.raises(CheckpointError, match=r"model_type=.* in .*: must be one of 'llama', "):
            load_model(folder)


def test_a_known_model_type_is_believed_before_any_field(tmp_path):
    fields = dict.fromkeys(LOOPLM, 4)
    assert inspect_folder(copied("ouro", tmp_path / "f", fields)).family.name == "ouro"
