"""`run` of a TTT model: its text, its table; what has no effect on it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopviz
from loopviz.cli import main
from loopviz.cli.ttt import is_ttt, table
from loopviz.engine.engine import TTTRequest
from loopviz.engine.provenance import weights_digest
from loopviz.engine.ttt_local import load_ttt
from loopviz.panels.ttt import TTT_PANELS
from loopviz.trace import Trace
from loopviz.trace.file import load, save
from tests.engine import tiny, tiny_ttt
from tests.engine.test_ttt_stream import made, numbers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("ttt")
    tiny_ttt.model().save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    return str(place)


def run(*arguments: object) -> int:
    return main.main(["run", *map(str, arguments)])


def test_the_text_is_the_engine_s_and_the_table_is_on_stderr(folder: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--prompt", "Once upon", "--model", folder, "--max-new-tokens", 7) == 0
    out, err = capfd.readouterr()
    handle = load_ttt(folder, lambda *_: None, True).start(TTTRequest("Once upon", {"max_new_tokens": 7}))
    trace = Trace(handle.meta, handle.frames)
    assert out == trace.text + "\n"
    assert table(trace).splitlines()[1:-1] == err.splitlines()[-3:-1]
    assert "4 a mini-batch" in err


def test_a_saved_run_is_exported_like_any_other(folder: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.loopviz"
    assert run("--prompt", "Once upon", "--model", folder, "--max-new-tokens", 5, "--save", file) == 0
    assert f"trace saved: {file}" in capfd.readouterr().err
    trace = load(file)
    digest = weights_digest(load_ttt(folder, lambda *_: None, True).model)
    assert trace.meta["provenance"] == {"weights": digest, "device": "cpu", "dtype": "float32"}
    csv, page, panel = tmp_path / "csv", tmp_path / "a.html", tmp_path / "drift.csv"
    told = ["--csv", csv, "--html", page, "--lang", "zh", "--panel", "drift", panel]
    assert main.main(["export", str(file), *map(str, told)]) == 0
    assert len((csv / "ttt.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(trace.ttt)
    assert TTT_PANELS["drift"].TEXTS["zh"]["title"] in page.read_text(encoding="utf-8")
    assert len(panel.read_text(encoding="utf-8").splitlines()) == 1 + len(trace)
    assert loopviz.explore(trace).page.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["export", "{file}", "--python", "x.py"], "--python: not of a TTT run"),
        (["export", "{file}", "--notebook", "x.ipynb", "--python", "x.py"], "--python, --notebook: not of a TTT run"),
        (
            ["export", "{file}", "--panel", "convergence", "x.csv"],
            "panel='convergence': there is no such panel; there are inner_",
        ),
        (["anatomy", "stages", "{file}"], "run.loopviz: a run of a TTT model, whose layers have other stages"),
    ],
)
def test_what_there_is_of_runs_of_loops_alone_is_refused_by_name(
    given: list[str], said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    save(made(), tmp_path / "run.loopviz")
    assert main.main([part.format(file="run.loopviz") for part in given]) == 2
    assert said in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.loopviz"]


def test_the_table_s_numbers_are_the_run_s() -> None:
    trace = made()
    for layer, line in enumerate(table(trace).splitlines()[1:3]):
        shown = line.split()
        assert int(shown[0]) == layer
        for place, name in ((1, "loss_before"), (2, "loss_after"), (5, "lr")):
            assert float(shown[place]) == pytest.approx(numbers(trace, name)[layer].mean(), rel=1e-2)
        assert float(shown[3]) == pytest.approx(numbers(trace, "drift")[layer, :, -1].mean(), rel=1e-3)
        start = np.mean(trace.meta["ttt"]["start_norm"][layer])
        assert shown[4] == f"{numbers(trace, 'drift')[layer, :, -1].mean() / start:.0%}"


def test_at_a_rate_of_nothing_nothing_moves(folder: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--prompt", "Once", "--model", folder, "--max-new-tokens", 3, "--inner-lr", 0) == 0
    assert all(line.split()[3:6] == ["0", "0%", "0"] for line in capfd.readouterr().err.splitlines()[-3:-1])


def test_an_inner_loss_that_is_no_number_ends_the_run_with_what_there_is(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, ids = tiny_ttt.model(tie_word_embeddings=False), tiny.tokenizer()("Once upon a time there was")["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[ids[9]] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    tiny.tokenizer().save_pretrained(tmp_path / "broken")
    file, at = tmp_path / "run.loopviz", ids.index(ids[9])
    told = ["--prompt", "Once upon a time there was", "--model", tmp_path / "broken", "--save", file]
    assert run(*told) == 2
    err = capfd.readouterr().err
    assert f"inner_loss=nan: is no number any more at layer 0, head 0, token {at} " in err
    assert f"{at - at % 4} tokens read" in err
    assert len(load(file)) == at - at % 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--loop-count", "3"], "--loop-count: no effect on a TTT model"),
        (["--change", "3:loop_count=2"], "--change: no effect on a TTT model"),
        (["--extras", "exit"], "--extras: no effect on a TTT model"),
        (["--chat"], "--chat: no effect on a TTT model"),
        (["--dtype", "bfloat16"], "--dtype bfloat16: a TTT model runs in float32"),
        (["--inner-lr", "-1"], "--inner-lr=-1.0: must be"),
        (["--inner-lr", "nan"], "--inner-lr=nan: must be"),
    ],
)
def test_what_has_no_effect_is_refused_by_name(
    folder: str, given: list[str], said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--prompt", "Once", "--model", folder, *given) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_model_that_loops_has_no_inner_rate(capfd: pytest.CaptureFixture[str]) -> None:
    assert not is_ttt("stories-loop")
    assert is_ttt("stories-ttt")
    assert run("--prompt", "Once", "--model", "stories-loop", "--inner-lr", 1) == 2
    assert "no effect, stories-loop is no TTT model" in capfd.readouterr().err
