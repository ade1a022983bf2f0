"""What is to be known of a model that loads all the same (`loopviz.model.checkpoints.load.Note`), in words for a visitor.

A note's own sentence names files of the server; a visitor is told by its code and values, in either language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from loopviz.app import controls as st
from loopviz.app.controls.model_name import short_name
from loopviz.app.texts import table, text
from loopviz.engine.engine import TTTDescription

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine

LONGEST = 80  # characters of a name that a stranger's file brings
SHOWN = 3  # tokens named of those a note is about


class Noted(Protocol):
    """What is read of a `Note`."""

    @property
    def code(self) -> str: ...

    @property
    def values(self) -> Mapping[str, Any]: ...


def key_of(code: str, values: Mapping[str, Any]) -> str:
    """The key of a note's text. Codes that begin with a mark's name (`pad_token_id_dropped`) share one."""
    if code.endswith("_dropped"):
        return "note.dropped"
    if code.endswith("_as_configured"):
        return "note.mark.added" if values.get("asked") else "note.mark.left_out"
    return f"note.{code}"


def of_model(loaded: Engine, lang: str) -> list[str]:
    """What is to be known of a model that is there: what its files' reader noted, and what the page cannot hold of its loop."""
    found = loaded.describe()
    if isinstance(found, TTTDescription):  # its reader notes nothing
        return []
    said = told(found.notes, lang)
    if not found.blocks or not (names := st.unheld(found)):
        return said
    return [*said, text(lang, "note.unheld", fields=", ".join(names))]


def together(models: Sequence[Engine], lang: str) -> dict[str, Any] | None:
    """What is to be known of models that are there, with the words for how much that is; None when it is nothing.

    Of several, each note begins with its model's name.
    """
    of = [(short_name(loaded.name), of_model(loaded, lang)) for loaded in models]
    said = [
        note if len(of) == 1 else text(lang, "model.notes.of", model=name, said=note)
        for name, notes in of
        for note in notes
    ]
    if not said:
        return None
    count = text(lang, "model.notes.one") if len(said) == 1 else text(lang, "model.notes", n=len(said))
    names = text(lang, "compare.and").join(name for name, notes in of if notes)
    return {"count": count, "about": text(lang, "model.notes.about", model=names), "said": said}


def told(notes: Iterable[Noted], lang: str) -> list[str]:
    """Each note as a sentence in `lang`, once; one whose code has no words yet is said by its code."""
    said = []
    for note in notes:
        key = key_of(note.code, note.values)
        known = key in table(lang)
        said.append(text(lang, key if known else "note.other", code=note.code, **_shown(note.values)))
    return list(dict.fromkeys(said))


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """A note's values as text: of a list or a table the first few."""
    return {name: _few([*value]) if isinstance(value, (list, tuple, dict)) else value for name, value in values.items()}


def _few(found: list[Any]) -> str:
    return ", ".join(str(one)[:LONGEST] for one in found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
