"""The part of a plot's plane that paths fill, and where names have room in it. Shares of the plot: 0 to 1 across, 0 to 1 up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from loopviz.figures import labels

View = tuple[tuple[float, float], ...]  # low and high of each axis
Box = tuple[float, float, float, float]  # left, right, bottom, top: shares of the plot

ROOM = 0.12  # around what is shown, as part of what it spans
LEAST_SPAN = 0.02  # of an axis: states hardly apart are not blown up to fill it
MARK = (0.045, 0.03)  # half of what a mark takes of a phone's plot, across and up
LETTER = (0.038, 0.06)  # what a column of a name takes, and its height


def fitted(points: np.ndarray) -> View:
    """The range of each axis in which ``points`` (``[n, axes]``, n >= 1) fill the plot, with some room around them."""
    ranges = []
    for low, high in zip(points.min(axis=0).tolist(), points.max(axis=0).tolist(), strict=True):
        room = max(ROOM * (high - low), LEAST_SPAN / 2 - (high - low) / 2)
        ranges.append((labels.sig(low - room) or 0.0, labels.sig(high + room) or 0.0))
    return tuple(ranges)


def shares(view: View, points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Where ``points`` are in the plot, by their first two coordinates."""
    (left, right), (low, high) = view[:2]
    return [((x - left) / (right - left), (y - low) / (high - low)) for x, y, *_ in points]


def beside(paths: Sequence[Sequence[tuple[float, float]]], names: Sequence[str]) -> list[str]:
    """Where the name of each path's end goes, as Plotly's ``textposition``: inside the plot, off the other ends and names and
    the paths themselves, else away from its start.

    Args:
        paths: the points of each, in shares.
    """
    taken: list[Box] = [_mark(*point) for path in paths for point in (path[0], path[-1])]
    along = [point for path in paths for point in _between(path)]
    out = []
    for i, name in enumerate(names):
        (from_x, from_y), (x, y) = paths[i][0], paths[i][-1]
        ups = ("top", "bottom") if y >= from_y else ("bottom", "top")
        sides = ("right", "left") if x >= from_x else ("left", "right")
        places = [f"{up} {side}" for side in sides for up in (*ups, "middle")]
        boxes = {place: box(place, x, y, labels.columns(labels.plain(name))) for place in places}
        others = [one for j, one in enumerate(taken) if j != 2 * i + 1]
        best = min(
            places,
            key=lambda place: (
                outside(boxes[place]),
                sum(_meet(boxes[place], one) for one in others),
                sum(_holds(boxes[place], point) for point in along),
            ),
        )
        taken.append(boxes[best])
        out.append(best)
    return out


def apart(path: Sequence[tuple[float, float]], names: Sequence[str], taken: Sequence[Box] = ()) -> list[bool]:
    """Which of the points of a path can bear their names, above them, without covering each other, the path's two ends, or
    what is ``taken``."""
    taken = [_mark(*path[0]), _mark(*path[-1]), *taken]
    out = []
    for (x, y), name in zip(path, names, strict=True):
        wide, high = LETTER[0] * labels.columns(name), LETTER[1]
        mine = (x - wide / 2, x + wide / 2, y, y + high)
        free = bool(name) and not outside(mine) and not any(_meet(mine, one) for one in taken)
        taken += [mine] if free else []
        out.append(free)
    return out


def boxes(paths: Sequence[Sequence[tuple[float, float]]], names: Sequence[str], places: Sequence[str]) -> list[Box]:
    """What the names of the paths' ends take, where :func:`beside` puts them."""
    each = zip(paths, names, places, strict=True)
    return [box(place, *path[-1], labels.columns(labels.plain(name))) for path, name, place in each]


def box(place: str, x: float, y: float, columns: int) -> Box:
    """The part of the plot a name of so many columns takes beside (x, y)."""
    up, side = place.split()
    wide, high = LETTER[0] * columns, LETTER[1]
    bottom = {"top": y, "middle": y - high / 2, "bottom": y - high}[up]
    return (x, x + wide, bottom, bottom + high) if side == "right" else (x - wide, x, bottom, bottom + high)


def outside(one: Box) -> float:
    """How far a box sticks out of the plot."""
    return max(0.0, -one[0]) + max(0.0, one[1] - 1) + max(0.0, -one[2]) + max(0.0, one[3] - 1)


def _between(path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points along a path's straight pieces."""
    found = []
    for (ax, ay), (bx, by) in pairwise(path):
        found += [(ax + share * (bx - ax), ay + share * (by - ay)) for share in (0.25, 0.5, 0.75, 1.0)]
    return found


def _holds(one: Box, point: tuple[float, float]) -> bool:
    return one[0] < point[0] < one[1] and one[2] < point[1] < one[3]


def _mark(x: float, y: float) -> Box:
    return x - MARK[0], x + MARK[0], y - MARK[1], y + MARK[1]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
