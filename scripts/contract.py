"""Write what the pages' scripts must know of `loopviz/app/contract/`: its constants, and the types of what is said.

    python scripts/contract.py            writes assets/web/core/contract.js and contract.d.ts
    python scripts/contract.py --check    says whether they are as they would be written; 1 if not

tests/app/test_contract.py makes both again and compares.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import sys
import tokenize
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from loopviz.app import contract  # noqa: E402

FOLDER = ROOT / "assets" / "web" / "core"
MADE = "// Made of loopviz/app/contract/ by scripts/contract.py: change it there."
_PLAIN = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null", Any: "any"}


def script() -> str:
    """contract.js: the constants."""
    lines = [f"export const {name} = {_plain(value)};" for name, value in contract.CONSTANTS.items()]
    return "\n".join([MADE, "", *lines, ""])


def declarations() -> str:
    """contract.d.ts: the constants with their very values as types, a type a message, and by page who says what."""
    said = _comments()
    kinds = [*sorted(contract.LESSON, key=lambda kind: kind.__name__), *_kinds()]
    constants = [f"export const {name}: {_literal(value)};" for name, value in contract.CONSTANTS.items()]
    named = [f"export type {name} = {_type(hint)};" for name, hint in contract.TYPES.items()]
    return "\n".join([MADE, "", *constants, "", *named, "", *(_interface(kind, said) for kind in kinds), *_pages()])


def _kinds() -> list[Any]:
    """The types of messages that the contract's parts state, in their order."""
    return [
        kind
        for part in contract.PARTS
        for name, kind in vars(part).items()
        if is_typeddict(kind) and kind.__module__ == part.__name__ and not name.startswith("_")
    ]


def _plain(value: Any) -> str:
    """The value as a script writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key}: {_plain(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _literal(value: Any) -> str:
    """The type that has no other value than this one."""
    if isinstance(value, Mapping):
        return "{ " + " ".join(f"readonly {key}: {_literal(entry)};" for key, entry in value.items()) + " }"
    if isinstance(value, tuple):
        return f"readonly [{', '.join(map(_literal, value))}]"
    return _plain(value)


def _type(hint: Any) -> str:
    """A type of the contract as TypeScript writes it."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if is_typeddict(hint):
        return hint.__name__
    if origin is Literal:
        return " | ".join(map(_plain, parts))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(_type(part) for part in parts))
    if origin is list:
        item = _type(parts[0])
        return f"({item})[]" if " | " in item else f"{item}[]"
    if origin is tuple:
        return f"[{', '.join(_type(part) for part in parts)}]"
    if origin is dict:
        return f"Record<string, {_type(parts[1])}>"
    raise TypeError(f"{hint!r}: no type that JSON can hold")


def _interface(kind: Any, said: Mapping[str, Mapping[str, str]]) -> str:
    lines = [f"/** {_sentence(kind.__doc__)} */"] if kind.__doc__ else []
    lines.append(f"export interface {kind.__name__} {{")
    for name, hint in get_type_hints(kind).items():
        notes = [said[base][name] for base in _bases(kind.__name__) if name in said[base]]
        lines += [f"  /** {note} */" for note in notes[:1]]
        lines.append(f"  {name}{'?' if name in kind.__optional_keys__ else ''}: {_type(hint)};")
    return "\n".join([*lines, "}", ""])


def _sentence(text: str) -> str:
    return " ".join(text.split())


@functools.cache
def _classes() -> dict[str, ast.ClassDef]:
    """The classes of every part by their names, as the source has them."""
    nodes = (node for part in contract.PARTS for node in ast.parse(inspect.getsource(part)).body)
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


@functools.cache
def _bases(name: str) -> list[str]:
    """A class and what it is made of, as the source says it: a TypedDict does not remember."""
    classes = _classes()
    found: list[str] = []
    todo = [name]
    while todo:
        if (here := todo.pop()) in classes and here not in found:
            found.append(here)
            todo += [base.id for base in classes[here].bases if isinstance(base, ast.Name)]
    return found


def _comments() -> dict[str, dict[str, str]]:
    """By class and key, the comment that stands beside the key."""
    found = {}
    for part in contract.PARTS:
        beside = _beside(inspect.getsource(part))
        for node in ast.parse(inspect.getsource(part)).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = _notes(node, beside)
    return found


def _beside(source: str) -> dict[int, str]:
    """By line, the comment on it."""
    return {
        token.start[0]: token.string.lstrip("# ").removeprefix("noqa: UP007").lstrip(" #")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }


def _notes(node: ast.ClassDef, beside: Mapping[int, str]) -> dict[str, str]:
    """By key of a class, the comment on its line."""
    return {
        line.target.id: beside[line.lineno]
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and beside.get(line.lineno)
    }


def _pages() -> list[str]:
    """By page: its messages, its questions with their answers, its events."""
    lines = []
    for page, messages in contract.MESSAGES.items():
        name = page.capitalize()
        lines += [f"export type {name}Message = {_named(messages)};", ""]
        lines.append(f"export type {name}Questions = {{")
        for about, (question, answers) in contract.QUESTIONS[page].items():
            lines.append(f"  {about}: {{ asked: {question.__name__}; answer: {_named(answers)} }};")
        lines += ["};", "", f"export interface {name}Events {{"]
        lines += [
            f"  {event}: {asked.__name__ if asked else 'void'};" for event, asked in contract.EVENTS[page].items()
        ]
        lines += ["}", ""]
    return lines


def _named(kinds: tuple[type, ...]) -> str:
    return " | ".join(kind.__name__ for kind in kinds)


def main(arguments: list[str]) -> int:
    """Write both files, or compare them; the exit code."""
    made = {"contract.js": script(), "contract.d.ts": declarations()}
    stale = [name for name, text in made.items() if not _is(FOLDER / name, text)]
    if arguments == ["--check"]:
        for name in stale:
            print(f"assets/web/core/{name} is not what loopviz/app/contract/ says")
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(made[name], encoding="utf-8")
    print(f"written: {', '.join(stale) or 'nothing, both are as they should be'}")
    return 0


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
