"""Modules that have moved are importable by the names they had, and are the very same."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import warnings

import pytest

from loopviz.moved import MOVED
from loopviz.paths import PACKAGE


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_the_module_itself(old):
    new = importlib.import_module(MOVED[old])
    spec = new.__spec__
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is {MOVED[old]} now"):
        assert importlib.import_module(old) is new
    assert (new.__name__, new.__spec__) == (MOVED[old], spec)


def test_no_old_name_stands_in_the_way_of_a_file():
    assert [old for old in MOVED if (PACKAGE.parent / f"{old.replace('.', '/')}.py").exists()] == []
    assert [old for old in MOVED if MOVED[old] in MOVED] == []


def test_the_changelog_has_the_whole_table():
    told = (PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [old for old, new in MOVED.items() if f"| `{old}` | `{new}` |" not in told] == []


def test_in_a_fresh_process_as_a_script_of_somebody_would():
    code = (
        "from loopviz.report import to_html; from loopviz.trace.io import loads; from loopviz.lab.tasks import TASKS, param\n"
        "from loopviz import report; import loopviz.export.report as now; assert report is now\n"
        "from loopviz.model.checkpoints import load_checkpoint, as_loop_llama, CheckpointError; from loopviz.cli import main\n"
        "print(to_html.__module__, loads.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "loopviz.export.report loopviz.trace.file\n", done.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("loopviz.never")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importlib.util.find_spec("loopviz.lab.task") is not None


def test_the_folder_of_checkpoints_offers_what_loading_does():
    from loopviz.model import checkpoints
    from loopviz.model.checkpoints import load

    assert checkpoints.__all__ == load.__all__
    assert all(getattr(checkpoints, name) is getattr(load, name) for name in load.__all__)
