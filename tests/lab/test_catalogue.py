"""A measurement is one file in the folder of measurements: command line, page, sweeps and manifests know it by that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopviz.app.lab.form import describe
from loopviz.cli import main
from loopviz.lab import TASKS, catalogue, tasks
from loopviz.lab.task import TASKS as REGISTERED

from .small import TEXT, save

HEAD = """
from dataclasses import dataclass

from loopviz.engine.work import NOTHING
from loopviz.lab import Column, Task, param, register

NAME, ORDER = "vowels", 65
TITLE = {"en": "Vowels of a text", "zh": "文本的元音"}
"""
TASK = """
@dataclass(frozen=True)
class Params:
    text: str = param("", "Text.", "文本。", kind="text")
    most: int = param(9, "At most so many.", "最多这么多。", low=1, high=99)

def run(subject, params):
    yield {"vowels": min(params.most, sum(letter in "aeiou" for letter in params.text))}

WORDS = {lang: {"title": title, "question": "?", "how": ".", "cost": "0"} for lang, title in TITLE.items()}
COLUMNS = (Column("vowels", "", {"en": "vowels: how many", "zh": "元音：多少"}),)
register(Task(NAME, Params, COLUMNS, lambda subject, params: 1, run, WORDS, work=lambda subject, params: NOTHING))
"""
UNSTATED = """
NAME = "vow" + "els"
TITLE = dict(en="Vowels of a text", zh="文本的元音")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second folder in which measurements are looked for; what was found in it is forgotten."""
    known = dict(REGISTERED)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    yield tmp_path
    REGISTERED.clear()
    REGISTERED.update(known)
    sys.modules.pop("loopviz.lab.tasks.vowels", None)


def test_a_file_put_into_the_folder_is_measured_on_the_command_line_and_offered_on_the_page(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    from loopviz import lab

    (folder / "vowels.py").write_text(HEAD + TASK, "utf-8")
    assert "vowels" in lab.MODULES
    assert lab.TITLES["vowels"] == "Vowels of a text"
    assert "vowels" not in REGISTERED, "its title is told without running it"
    order = list(lab.TASKS)
    assert order[order.index("influence") : order.index("where") + 1] == ["influence", "vowels", "where"]
    model = save(tmp_path_factory.mktemp("tiny model"), loop_count=2)
    assert main.main(["eval", "vowels", "--model", model, "--text", TEXT, "--most", "3"]) == 0
    assert capfd.readouterr().out.split() == ["vowels", "3"]
    form = describe(lab.TASKS["vowels"])
    assert [(field["name"], field["kind"]) for field in form["fields"]] == [("text", "long"), ("most", "whole")]
    assert form["words"]["zh"]["title"] == "文本的元音"


def test_a_file_that_must_be_run_to_say_its_name_is_found_too(folder: Path) -> None:
    from loopviz import lab

    head = HEAD[: HEAD.index("NAME")]
    (folder / "vowels.py").write_text(head + UNSTATED + TASK, "utf-8")
    assert lab.TITLES["vowels"] == "Vowels of a text"
    assert list(lab.TASKS)[-1] == "vowels", "who states no place comes last"


def test_the_folder_is_all_there_is_to_it() -> None:
    """No second list: each task is registered by the file that says its name, and files say it so that it can be told."""
    entries = catalogue.entries()
    assert [entry.name for entry in entries] == [name for name in TASKS if name in {entry.name for entry in entries}]
    for entry in entries:
        task = TASKS[entry.name]
        assert task.words["en"]["title"] == entry.title
        module = sys.modules[f"loopviz.lab.tasks.{entry.module}"]
        assert {lang: words["title"] for lang, words in task.words.items()} == module.TITLE
    orders = [entry.order for entry in entries]
    assert len(set(orders)) == len(orders), "two at one place"


def test_what_a_file_says_is_read_without_running_anything() -> None:
    code = (
        "import sys; from loopviz import lab; assert len(lab.TITLES) == len(lab.MODULES) > 9\n"
        "assert 'torch' not in sys.modules and not [m for m in sys.modules if m.startswith('loopviz.lab.tasks.')]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
