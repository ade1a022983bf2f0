"""What the package's own words point at is there."""

from __future__ import annotations

import re

from loopviz.app.explore import first_run

ROOT = first_run.FILE.parents[2]


def test_files_that_docstrings_name_are_there() -> None:
    """D11: wire.py sent its reader to a script that was gone."""
    named = {
        (name, path.relative_to(ROOT).as_posix())
        for path in (ROOT / "loopviz").rglob("*.py")
        for name in re.findall(r"`(assets/[\w./-]+\.\w+)`", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not {(name, where) for name, where in named if not (ROOT / name).exists()}
