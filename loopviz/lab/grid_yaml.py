"""A grid file's YAML, read as the person who wrote it meant it.

PyYAML reads YAML 1.1, in which 5e-4 is a word, 010 is eight, 1:30 is ninety, `no` is false and of two equal keys the last
one wins without a word. Here plain values are those of YAML 1.2's core schema, keys are always the words that were written,
and what could be meant in two ways is refused with its line.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

Path_ = tuple[str, ...]  # of keys, from the outside in

_TAG = "tag:yaml.org,2002:"
_PLAIN = {  # tag: pattern, characters it may begin with
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", "~nN"),
    "int": (r"[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]")


class GridError(ValueError):
    """A grid file that is refused; the message names the line."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the plain values of YAML 1.2; remembers where every key stands."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # not YAML 1.1's

    def refuse(self, node: yaml.Node, text: str) -> None:
        raise GridError(f"line {node.start_mark.line + 1}: {text}")

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text = self.construct_scalar(node)
        if _LEADING_ZERO.match(text) and not text.startswith(("0x", "0o")):
            number = text.lstrip("+-0_") or "0"
            self.refuse(node, f"{text}: a number that begins with 0 may mean eights; write {number}, or 0o{number}")
        digits = text.replace("_", "").lower()
        try:
            if node.tag == f"{_TAG}int":
                return int(digits, 0)
            return float(digits.replace(".inf", "inf").replace(".nan", "nan") if digits[-1:].isalpha() else digits)
        except ValueError:  # `!!int word`, or more digits than Python takes
            self.refuse(node, f"{text[:40]}: not a number that can be read")
            raise

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            return super().construct_mapping(node, deep=deep)
        self.check_keys(node)
        self.flatten_mapping(node)  # `<<: *defaults`; what is written beside it wins
        found: dict[Hashable, Any] = {}
        for key, value in node.value:
            found[key.value] = self.construct_object(value, deep=True)
        return found

    def check_keys(self, node: yaml.MappingNode) -> None:
        """Keys are words, each once."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse(key, "a key must be a word, not a list or a mapping")
            if key.value in seen:
                self.refuse(key, f"{key.value}: stands twice, on line {seen[key.value]} too; the second would win")
            seen[key.value] = key.start_mark.line + 1


for _name, (_pattern, _first) in _PLAIN.items():
    for _character in [*_first, ""] if _name == "null" else _first:
        _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), [_character])
for _name in ("int", "float"):
    _Loader.add_constructor(f"{_TAG}{_name}", _Loader.construct_number)
_Loader.add_constructor(f"{_TAG}map", lambda loader, node: loader.construct_mapping(node, deep=True))


def read_yaml(text: str, path: Path) -> tuple[Any, dict[Path_, int]]:
    """The content of a grid file, and the line of every key in it.

    Args:
        text: of the file.
        path: of the file, for messages.

    Returns:
        Mappings, lists, texts, numbers, booleans and `None`; and lines (from 1) by the keys that lead there.

    Raises:
        GridError: not YAML, more than one document, or something that could be meant in two ways.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines = _lines(node)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise GridError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except GridError as error:
        raise GridError(f"{path}, {error}") from None
    except RecursionError:
        raise GridError(f"{path}: not YAML that can be read (nested too deeply)") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a tag on what it cannot stand for: `!!bool x`
        raise GridError(f"{path}: not YAML that can be read ({type(error).__name__}: {error})") from None
    finally:
        loader.dispose()


def _lines(node: yaml.Node, before: Path_ = ()) -> dict[Path_, int]:
    found: dict[Path_, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                found.setdefault((*before, key.value), key.start_mark.line + 1)
                found |= _lines(value, (*before, key.value))
    return found


def meant_as_boolean(value: Any) -> Any:
    """`yes`, `no`, `on`, `off` where true or false is wanted; anything else as it is."""
    words = {"yes": True, "on": True, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value
