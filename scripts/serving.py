"""The app in a process of its own, as a user starts it: for pictures and measurements."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def served(
    command: Sequence[str], every: float = 0.2, within: float = 120, **options: Any
) -> Iterator[tuple[str, int]]:
    """Run `command` on a free port, until it is no longer needed: the address at which it answers, and its process id.

    Args:
        command: starts the app; `--port` is added.
        every: seconds between two looks whether it answers.
        within: seconds in which it must.
        options: of `subprocess.Popen`.

    Raises:
        SystemExit: it has ended, or does not answer.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, **options)
    url, late = f"http://127.0.0.1:{port}/", time.monotonic() + within
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).read(1)
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("the app did not start") from None
                if time.monotonic() > late:
                    raise SystemExit(f"the app did not answer within {within:g} s") from None
                time.sleep(every)
        yield url, process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
