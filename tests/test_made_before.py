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
from loopviz.app.controls.link_word import decode
from loopviz.cli.main import main
from loopviz.loop_fields import FIELDS
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints import load_checkpoint
from loopviz.panels import PANELS, Focus
from loopviz.trace.file import load

BEFORE = Path(__file__).parent / "data" / "before"
KNOWN = json.loads((BEFORE / "known.json").read_text(encoding="utf-8"))


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
    assert KNOWN["values"].items() <= state.values.items()
    later = state.values.keys() - KNOWN["values"].keys()
    assert later == {entry.name for entry in FIELDS if entry.since == 5}, "controls that there were none of then"
    assert all(state.values[name] == defaults()[name] for name in later)


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
