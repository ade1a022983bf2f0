"""Names that users register: who may take one, what the functions give, and what a saved model says of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from loopviz.model import CRITERIA, MERGES, LoopLlamaConfig, LoopLlamaForCausalLM, register_criterion, register_merge
from tests.engine import tiny as engine_tiny

from .tiny import DYNAMIC, LOOP, build, ids

MERGED = {**LOOP, "kv_cache_mode": "merge_strategy", "merge_strategy": "mine"}


@pytest.fixture(autouse=True)
def registries():
    """Registries that forget what a test registered."""
    kept = dict(CRITERIA), dict(MERGES)
    yield
    for registry, before in zip((CRITERIA, MERGES), kept, strict=True):
        registry.clear()
        registry.update(before)


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (lambda ctx: torch.tensor([True], device=ctx.state.device), "bool tensor [1]"),
        (lambda ctx: torch.ones(ctx.state.shape[:2], dtype=torch.bool), "bool tensor [2, 4]"),
        (lambda ctx: torch.ones(len(ctx.state)), "float32 tensor [2]"),
        (lambda ctx: True, "bool True"),
        (lambda ctx: None, "NoneType None"),
    ],
)
def test_what_a_criterion_returns_is_checked(given, came):
    """researcher A6: one verdict for two rows, or a verdict a token, was taken as it came."""
    register_criterion("mine")(given)
    model = build({**DYNAMIC, "convergence_criterion": "mine"})
    with pytest.raises(ValueError, match="register_criterion") as refused:
        model(ids(4, rows=2))
    assert f"returned a {came}" in str(refused.value) or f"returned {came}" in str(refused.value)
    assert "bool tensor [2]" in str(refused.value)
    assert "'mine'" in str(refused.value)


def test_a_criterion_may_name_its_reasons_only_by_row():
    @register_criterion("mine")
    def mine(ctx):
        ctx.reasons["luck"] = torch.tensor(True)
        return torch.ones(len(ctx.state), dtype=torch.bool)

    with pytest.raises(ValueError, match="luck"):
        build({**DYNAMIC, "convergence_criterion": "mine"})(ids(4, rows=2))


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (lambda merged, new, step, alpha: new[:, :, :1], "[1, 2, 1, 8]"),
        (lambda merged, new, step, alpha: new.double(), "float64"),
        (lambda merged, new, step, alpha: new.tolist(), "list"),
        (lambda merged, new, step, alpha: new / 0, "not finite"),
        (lambda merged, new, step, alpha: merged, "NoneType"),
    ],
)
def test_what_a_merge_returns_is_checked(given, came):
    """researcher A6: one token for four was accepted, and only the first token was merged."""
    register_merge("mine")(given)
    model = build(MERGED)
    with pytest.raises(ValueError, match="register_merge") as refused:
        model(ids(4))
    assert came in str(refused.value)
    assert "'mine'" in str(refused.value)


def test_a_merge_is_not_blamed_for_numbers_that_were_none_before():
    register_merge("mine")(lambda merged, new, step, alpha: new)
    model = build(MERGED)
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight.fill_(float("nan"))
        assert model(ids(4)).logits.isnan().any()


def test_a_cache_holds_what_it_held_when_a_function_is_refused():
    good = True

    @register_merge("mine")
    def mine(merged, new, step, alpha):
        return new if good else new[:, :, :1]

    model = build(MERGED)
    with torch.no_grad():
        cache = model(ids(4)).past_key_values
        good = False
        with pytest.raises(ValueError, match="register_merge"):
            model(ids(2), past_key_values=cache)
        assert cache.get_seq_length() == 4
        good = True
        assert torch.equal(
            model(ids(2), past_key_values=cache).logits,
            model(ids(2), past_key_values=model(ids(4)).past_key_values).logits,
        )


@pytest.mark.parametrize("register", [register_criterion, register_merge])
def test_a_notebook_cell_can_run_twice(register):
    """researcher B5: the README's cell, run again, was refused."""
    for value in (1, 2):

        @register("mine")
        def early(*given, value=value):
            return value

    registry = CRITERIA if register is register_criterion else MERGES
    assert getattr(registry["mine"], "function", registry["mine"]) is early


@pytest.mark.parametrize("register", [register_criterion, register_merge])
def test_another_function_needs_replace_and_builtins_stay(register):
    def other(*given):
        return None

    register("mine")(lambda *given: None)
    with pytest.raises(ValueError, match="replace=True"):
        register("mine")(other)
    register("mine", replace=True)(other)
    builtin = "cosine" if register is register_criterion else "ema"
    for replace in (False, True):
        with pytest.raises(ValueError, match="LoopViz's own"):
            register(builtin, replace=replace)(other)


def test_a_saved_model_says_what_registers_its_names(tmp_path):
    register_merge("mine")(lambda merged, new, step, alpha: new)
    build(MERGED).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["loop_imports"] == {"mine": __name__}
    again = LoopLlamaForCausalLM.from_pretrained(tmp_path)
    assert again.config.merge_strategy == "mine"
    assert "loop_imports" not in again.config.loop_fields()
    del MERGES["mine"]
    with pytest.raises(ValueError, match="merge_strategy='mine'") as refused:
        LoopLlamaForCausalLM.from_pretrained(tmp_path)
    assert f"import {__name__}" in str(refused.value)


def test_names_of_loopviz_need_no_import(tmp_path):
    build(LOOP).save_pretrained(tmp_path)
    assert "loop_imports" not in json.loads((tmp_path / "config.json").read_text())
    LoopLlamaConfig(**LOOP)


def test_a_saved_folder_says_how_it_is_loaded(tmp_path):
    """researcher B6: AutoModelForCausalLM users were told to update transformers."""
    register_merge("mine")(lambda merged, new, step, alpha: new)
    build(MERGED).save_pretrained(tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text("utf-8")
    assert "import loopviz.model" in card
    assert f"import {__name__}  # registers" in card
    (tmp_path / "mine" / "README.md").write_text("my own words", "utf-8")
    build(LOOP).save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text("utf-8") == "my own words"


def test_the_lines_on_a_card_load_the_model(tmp_path):
    """Run in a process that has never heard of LoopViz, as its reader's."""
    build(LOOP).save_pretrained(tmp_path)
    engine_tiny.tokenizer().save_pretrained(tmp_path)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text("utf-8"), re.S).group(1)
    root = str(Path(__file__).parents[2])
    run = [sys.executable, "-c", code + "print(model.config.loop_count, len(tokenizer))"]
    done = subprocess.run(run, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True)
    assert done.stdout.split() == ["3", str(len(engine_tiny.tokenizer()))], done.stderr
