"""The README's Python runs as it is written."""

import re
from pathlib import Path

import pytest

from loopviz.model import CHOOSERS, MERGES

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.smollm2
def test_the_library_example_runs_on_the_real_model(smollm2):
    # what asks a server is tried with one: tests/app/server/test_api.py
    code = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "gradio_client" not in block]
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
