"""A server to attack: started as a Space starts it, watched from outside, ended whatever happens to it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"SYSTEM": "spaces", "SPACE_ID": "someone/loopviz"}
NOBODY = "http://127.0.0.1:9"  # a Hub that does not answer: nothing leaves this machine
GIB, MIB = 2**30, 2**20
START = 180.0  # seconds a server may take until it answers


class Attacked:
    """A server under attack, seen from outside: its processes, their memory and time, and what it has written to its log.

    Attributes:
        url: without a slash at the end.
        peak: bytes that its processes held at most since :meth:`rest`.
        ended: why it was ended before its time; "" while it was not.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, folder: Path, memory: int) -> None:
        self.url, self.port, self.log, self.folder = f"http://127.0.0.1:{port}", port, log, folder
        self.main = psutil.Process(process.pid)
        self.peak, self.ended = 0, ""
        self._process, self._memory, self._watching = process, memory, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._watching.wait(0.1):
            self.peak = max(self.peak, self.held())
            if self.peak > self._memory:
                self.ended = f"it held {self.peak / GIB:.1f} GiB and was ended"
                self.end()

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Gradio's description of the pages: components, and the events that may be called."""
        with urllib.request.urlopen(f"{self.url}/config", timeout=30) as answer:
            return json.load(answer)

    # --- what it takes --------------------------------------------------------------------------------------------

    def tree(self) -> list[psutil.Process]:
        """Its processes, its own first; none when it is gone."""
        with contextlib.suppress(psutil.Error):
            return [self.main, *self.main.children(recursive=True)]
        return []

    def held(self) -> int:
        """Bytes of memory that its processes hold."""
        found = 0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                found += process.memory_info().rss
        return found

    def spent(self) -> float:
        """CPU seconds of its processes, of those that have ended too."""
        found = 0.0
        for place, process in enumerate(self.tree()):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                found += times.user + times.system
                found += 0 if place else times.children_user + times.children_system
        return found

    def share(self, seconds: float) -> float:
        """Cores that its processes keep busy, over so long."""
        before, began = self.spent(), time.monotonic()
        time.sleep(seconds)
        return (self.spent() - before) / (time.monotonic() - began)

    def counts(self) -> tuple[int, int]:
        """Threads and open files of its own process."""
        return self.main.num_threads(), self.main.num_fds()

    def rest(self, seconds: float = 1.0, most: float = 60.0) -> float:
        """Wait until it does nothing any more; the share of a core it still takes then. `peak` counts from now."""
        until = time.monotonic() + most
        while (share := self.share(seconds)) > 0.1 and time.monotonic() < until:
            pass
        self.peak = self.held()
        return share

    # --- whether it is there --------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def words(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        """End its processes, at once."""
        self._watching.set()
        for process in reversed(self.tree()):
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def attacked(
    profile: str = "public", *, memory: int = 6 * GIB, environ: Mapping[str, str] | None = None
) -> Iterator[Attacked]:
    """A server of its own, with folders of its own, until it is no longer needed.

    Args:
        profile: "public" (as on a Space) or "local".
        memory: bytes at which it is ended, for the sake of the machine.
        environ: what its environment has besides.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="loopviz-attacks-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        own = {"HF_ENDPOINT": NOBODY, "HF_HOME": str(folder / "hub"), "TMPDIR": str(folder / "tmp")}
        own |= {"GRADIO_TEMP_DIR": str(folder / "tmp" / "gradio"), "GRADIO_ANALYTICS_ENABLED": "False"}
        own |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        own |= {"LOOPVIZ_STORE": str(folder / "store")}
        own |= SPACE if profile == "public" else {}
        command = [sys.executable, str(ROOT / "app.py"), "--profile", profile, "--port", str(port)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **own, **(environ or {})}, stdout=log, stderr=log
            )
        server = Attacked(process, port, folder / "log", folder, memory)
        try:
            _until_it_answers(server)
            yield server
        finally:
            server.end()
            process.wait(20)


def _until_it_answers(server: Attacked) -> None:
    until = time.monotonic() + START
    while True:
        try:
            with urllib.request.urlopen(server.url, timeout=5) as answer:
                answer.read()
            return
        except OSError:
            if not server.alive or time.monotonic() > until:
                raise SystemExit(f"the server did not start:\n{server.words()[-3000:]}") from None
            time.sleep(0.2)
