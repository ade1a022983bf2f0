"""What a benchmark found, one figure a row: printed as Markdown, and kept as JSON and CSV beside each other."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from loopviz import csv_file, outputs
from loopviz.machine import processor


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: what is compared, in words.
        value: the figure, a ratio where `unit` is "x"; None where this machine cannot have it.
        target: what it is to be, in words; "" where there is no aim.
        measured: what it was made of, by name: milliseconds, bytes.
        unit: of the value.
    """

    name: str
    value: float | None
    target: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)
    unit: str = "x"

    def shown(self) -> str:
        """The value with its unit, as a table has it."""
        if self.value is None:
            return "not here"
        return f"{self.value:.2f}{self.unit}" if self.unit == "x" else f"{self.value:.3g} {self.unit}"


def about(packages: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
    """Where and how it was measured: the processor, how busy the machine is, versions, and `settings`.

    Args:
        packages: whose versions count.
    """
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    found = {"processor": processor(), "cores": os.cpu_count(), "load": load, "python": platform.python_version()}
    return found | {"versions": {name: metadata.version(name) for name in packages}} | settings


def markdown(found: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """A line that says where it was measured, and the table of figures."""
    said = {name: value for name, value in found.items() if name != "versions"} | dict(found.get("versions", {}))
    lines = [", ".join(f"{name} {value}" for name, value in said.items()), ""]
    lines += ["| figure | ratio | aim | measured |", "|---|---|---|---|"]
    for figure in figures:
        measured = ", ".join(f"{name}: {value:,.4g}" for name, value in figure.measured.items())
        lines.append(f"| {figure.name} | {figure.shown()} | {figure.target} | {measured} |")
    return "\n".join(lines)


def save(place: Path, found: Mapping[str, Any], figures: Sequence[Figure]) -> None:
    """Write `place`.json (all of it) and `place`.csv (a row a figure).

    Args:
        place: a file's name without its ending; its folder is made where there is none.

    Raises:
        OutputError: nothing can be written there.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    whole = {"about": dict(found), "figures": [asdict(figure) for figure in figures]}
    outputs.write_text(place.with_suffix(".json"), json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    with outputs.replacing(place.with_suffix(".csv")) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv_file.writer(file)
        table.writerow(("figure", "value", "unit", "aim", "measured"))
        for figure in figures:
            value = "" if figure.value is None else figure.value
            table.writerow((figure.name, value, figure.unit, figure.target, json.dumps(dict(figure.measured))))


def tell(found: Mapping[str, Any], figures: Sequence[Figure], place: Path | None) -> None:
    """Print the table, and keep it where that is asked for."""
    print(markdown(found, figures), flush=True)
    if place is not None:
        save(place, found, figures)
