"""kill -9 in the middle of saves: what was acknowledged is there and whole, what was not leaves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from loopviz.store import Store
from loopviz.store.files import ENDING, FOLDER
from loopviz.trace.file import loads

SAVES = 50
WRITER = f"""
import sys
from pathlib import Path
from loopviz.store import Store
from tests.trace.synthetic import random_trace
store, trace = Store(Path(sys.argv[1])), random_trace(3, 4)
print("ready", flush=True)
for n in range({SAVES}):
    trace.meta["prompt"] = f"save {{n}} of " + sys.argv[2]
    print(store.save(trace, sys.argv[2]).id, flush=True)
"""


def test_kill_9_during_fifty_saves_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    said: list[str] = []
    secret = "a" * 32
    for after in (3, 17):  # killed twice, each time right behind an acknowledgement, in the middle of the next save
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), secret], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        said += [writer.stdout.readline().strip() for _ in range(after)]
        writer.kill()
        said += [line.strip() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        assert writer.wait(30) == -9
        writer.stdout.close()
        store = Store(tmp_path)
        assert store._index._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for run in said:
            assert store.open(run).trace.meta["prompt"].endswith(secret)
        kept = store._index.ids()
        assert set(said) <= kept
        assert len(kept) <= len(said) + 2, "at most the one that was under way at each kill"
        for run in kept:  # nothing that can be found is half there
            assert len(store.open(run).trace) == 4
        for file in (tmp_path / FOLDER).rglob("*" + ENDING):
            loads(file.read_bytes())
        store.close()
    assert 20 <= len(said) < 2 * SAVES
