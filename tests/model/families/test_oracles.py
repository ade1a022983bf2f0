"""Every family against what its published code computes: a family is accepted only if every tensor of its folder is there."""

from __future__ import annotations

import pytest

from loopviz.model.families import FAMILIES, PLAIN

from .official import DATA, KINDS, ORACLES, computed, difference, kind_of, opened, wanted

TOLERANCE = 1e-4  # float32; a wrong mechanism is off by 0.4 to 14 (data/*/README.md)
FOLDERS = {
    "ouro": "ouro",
    "nanbeige": "nanbeige",
    "huginn": "huginn",
    "retrofitted_llama": "huginn_retro_llama",
    "retrofitted_olmo2": "huginn_retro_olmo2",
    "looplm": "looplm_naive",
}


def test_every_family_has_a_folder():
    assert {path.name for path in DATA.iterdir()} == set(ORACLES) == set(FOLDERS.values())
    assert {family.name for family in FAMILIES if family is not PLAIN} == set(FOLDERS)


@pytest.mark.parametrize("name", ORACLES)
def test_no_tensor_of_a_folder_is_left_out(name):
    assert sorted(computed(name)) == wanted(name)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("kind", ["prefill", *KINDS])
def test_what_the_published_code_computes(name, kind):
    keys = [key for key in wanted(name) if kind_of(key) == kind]
    if kind == "prefill" or (name, kind) in {("looplm_naive", "decode"), ("ouro", "exits"), ("huginn", "exits")}:
        assert keys
    far = {key: found for key in keys if not (found := difference(name, key)) <= TOLERANCE}
    assert not far


def test_opening_a_folder_asks_for_no_tokenizer():
    assert opened("ouro").config.loop_blocks()[0].exit_selection == "gate"
