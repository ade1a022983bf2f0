"""The README's Python runs as it is written."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from loopviz.model import CHOOSERS, MERGES
from loopviz.model.checkpoints import find
from loopviz.model.checkpoints.find import SMOLLM2

REQUIREMENTS = (Path(__file__).parents[1] / "requirements.txt").read_text(encoding="utf-8")
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.smollm2
def test_the_library_example_runs_on_the_real_model(smollm2):
    # what asks a server is tried with one: tests/app/server/test_api.py
    asking = ("gradio_client", "ClientSession")
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    code = [block for block in blocks if not any(name in block for name in asking)]
    names: dict = {}
    try:
        for block in code:
            exec(compile(block, "README.md", "exec"), names)
        assert names["trace"].steps["step"].max() == 4
        assert MERGES["early"] is names["early"]
        assert CHOOSERS["lower_half_once"].function is names["lower_half_once"]
    finally:
        MERGES.pop("early", None)
        CHOOSERS.pop("lower_half_once", None)


def test_what_a_space_fetches_as_it_is_built_is_what_the_app_looks_for() -> None:
    """Its head is a Space's configuration: files that the app would not take are fetched in vain, and a wrong name breaks the build."""
    head = yaml.safe_load(README.split("---\n")[1])
    pins = dict(line.split("==") for line in REQUIREMENTS.splitlines() if re.match(r"gradio==", line))
    assert (head["sdk"], head["app_file"], head["sdk_version"]) == ("gradio", "app.py", pins["gradio"])
    assert head["models"] == [SMOLLM2.hub_id]
    [(repo, files)] = [entry.split(" ") for entry in head["preload_from_hub"]]
    assert repo == SMOLLM2.hub_id
    for file in files.split(","):
        assert any(fnmatch(file, pattern) for pattern in find._HUB_FILES), file
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files.split(","))
    assert len(head["short_description"]) <= 60, "Hugging Face refuses a longer one"
