"""LoopLlamaConfig: the defaults, every refusal by name, per-block lists, and the JSON round trip."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM

from .reference import DEFAULTS, resolve
from .tiny import SHAPE, build

LOOPED = {"num_hidden_layers": 6, "loop_layers": (1, 2)}
DYNAMIC = {**LOOPED, "loop_strategy": "dynamic_stop"}
TWO = {"num_hidden_layers": 6, "loop_layers": [(0, 1), (3, 3)]}


@pytest.mark.parametrize(("field", "value"), DEFAULTS.items())
def test_default(field, value):
    assert getattr(LoopLlamaConfig(), field) == value


def test_is_a_llama_config_of_its_own_type():
    config = LoopLlamaConfig()
    assert config.model_type == "loop_llama"
    assert config.num_hidden_layers == 32
    assert config.loop_blocks() == []


REFUSALS = [
    ({"loop_layers": (-1, 2)}, "loop_layers", "-1"),
    ({"loop_layers": (4, 12), "num_hidden_layers": 12}, "loop_layers", "12"),
    ({"loop_layers": (3, 2)}, "loop_layers", "3"),
    ({"loop_layers": [(0, 2), (2, 3)]}, "loop_layers", "2"),
    ({"loop_layers": [(3, 4), (0, 1)]}, "loop_layers", "0"),
    ({"loop_layers": (1, 2, 3)}, "loop_layers", "3"),
    ({"loop_layers": (1.5, 2)}, "loop_layers", "1.5"),
    ({"loop_layers": "1-2"}, "loop_layers", "1-2"),
    ({"loop_layers": []}, "loop_layers", "[]"),
    ({"loop_layers": 3}, "loop_layers", "3"),
    ({**LOOPED, "loop_strategy": "sometimes"}, "loop_strategy", "sometimes"),
    ({**LOOPED, "loop_count": 0}, "loop_count", "0"),
    ({**LOOPED, "loop_count": -3}, "loop_count", "-3"),
    ({**LOOPED, "loop_count": 2.5}, "loop_count", "2.5"),
    ({**LOOPED, "loop_count": "many"}, "loop_count", "many"),
    ({**LOOPED, "loop_count": 11}, "loop_count", "11"),
    ({**LOOPED, "loop_count": 4, "max_loop_count": 3}, "loop_count", "4"),
    ({**LOOPED, "max_loop_count": 0}, "max_loop_count", "0"),
    ({**DYNAMIC, "max_loop_count": 4}, "max_loop_count", "4"),
    ({**DYNAMIC, "min_loop_count": 11}, "min_loop_count", "11"),
    ({**DYNAMIC, "virtual_layer_count": 6}, "virtual_layer_count", "6"),
    ({**DYNAMIC, "min_loop_count": 4}, "virtual_layer_count", "5"),
    ({**DYNAMIC, "kv_cache_mode": "merge_strategy", "min_loop_count": 7, "max_loop_count": 6}, "max_loop_count", "6"),
    ({**LOOPED, "cosine_threshold": 0.0}, "cosine_threshold", "0.0"),
    ({**LOOPED, "cosine_threshold": 1.01}, "cosine_threshold", "1.01"),
    ({**LOOPED, "cosine_threshold": -0.5}, "cosine_threshold", "-0.5"),
    ({**LOOPED, "cosine_threshold": math.nan}, "cosine_threshold", "nan"),
    ({**LOOPED, "cosine_threshold": math.inf}, "cosine_threshold", "inf"),
    ({**LOOPED, "kl_threshold": -0.001}, "kl_threshold", "-0.001"),
    ({**LOOPED, "kl_threshold": math.nan}, "kl_threshold", "nan"),
    ({**LOOPED, "kl_threshold": math.inf}, "kl_threshold", "inf"),
    ({**LOOPED, "convergence_criterion": "vibes"}, "convergence_criterion", "vibes"),
    ({**LOOPED, "kv_cache_mode": "none"}, "kv_cache_mode", "none"),
    ({**LOOPED, "virtual_layer_count": 0}, "virtual_layer_count", "0"),
    ({**LOOPED, "virtual_attention_mode": "both"}, "virtual_attention_mode", "both"),
    ({**LOOPED, "kv_cache_mode": "merge_strategy", "merge_strategy": "sum"}, "merge_strategy", "sum"),
    ({**LOOPED, "merge_ema_alpha": 0.0}, "merge_ema_alpha", "0.0"),
    ({**LOOPED, "merge_ema_alpha": 1.0}, "merge_ema_alpha", "1.0"),
    ({**LOOPED, "merge_ema_alpha": math.nan}, "merge_ema_alpha", "nan"),
    ({**LOOPED, "loop_damping": 0.0}, "loop_damping", "0.0"),
    ({**LOOPED, "loop_damping": 1.5}, "loop_damping", "1.5"),
    ({**LOOPED, "loop_damping": math.nan}, "loop_damping", "nan"),
    ({**LOOPED, "loop_injection": "concat"}, "loop_injection", "concat"),
    ({**LOOPED, "loop_norm": "yes"}, "loop_norm", "yes"),
    ({**TWO, "loop_count": [2, 3, 4]}, "loop_count", "[2, 3, 4]"),
    ({**TWO, "loop_count": [2, 0]}, "loop_count", "0"),
    ({**TWO, "loop_strategy": ["fixed_count", "never"]}, "loop_strategy", "never"),
    ({**TWO, "cosine_threshold": [0.9, math.nan]}, "cosine_threshold", "nan"),
    ({**TWO, "loop_damping": [0.9]}, "loop_damping", "[0.9]"),
]


@pytest.mark.parametrize(
    ("fields", "name", "value"), REFUSALS, ids=[f"{n}={v}-{i}" for i, (_, n, v) in enumerate(REFUSALS)]
)
def test_refusal_names_field_value_and_rule(fields, name, value):
    with pytest.raises(ValueError, match=name) as caught:
        LoopLlamaConfig(**fields)
    message = str(caught.value)
    assert value in message, message
    assert len(message) > len(name) + len(value) + 8, f"no rule in: {message}"


ACCEPTED = [
    {**LOOPED, "loop_layers": (0, 5)},
    {**LOOPED, "loop_layers": (5, 5)},
    {**LOOPED, "loop_layers": [1, 2]},
    {**LOOPED, "loop_layers": [[0, 0], [1, 5]]},
    {**LOOPED, "loop_count": 10},
    {**LOOPED, "loop_count": 1, "virtual_layer_count": 5},
    {**LOOPED, "loop_count": 20, "max_loop_count": 20},
    {**LOOPED, "max_loop_count": 3},  # the floor of 5 concerns dynamic_stop only
    {**LOOPED, "min_loop_count": 20},
    {**DYNAMIC, "max_loop_count": 5},
    {**DYNAMIC, "loop_count": 30},  # loop_count concerns fixed_count only
    {**DYNAMIC, "kv_cache_mode": "merge_strategy", "max_loop_count": 1},
    {**DYNAMIC, "kv_cache_mode": "merge_strategy", "virtual_layer_count": 9},
    {**LOOPED, "cosine_threshold": 1.0, "kl_threshold": 0.0},
    {**LOOPED, "loop_damping": 0.01},
]


@pytest.mark.parametrize("fields", ACCEPTED, ids=str)
def test_edges_that_are_allowed(fields):
    assert LoopLlamaConfig(**fields).loop_blocks()


def test_blocks_are_resolved_and_frozen():
    fields = {
        **TWO,
        "loop_strategy": ["fixed_count", "dynamic_stop"],
        "loop_count": [2, 3],
        "max_loop_count": [4, 9],
        "kv_cache_mode": ["virtual_layers", "merge_strategy"],
        "virtual_layer_count": [2, 7],
        "virtual_attention_mode": ["serial", "parallel"],
        "merge_strategy": ["last", "average"],
        "merge_ema_alpha": [0.5, 0.6],
        "cosine_threshold": [0.9, 0.99],
        "kl_threshold": [0.1, 0.2],
        "convergence_criterion": ["kl", "both"],
        "loop_damping": [1.0, 0.5],
        "loop_injection": ["add", "linear"],
        "loop_norm": [False, True],
    }
    blocks = LoopLlamaConfig(**fields).loop_blocks()
    assert len(blocks) == 2
    for block, wanted in zip(blocks, resolve(fields), strict=True):
        assert (block.a, block.b) == (wanted["a"], wanted["b"])
        assert (block.strategy, block.count, block.max_count) == (
            wanted["loop_strategy"],
            wanted["loop_count"],
            wanted["max_loop_count"],
        )
        assert block.criterion == wanted["convergence_criterion"]
        assert (block.cosine_threshold, block.kl_threshold) == (wanted["cosine_threshold"], wanted["kl_threshold"])
        assert (block.kv_mode, block.attention_mode) == (wanted["kv_cache_mode"], wanted["virtual_attention_mode"])
        assert (block.merge, block.ema_alpha) == (wanted["merge_strategy"], wanted["merge_ema_alpha"])
        assert (block.damping, block.injection, block.norm) == (
            wanted["loop_damping"],
            wanted["loop_injection"],
            wanted["loop_norm"],
        )
    assert (blocks[0].slots, blocks[0].max_steps) == (2, 2)
    assert (blocks[1].floor, blocks[1].max_steps) == (1, 9)
    with pytest.raises(AttributeError):
        blocks[0].count = 9


@pytest.mark.parametrize(
    ("fields", "floor"),
    [
        ({}, 5),
        ({"kv_cache_mode": "merge_strategy"}, 1),
        ({"kv_cache_mode": "merge_strategy", "min_loop_count": 5}, 5),
        ({"kv_cache_mode": "merge_strategy", "min_loop_count": 3}, 3),
        ({"min_loop_count": 7}, 7),
    ],
    ids=str,
)
def test_floor_survives_the_json_round_trip(fields, floor, tmp_path):
    config = LoopLlamaConfig(**DYNAMIC, **fields)
    assert config.loop_blocks()[0].floor == floor
    again = LoopLlamaConfig(**json.loads(config.to_json_string(use_diff=False)))
    config.save_pretrained(tmp_path)
    for loaded in (LoopLlamaConfig.from_pretrained(tmp_path), again):
        assert loaded.loop_blocks()[0].floor == floor
        assert loaded.min_loop_count == fields.get("min_loop_count", 5)
    # Saved and loaded twice, in case the first load made a default explicit.
    LoopLlamaConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert LoopLlamaConfig.from_pretrained(tmp_path / "again").loop_blocks()[0].floor == floor


def test_round_trip_keeps_every_field(tmp_path):
    fields = {
        **TWO,
        "loop_strategy": ["fixed_count", "dynamic_stop"],
        "loop_count": [2, 3],
        "cosine_threshold": 0.875,
        "kl_threshold": 0.25,
        "convergence_criterion": "both",
        "kv_cache_mode": "merge_strategy",
        "merge_strategy": ["last", "ema"],
        "merge_ema_alpha": 0.25,
        "loop_damping": 0.5,
        "loop_injection": "add",
        "loop_norm": True,
    }
    config = LoopLlamaConfig(**fields)
    config.save_pretrained(tmp_path)
    loaded = LoopLlamaConfig.from_pretrained(tmp_path)
    assert loaded.loop_blocks() == config.loop_blocks()
    assert loaded.to_dict() == config.to_dict()
    assert "loop_llama" in (tmp_path / "config.json").read_text()


def test_config_is_validated_when_loaded(tmp_path):
    LoopLlamaConfig(**LOOPED).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    broken = json.loads(path.read_text())
    broken["loop_layers"] = [1, 6]
    path.write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="loop_layers"):
        LoopLlamaConfig.from_pretrained(tmp_path)


VALUES = {
    "loop_layers": st.one_of(
        st.none(),
        st.tuples(st.integers(-1, 4), st.integers(-1, 4)),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=2),
    ),
    "loop_strategy": st.sampled_from(["fixed_count", "dynamic_stop", "other"]),
    "loop_count": st.integers(-1, 6),
    "max_loop_count": st.integers(0, 6),
    "min_loop_count": st.integers(0, 6),
    "cosine_threshold": st.one_of(st.floats(0, 1.2), st.just(math.nan)),
    "kl_threshold": st.one_of(st.floats(-0.1, 1), st.just(math.inf)),
    "convergence_criterion": st.sampled_from(["cosine", "kl", "either", "both"]),
    "kv_cache_mode": st.sampled_from(["virtual_layers", "merge_strategy"]),
    "virtual_layer_count": st.integers(0, 5),
    "virtual_attention_mode": st.sampled_from(["parallel", "serial"]),
    "merge_strategy": st.sampled_from(["ema", "average", "last"]),
    "merge_ema_alpha": st.floats(0, 1),
    "loop_damping": st.floats(0, 1.2),
    "loop_injection": st.sampled_from(["none", "add", "linear", "other"]),
    "loop_norm": st.booleans(),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(list(VALUES)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: VALUES[name] for name in ["loop_layers", *names]})
    )
)
def test_any_fields_either_run_or_are_refused_by_name(fields):
    try:
        config = LoopLlamaConfig(**SHAPE, **fields)
    except ValueError as refused:
        assert any(name in str(refused) for name in fields), refused  # noqa: PT017
        return
    model = LoopLlamaForCausalLM(config).eval()
    cache = model(torch.tensor([[1, 2, 3]])).past_key_values
    logits = model(torch.tensor([[4]]), past_key_values=cache).logits
    assert torch.isfinite(logits).all()
    for block, steps in zip(config.loop_blocks(), model.last_pass.steps, strict=True):
        assert 1 <= int(steps) <= block.max_steps


@pytest.mark.parametrize(
    "fields",
    [{"loop_count": [2, 3]}, {"kv_cache_mode": ["virtual_layers", "merge_strategy"]}, {"loop_norm": [False, False]}],
)
def test_a_model_of_two_blocks_can_be_taken_without_its_loop(fields, tmp_path):
    """numerics D7: a field's value for each block outlived the blocks, and refused the plain view."""
    two = build({"loop_layers": [(0, 1), (3, 3)], **fields})
    plain = two.with_loop(loop_layers=None)
    assert plain.config.loop_blocks() == []
    assert plain.with_loop(loop_layers=[(0, 0), (1, 1)]).config.loop_fields().items() >= fields.items()
    plain.save_pretrained(tmp_path)
    assert LoopLlamaConfig.from_pretrained(tmp_path).loop_fields() == plain.config.loop_fields()
    with pytest.raises(ValueError, match="one value a block"):
        two.with_loop(loop_layers=(0, 1))
    name = next(iter(fields))
    with pytest.raises(ValueError, match=name):
        LoopLlamaConfig(**{name: [*fields[name][:1], "nonsense"]})


@pytest.mark.parametrize("name", ["loop_count", "max_loop_count", "min_loop_count", "virtual_layer_count"])
@pytest.mark.parametrize("value", [10**9, 10**400])
def test_c2_a_count_has_a_far_end_too(name: str, value: int) -> None:
    """Slots and steps are accounted for one by one: a billion would fill the memory before anything is computed."""
    with pytest.raises(ValueError, match=f"{name}=.*: must be <= ") as caught:
        build({"loop_layers": (1, 2), "loop_strategy": "dynamic_stop", name: value})
    assert len(str(caught.value)) < 120


def test_blocks_follow_every_change() -> None:
    """They are not made anew for each pass; what they are made of may change in between, in place too."""
    config = LoopLlamaConfig(**SHAPE, loop_layers=[(0, 0), (2, 3)], loop_count=[2, 3], kv_cache_mode="merge_strategy")
    assert [block.count for block in config.loop_blocks()] == [2, 3]
    config.loop_blocks().clear()
    assert [(block.a, block.b) for block in config.loop_blocks()] == [(0, 0), (2, 3)]
    config.loop_count[1] = 4
    assert [block.count for block in config.loop_blocks()] == [2, 4]
    config.loop_layers[0] = (1, 1)
    assert config.loop_blocks()[0].a == 1
    config.num_hidden_layers = 3
    with pytest.raises(ValueError, match="loop_layers"):
        config.loop_blocks()


def test_values_that_are_equal_and_not_the_same() -> None:
    """A floor that nobody set is 1 where K/V are merged; 1 is no flag, though it equals True."""
    config = LoopLlamaConfig(**SHAPE, loop_layers=(1, 2), kv_cache_mode="merge_strategy", loop_norm=True)
    assert config.loop_blocks()[0].floor == 1
    config.min_loop_count = 5
    assert config.loop_blocks()[0].floor == 5
    config.loop_norm = 1
    with pytest.raises(ValueError, match="loop_norm"):
        config.loop_blocks()
