"""`python -m loopviz lesson check` and `lesson schema`. Nothing heavy is imported unless lessons are to be played.

What is wrong goes to stdout, a line each, by file and field; the exit code is 1 if anything is.
"""

from __future__ import annotations

import argparse
import functools
import json
from typing import TYPE_CHECKING, Any

from loopviz.checks import FieldError
from loopviz.cli.options import load, path
from loopviz.text_file import read_text

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine
    from loopviz.lessons.measurements import Measured
    from loopviz.lessons.schema import Lesson, LessonStep, Part


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    lesson = commands.add_parser("lesson", help="lessons of the Learn page: is a file one, and what is right in it")
    parts = lesson.add_subparsers(dest="part", required=True)
    check = parts.add_parser(
        "check",
        help="say everything that is wrong with lesson files, by field",
        description="Everything that is wrong with lesson files, a line each. Exit code 1 if anything is.",
    )
    check.add_argument("files", metavar="FILE", nargs="+", type=path, help="a lesson, JSON")
    check.add_argument("--run", action="store_true", help="play it too: what is measured, and which answers are right")
    parts.add_parser("schema", help="print the JSON Schema of a lesson, for an editor")


def run(options: argparse.Namespace) -> int:
    """Run a parsed sub-command; returns the exit code.

    Raises:
        ValueError: a file that is no text; a model that cannot be had.
        OSError: a file that cannot be read.
    """
    if options.part == "schema":
        from loopviz.lessons.json_schema import json_schema

        print(json.dumps(json_schema(), indent=2))
        return 0
    return max([_checked(file, options.run) for file in options.files], default=0)


COMMANDS = {"lesson": run}


def _checked(file: Any, played: bool) -> int:
    from loopviz.lessons.faults import read_lesson

    lesson, faults = read_lesson(read_text(file))
    for fault in faults:
        print(f"{file}: {fault}")
    if lesson is None:
        return 1
    print(f"{file}: a lesson of {len(lesson['steps'])} steps, {lesson['title']['en']}")
    return max((_played(lesson, step) for step in lesson["steps"]), default=0) if played else 0


@functools.cache
def _engine(model: str) -> Engine:
    import torch

    from loopviz.engine.local import LocalEngine

    found = load(model, torch.float32, {})
    return LocalEngine(model, found.model, found.tokenizer, found.source)


def _played(lesson: Lesson, step: LessonStep) -> int:
    """Play a step and its what-if, say what was measured and what is right; 1 where something cannot be played or answered."""
    from loopviz.lessons.verdict import right_choice

    measured = _measured(lesson, step, step["id"], step["why"]["en"])
    wrong = measured is None
    predict = step["predict"]
    if measured is not None and predict["kind"] == "choice":
        right = right_choice(predict, measured)
        wrong = right is None
        answer = "no choice, or several" if right is None else predict["choices"][right]["text"]["en"]
        print(f"  {step['id']}: right is {answer}")
    if "what_if" in step:
        what_if = step["what_if"]
        wrong |= _measured(lesson, what_if, f"{step['id']}.what_if", what_if["says"]["en"]) is None
    return int(wrong)


def _measured(lesson: Lesson, part: Part, called: str, sentence: str) -> dict[str, Measured] | None:
    """Play a part, and say what was measured and the sentence with it; None where it cannot be, which is said."""
    from loopviz.lessons.play import play
    from loopviz.lessons.sentences import filled, said

    try:
        measured = play(lesson, part, _engine)
    except FieldError as error:
        print(f"  {called}: {error}")
        return None
    for name, asked in part["measure"].items():
        print(f"  {called}: {name} = {said(asked, measured[name], 'en')}")
    print(f"  {called}: {filled(sentence, part['measure'], measured, 'en')}")
    return measured
