"""A task's form: its parameters as fields, and what a visitor filled in as parameters. Knows no task by name.

Importing this needs no torch; `loopviz.lab` is imported when a task is at hand.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.app.controls import brought as brought_settings
from loopviz.app.sessions.bounds import SIZES, Sizes
from loopviz.app.sessions.columns import title_of
from loopviz.app.texts import LANGUAGES
from loopviz.checks import ABSENT, FieldError, shortened
from loopviz.engine.engine import TTTDescription
from loopviz.fields import kind_of, options_of, read_value
from loopviz.text_file import read_text

if TYPE_CHECKING:
    from loopviz.engine.engine import Description
    from loopviz.lab.task import Task

FILE_NAME_LIMIT = 80


def _kind(thing: dataclasses.Field[Any], hint: Any) -> str:
    """What the page's script shows a parameter as (see `assets/web/widgets/form.js`); a value that may be absent is a line of text."""
    kind = thing.metadata["kind"]
    if kind in ("text", "file"):
        return {"text": "long", "file": "file"}[kind]
    if thing.metadata["choices"] and hint is str:
        return "choice"
    return {bool: "flag", int: "whole", float: "number"}.get(hint, "line")


def shown_value(value: Any) -> Any:
    """A default as it stands in its field; the inverse of reading it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple) and all(isinstance(item, (int, float, str)) for item in value):
        return ", ".join(str(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def _default(thing: dataclasses.Field[Any]) -> Any:
    make: Any = thing.default_factory
    return thing.default if thing.default is not dataclasses.MISSING else make()


def fields_of(task: Task, sizes: Sizes = SIZES) -> list[dict[str, Any]]:
    """The form's fields in order: name, title and words in both languages, kind, value, choices, the limit of text.

    `value` is the task's for a first measurement, else the default; `json` says that a line holds loop settings,
    `loop` that they are one loop's, which a model may bring (not several configurations, each of its own).
    """
    from loopviz.lab.task import choices_of

    hints = typing.get_type_hints(task.params)
    return [
        {
            "name": thing.name,
            "kind": (kind := _kind(thing, hints[thing.name])),
            "titles": {lang: title_of(task.name, thing.name, lang) for lang in LANGUAGES},
            "value": shown_value(task.first.get(thing.name, _default(thing))),
            "json": thing.metadata["kind"] == "loop",
            "choices": choices_of(thing.metadata),
            "words": thing.metadata["words"],
            "limit": sizes.text if kind in ("long", "file") else sizes.line,
            **_ends(thing, hints[thing.name]),
            "loop": thing.metadata["kind"] == "loop" and isinstance(_default(thing), Mapping),
        }
        for thing in dataclasses.fields(task.params)
    ]


def _ends(thing: dataclasses.Field[Any], hint: Any) -> dict[str, float]:
    """The ends of a number, or of each of several: `low` and `high`; nothing for what is none."""
    from loopviz.lab.task import ends_of

    kinds = {kind for option in options_of(hint) for kind in (option, *typing.get_args(option))}
    if not kinds & {int, float} or thing.metadata["kind"] == "loop":
        return {}
    low, high = ends_of(thing.metadata)
    return {"low": low, "high": high}


def usual_loop(described: Description | TTTDescription) -> dict[str, Any]:
    """The loop fields that a measurement of a model has where nothing is said of them.

    None for a model that is a loop itself, or a TTT model, which has none. Another is looped as everywhere on the pages: a block in the middle.
    """
    if isinstance(described, TTTDescription) or described.loop_blocks():
        return {}
    own = brought_settings(described)
    return {"loop_layers": [own["block_start"], own["block_end"]], "loop_count": own["loop_count"]}


def brought(task: Task, filled: Mapping[str, Any], described: Description | TTTDescription) -> dict[str, Any]:
    """What a visitor filled in, with the model's own loop where they left the task's loop fields as they were."""
    found, usual = dict(filled), usual_loop(described)
    for entry in fields_of(task):
        name = entry["name"]
        if usual and entry["loop"] and found.get(name, entry["value"]) == entry["value"] and entry["value"] is not None:
            found[name] = json.dumps({**usual, **json.loads(entry["value"])})
    return found


def describe(task: Task, sizes: Sizes = SIZES) -> dict[str, Any]:
    """A task for the page's script: name, words, fields, and the sizes it is offered in."""
    offered = [
        {"words": size.words, "values": {name: shown_value(value) for name, value in size.values.items()}}
        for size in task.sizes
    ]
    made = {"name": task.name, "words": task.words, "fields": fields_of(task, sizes), "sizes": offered}
    return made | {"asks": list(task.asks), "group": task.group, "intervals": task.intervals}


def suited(values: Mapping[str, Any], context: int) -> dict[str, Any]:
    """Values of a form, windows and texts in it no longer than a model can read; as `assets/web/lab/task_form.js` suits its fields."""
    parts = {"window": 1, "prompt_tokens": 4, "new_tokens": 2}
    found = dict(values)
    for name, part in parts.items():
        if type(found.get(name)) is int:
            found[name] = min(found[name], context // part)
    return found


def params_of(task: Task, filled: Mapping[str, Any], folder: Path, lang: str = "en", sizes: Sizes = SIZES) -> Any:
    """The parameters a visitor filled in; what is missing takes its default.

    Args:
        lang: of the page; a refusal says what is wrong as data, and its words are made where it is shown.
        filled: by name: text as it stands in a field, a switch as bool, a file as `{"name", "data"}` (its bytes, base64) or
            `{"name", "text"}`.
        folder: where files are kept while the task needs them.

    Raises:
        FieldError: naming the parameter, or what a mapping in it holds.
        ValueError: a file that is no text.
    """
    from loopviz.lab.task import params_from_json

    hints = typing.get_type_hints(task.params)
    values: dict[str, Any] = {}
    for thing in dataclasses.fields(task.params):
        if thing.name in filled:
            kind = _kind(thing, hints[thing.name])
            value = _read(thing.name, kind, filled[thing.name], hints[thing.name], folder, sizes)
            if value is not _MISSING:
                values[thing.name] = value
    return params_from_json(task.params, values)


_MISSING: Any = object()


def _read(name: str, kind: str, value: Any, hint: Any, folder: Path, sizes: Sizes) -> Any:
    """One value; `_MISSING` for one that was left empty."""
    if kind == "file":
        return _keep(name, value, folder, sizes.text) if value else _MISSING
    if isinstance(value, bool) or value is None:
        if kind == "flag" and value is not None:
            return value
        return _MISSING
    if isinstance(value, (int, float)):
        value = f"{value:.0f}" if kind == "whole" and isinstance(value, float) and value.is_integer() else repr(value)
    if not isinstance(value, str):
        raise FieldError(name, ABSENT, "kind", kind=kind_of(hint))
    limit = sizes.text if kind == "long" else sizes.line
    if len(value) > limit:
        raise _too_long(name, len(value), limit)
    if kind == "long":
        return value
    if not value.strip():
        return () if typing.get_origin(hint) is tuple else _MISSING
    try:
        return read_value(value.strip(), hint)
    except ValueError:
        raise FieldError(name, value, "kind", shown=shortened(value), kind=kind_of(hint)) from None


def _too_long(name: str, n: int, most: int) -> FieldError:
    return FieldError(name, ABSENT, "characters", n=f"{n:,}", most=f"{most:,}")


def _keep(name: str, value: Any, folder: Path, most: int) -> str:
    """Write a file that a visitor chose; its path. Its name is kept, without any folder."""
    called = value.get("name") if isinstance(value, Mapping) else None
    content = _content(value) if isinstance(called, str) else None
    if content is None or not isinstance(called, str):
        raise FieldError(name, ABSENT, "choose_file")
    if len(content) > 4 * most:  # no character takes more bytes
        raise _too_long(name, len(content), most)
    safe = "".join(letter if letter.isalnum() or letter in "._- " else "_" for letter in called)[-FILE_NAME_LIMIT:]
    safe = safe.strip(". ") or "text"
    place = folder / name
    place.mkdir(exist_ok=True)
    path = place / safe
    path.write_bytes(content)
    length = len(read_text(path, f"{name}={safe!r}"))  # refused now, and not by where it is kept
    if length > most:
        raise _too_long(name, length, most)
    return str(path)


def _content(value: Mapping[str, Any]) -> bytes | None:
    """The bytes of a chosen file, however they came; None for what is none."""
    text, data = value.get("text"), value.get("data")
    if isinstance(text, str):
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except ValueError:
        return None
