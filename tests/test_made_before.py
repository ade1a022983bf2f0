"""What was made before the modules moved opens as it did: a trace, a link, a manifest, a model's folder.

`data/before` was written by the commit that stood before the move (091e90b): a tiny random model, a run of it, a link to its
settings, a measurement. It is never made again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from loopviz.app.controls import defaults
from loopviz.app.controls.link_word import decode, encode
from loopviz.cli.main import main
from loopviz.loop_fields import FIELDS
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints import load_checkpoint
from loopviz.panels import PANELS, Focus
from loopviz.trace.file import load

BEFORE = Path(__file__).parent / "data" / "before"
KNOWN = json.loads((BEFORE / "known.json").read_text(encoding="utf-8"))
CHAT_WORD = "1q0YwEc7Mzc_JyTXSNTQ2zdUFJmJgIkwGpQ9075sY6CAl6lodhEvDgaJAi0CuAnrOXqkWAA"


def test_a_trace():
    trace = load(BEFORE / "run.loopviz")
    assert trace.text == KNOWN["text"]
    assert [frame["blocks"][0]["steps"]["cosine"] for frame in trace.frames][:3] == KNOWN["cosine"]
    for panel in PANELS.values():
        assert panel.data(trace, Focus())["layout"]


def test_a_link():
    state, problems = decode(KNOWN["word"], default_model="other", local=True, lang="en")
    assert problems == []
    assert state.prompt == KNOWN["prompt"]
    then = {name: value for name, value in KNOWN["values"].items() if name != "chat"}
    assert then.items() <= state.values.items()
    assert KNOWN["values"]["chat"] is False, "which is now the template none"
    later = state.values.keys() - then.keys()
    fields = {entry.name for entry in FIELDS if entry.since >= 5}
    assert later == fields | {"template", "input", "precision"}, "controls that there were none of then"
    assert all(state.values[name] == defaults()[name] for name in later)


def test_a_link_to_a_chat():
    """Written by the commit fe78cb5, when `chat` was on or off: the model's own chat template, a prompt, 40 new tokens."""
    state, problems = decode(CHAT_WORD, default_model="other", local=True, lang="en")
    assert problems == []
    assert (state.values["template"], state.values["input"], state.values.chat) == ("chat", "", True)
    assert state.values["max_new_tokens"] == 40
    assert encode(state)[0] == CHAT_WORD, "and servers of then open the links of today"


@pytest.mark.parametrize("load_it", [LoopLlamaForCausalLM.from_pretrained, lambda path: load_checkpoint(path).model])
def test_a_model_s_folder(load_it):
    model = load_it(BEFORE / "model").eval()
    with torch.no_grad():
        logits = model(torch.tensor([[5, 17, 300, 2]])).logits[0, -1, :8]
    torch.testing.assert_close(logits, torch.tensor(KNOWN["logits"]), rtol=1e-4, atol=1e-5)
    assert [(block.a, block.b, block.merge, block.damping) for block in model.config.loop_blocks()] == [
        (1, 2, "ema", 0.25)
    ]


def test_a_manifest(tmp_path, monkeypatch):
    shutil.copytree(BEFORE, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert main(["eval", "--from", "table.json", "--out", "again"]) == 0
    then, now = (pd.read_csv(name).drop(columns="seconds") for name in ("table.csv", "again.csv"))
    pd.testing.assert_frame_equal(then, now, rtol=1e-3)
