"""What a pass costs: its wall time by part, and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import torch

from loopviz.trace.schema import Memory, Parts

if TYPE_CHECKING:
    from loopviz.model.events import PassSeconds


class PassClock:
    """Wall time of one pass by part, from the end of its forward on.

    Intervals are disjoint by construction: ``recording`` is what passes between :meth:`resume` and :meth:`parts`, and
    what the loop hooks took, less what ran inside :meth:`head`.

    Args:
        forward: what the model says of the forward pass that has just ended.
    """

    def __init__(self, forward: PassSeconds) -> None:
        self.forward = forward
        self.seconds_head = 0.0
        self._work = 0.0
        self._since = time.perf_counter()

    @property
    def model_ms(self) -> float:
        """The forward pass without its hooks, and the head so far, milliseconds."""
        return 1000 * (self.forward.prelude + self.forward.block + self.forward.coda + self.seconds_head)

    @contextmanager
    def head(self) -> Iterator[None]:
        """What runs inside is the head's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds_head += time.perf_counter() - started

    def resume(self) -> None:
        """Work goes on after a pause that is not the run's (the consumer had a frame)."""
        self._since = time.perf_counter()

    def parts(self) -> Parts:
        """The parts so far; ends the stretch of work that the last :meth:`resume` began."""
        self._work += time.perf_counter() - self._since
        recording = self.forward.hooks + self._work - self.seconds_head
        ms: Parts = {
            "prelude": 1000 * self.forward.prelude,
            "block": 1000 * self.forward.block,
            "coda": 1000 * self.forward.coda,
            "head": 1000 * self.seconds_head,
            "recording": 1000 * recording,
        }
        return ms


class MemoryMeter:
    """Memory in use, read once a pass.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._process = device, psutil.Process()

    def read(self) -> Memory:
        """Resident bytes of this process, and bytes allocated on the model's GPU (None without one)."""
        allocated = None
        if self.device.type == "cuda":
            allocated = torch.cuda.memory_allocated(self.device)
        elif self.device.type == "mps":
            allocated = torch.mps.current_allocated_memory()
        return {"process": self._process.memory_info().rss, "device": allocated}
