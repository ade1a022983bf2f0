"""kill -9 in the middle of saves, of answers handed in and of deletions: what was acknowledged is there and whole, of what was not
all is there or nothing.

`-s` shows how many there were.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loopviz.store import Store, StoreError, new_secret
from loopviz.store.files import ENDING, FOLDER
from loopviz.trace.file import loads
from tests.trace.synthetic import random_trace

SAVES = 50
# Makes a writer for each line it reads, and waits for its end: all but the first find everything imported.
WRITERS = """
import os, sys
from pathlib import Path
from loopviz.store import Store
from tests.trace.synthetic import random_trace

folder, secret, group = sys.argv[1:]
trace = random_trace(3, 4)

def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

def write(name):
    store = Store(Path(folder))
    for n in range(1_000):
        trace.meta["prompt"] = f"save {n} of {secret}"
        say("run", store.save(trace, secret).id)
        lesson = f"{name}-{n}"
        store.hand_in(group, secret, lesson * 100, lesson=lesson)
        say("answer", lesson)

for name in sys.stdin:
    child = os.fork()
    if not child:
        say("writer", str(os.getpid()))
        write(name.strip())
    os.waitpid(child, 0)
    say("dead")
"""


@contextmanager
def writers(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITERS, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        try:
            yield made
        finally:
            made.kill()


def killed_after(made: subprocess.Popen[str], name: str, acknowledged: int) -> list[tuple[str, str]]:
    """What a writer said until it was killed, right behind an acknowledgement: in the middle of what it did next."""
    assert made.stdin is not None
    assert made.stdout is not None
    made.stdin.write(f"{name}\n")
    made.stdin.flush()
    word, writer = made.stdout.readline().split()
    assert word == "writer"
    said = [made.stdout.readline() for _ in range(acknowledged)]
    os.kill(int(writer), signal.SIGKILL)
    said += itertools.takewhile(lambda line: line != "dead\n", made.stdout)
    return [(kind, what) for kind, what in map(str.split, said)]


def check(store: Store, group: str, teacher: str, said: list[tuple[str, str]], kills: int) -> set[str]:
    """Nothing acknowledged is lost, no more than what was under way is there; the ids of all runs."""
    assert store._index._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    runs = store._index.ids()
    lessons = {one.lesson: one.data for one in store.answers_of(group, teacher)}
    for kind, kept in (("run", runs), ("answer", set(lessons))):
        told = {what for one, what in said if one == kind}
        assert told <= kept, f"lost: {told - kept}"
        assert len(kept) <= len(told) + kills, "at most the one that was under way at each kill"
    assert all(data == lesson * 100 for lesson, data in lessons.items())
    return runs


def test_kill_9_during_fifty_saves_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    secret = new_secret()
    store = Store(tmp_path)
    group, teacher = store.new_folder("7b")
    store.close()
    said: list[tuple[str, str]] = []
    known: set[str] = set()
    after, kills = itertools.cycle((3, 8, 5, 6)), 0  # of odd many the next is answers handed in, of even many a save
    with writers(str(tmp_path), secret, group.id) as made:
        while [kind for kind, _ in said].count("run") < SAVES:
            said += killed_after(made, f"writer{kills}", next(after))
            kills += 1
            store = Store(tmp_path)
            runs = check(store, group.id, teacher, said, kills)
            for run in runs - known:
                assert len(store.open(run).trace) == 4
            known = runs
            store.close()
    store = Store(tmp_path)
    for run in known:  # and once more, after all kills: nothing that can be found is half there
        assert store.open(run).trace.meta["prompt"].startswith("save ")
    store.close()
    for file in (tmp_path / FOLDER).rglob("*" + ENDING):
        loads(file.read_bytes())
    kinds = [kind for kind, _ in said]
    print(
        f"{kinds.count('run')} saves and {kinds.count('answer')} answers acknowledged, {kills} kills: 0 lost, 0 corrupt"
    )


# Deletes the same folder again and again, killed before the first thing it asks of the disk, the second, ...; once it comes to its end.
DELETERS = """
import os, shutil, signal, sys
from pathlib import Path
from loopviz.store import Store

made, group, teacher = Path(sys.argv[1]), *sys.argv[2:]
for n in range(200):
    folder = made.with_name(f"killed-{n}")
    shutil.copytree(made, folder)
    child = os.fork()
    if not child:
        store, asked = Store(folder), []

        def ask(what):
            asked.append(what)
            if len(asked) > n:
                os.kill(os.getpid(), signal.SIGKILL)

        def remove(run, remove=store._files.remove):
            ask(run)
            remove(run)

        store._index._db.set_trace_callback(ask)
        store._files.remove = remove
        store.delete_folder(group, teacher)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(n)
"""


def test_kill_9_while_a_class_folder_is_deleted_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "made")
    group, teacher = store.new_folder("7b")
    trace, secret = random_trace(3, 4), new_secret()
    runs = [store.save(trace, secret, folder=group.id).id for _ in range(3)]
    other = store.save(trace, secret).id
    for lesson in ("a", "b"):
        store.hand_in(group.id, secret, "[]", lesson=lesson)
    store.close()
    command = [sys.executable, "-c", DELETERS, str(tmp_path / "made"), group.id, teacher]
    times = int(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)
    found = set()
    for n in range(times + 1):
        after = Store(tmp_path / f"killed-{n}")
        there = after.class_folder(group.id) is not None
        found.add(there)
        assert after._index._db.execute("SELECT count(*) FROM answers").fetchone() == (2 if there else 0,)
        for run in runs:
            if there:
                assert after.open(run).trace == trace
            else:
                with pytest.raises(StoreError) as gone:
                    after.open(run)
                assert gone.value.fault == "deleted"
        assert after.open(other).trace == trace
        after.close()
    assert found == {True, False}, f"{times} kills"
