"""`python -m loopviz store ...`: the host's own hand on stored runs (`list`, `feature`, `unfeature`, `delete`) and class folders (`class`,
`classes`, `answers`, `delete-answer`, `delete-class`).

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
    store = commands.add_parser(
        "store", help="runs that a server keeps: list, feature, delete; class folders, and what was handed in to them"
    )
    parts = store.add_subparsers(dest="part", required=True)
    told = {
        "list": "the runs saved last: id, when, until when, bytes, model, beginning of the prompt",
        "feature": "show a run in the gallery, where it is kept as long as it stands there",
        "unfeature": "take a run out of the gallery",
        "delete": "delete a run; its link then says so",
        "class": "make a class folder: prints the pupils' link and the teacher's, which is shown once",
        "classes": "the class folders: id, when, until when, saved runs, answers handed in, name",
        "answers": "what was handed in to a class folder: id, when, bytes, lesson, name of the pupil",
        "delete-answer": "delete a pupil's answers to a lesson",
        "delete-class": "delete a class folder with all that was saved and handed in there: prints how much that was",
    }
    for name, words in told.items():
        part = parts.add_parser(name, help=words, description=words)
        part.add_argument(
            "--folder", metavar="DIR", type=path, default=None, help="of the store (default: LOOPVIZ_STORE)"
        )
        if name in ("feature", "unfeature", "delete"):
            part.add_argument("run", help="its id, as in its link behind ?run=")
        elif name in ("answers", "delete-answer", "delete-class"):
            part.add_argument("group", metavar="class", help="its id, as `classes` lists it")
            if name == "delete-answer":
                part.add_argument("answer", help="its id, as `answers` lists it")
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
    elif options.part in ("feature", "unfeature"):
        print(_line(store.feature(options.run, wanted=options.part == "feature")))
    else:
        _done_to_class(store, options)


def _done_to_class(store: Store, options: argparse.Namespace) -> None:
    if options.part == "classes":
        for one in store.class_folders():
            runs, handed = len(store.saved_in(one.id)), len(store.handed_in(one.id))
            print(_row(one.id, _day(one.created), _day(one.expires), runs, handed, one.name))
    elif options.part == "answers":
        for answer in store.handed_in(options.group):
            print(_row(answer.id, _day(answer.at), answer.bytes, answer.lesson, answer.student))
    elif options.part == "delete-answer":
        store.remove_answer(options.group, options.answer)
    else:
        gone = store.remove_folder(options.group)
        print(f"runs\t{gone.runs}\nanswers\t{gone.answers}")


def _line(entry: Entry) -> str:
    until = "gallery" if entry.featured is not None else _day(entry.expires)
    return _row(entry.id, _day(entry.created), until, entry.bytes, entry.model, entry.title)


def _row(*values: object) -> str:
    """A line; what strangers wrote a terminal shows, and obeys nothing of it."""
    return "\t".join("".join(letter if letter.isprintable() else "?" for letter in str(value)) for value in values)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")
