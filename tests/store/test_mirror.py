"""A store that a dataset of the Hub holds: what is acknowledged is there, what could not be is undone and told. The Hub is a double."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loopviz.store import Mirror, Store, StoreError, new_secret
from loopviz.store import mirror as copies
from loopviz.trace import Trace
from tests.trace.synthetic import random_trace

SECRET = new_secret()
DATASET = "somebody/runs"


class HubDouble:
    """Of `HfApi` what a mirror uses: one dataset, its files by name, its commits by title.

    Attributes:
        files: as of the last commit; history: of all commits that are remembered.
        fails: raised by the next call of a method, by the method's name.
        landed: whether a commit that fails is made all the same.
        gate: which a commit waits for.
    """

    def __init__(self, private: bool = True) -> None:
        self.private, self.files = private, dict[str, bytes]()
        self.history: list[tuple[str, dict[str, bytes]]] = []
        self.fails: dict[str, Exception] = {}
        self.made = 0  # commits, squashed ones too
        self.landed = False
        self.gate = threading.Event()
        self.gate.set()
        self.waits = threading.Semaphore(0)

    @property
    def head(self) -> str:
        return f"commit-{self.made}"

    def _called(self, method: str, **repo: Any) -> None:
        assert (repo["repo_id"], repo["repo_type"]) == (DATASET, "dataset")
        if error := self.fails.pop(method, None):
            raise error

    def repo_info(self, **repo: Any) -> Any:
        self._called("repo_info", **repo)
        siblings = [SimpleNamespace(rfilename=name) for name in self.files]
        return SimpleNamespace(private=self.private, sha=self.head, siblings=siblings)

    def hf_hub_download(self, *, filename: str, local_dir: Path, revision: str | None = None, **repo: Any) -> str:
        self._called("hf_hub_download", **repo)
        assert revision in (None, self.head)
        path = Path(local_dir) / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.files[filename])
        return str(path)

    def create_commit(self, *, operations: list[Any], commit_message: str, parent_commit: Any, **repo: Any) -> Any:
        self.waits.release()
        assert self.gate.wait(60)
        error = self.fails.pop("create_commit", None)
        if error is not None and not self.landed:
            raise error
        if parent_commit != self.head:
            raise RuntimeError("412: the branch has moved")
        files = dict(self.files)
        for operation in operations:
            if hasattr(operation, "path_or_fileobj"):
                files[operation.path_in_repo] = Path(operation.path_or_fileobj).read_bytes()
            else:
                del files[operation.path_in_repo]
        self.files = files
        self.made += 1
        self.history.append((commit_message, files))
        if error is not None:
            raise error
        return SimpleNamespace(oid=self.head)

    def list_repo_commits(self, **repo: Any) -> Any:
        self._called("list_repo_commits", **repo)
        return [SimpleNamespace(title=title) for title, _ in reversed(self.history)]

    def super_squash_history(self, *, commit_message: str, **repo: Any) -> None:
        self._called("super_squash_history", **repo)
        self.made += 1
        self.history = [(commit_message, self.files)]


@pytest.fixture
def hub() -> HubDouble:
    return HubDouble()


@pytest.fixture(scope="module")
def trace() -> Trace:
    return random_trace(21, 5)


class Server:
    """A server without a disk of its own: each has an empty folder."""

    def __init__(self, tmp_path: Path, hub: HubDouble) -> None:
        self.tmp_path, self.hub, self.n = tmp_path, hub, 0

    def __call__(self, **more: Any) -> Store:
        self.n += 1
        return Store(self.tmp_path / f"server-{self.n}", mirror=Mirror(DATASET, self.hub), **more)


@pytest.fixture
def server(tmp_path: Path, hub: HubDouble) -> Server:
    return Server(tmp_path, hub)


def fault(act: Any, *asked: Any, **named: Any) -> str:
    with pytest.raises(StoreError) as caught:
        act(*asked, **named)
    return caught.value.fault


def eventually(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 60
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def test_what_was_acknowledged_is_there_after_the_folder_is_gone(server: Server, trace: Trace) -> None:
    first = server()
    entry = first.save(trace, SECRET)
    folder, teacher = first.new_folder("7b")
    first.hand_in(folder.id, SECRET, "{}", lesson="one")
    first.feature(entry.id)
    shutil.rmtree(first.folder)  # as a Space does, without a word
    second = server()
    assert second.open(entry.id).trace == trace
    assert [one.id for one in second.gallery()] == [entry.id]
    assert [one.lesson for one in second.answers_of(folder.id, teacher)] == ["one"]
    second.delete(entry.id, SECRET)
    assert fault(server().open, entry.id) == "deleted"


def test_a_run_comes_when_it_is_opened_and_not_as_the_server_starts(
    server: Server, trace: Trace, hub: HubDouble
) -> None:
    entry = server().save(trace, SECRET)
    second = server()
    assert [path.name for path in second.folder.iterdir() if not path.name.startswith("index.sqlite")] == []
    hub.fails["hf_hub_download"] = OSError("no network")
    assert fault(second.open, entry.id) == "copy"
    assert second.open(entry.id).trace == trace
    hub.fails["hf_hub_download"] = OSError("no network")
    assert second.open(entry.id).trace == trace, "it is here now"


def test_of_a_deleted_run_the_dataset_forgets_its_history_too(server: Server, trace: Trace, hub: HubDouble) -> None:
    store = server()
    kept, gone = store.save(trace, SECRET), store.save(trace, SECRET)
    assert any(gone.id in name for name in hub.files)
    store.delete(gone.id, SECRET)
    assert not any(gone.id in name for _, files in hub.history for name in files)
    assert any(kept.id in name for name in hub.files)
    store.save(trace, SECRET)  # on top of the squashed history


def test_of_answers_that_are_gone_the_dataset_forgets_its_history_too(
    server: Server, trace: Trace, hub: HubDouble
) -> None:
    """They lie in the index, of which every commit has a copy."""
    store = server()
    folder, teacher = store.new_folder("7b")
    ways = (
        lambda: store.withdraw(folder.id, SECRET, "one"),
        lambda: store.delete_answer(folder.id, teacher, store.handed_in(folder.id)[0].id),
        lambda: store.delete_folder(folder.id, teacher),
    )
    for way in ways:
        store.hand_in(folder.id, SECRET, "[what Ada thought]", lesson="one")
        assert any(b"what Ada thought" in data for _, files in hub.history for data in files.values())
        hub.fails["super_squash_history"] = TimeoutError("now and then")
        way()
        store.new_folder("7c")  # one that could not be forgotten is with the next
        assert not any(b"what Ada thought" in data for _, files in hub.history for data in files.values())
    assert [one.name for one in server().class_folders()] == ["7c"] * 3


def test_the_dataset_has_no_secret(server: Server, trace: Trace, hub: HubDouble) -> None:
    store = server()
    store.save(trace, SECRET, address="192.0.2.7")
    _, teacher = store.new_folder("7b")
    everything = b"".join(hub.files.values())
    for said in (SECRET, teacher, "192.0.2.7"):
        assert said.encode() not in everything


@pytest.mark.parametrize("landed", [False, True])
def test_what_the_hub_does_not_take_is_not_acknowledged_and_is_undone(
    server: Server, trace: Trace, hub: HubDouble, landed: bool
) -> None:
    """Also where the commit was made, and its answer was lost."""
    store, hub.landed = server(), landed
    folder, teacher = store.new_folder("7b")
    kept = store.save(trace, SECRET, folder=folder.id)
    store.hand_in(folder.id, SECRET, "[1]", lesson="one")
    for change in (
        lambda: store.save(trace, SECRET),
        lambda: store.delete(kept.id, SECRET),
        lambda: store.feature(kept.id),
        lambda: store.new_folder("8a"),
        lambda: store.hand_in(folder.id, SECRET, "[2]", lesson="one"),
        lambda: store.hand_in(folder.id, SECRET, "[2]", lesson="two"),
        lambda: store.withdraw(folder.id, SECRET, "one"),
        lambda: store.delete_from(folder.id, teacher, kept.id),
        lambda: store.delete_answer(folder.id, teacher, store.handed_in(folder.id)[0].id),
        lambda: store.delete_folder(folder.id, teacher),
    ):
        hub.fails["create_commit"] = TimeoutError("secret-token in an address")
        with pytest.raises(StoreError, match=r"does not take it: TimeoutError$"):
            change()
        assert [one.id for one in store.latest()] == [one.id for one in store.runs_of(folder.id, teacher)] == [kept.id]
        assert store.open(kept.id).trace == trace
        assert store.gallery() == []
        assert [one.name for one in store.class_folders()] == ["7b"]
        assert [(one.lesson, one.data) for one in store.answers_of(folder.id, teacher)] == [("one", "[1]")]
    more = store.save(trace, SECRET)  # and it goes on, with all that was undone undone there too
    again = server()
    assert {one.id for one in again.latest()} == {kept.id, more.id}
    assert again.open(kept.id).trace == again.open(more.id).trace == trace
    runs = [name for name in hub.files if name.startswith("runs/")]
    assert len(runs) == 2


def test_a_dataset_that_everybody_can_read_is_refused_by_name(server: Server, trace: Trace, hub: HubDouble) -> None:
    hub.private = False
    with pytest.raises(StoreError, match=f"{DATASET}: everybody can read this dataset; make it private") as caught:
        server()
    assert caught.value.fault == "copy_public"


def test_a_second_server_on_the_same_dataset_is_told_and_overwrites_nothing(
    server: Server, trace: Trace, hub: HubDouble
) -> None:
    first, second = server(), server()
    entry = first.save(trace, SECRET)
    for _ in range(3):
        with pytest.raises(StoreError) as caught:
            second.save(trace, SECRET)
        assert caught.value.fault == "copy"
    assert "another server writes to the same dataset" in str(caught.value)
    assert [one.id for one in server().latest()] == [entry.id]
    first.save(trace, SECRET)


def test_saves_that_come_together_go_in_one_commit(server: Server, trace: Trace, hub: HubDouble) -> None:
    store = server()
    hub.gate.clear()
    threads = [threading.Thread(target=store.save, args=(trace, SECRET)) for _ in range(6)]
    threads[0].start()
    assert hub.waits.acquire(timeout=60), "the first is on its way"
    for thread in threads[1:]:
        thread.start()
    assert eventually(lambda: store._mirror._wanted == 6), "all are written, none but the first is on its way"
    hub.gate.set()
    for thread in threads:
        thread.join(60)
    assert len(hub.history) == 2
    assert len(server().latest()) == 6


def test_more_commits_than_an_hour_takes_are_refused_with_the_minutes(
    tmp_path: Path, hub: HubDouble, trace: Trace, monkeypatch: Any
) -> None:
    monkeypatch.setattr(copies, "AN_HOUR", 2)
    now = [0.0]
    store = Store(tmp_path / "store", mirror=Mirror(DATASET, hub, clock=lambda: now[0]))
    store.save(trace, SECRET)
    now[0] = 600.0
    store.save(trace, SECRET)
    with pytest.raises(StoreError, match="it takes more in 51 minutes"):
        store.save(trace, SECRET)
    now[0] = 3_601.0
    store.save(trace, SECRET)
    assert len(store.latest()) == 3


def test_a_folder_with_an_index_of_its_own_gives_way_and_is_kept_aside(
    tmp_path: Path, server: Server, hub: HubDouble, trace: Trace
) -> None:
    entry = server().save(trace, SECRET)
    other = Store(tmp_path / "other")
    other.save(trace, SECRET)
    other.close()
    store = Store(tmp_path / "other", mirror=Mirror(DATASET, hub))
    assert [one.id for one in store.latest()] == [entry.id]
    assert (tmp_path / "other" / copies.BEFORE).is_file()
