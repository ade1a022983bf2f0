"""`python -m loopviz store list`, `feature`, `unfeature`, `delete` and `class`: the host's own hand on stored runs.

What is found goes to stdout, a line each with tabs between. It works beside a server that is running.
"""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.cli.options import path
from loopviz.machine import UsageError

if TYPE_CHECKING:
    from loopviz.store import Entry, Store


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    store = commands.add_parser("store", help="runs that a server keeps: list, feature, delete; class folders")
    parts = store.add_subparsers(dest="part", required=True)
    told = {
        "list": "the runs saved last: id, when, until when, bytes, model, beginning of the prompt",
        "feature": "show a run in the gallery, where it is kept as long as it stands there",
        "unfeature": "take a run out of the gallery",
        "delete": "delete a run; its link then says so",
        "class": "make a class folder: prints the pupils' link and the teacher's, which is shown once",
    }
    for name, words in told.items():
        part = parts.add_parser(name, help=words, description=words)
        part.add_argument(
            "--folder", metavar="DIR", type=path, default=None, help="of the store (default: LOOPVIZ_STORE)"
        )
        if name in ("feature", "unfeature", "delete"):
            part.add_argument("run", help="its id, as in its link behind ?run=")
        elif name == "class":
            part.add_argument("name", help="of the class")
            part.add_argument(
                "--address", default="http://127.0.0.1:7860/", help="of the server (default: %(default)s)"
            )


def run(options: argparse.Namespace) -> int:
    """Run a parsed sub-command; returns the exit code.

    Raises:
        UsageError: no folder is named, or there is no store in it.
        ValueError: the store refuses.
    """
    from loopviz.store import Store, StoreError

    folder = options.folder or os.environ.get("LOOPVIZ_STORE", "").strip()
    if not folder:
        raise UsageError("store: no folder is named; give --folder DIR, or set LOOPVIZ_STORE")
    if options.part != "class" and not Path(folder).is_dir():
        raise UsageError(f"--folder {folder}: there is no such folder")
    try:
        store = Store(Path(folder))
        try:
            _done(store, options)
        finally:
            store.close()
    except StoreError as error:
        raise ValueError(f"store {options.part}: {error}") from error
    return 0


COMMANDS = {"store": run}


def _done(store: Store, options: argparse.Namespace) -> None:
    if options.part == "list":
        for entry in store.latest():
            print(_line(entry))
    elif options.part == "delete":
        store.remove(options.run)
    elif options.part == "class":
        folder, secret = store.new_folder(options.name)
        address = f"{options.address.rstrip('/')}/?class={folder.id}"
        print(f"pupils\t{address}\nteacher\t{address}#teacher={secret}")
    else:
        print(_line(store.feature(options.run, wanted=options.part == "feature")))


def _line(entry: Entry) -> str:
    until = "gallery" if entry.featured is not None else _day(entry.expires)
    title = "".join(
        letter if letter.isprintable() else "?" for letter in entry.title
    )  # a terminal shows it, and obeys nothing
    return "\t".join([entry.id, _day(entry.created), until, str(entry.bytes), entry.model, title])


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")
