"""The path of a token's state through the loop: where it points, seen in few dimensions, and how it ends.

Numbers only; :mod:`loopviz.panels.loop.state_trajectory` draws them. H is the hidden size, N the loop steps, s_0..s_N the states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AXES = 3
LEAST_STATES = 12  # to fit axes on
MOST_STATES = 256  # used for it: more would cost time, and hardly turn the axes

LEAST_STEPS = 4  # to tell how a path ends
REST = 0.001  # a last step of this part of the state's length is rest; float16 rounds to half of it
LEFT = 0.05  # what all steps to come may add up to, as part of the state's length, for a path that has arrived
SHRINK = 0.8  # a step at most this part of the one before is a smaller step
RETURN = 0.5  # of a mean step: this close to an earlier state is back at it

KINDS = ("fixed", "settling", "orbit", "drift", "few")


@dataclass(frozen=True, eq=False)
class Basis:
    """Principal axes of states' directions.

    Args:
        mean: mean direction, float64 ``[H]``.
        axes: orthonormal rows, float64 ``[3, H]``; a row is zero when the states do not vary in so many directions.
        shares: part of the variance along each axis, 0 to 1; None when the states do not vary at all.
    """

    mean: np.ndarray
    axes: np.ndarray
    shares: tuple[float, ...] | None

    def __post_init__(self) -> None:
        if self.axes.shape != (AXES, *self.mean.shape) or self.mean.ndim != 1:
            raise ValueError(
                f"axes {self.axes.shape} for a mean {self.mean.shape}: [{AXES}, H] and [H] belong together"
            )

    def project(self, states: np.ndarray) -> np.ndarray:
        """Where ``states`` (``[n, H]``) point, on the axes: float64 ``[n, 3]``, each within -2..2."""
        return (directions(states) - self.mean) @ self.axes.T


@dataclass(frozen=True)
class Ending:
    """How a path ends.

    Args:
        kind: one of ``KINDS``.
        period: steps of one turn, for an orbit; else None.
        parts: |s_r - s_{r-1}| / |s_r| for r = 1..N; None where s_r is zero.
        turned: angle between s_N and s_{N-1}, degrees; None when one of them is zero.
    """

    kind: str
    period: int | None
    parts: tuple[float | None, ...]
    turned: float | None

    @property
    def moved(self) -> float | None:
        """The last of ``parts``; None without a step."""
        return self.parts[-1] if self.parts else None


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Euclidean length of each row of ``[n, H]``: ``[n]``."""
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def directions(states: np.ndarray) -> np.ndarray:
    """``states`` (``[n, H]``) scaled to length 1, float64; a zero state stays zero."""
    states = np.asarray(states, dtype=np.float64)
    lengths = _lengths(states)
    return states / np.where(lengths > 0, lengths, 1)[:, None]


def fit(states: np.ndarray) -> Basis:
    """Principal component analysis of the directions of ``states`` (``[n, H]``).

    Each axis is turned so that its largest entry is positive: the same states always give the same picture. Found from
    the n x n inner products, which are fewer than the H x H covariances wherever that matters.
    """
    pointing = directions(states)
    mean = pointing.mean(axis=0)
    centred = pointing - mean  # [n, H]
    powers, vectors = np.linalg.eigh(centred @ centred.T)  # ascending
    total = float(np.trace(centred @ centred.T))
    axes, shares = np.zeros((AXES, pointing.shape[1])), []
    for i in range(min(AXES, len(powers), pointing.shape[1])):
        power = float(powers[-1 - i])
        if power <= 1e-9 * max(total, len(pointing) * 1e-12):  # rounding, not a direction
            break
        axis = centred.T @ vectors[:, -1 - i]
        axis /= np.linalg.norm(axis)
        axes[i] = axis if axis[np.argmax(np.abs(axis))] > 0 else -axis
        shares.append(power / total)
    shares += [0.0] * (AXES - len(shares))
    return Basis(mean, axes, tuple(shares) if any(shares) else None)


def thin(tokens: list[np.ndarray]) -> np.ndarray:
    """The states of every k-th token (``[N + 1, H]`` each) as ``[n, H]``; k is the least that gives ``MOST_STATES`` or fewer.

    The first token is always kept, whatever it brings.
    """
    every = max(1, -(-sum(map(len, tokens)) // MOST_STATES))
    while every < len(tokens) and sum(map(len, tokens[::every])) > MOST_STATES:
        every += 1
    return np.concatenate(tokens[::every])


def ending(states: np.ndarray) -> Ending:
    """How the path ``states`` (``[N + 1, H]``) ends, by the rule of this module's constants, in all H dimensions.

    With the lengths of steps d_r = |s_r - s_{r-1}| and q, the larger of d_N/d_{N-1} and d_{N-1}/d_{N-2}:

    * few: N < 4.
    * fixed: d_N <= 0.001 |s_N|, or q < 1 and the steps to come, if each is q times the one before, add up to
      d_N q / (1 - q) <= 0.05 |s_N|.
    * settling: q <= 0.8, but not there yet.
    * orbit: for some p >= 2 the last two states are within half a mean step (of the last p) of those p steps earlier.
    * drift: none of these.
    """
    states = np.asarray(states, dtype=np.float64)
    steps = len(states) - 1
    lengths = _lengths(states)  # [N + 1]
    moved = _lengths(states[1:] - states[:-1])  # [N]
    parts = tuple(d / s if s > 0 else None for d, s in zip(moved.tolist(), lengths[1:].tolist(), strict=True))
    turned = None
    if steps and lengths[-1] > 0 and lengths[-2] > 0:
        # arctan of difference and sum of the directions: exact for small angles, where arccos is not
        one, other = states[-1] / lengths[-1], states[-2] / lengths[-2]
        turned = float(np.degrees(2 * np.arctan2(np.linalg.norm(one - other), np.linalg.norm(one + other))))
    kind, period = _kind(states, moved, float(lengths[-1])) if steps >= LEAST_STEPS else ("few", None)
    return Ending(kind, period, parts, turned)


def to_last(states: np.ndarray) -> list[float | None]:
    """``|s_r - s_N| / |s_N|`` for r = 0..N-1 of the path ``states`` (``[N + 1, H]``); None everywhere when s_N is zero."""
    states = np.asarray(states, dtype=np.float64)
    length = float(np.linalg.norm(states[-1]))
    away = _lengths(states[:-1] - states[-1]).tolist()
    return [value / length if length > 0 else None for value in away]


def _kind(states: np.ndarray, moved: np.ndarray, length: float) -> tuple[str, int | None]:
    d2, d1, d = (float(step) for step in moved[-3:])
    if d <= REST * length:
        return "fixed", None
    ratio = max(d / d1, d1 / d2) if d1 > 0 and d2 > 0 else np.inf
    if ratio < 1 and d * ratio <= LEFT * length * (1 - ratio):
        return "fixed", None
    if ratio <= SHRINK:
        return "settling", None
    away = [_lengths(states[:-i] - states[-i])[::-1] for i in (1, 2)]  # [p - 1]: from p steps earlier
    mean = np.cumsum(moved[::-1]) / np.arange(1, len(moved) + 1)  # [p - 1]: of the last p steps
    for period in range(2, len(states) - 1):
        if all(distances[period - 1] <= RETURN * mean[period - 1] for distances in away):
            return "orbit", period
    return "drift", None
