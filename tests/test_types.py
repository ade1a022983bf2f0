"""Types on both sides: what mypy does not check yet is listed once; the pages' scripts are as `tsc` wants them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loopviz.paths import PACKAGE, WEB

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UNCHECKED = {"loopviz.app.compare.*", "loopviz.app.explore.*"}  # take out what has become clean; nothing is added


def test_the_list_of_what_is_not_checked_is_not_longer() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [override["module"] for override in project["tool"]["mypy"]["overrides"] if override.get("ignore_errors")]
    assert len(lists) <= 1, "one list"
    assert set().union(*lists) <= UNCHECKED


def _tsc() -> str | None:
    """TypeScript's compiler: the one that `LOOPVIZ_TSC` names, else that of this checkout, else the machine's."""
    own = PACKAGE.parent / "node_modules" / ".bin" / "tsc"
    return os.environ.get("LOOPVIZ_TSC") or (str(own) if own.exists() else shutil.which("tsc"))


def _complaints(*arguments: object) -> str:
    tsc = _tsc()
    if tsc is None or shutil.which("node") is None:
        pytest.skip("no tsc: needs Node and `npm install --no-save typescript`")
    return subprocess.run([tsc, *map(str, arguments)], cwd=PACKAGE.parent, capture_output=True, text=True).stdout


def test_the_pages_scripts_hold_to_the_contract_by_tsc() -> None:
    """A message's key, a question's, a constant, a field of a class: what is not there is named, without a browser."""
    assert _complaints("--project", "tsconfig.json") == ""


WRONG = {  # by script: what stands there, and a slip of it that `tsc` must name
    "explore/run_view.js": [
        ("message.tokens, message.next", "message.tokens, message.after", "after"),  # a message's key
        ('message.kind === "current"', 'message.kind === "currant"', "currant"),  # its kind
        ("split: to === null", "slpit: to === null", "slpit"),  # a question's key
    ],
    "lab/main.js": [('ask("download"', 'ask("upload"', "upload")],  # which one is asked
    "explore/to_compare.js": [("QUERIES.link", "QUERIES.lnik", "lnik")],  # a constant
    "explore/tour.js": [("() < this.until", "() < this.untli", "untli")],  # a field of a class
}


def test_tsc_would_see_what_is_not_in_the_contract(tmp_path: Path) -> None:
    shutil.copytree(WEB, tmp_path / "assets" / "web")
    shutil.copy(PACKAGE.parent / "tsconfig.json", tmp_path)
    for name, slips in WRONG.items():
        script = tmp_path / "assets" / "web" / name
        text = script.read_text(encoding="utf-8")
        for right, wrong, _ in slips:
            assert right in text
            text = text.replace(right, wrong)
        script.write_text(text, encoding="utf-8")
    told = _complaints("--project", tmp_path / "tsconfig.json").replace(f"{tmp_path}/", "")
    said = re.split(r"\n(?=assets/)", told)  # a complaint may take several lines
    named = [(name, word) for name, slips in WRONG.items() for _, _, word in slips]
    assert [(name, word) for name, word in named if not any(name in one and word in one for one in said)] == []
