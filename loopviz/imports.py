"""`--import my_module`: modules of one's own that register merges, criteria, choosers or tasks.

A module is named as Python names it (it is on the path, or in the folder one is in), or is a .py file. It is imported
before anything that depends on registered names is read.

On the ground floor: it imports nothing of LoopViz, and nothing heavy.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

OPTION = "--import"
HELP = "a module (or .py file) of yours that registers merges, criteria or tasks; can be repeated"

_loaded: dict[str, ModuleType] = {}  # as named, in the order of import


class ImportingError(ValueError):
    """A module that cannot be imported; the message says which, and where in it."""


def named(arguments: Sequence[str]) -> list[str]:
    """What `--import NAME` and `--import=NAME` name among a command's arguments, before anybody has parsed them."""
    found, given = [], iter(arguments)
    for argument in given:
        if argument == "--":
            break
        if argument == OPTION:
            found.append(next(given, ""))
        elif argument.startswith(f"{OPTION}="):
            found.append(argument.partition("=")[2])
    return [name for name in found if name]  # without a name: the parser's to refuse


def load(names: Iterable[str], folders: Iterable[Path] = ()) -> list[str]:
    """Import modules, each once.

    Args:
        names: module names, or paths of .py files.
        folders: where relative paths and modules are looked for after the working directory.

    Returns:
        The names again, files by their absolute paths: what another process can load.

    Raises:
        ImportingError: there is no such module or file, or it does not run; with its file and line.
    """
    places = [Path.cwd(), *folders]
    return [_load(name, places) for name in names]


def loaded() -> list[dict[str, str]]:
    """What has been imported so far: names without folders, and the sha256 of their code ("" where it is no file)."""
    return [{"name": _label(name), "sha256": digest(module)} for name, module in _loaded.items()]


def digest(module: ModuleType) -> str:
    """sha256, hex, of a module's file, and for a package of all its .py files."""
    file = getattr(module, "__file__", None)
    if not file or not os.path.isfile(file):
        return ""
    path = Path(file)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    return hashlib.sha256(b"".join(item.read_bytes() for item in files)).hexdigest()


def _label(name: str) -> str:
    return Path(name).name if name.endswith(".py") else name


def _load(name: str, places: list[Path]) -> str:
    if name.endswith(".py"):
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            raise ImportingError(f"{OPTION} {name}: there is no such file")
        name = os.path.realpath(path)
    if name in _loaded:
        return name
    for place in places if not name.endswith(".py") else [Path(name).parent]:
        if str(place) not in sys.path:
            sys.path.append(str(place))  # last: what is installed is not hidden by a file that is called the same
    try:
        _loaded[name] = _from_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except (KeyboardInterrupt, ImportingError):
        raise
    except BaseException as error:  # a module may raise anything, SystemExit too
        raise ImportingError(f"{OPTION} {_label(name)}: {_told(error, name)}") from error
    return name


def _from_file(path: Path) -> ModuleType:
    known = next((m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(path)), None)
    if known is not None:
        return known
    name = path.stem if path.stem not in sys.modules and path.stem.isidentifier() else f"loopviz_import_{len(_loaded)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _told(error: BaseException, name: str) -> str:
    """What went wrong, with the line of the user's own code that it comes from."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return "there is no such module on the path or in this folder; for a file, write its name with .py"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    for file, line in _own_lines(error):
        return f"{file}, line {line}: {text}"
    return text


def _own_lines(error: BaseException) -> Iterator[tuple[str, int]]:
    """File and line of the frames that are neither Python's own nor installed nor LoopViz's, innermost first."""
    here = str(Path(__file__).parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        foreign = frame.filename.startswith(("<", here)) or "site-packages" in frame.filename
        if not foreign and not frame.filename.startswith(str(Path(os.__file__).parent)):
            yield Path(frame.filename).name, frame.lineno or 0
