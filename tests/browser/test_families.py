"""Folders of published looped models open in Explore as they were published, with a sentence on what they do, and run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loopviz.app.texts import table
from tests.browser.test_explore import run, same_as_server, settle
from tests.model.families.official import DATA

MARKS = ["<pad>", "<s>", "</s>"]
# What each was published with: (first, last) looped layer, loops, what is read out, where the loop starts.
PUBLISHED = {
    "ouro": ((0, 2), 4, "gate", "entry"),
    "nanbeige": ((0, 2), 2, "last", "entry"),
    "huginn": ((2, 5), 5, "last", "random"),
    "huginn_retro_llama": ((2, 4), 32, "last", "random"),
    "huginn_retro_olmo2": ((1, 2), 32, "last", "random"),
    "looplm_naive": ((2, 2), 4, "last", "random"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oracles' folders, each with a tokenizer of single letters."""
    root = tmp_path_factory.mktemp("families")
    for name in PUBLISHED:
        shutil.copytree(DATA / name, root / name)
        rows = json.loads((DATA / name / "config.json").read_text())["vocab_size"]
        letters = [*MARKS, *" abcdefghijklmnopqrstuvwxyz.,!?"]
        letters += [f"#{place}" for place in range(len(letters), rows)]
        inner = Tokenizer(models.WordLevel({letter: place for place, letter in enumerate(letters)}, unk_token="<pad>"))
        inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        inner.decoder = decoders.Fuse()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        )
        tokenizer.save_pretrained(root / name)
    return root


# Whether the controls hold these numbers; and these choices, of a list or of buttons one of which is pressed.
HELD = """(wanted) => Object.entries(wanted).every(([name, value]) => +document.querySelector(`#ctl-${name} input`).value === value)"""
CHOSEN = """(wanted) => Object.entries(wanted).every(([name, value]) => {
  const shown = document.querySelector(`#ctl-${name} input:checked`) ?? document.querySelector(`#ctl-${name} input`);
  return new RegExp(`(^|[(（])${value}([)）]|$)`).test(shown.value);
})"""


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_published_model_opens_as_it_was_published_and_runs(
    visit: Callable[..., Page], folders: Path, lang: str
) -> None:
    page = visit(f"?lang={lang}")
    page.evaluate("document.querySelectorAll('#lv-settings .label-wrap:not(.open)').forEach((node) => node.click())")
    settle(page, "sampling", "max_new_tokens", 4)
    for name, ((first, last), loops, read_out, start) in list(PUBLISHED.items())[:: 1 if lang == "en" else 3]:
        page.fill("#ctl-model input", str(folders / name))
        page.press("#ctl-model input", "Enter")
        expect(page.locator(".lv-model")).to_contain_text(name)
        expect(page.locator(".lv-model-notes summary")).to_be_visible()
        # a model's settings come one after the other; those of the model before may be among them
        numbers = {"block_start": first, "block_end": last, "loop_count": loops, "virtual_layer_count": loops}
        page.wait_for_function(HELD, arg=numbers)
        choices = {"exit_selection": read_out, "loop_init": start, "unreached_slots": "latest"}
        page.wait_for_function(CHOSEN, arg=choices)
        page.locator(".lv-model-notes summary").click()
        expect(page.locator(".lv-model-notes li").first).to_be_visible()
        told = page.locator(".lv-model-notes li").first.inner_text()
        family = {"huginn_retro_llama": "retrofitted_llama", "huginn_retro_olmo2": "retrofitted_olmo2"}.get(name, name)
        family = "looplm" if name == "looplm_naive" else family
        assert told == table(lang)[f"note.family.{family}"].format(first=first, last=last, loops=loops)
        page.locator(".lv-model-notes summary").click()
        run(page, "once upon a time")
        page.wait_for_function("() => ['length', 'eos'].includes(document.querySelector('.lv').dataset.end)")
        same_as_server(page)
