"""TTTConfig: the published fields and their defaults, and what contradicts itself."""

import json

import pytest
from transformers import AutoConfig

from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.ttt import TTTConfig, TTTForCausalLM

from .tiny import DATA, ORACLES, SHAPE


def test_the_published_fields_have_their_published_defaults():
    config = TTTConfig()
    published = {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5504,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "use_cache": False,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pretraining_tp": 1,
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
        "use_gate": False,
        "share_qk": False,
        "ttt_layer_type": "linear",
        "ttt_base_lr": 1.0,
        "mini_batch_size": 16,
        "pre_conv": False,
        "conv_kernel": 4,
        "scan_checkpoint_group_size": 0,
        "model_type": "ttt",
    }
    assert {name: getattr(config, name) for name in published} == published
    assert config.head_dim == 64


@pytest.mark.parametrize("name", ORACLES)
def test_a_published_file_is_read_and_written_field_by_field(name, tmp_path):
    said = json.loads((DATA / name / "config.json").read_text())
    config = AutoConfig.from_pretrained(DATA / name)
    assert isinstance(config, TTTConfig)
    config.save_pretrained(tmp_path)
    again = json.loads((tmp_path / "config.json").read_text())
    for key in set(said) - {"torch_dtype", "architectures"}:
        assert getattr(config, key) == said[key], key
        if key in again:
            assert again[key] == said[key], key
    assert {**TTTConfig.from_pretrained(tmp_path).to_dict(), "_name_or_path": config._name_or_path} == config.to_dict()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"hidden_size": 10, "num_attention_heads": 4},
            "num_attention_heads=4: must divide hidden_size=10 without a rest; choose another number of heads or another width",
        ),
        (
            {"hidden_size": 12, "num_attention_heads": 4},
            "num_attention_heads=4: gives heads of width 3 (hidden_size=12), which must be even, for rotary positions turn "
            "pairs of numbers; choose another number of heads or another width",
        ),
        ({"mini_batch_size": 0}, "mini_batch_size=0: must be a whole number >= 1"),
        ({"mini_batch_size": 2.5}, "mini_batch_size=2.5: must be a whole number >= 1"),
        ({"conv_kernel": 0}, "conv_kernel=0: must be a whole number >= 1"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True: must be a whole number >= 1"),
        ({"scan_checkpoint_group_size": -1}, "scan_checkpoint_group_size=-1: must be a whole number >= 0"),
        ({"ttt_layer_type": "conv"}, "ttt_layer_type='conv': must be one of 'linear', 'mlp'"),
        ({"ttt_base_lr": float("nan")}, "ttt_base_lr=nan: must be a finite number >= 0"),
        ({"ttt_base_lr": -1}, "ttt_base_lr=-1: must be a finite number >= 0"),
        ({"rope_theta": 0}, "rope_theta=0: must be a finite number > 0"),
        ({"use_gate": "yes"}, "use_gate='yes': must be True or False"),
    ],
)
def test_fields_that_contradict_are_refused_by_name(fields, said, tmp_path):
    with pytest.raises(ValueError, match="must") as caught:
        TTTConfig(**{**SHAPE, **fields})
    assert str(caught.value) == said
    config = TTTConfig(**SHAPE)
    for name, value in fields.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match="must"):  # changed after it was made: seen when a model is made of it
        TTTForCausalLM(config)
    (tmp_path / "config.json").write_text(json.dumps({**SHAPE, "model_type": "ttt", **fields}))
    with pytest.raises(CheckpointError, match=r"config\.json says") as caught:
        TTTForCausalLM.from_pretrained(tmp_path)
    assert said.split(":")[0] in str(caught.value).replace("NaN", "nan")


def test_a_keyword_is_checked_together_with_the_files_fields(tmp_path):
    TTTConfig(**SHAPE).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_attention_heads=5: must divide hidden_size=12"):
        TTTConfig.from_pretrained(tmp_path, num_attention_heads=5)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"^hidden_act='swish2': must be one of .*'silu'"):
        TTTConfig(**SHAPE, hidden_act="swish2")
