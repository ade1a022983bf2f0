"""`loopviz anatomy stages`: a layer of a saved run, and that it is the run's."""

from __future__ import annotations

import pytest

from loopviz.anatomy import stages
from loopviz.cli import main
from loopviz.engine import StreamSettings
from loopviz.engine import run as run_model
from loopviz.paths import ASSETS
from loopviz.trace.file import save
from tests.engine import tiny

FIRST = ASSETS / "runs" / "first.loopviz"


def run(*arguments: object) -> int:
    return main.main(["anatomy", "stages", *map(str, arguments)])


def saved(tmp_path, seed: int = 0, record: str = "full", **loop):
    model = tiny.model(seed=seed, **loop)
    folder, path = tmp_path / f"model-{seed}", tmp_path / f"run-{seed}.loopviz"
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    settings = StreamSettings(max_new_tokens=4, record=record)
    save(run_model(model, tiny.tokenizer(), "Once upon a time", settings), path)
    return folder, path


def test_the_recorded_run_is_read_again_and_is_the_runs(capfd):
    assert run(FIRST, "--token", 21) == 0
    out, err = capfd.readouterr()
    assert "the run's: as many loop steps for the same reason" in out
    assert [line.split()[0] for line in out.splitlines()[4:]] == [stage.name for stage in stages.STAGES]
    assert "token 21" in out
    assert "loop step" in out
    assert "of memory" in err


def test_another_models_weights_are_told_from_the_runs(tmp_path, capfd):
    loop = {"loop_layers": (1, 2), "loop_count": 3}
    folder, path = saved(tmp_path, 0, **loop)
    other, _ = saved(tmp_path, 1, **loop)
    assert run(path, "--model", folder, "--layer", 1, "--step", 2) == 0
    assert "layer 1, loop step 2" in capfd.readouterr().out
    assert run(path, "--model", other) == 1
    assert "not the run's" in capfd.readouterr().out


def test_a_token_of_which_no_number_was_recorded_is_neither_said_to_be_the_runs_nor_not(tmp_path, capfd):
    folder, path = saved(tmp_path, record="off")
    assert run(path, "--model", folder, "--token", 1) == 0
    said = capfd.readouterr().out
    assert "not checked: " in said
    assert "no number of this token was recorded" in said
    other, _ = saved(tmp_path, 1)
    assert run(path, "--model", other, "--token", 1) == 0
    assert run(path, "--model", other) == 1  # of the last there is the next token's log-probability


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--token", 99), "position=99: must be one of the run's tokens, 0 to"),
        (("--layer", 5), "--layer 5: must be one of the model's, 0 to 4"),
        (("--layer", 1, "--step", 4), "--step 4: of layer 1 and token"),
        (("--layer", 0, "--step", 1), "it does not loop; leave --step out"),
        (("--model", "glassbox"), "the run was made by a model with"),
        (("--threads", 0), "--threads 0"),
    ],
)
def test_what_is_outside_the_run_is_refused(tmp_path, capfd, options, said):
    folder, path = saved(tmp_path, loop_layers=(1, 2), loop_count=3)
    model = () if "--model" in options else ("--model", folder)
    assert run(path, *model, *options) != 0
    assert said in capfd.readouterr().err


def test_a_file_that_is_no_run_is_refused(tmp_path, capfd):
    path = tmp_path / "x.loopviz"
    path.write_bytes(b"no run")
    assert run(path) != 0
    assert "loopviz" in capfd.readouterr().err
