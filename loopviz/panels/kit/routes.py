"""The routes of a run's tokens: the axes they are seen on, fitted once as the run begins, and each path along them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from loopviz.panels.kit import trajectories
from loopviz.panels.kit.running import Running
from loopviz.trace import decode_states

Frame = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What a block's frames so far have fixed.

    Args:
        waiting: states of the tokens read before the axes were fitted, ``[N + 1, H]`` each; then empty.
        basis: the axes, once fitted.
    """

    waiting: tuple[np.ndarray, ...] = ()
    basis: trajectories.Basis | None = None


def _states(meta: Mapping[str, Any], block: int, frame: Frame) -> np.ndarray | None:
    """The recorded states of one token, float16 ``[N + 1, H]``; None when they were not recorded."""
    packed = frame["blocks"][block]["states"]
    return None if packed is None else decode_states(packed, meta["shape"]["hidden"])


def _see(seen: Seen, meta: Mapping[str, Any], block: int, frame: Frame) -> Seen:
    if seen.basis is not None:
        return seen
    states = _states(meta, block, frame)
    waiting = seen.waiting if states is None else (*seen.waiting, states)
    if frame["index"] + 1 < meta["prompt_tokens"] or sum(map(len, waiting)) < trajectories.LEAST_STATES:
        return replace(seen, waiting=waiting)
    return Seen(basis=trajectories.fit(trajectories.thin(list(waiting))))


RUNNING: Running[Seen] = Running(lambda meta, block: Seen(), _see)


@dataclass(frozen=True, eq=False)
class Route:
    """A token's path along the axes.

    Args:
        packed: its recorded states, as in the frame; hidden: their size H.
        points: where they are on the axes, float64 ``[N + 1, 3]``.
    """

    packed: str
    hidden: int
    points: np.ndarray

    @cached_property
    def drawn(self) -> tuple[list[float], ...]:
        """A list an axis: the points, rounded to what can be seen."""
        return tuple([round(v, 4) + 0.0 for v in column] for column in self.points.T.tolist())  # + 0.0: no -0.0

    @cached_property
    def ending(self) -> trajectories.Ending:
        """How the path ends, judged on the states themselves."""
        return trajectories.ending(decode_states(self.packed, self.hidden))

    @cached_property
    def to_last(self) -> list[float | None]:
        """How far each state but the last is from that, as part of its length."""
        return trajectories.to_last(decode_states(self.packed, self.hidden))


@lru_cache(maxsize=1024)
def _unpacked(packed: str, hidden: int, basis: trajectories.Basis) -> Route:
    return Route(packed, hidden, basis.project(decode_states(packed, hidden)))


def route_of(meta: Mapping[str, Any], block: int, frame: Frame, basis: trajectories.Basis) -> Route | None:
    """The path of ``frame``'s token; None when its states were not recorded."""
    packed = frame["blocks"][block]["states"]
    return None if packed is None else _unpacked(packed, meta["shape"]["hidden"], basis)
