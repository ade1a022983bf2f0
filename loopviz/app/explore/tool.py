"""Explore's work for programs: a run, its Trace; a run that the server keeps."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypedDict
from urllib.parse import parse_qs, urlsplit

from loopviz.app import controls as st
from loopviz.app.contract import QUERIES
from loopviz.app.explore import first_run
from loopviz.app.explore.answers import View
from loopviz.app.explore.service import Service, Wish
from loopviz.app.explore.snapshot import next_text
from loopviz.app.explore.stored import StoredRuns
from loopviz.app.sessions.file_desk import FileRefused, base_name, run_file
from loopviz.app.sessions.store_desk import words_of
from loopviz.app.sessions.tools import Call, Made, Ready, Tool, ToolRefused, known
from loopviz.app.texts import text
from loopviz.checks import check_one_of
from loopviz.engine.summary import Summary, summarize
from loopviz.panels import PANELS
from loopviz.panels.ttt import TTT_PANELS
from loopviz.prompt_templates import check_template
from loopviz.store import StoreError
from loopviz.trace import Trace

TRACES = ("json", "file", "none")
NAME_LENGTH = 60


class Token(TypedDict):
    """A token that was read: of each looped block, the loops it took and why they stopped."""

    text: str
    phase: str
    loops: list[int]
    stop_reasons: list[str]


class Numbers(TypedDict):
    """What a panel draws, as a table."""

    columns: list[str]
    rows: list[list[Any]]


class WholeTrace(TypedDict):
    """A Trace, as `loopviz.trace.schema` has it."""

    meta: dict[str, Any]
    frames: list[dict[str, Any]]


class NamedFile(TypedDict):
    """A file, base64."""

    name: str
    data: str


class _RunMade(TypedDict):
    text: str
    completion: str
    end: str | None
    model: str
    summary: Summary
    tokens: list[Token]
    panels: dict[str, Numbers]


class RunMade(_RunMade, total=False):
    """What a run comes to, with its Trace in one of two forms, or in none."""

    trace: WholeTrace
    file: NamedFile


class RunOpened(RunMade):
    """A run that was saved, and until when it is kept."""

    id: str
    title: str
    until: int | None


def settings_schema() -> dict[str, Any]:
    """JSON Schema of a run's settings: the page's controls."""
    found: dict[str, Any] = {}
    for control in st.CONTROLS:
        if control.name == "model":
            continue
        one: dict[str, Any] = {"description": text("en", f"{control.name}.label")}
        if control.kind in ("whole", "number"):
            kind = "integer" if control.kind == "whole" else "number"
            one |= {"type": kind, "minimum": control.low, "maximum": control.high}
        elif control.kind == "choice":
            one |= {"type": "string", "enum": [*st.choices(control)]}
        elif control.kind == "long":
            one |= {"type": "string", "maxLength": control.high}
        else:
            one |= {"type": "boolean"}
        found[control.name] = one
    found |= {"chat": {"type": "boolean", "description": "what template=chat was called before"}}
    return {"type": "object", "properties": found, "additionalProperties": False}


def tool(service: Service) -> Tool:
    """`run`, as the page Explore makes runs."""

    def run(
        call: Call,
        prompt: str,
        model: str = "",
        settings: dict[str, Any] | None = None,
        trace: str = "json",
        panels: tuple[str, ...] = (),
    ) -> Made:
        """Run a looped language model on a prompt, and see every loop of every token.

        Args:
            prompt: the text that the model goes on from.
            model: one of the models that this server offers; empty for its default.
            settings: of the loop and of sampling, by name (`loop_count`, `max_new_tokens`, `greedy`, ...); those that are left out
                are the model's own, and those that the model cannot have are refused.
            trace: how the Trace comes: "json" (`{"meta", "frames"}`, as the schema says), "file" (the `.loopviz` file, base64,
                which LoopViz opens), or "none", where the summary is enough.
            panels: names of the page's panels whose numbers are wanted as tables.

        Returns:
            text, completion, end (eos, length, context, time, memory), model, summary, tokens (each with its loops and why
            they stopped), panels, trace or file.
        """
        check_one_of("trace", trace, TRACES)
        for name in panels:
            check_one_of("panels", name, [*PANELS])
        given = settings or {}
        known((*(name for name in st.BY_NAME if name != "model"), *st.OLD_NAMES), given, "settings")
        values = {**st.defaults(), **given, "model": model.strip() or service.room.default}
        touched = tuple("template" if name in st.OLD_NAMES else name for name in given)
        form = st.Form.read({**values, st.SUITS: "", st.TOUCHED: touched})
        if not form.errors:  # on the page, an input that has no place is a control that is off
            check_template(form.settings["template"], form.settings["input"], chat=given.get("chat") is True)
        wanted = {name: PANELS[name] for name in panels}
        job = Wish(service, prompt, form, call.lang, call.session, View(panels={}, on=wanted), gives_way=False)
        most = service.room.profile.answer_bytes
        return Made(job, lambda made: answer(made.trace, made.end, trace, panels, call.lang, most))

    return Tool(service, run, {"settings": settings_schema(), "trace": {"enum": [*TRACES]}}, answer=RunMade)


def opening(service: Service, stored: StoredRuns) -> Tool:
    """`open_run`, as the page Explore opens the link of a run that the server keeps."""
    # as many files are read at a time as for pages
    reading = threading.BoundedSemaphore(service.room.profile.files_made_at_once)

    def open_run(call: Call, run: str, trace: str = "json", panels: tuple[str, ...] = ()) -> Ready:
        """Open a run that somebody saved on this server ("Save & share"), as it was saved: nothing is run.

        Args:
            run: its id, or the whole link to it; of a TTT model, too: its tokens have no loops, and its panels are those of the page TTT.
            trace: how the Trace comes: "json" (`{"meta", "frames"}`, as the schema says), "file" (the `.loopviz` file, base64,
                which LoopViz opens), or "none", where the summary is enough.
            panels: names of the page's panels whose numbers are wanted as tables.

        Returns:
            as `run` does (text, completion, end, model, summary, tokens, panels, trace or file); and id, title, until (seconds
            since 1970 to which it is kept; null: as long as the host shows it).
        """
        check_one_of("trace", trace, TRACES)
        for name in panels:
            check_one_of("panels", name, [*dict.fromkeys([*PANELS, *TTT_PANELS])])

        def opened() -> dict[str, Any]:
            with reading:
                try:
                    entry, found = stored.read(_id_of(run), call.lang, of_ttt=None)
                except StoreError as error:
                    words = words_of(error, call.lang)
                    raise ToolRefused(words, {"run": words}, full=error.fault == "unread") from None
                except FileRefused as refused:
                    raise ToolRefused(str(refused), {"run": str(refused)}) from None
                for name in panels:
                    check_one_of("panels", name, [*(TTT_PANELS if entry.of_ttt else PANELS)])
                most = service.room.profile.answer_bytes
                made = answer(found, first_run.ending(found), trace, panels, call.lang, most)
            until = None if entry.featured is not None else round(entry.expires)
            return {"id": entry.id, "title": entry.title, "until": until, **made}

        return Ready(opened)

    return Tool(service, open_run, {"trace": {"enum": [*TRACES]}}, answer=RunOpened)


def _id_of(said: str) -> str:
    """The id of a stored run in what a program says: that itself, or a link with it."""
    try:
        return parse_qs(urlsplit(said.strip()).query).get(QUERIES["run"], [said.strip()])[0]
    except ValueError:  # no address can be written so
        return ""


def answer(trace: Trace, end: str | None, form: str, panels: tuple[str, ...], lang: str, most: int) -> dict[str, Any]:
    """What a run comes to, as plain data.

    Raises:
        ToolRefused: the Trace is larger than `most` bytes.
    """
    if not len(trace):
        raise ToolRefused(text(lang, f"live.end.{end or 'stopped'}"))
    prompt = int(trace.meta["prompt_tokens"])
    # a frame is of a token that was read: the last one chosen has none
    pieces = [*(frame["text"] for frame in trace.frames), next_text(trace) or ""]
    found: dict[str, Any] = {
        "text": "".join(pieces),
        "completion": "".join(pieces[prompt:]),
        "end": end,
        "model": trace.meta["model"],
        "summary": asdict(summarize(trace)),
        "tokens": [_token(frame) for frame in trace.frames],
        "panels": {name: _table(trace, name) for name in panels},
    }
    if form == "json":
        found["trace"] = _checked({"meta": trace.meta, "frames": trace.frames}, form, lang, most)
    elif form == "file":
        file = run_file(trace)
        _check_size(len(file.content), form, lang, most)
        data = base64.b64encode(file.content).decode()
        found["file"] = {"name": f"{base_name(trace, NAME_LENGTH)}{file.ending}", "data": data}
    return found


def _token(frame: Mapping[str, Any]) -> dict[str, Any]:
    blocks = frame["blocks"]
    return {
        "text": frame["text"],
        "phase": frame["phase"],
        "loops": [block["n_steps"] for block in blocks],
        "stop_reasons": [block["stop_reason"] for block in blocks],
    }


def _table(trace: Trace, panel: str) -> dict[str, list[Any]]:
    """The numbers that a panel draws, by column."""
    from loopviz.export.panel_table import panel_table

    # by way of JSON: numbers as plain ones, and what is none as null
    found: dict[str, list[Any]] = json.loads(panel_table(trace, panel).to_json(orient="split"))
    return {"columns": found["columns"], "rows": found["data"]}


def _checked(value: dict[str, Any], form: str, lang: str, most: int) -> dict[str, Any]:
    data = json.dumps(value, ensure_ascii=False, allow_nan=False)
    _check_size(len(data.encode()), form, lang, most)
    found: dict[str, Any] = json.loads(data)
    return found


def _check_size(size: int, form: str, lang: str, most: int) -> None:
    if size > most:
        words = text(lang, "api.large", form=repr(form), size=f"{size:,}", most=f"{most:,}")
        raise ToolRefused(words, {"trace": words})
