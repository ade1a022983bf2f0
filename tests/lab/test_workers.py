"""Worker processes: they do jobs, cost only their own job when they die, and never outlive the sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from loopviz.lab.workers import Died, Job, WorkerError, Workers

from . import jobs


def wait_for(condition, what: str) -> None:
    """A limit that only a hang reaches."""
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_every_job_gets_its_result_and_what_a_worker_keeps_is_used():
    work = [Job(jobs.double, (n,), keeps=n % 2) for n in range(6)]
    with Workers(2) as workers:
        found = {job.arguments[0]: result for job, result in workers.run(work)}
    assert {n: value for n, (value, _) in found.items()} == {n: 2 * n for n in range(6)}
    assert all(gone(process) for _, process in found.values())


def test_b3_a_worker_killed_from_outside_costs_its_job_alone_and_is_told_by_its_signal():
    """As the system does when memory runs out."""
    work = [Job(jobs.die, (signal.SIGKILL,)), Job(jobs.double, (4,)), Job(jobs.raise_error, ())]
    with Workers(1) as workers:
        found = {job.function: result for job, result in workers.run(work)}
    assert found[jobs.die] == Died("was killed (SIGKILL; out of memory?)")
    assert found[jobs.raise_error] == Died("ended with exit code 1")
    assert found[jobs.double][0] == 8


def test_b2_workers_end_at_once_in_the_middle_of_a_job(tmp_path):
    note = tmp_path / "process"
    workers = Workers(1)
    with workers:
        running = workers.run([Job(jobs.double, (1,)), Job(jobs.sleep, (str(note),))])
        assert next(running)[1][0] == 2
        # The generator would now wait for an hour: look for the job itself, then leave.
        with pytest.raises(KeyboardInterrupt):
            _interrupted_when(note, running)
    assert gone(int(note.read_text()))
    assert not workers._workers


def _interrupted_when(note: Path, running) -> None:
    def interrupt(*_):
        if note.exists():
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        next(running)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_b2_a_result_that_has_come_in_is_not_lost_to_an_interrupt():
    with Workers(1) as workers:
        running = workers.run([Job(jobs.double, (n,)) for n in (1, 2)])
        first, _ = next(running)
        wait_for(lambda: _second_sent(workers, running), "the second result never came")
        kept = [job.arguments[0] for job, _ in workers.finished()]
    assert first.arguments == (1,)
    assert kept == [1, 2], "the first may have been kept already; the second must be"


def _second_sent(workers, running) -> bool:
    for worker in workers._workers:
        if worker.ready and worker.job is None:
            workers._give(worker, [Job(jobs.double, (2,))])
        return worker.pipe.poll(0)
    return False


@pytest.mark.parametrize("systems_help", [True, False], ids=["as it is", "without PR_SET_PDEATHSIG"])
def test_b3_workers_end_by_themselves_when_the_parent_is_killed(tmp_path, systems_help):
    note = tmp_path / "process"
    if systems_help:
        code = (
            "from loopviz.lab.workers import *; from tests.lab import jobs\n"
            f"with Workers(1) as w: list(w.run([Job(jobs.sleep, ({str(note)!r},))]))\n"
        )
    else:
        code = (
            "import multiprocessing as m; from tests.lab import jobs; c = m.get_context('spawn')\n"
            f"p = c.Process(target=jobs.watched_without_the_systems_help, args=({str(note)!r}, None)); p.start(); p.join()\n"
        )
    script = tmp_path / "parent.py"  # a fresh process looks for its parent's main module
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    with subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}) as parent:
        try:
            wait_for(note.exists, "the worker never began")
            worker = int(note.read_text())
            assert not gone(worker)
        finally:
            parent.kill()
    wait_for(lambda: gone(worker), "the worker outlived its parent")


def test_b5_a_module_that_fails_in_a_worker_is_told_by_file_and_line(tmp_path):
    (tmp_path / "broken.py").write_text("\nx = 1 / 0\n")
    with Workers(1, [str(tmp_path / "broken.py")]) as workers, pytest.raises(WorkerError) as refused:
        list(workers.run([Job(jobs.double, (1,))]))
    assert str(refused.value) == "--import broken.py: broken.py, line 2: ZeroDivisionError: division by zero"
