"""An experiment's table and manifest as files for a browser."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopviz.lab.experiment import Experiment
    from loopviz.lab.kept import Kept

KINDS = ("csv", "parquet", "json")


def file_of(experiment: Experiment | Kept, kind: Any) -> dict[str, str]:
    """`{"kind": "file", "name", "data"}`: the table so far as `csv` or `parquet`, or the manifest as `json`; base64.

    Anything else asked for is answered with the table as CSV.
    """
    wanted = kind if kind in KINDS else "csv"
    name = f"loopviz-{experiment.task.name}.{wanted}"
    return {"kind": "file", "name": name, "data": base64.b64encode(experiment.file(wanted)).decode()}
