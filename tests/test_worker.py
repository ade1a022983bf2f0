"""A worker process answers, is ended at its limits and by who asks, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopviz import worker as workers
from loopviz.worker import Worker, WorkerEnded, WorkerRefused, ended_by

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("tests.worker_jobs")
    yield made
    made.end()


def test_a_worker_answers_in_one_process_and_says_things_before(worker: Worker) -> None:
    told: list[Any] = []
    first = worker.ask({"do": "echo", "value": "\ud800 中文 \n"})
    assert first["echo"] == "\ud800 中文 \n"
    worker.ask({"do": "tell", "times": 3}, told=told.append)
    assert told == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert worker.ask({"do": "print"})["pid"] == first["pid"] == worker.pid, "what is printed is no answer"


@pytest.mark.parametrize("job", [{"do": "spin"}, {"do": "sleep", "seconds": 600}])
def test_h6_what_takes_too_long_is_ended_and_the_next_is_served(worker: Worker, job: dict[str, Any]) -> None:
    pid = worker.ask({"do": "echo"})["pid"]
    with pytest.raises(WorkerEnded, match=r"took more than 0\.3 seconds") as caught:
        worker.ask(job, seconds=0.3)
    assert caught.value.why == "time"
    assert not psutil.pid_exists(pid)
    assert worker.ask({"do": "echo", "value": 1}, seconds=60)["echo"] == 1


def test_h6_what_takes_too_much_memory_is_ended(worker: Worker) -> None:
    assert worker.ask({"do": "take", "bytes": 2**24}, n_bytes=2**28) == {"length": 2**24}
    with pytest.raises(WorkerEnded) as caught:
        worker.ask({"do": "take", "bytes": 2**33}, n_bytes=2**28)
    assert caught.value.why == "memory"
    assert worker.ask({"do": "echo", "value": 1})["echo"] == 1


def test_h6_memory_is_looked_at_where_the_system_does_not_see_to_it(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS and Windows: no RLIMIT_AS that holds."""
    worker.ask({"do": "echo"})
    sizes = iter([100, 10**9])
    monkeypatch.setattr(workers, "_resident", lambda pid: next(sizes, 10**9))
    with pytest.raises(WorkerEnded, match="too much memory"):
        worker.ask({"do": "sleep", "seconds": 600}, n_bytes=10**6)


def test_a_stop_ends_a_worker(worker: Worker) -> None:
    stop = threading.Event()
    worker.ask({"do": "echo"})
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(WorkerEnded) as caught:
        worker.ask({"do": "spin"}, over=stop.is_set)
    assert caught.value.why == "over"
    assert worker.pid is None
    with ended_by(stop.is_set), pytest.raises(WorkerEnded):
        worker.ask({"do": "sleep", "seconds": 600})
    assert worker.ask({"do": "echo", "value": 2})["echo"] == 2, "outside nothing is over"


def test_m7_a_panic_a_death_and_a_refusal_end_as_words(worker: Worker) -> None:
    with pytest.raises(WorkerRefused, match="unreachable code") as caught:
        worker.ask({"do": "panic"})
    assert caught.value.said["kind"] == "PanicException"
    with pytest.raises(WorkerRefused, match="it is refused"):
        worker.ask({"do": "raise"})
    with pytest.raises(WorkerEnded) as died:
        worker.ask({"do": "die"})
    assert died.value.why == "died"


def test_an_answer_that_is_too_long_is_not_read(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LONGEST_LINE", 10_000)
    with pytest.raises(WorkerEnded) as caught:
        worker.ask({"do": "long", "bytes": 50_000})
    assert caught.value.why == "answer"
    assert worker.pid is None


def test_whoever_is_told_may_give_up(worker: Worker) -> None:
    def told(said: dict[str, Any]) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        worker.ask({"do": "tell", "times": 5}, told=told)
    assert worker.ask({"do": "echo", "value": 3})["echo"] == 3, "no answer of before is taken for this one"


def test_a_first_request_is_asked_of_every_new_process() -> None:
    made = Worker("tests.worker_jobs", ({"do": "echo", "value": "first"}, 60.0, None))
    assert made.ask(None)["echo"] == "first"
    pid = made.pid
    assert made.ask({"do": "echo", "value": 1})["pid"] == pid
    made.end()
    assert made.ask({"do": "echo", "value": 1})["echo"] == 1
    assert made.first_answer["pid"] == made.pid != pid
    made.end()


def test_a_worker_imports_its_module_and_nothing_of_the_packages_around_it() -> None:
    """torch was imported by every stranger's tokenizer: seconds, and 300 MB, each."""
    code = (
        "import sys; from loopviz.worker import _alone; _alone('loopviz.model.checkpoints.tokenizer_worker')\n"
        "print('torch' in sys.modules, 'loopviz.model.checkpoints.tokenizer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_a_worker_that_is_asked_nothing_ends_by_itself(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE", 0.2)
    worker.ask({"do": "echo"})
    assert _until(lambda: worker.pid is None)


def test_a_worker_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    """Whatever it does: its input ends."""
    code = (
        "import sys, threading\nfrom loopviz.worker import Worker\nw = Worker('tests.worker_jobs')\n"
        "print(w.ask({'do': 'echo'})['pid'], flush=True)\nw.ask({'do': 'sleep', 'seconds': 600})\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    pid = int(server.stdout.readline())
    process = psutil.Process(pid)
    server.kill()
    server.wait()
    assert _until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def _until(holds: Callable[[], Any]) -> bool:
    for _ in range(1_000):
        if holds():
            return True
        time.sleep(0.01)
    return False
