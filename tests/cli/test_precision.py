"""`python -m loopviz precision`: one table, the processor named, refusals in one line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from loopviz.cli import main
from loopviz.lab import precisions
from loopviz.machine import processor
from tests.lab.small import TEXT, save


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tiny model"), loop_count=2)


SMALL = ("--tokens", "30", "--window", "10", "--loops", "4", "--rounds", "1")


def run(*arguments) -> int:
    return main.main(["precision", *map(str, arguments)])


def test_it_prints_a_row_a_format_under_the_processors_name(model, tmp_path, capfd, monkeypatch):
    widths: list[int] = []
    monkeypatch.setattr(precisions, "measured", widths.append)
    (tmp_path / "t.txt").write_text(TEXT)
    assert run("--model", model, "--held", "int8", "--file", tmp_path / "t.txt", *SMALL) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0].startswith(processor())
    assert "t.txt" in out[0]
    rows = [line.split(" | ") for line in out[4:] if line.startswith("|")]
    assert [row[1] for row in rows] == ["float32", "int8"]
    assert rows[0][2] == "0"
    assert float(rows[1][2]) > 0
    assert float(rows[1][4]) > 0  # it has a loop
    took = re.fullmatch(r"What half and auto choose by is measured here in .*: (.*) (\d+\.\d\d) s; .*", out[-1])
    assert took is not None
    width = json.loads((Path(model) / "config.json").read_text())["hidden_size"]
    assert (took[1], widths) == (str(model), [width]), "measured anew, whatever a cache knows"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tokens", "1"), "--tokens 1: must be at least 2"),
        (("--rounds", "0"), "--rounds 0: must be at least 1"),
        (("--threads", "0"), "--threads 0"),
        (("--model", "no such model"), "no such model"),
    ],
)
def test_a_refusal_is_one_line(capfd, arguments, says):
    assert run(*arguments) == 2
    assert says in capfd.readouterr().err.splitlines()[-1]


def test_a_format_that_there_is_not_is_refused_before_anything_is_loaded(capfd):
    with pytest.raises(SystemExit):
        run("--held", "int8,int3")
    assert "'int3': must be some of" in capfd.readouterr().err


def test_without_bitsandbytes_its_rows_are_refused_with_the_command_that_installs_it(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert run("--model", "no such model", "--quantization", "nf4") == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "quantization='nf4'" in last
    assert "pip install -r requirements-bnb.txt" in last


def test_a_way_to_pack_that_there_is_not_is_refused(capfd):
    with pytest.raises(SystemExit):
        run("--quantization", "nf4,gptq")
    assert "'gptq': must be some of nf4, int8" in capfd.readouterr().err
