"""Why a folder of a published family is refused is told in the visitor's language: what its config.json says, its tensors, its gate."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.app.profile import LOCAL, PUBLIC, Profile
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.model.checkpoints import CheckpointError, load_model
from tests.model.families.official import copied
from tests.model.families.test_bad_folders import CONFIGS

CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]+ [A-Za-z]+ [A-Za-z]+")  # three words one after the other
HUB = replace(PUBLIC, any_model=True)


def refused(folder: Path, profile: Profile = LOCAL) -> dict[str, str]:
    """What a visitor is told of a folder, by language; `"raised"`: what the loader says."""
    raised: list[str] = []

    def load(*_: Any) -> Any:
        try:
            return load_model(folder)
        except CheckpointError as error:
            raised.append(str(error))
            raise

    room, found = ModelRoom("a", profile=profile, load=load), {}
    for lang in ("en", "zh"):
        with pytest.raises(ModelRefused) as caught:
            room.get("owner/model", lang)
        found[lang] = str(caught.value)
    return found | {"raised": raised[0]}


@pytest.mark.parametrize(("name", "fields", "said"), CONFIGS)
def test_what_a_config_may_not_say_is_told_in_chinese(
    name: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    told = refused(copied(name, tmp_path / "f", fields))
    assert told["en"] == told["raised"], "word for word what a command says"
    assert re.search(said, told["en"])
    assert CHINESE.search(told["zh"])
    bare = told["zh"].replace(str(tmp_path), "")
    assert not ENGLISH.search(bare), bare
    for field, value in fields.items():
        if f"{field}={value!r} in" in told["en"]:
            assert f"{field}={value!r}" in told["zh"], "which value it is about"


def _spoilt(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.layers.1.input_layernorm_2.weight"]
    weights["model.layers.1.surprise"] = torch.zeros(2)
    weights["model.norm.weight"] = torch.ones(7)


def _no_gate(weights: dict[str, torch.Tensor]) -> None:
    weights["model.early_exit_gate.weight"][0, 3] = torch.nan


def _other_head(weights: dict[str, torch.Tensor]) -> None:
    weights["model.lm_head.weight"] = weights["model.lm_head.weight"] + 1


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "ouro",
            _spoilt,
            "的 config.json 属于 Ouro，而其张量不是：缺少 1 个：model.layers.1.input_layernorm_2.weight；多余 1 个：model.layers.1.surprise；"
            "形状不符 1 个：model.norm.weight 为 [7]，应为 [32]。",
        ),
        ("ouro", _no_gate, "model.early_exit_gate.weight：退出门的权重不是数（NaN）"),
        (
            "looplm_naive",
            _other_head,
            "model.lm_head.weight：config.json 说它就是 model.embed.weight，而两者的数值不同",
        ),
    ],
)
def test_tensors_that_are_others_are_told_in_chinese(
    name: str, change: Callable[[dict[str, torch.Tensor]], None], said: str, tmp_path: Path
) -> None:
    assert said in refused(copied(name, tmp_path / "f", {}, change))["zh"]


def test_files_that_are_not_there_or_broken_are_told_in_chinese_without_the_machines_paths(tmp_path: Path) -> None:
    folder = copied("ouro", tmp_path / "f", {})
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    said = {"damaged": refused(folder, HUB)["zh"]}
    weights.unlink()
    said["absent"] = refused(folder, HUB)["zh"]
    (folder / "config.json").write_text("{")
    said["no JSON"] = refused(folder, HUB)["zh"]
    (folder / "config.json").unlink()
    said["no config"] = refused(folder, HUB)["zh"]
    assert said["damaged"].startswith("model.safetensors 已损坏或不完整（")
    assert said["absent"].startswith("f 中没有权重（model.safetensors，或 ")
    assert said["no JSON"].startswith("config.json 不是 JSON（")
    assert said["no config"].startswith("f 中没有 config.json；")
    assert not any(str(tmp_path) in told for told in said.values())


def test_what_our_own_configuration_refuses_of_a_files_values_is_told_in_chinese_too(tmp_path: Path) -> None:
    told = refused(copied("ouro", tmp_path / "f", {"total_ut_steps": 10**6}))
    assert "not a configuration of Ouro: FieldError: " in told["en"]
    assert "不是 Ouro 的配置：" in told["zh"]
    assert not ENGLISH.search(told["zh"].replace(str(tmp_path), "")), told["zh"]
