"""Limits are looked at before anything is built: what is counted is what would be there."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaConfig

from loopviz.model.checkpoints.inspect import expected_tensors
from loopviz.model.checkpoints.limits import CheckpointLimits, CheckpointTooLarge, count_weights
from loopviz.model.checkpoints.load import CheckpointError

LIMITS = CheckpointLimits(layers=10, vocabulary=1_000, weight_bytes=10**6, download_bytes=10**6)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 24, "num_key_value_heads": 1},
        {"num_hidden_layers": 1, "vocab_size": 7},
    ],
)
def test_weights_are_counted_without_building_them(shape: dict[str, object]) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(**{**sizes, "num_key_value_heads": 2, "vocab_size": 320, **shape})
    tensors = expected_tensors(config)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    total = 0
    for sides in tensors.values():
        numbers = 1
        for side in sides:
            numbers *= side
        total += numbers
    assert count_weights(config) == total


def test_sizes_that_no_llama_has_are_refused() -> None:
    config = LlamaConfig(hidden_size=32, num_attention_heads=4)
    config.intermediate_size = -3
    with pytest.raises(CheckpointError, match="whole number above 0"):
        count_weights(config)


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (lambda: LIMITS.check_counts(11, 5), "layers"),
        (lambda: LIMITS.check_counts(10, 1_001), "vocabulary"),
        (lambda: LIMITS.check_weights(250_001, 4, 10**12), "weights"),
        (lambda: LIMITS.check_weights(250_000, 4, 10**6), "memory"),
        (lambda: LIMITS.check_download({"a": 10**6, "b": 1}, Path("/"), 0), "download"),
        (lambda: LIMITS.check_download({"a": None}, Path("/"), 0), "unlisted"),
    ],
)
def test_c3_one_more_than_a_limit_is_refused_by_name(check: object, code: str) -> None:
    with pytest.raises(CheckpointTooLarge) as caught:
        check()  # type: ignore[operator]
    assert caught.value.code == code
    assert caught.value.values


def test_c3_what_a_limit_allows_passes() -> None:
    LIMITS.check_counts(10, 1_000)
    LIMITS.check_counts("many", None)  # refused elsewhere, in its own words
    LIMITS.check_weights(250_000, 4, 1_100_000)
    LIMITS.check_download({"a": 10**6}, Path("/"), 0)


def test_c3_what_is_on_the_disk_already_needs_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopviz.model.checkpoints.limits.free_disk", lambda folder: 100)
    LIMITS.check_download({"a": 1_000}, Path("/"), 900)
    with pytest.raises(CheckpointTooLarge, match="free on the disk"):
        LIMITS.check_download({"a": 1_000}, Path("/"), 899)
