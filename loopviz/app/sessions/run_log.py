"""What the server writes down: a line for whatever was asked for, once it has ended, and errors; no text of a visitor's unless asked for.

A line has an id, the page, the model where it is one of the list, tokens, seconds, runs that shared a pass on average, the end, and the names of the fields that were refused.
Never a prompt, an answer, an address, a session or the words of a refusal, which may quote what was typed; the id is no run's own, for
who knows that may look at the run. Where others can reach the server, an error has its kind and its place, and not its message, which
may quote a prompt too. `LOOPVIZ_LOG=text` or `json` writes the lines, `LOOPVIZ_LOG_PROMPTS=1` prompts and messages as well.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from loopviz.app.profile import Profile
from loopviz.trace.pace import sharing_of

if TYPE_CHECKING:
    from loopviz.app.sessions.models import ModelRoom

log = logging.getLogger("loopviz.runs")
OTHER = "other"  # in place of a model's name that a visitor typed: it may be anything
_FIELDS = "loopviz_run"  # of a record: what the line is made of


def take(job: Any, room: ModelRoom, seconds: float, refused: Sequence[str] | None, left: bool) -> None:
    """Write the line of something that has come to its end.

    Args:
        job: what was asked for (:class:`loopviz.app.sessions.job.Job`).
        seconds: from its start, waiting included.
        refused: the fields that were refused, "" for what is none's; None: it was not.
        left: whether its visitor took it back before it began to be made.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    run = job.run
    trace = getattr(run, "trace", None)
    mean = None if trace is None else sharing_of(trace.frames).mean
    said: dict[str, Any] = {
        "id": hashlib.sha256(run.id.encode()).hexdigest()[:12] if run is not None else None,
        "page": job.page,
        "model": job.model if job.model in room.names else OTHER,
        "tokens": None if trace is None else len(trace),
        "seconds": round(seconds, 3),
        "runs_per_pass": None if mean is None else round(mean, 2),
        "end": getattr(run, "end", None) or ("refused" if refused is not None else "left" if left else "error"),
        "refused": None if refused is None else sorted({name for name in refused if name}),
    }
    if room.profile.log_prompts:
        prompt = getattr(job, "prompt", None)
        said["prompt"] = prompt if prompt is not None else getattr(getattr(job, "asked", None), "prompt", None)
    log.info("%s", job.what, extra={_FIELDS: said})


def note(event: str, page: str, seconds: float, end: str, refused: Sequence[str] | None = None) -> None:
    """Write the line of something that was asked for and was no run: a saved run, a class folder, answers, a file; a program's call.

    Args:
        event: what it was; one of few names of ours.
        page: where from.
        seconds: that it took.
        end: done, refused, left, error.
        refused: why, in names of ours: fields, faults of the store, an HTTP status; None: it was not.
    """
    if log.isEnabledFor(logging.INFO):
        none = dict.fromkeys(("id", "model", "tokens", "runs_per_pass"))
        said = {
            "page": page,
            "seconds": round(seconds, 3),
            "end": end,
            "refused": None if refused is None else [*refused],
        }
        log.info("%s", event, extra={_FIELDS: none | said})


class Lines(logging.Formatter):
    """Records as lines: of JSON, or to be read.

    Args:
        as_json: one JSON object a line.
        whole: whether errors are told with their messages.
    """

    def __init__(self, as_json: bool, whole: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._as_json, self._whole = as_json, whole

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        run = getattr(record, _FIELDS, None)
        if not self._as_json:
            record = logging.makeLogRecord(
                {**record.__dict__, "exc_text": None}
            )  # another's formatter may have left one
            line = super().format(record)
            return line if run is None else f"{line} " + " ".join(f"{k}={json.dumps(v)}" for k, v in run.items())
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        said: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        said |= {"message": record.getMessage()} if run is None else {"event": record.getMessage(), **run}
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)

    def formatException(self, ei: Any) -> str:  # logging's name
        """The stack; without the message, whole only where that is nobody else's."""
        if self._whole:
            return super().formatException(ei)
        kind, _, where = ei
        places = traceback.extract_tb(where)
        told = [f'  File "{place.filename}", line {place.lineno}, in {place.name}' for place in places]
        return "\n".join([*told, getattr(kind, "__name__", "error")])


def set_up(profile: Profile, stream: IO[str] | None = None) -> logging.Handler:
    """Write what LoopViz logs, as the profile says, to `stream` (the process's standard error).

    Returns:
        The handler; an earlier one of ours is gone.
    """
    root = logging.getLogger("loopviz")
    for earlier in [handler for handler in root.handlers if isinstance(handler.formatter, Lines)]:
        root.removeHandler(earlier)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(profile.log == "json", whole=profile.paths or profile.log_prompts))
    root.addHandler(handler)
    root.propagate = False  # else it is said twice, once whole, where somebody has set logging up
    root.setLevel(logging.INFO if profile.log else logging.WARNING)
    return handler
