"""The command line on a tiny model in a folder: text to stdout, the rest to stderr, refusals in one line."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from io import BytesIO, TextIOWrapper

import pandas as pd
import pytest

from loopviz import cli, text_file
from loopviz.engine import StreamSettings
from loopviz.trace import io
from tests.engine import tiny
from tests.engine.test_stream import generated

LOOP = ["--loop-layers", "1-2", "--loop-count", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny model")
    tiny.model(seed=1).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return str(path)


def run(*arguments) -> int:
    return cli.main(["run", *map(str, arguments)])


def test_run_prints_the_text_and_the_table(folder, capfd, tmp_path):
    saved = tmp_path / "run.loopviz"
    code = run("--prompt", "Once 🙂 upon", "--model", folder, *LOOP, "--max-new-tokens", 12, "--save", saved)
    out, err = capfd.readouterr()
    assert code == 0
    trace = io.load(saved)
    assert out == trace.text + "\n"
    assert out.startswith("Once 🙂 upon")
    settings = StreamSettings(max_new_tokens=12)
    expected = generated(tiny.model(seed=1, loop_layers=(1, 2), loop_count=3), settings, "Once 🙂 upon")
    assert [f["next_id"] for f in trace.frames[trace.meta["prompt_tokens"] - 1 :]] == expected
    last = trace.frames[-1]["kv"]
    for part in (
        "loops of layers 1-2",
        "mean 3.00, max 3",
        f"count {len(trace)}",
        "tokens/s by the clock",
        "in the model alone",
        "12 new",
        "max_new_tokens",
    ):
        assert part in err
    for name in ("bytes_used", "bytes_allocated", "bytes_plain", "bytes_unrolled"):
        assert f"{last[name]:,}" in err


@pytest.fixture
def stdin(monkeypatch):
    """Give bytes to standard input."""

    def give(data):
        text_file._stdin.cache_clear()
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data)))

    yield give
    text_file._stdin.cache_clear()


def test_a_prompt_from_stdin_is_read_as_a_text_file_is(folder, capfd, stdin):
    stdin(b"\xef\xbb\xbfOnce\r\nupon \xf0\x9f\x99\x82")
    assert run("--prompt", "-", "--model", folder, "--max-new-tokens", 2) == 0
    assert capfd.readouterr().out.startswith("Once\nupon 🙂")


def test_stdin_that_is_no_text_is_refused_as_the_prompt(folder, capfd, stdin):
    stdin(b"Once \xff")
    assert run("--prompt", "-", "--model", folder) == 2
    assert capfd.readouterr().err == (
        "loopviz: --prompt -: not a UTF-8 text (byte 5: invalid start byte); save it as UTF-8\n"
    )


def test_a_chat_template_that_refuses_ends_in_one_line(tmp_path, capfd):
    tiny.model(seed=1).save_pretrained(tmp_path)
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = "{{ raise_exception('System role required') }}"
    tokenizer.save_pretrained(tmp_path)
    capfd.readouterr()
    assert run("--prompt", "hi", "--chat", "--model", tmp_path) == 2
    error = capfd.readouterr().err
    assert "System role required" in error
    assert error.count("\n") == 1


def test_every_option_reaches_the_run(folder, capfd, tmp_path):
    saved = tmp_path / "t"
    code = run(
        *("--prompt", "a dog", "--model", folder, "--save", saved, "--threads", 1, "--dtype", "float64"),
        *(
            "--loop-layers",
            "0-1,3-4",
            "--loop-strategy",
            "dynamic_stop",
            "--max-loop-count",
            "7,8",
            "--min-loop-count",
            "2",
        ),
        *("--cosine-threshold", "0.9,0.99", "--kl-threshold", "0.5", "--convergence-criterion", "both"),
        *("--kv-cache-mode", "merge_strategy,virtual_layers", "--virtual-layer-count", "2"),
        *("--virtual-attention-mode", "serial", "--merge-strategy", "average", "--merge-ema-alpha", "0.5"),
        *("--loop-damping", "0.5", "--loop-injection", "add", "--loop-norm", "no"),
        *("--layer-chooser", "influence,none", "--layer-threshold", "0.2,5"),
        *(
            "--max-new-tokens",
            3,
            "--sample",
            "--temperature",
            0.5,
            "--top-k",
            9,
            "--top-p",
            0.8,
            "--min-p",
            0.1,
            "--seed",
            4,
        ),
        *("--repetition-penalty", 1.1, "--no-record", "--top-tokens", 3),
    )
    assert code == 0, capfd.readouterr().err
    meta = io.load(saved).meta
    assert meta["settings"] == {
        **{
            "max_new_tokens": 3,
            "do_sample": True,
            "temperature": 0.5,
            "top_k": 9,
            "top_p": 0.8,
            "min_p": 0.1,
            "seed": 4,
        },
        **{"repetition_penalty": 1.1, "record": "off", "top_tokens": 3, "chat": False, "extras": []},
    }
    assert meta["shape"]["itemsize"] == 8
    loop = meta["loop"]
    assert loop.pop("loop_count") == 3
    assert loop == {
        "loop_layers": [[0, 1], [3, 4]],
        "loop_strategy": "dynamic_stop",
        "max_loop_count": [7, 8],
        "min_loop_count": 2,
        "cosine_threshold": [0.9, 0.99],
        "kl_threshold": 0.5,
        "convergence_criterion": "both",
        "kv_cache_mode": ["merge_strategy", "virtual_layers"],
        "virtual_layer_count": 2,
        "virtual_attention_mode": "serial",
        "merge_strategy": "average",
        "merge_ema_alpha": 0.5,
        "loop_damping": 0.5,
        "loop_injection": "add",
        "loop_norm": False,
        "layer_chooser": ["influence", "none"],
        "layer_threshold": [0.2, 5.0],
    }


def test_export(folder, capfd, tmp_path):
    saved = tmp_path / "t"
    options = ("--max-new-tokens", 2, "--extras", "attention, exit", "--save", saved)
    assert run("--prompt", "a dog", "--model", folder, *LOOP, *options) == 0
    assert cli.main(["export", str(saved), "--csv", str(tmp_path / "csv"), "--json", str(tmp_path / "t.json")]) == 0
    trace = io.load(saved)
    assert trace.meta["settings"]["extras"] == ["exit", "attention"]
    rows = {name: len(pd.read_csv(tmp_path / "csv" / f"{name}.csv")) for name in ("steps", "exit", "keys", "attention")}
    positions = len(trace) * (len(trace) + 1) // 2
    assert rows == {"steps": 3 * len(trace), "exit": 3 * len(trace), "keys": 0, "attention": 2 * 3 * positions}
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["frames"] == trace.frames


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", ""], "prompt: empty"),
        (["--prompt", "x", "--loop-layers", "3-9"], "layer 9 is not in a 5-layer model"),
        (["--prompt", "x", "--loop-layers", "1-2", "--loop-count", "0"], "loop_count=0"),
        (["--prompt", "x", "--loop-count", "3"], "--loop-count: no effect without --loop-layers"),
        (["--prompt", "x", "--top-p", "0.5"], "--top-p: no effect without --sample"),
        (["--prompt", "x", "--sample", "--temperature", "nan"], "temperature=nan"),
        (["--prompt", "x", "--max-new-tokens", "0"], "max_new_tokens=0"),
        (["--prompt", "x", "--chat"], "chat template"),
        (["--prompt", "x", "--extras", "exit,smell"], "extras=('exit', 'smell')"),
        (["--prompt", "x", "--extras", "exit", "--no-record"], "record='off'"),
        (["--prompt", "x", "--threads", "0"], "--threads 0"),
        (["--prompt", "x", "--save", "/no/such/folder/t"], "/no/such/folder"),
        (["--prompt", "word " * 400], "context is 256 tokens"),
        (
            ["--prompt", "x", "--loop-layers", "1-2", "--loop-strategy", "dynamic_stop", "--kl-threshold", "inf"],
            "kl_threshold=inf",
        ),
    ],
)
def test_a_refusal_is_one_line(folder, capfd, arguments, says):
    assert run("--model", folder, *arguments) == 2
    out, err = capfd.readouterr()
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("loopviz: ")
    assert out == ""


@pytest.mark.parametrize("arguments", [["--loop-layers", "ten"], ["--loop-count", "x"], ["--dtype", "int8"]])
def test_malformed_options_are_refused_before_anything_is_loaded(capfd, arguments):
    with pytest.raises(SystemExit) as refused:
        run("--prompt", "x", *arguments)
    assert refused.value.code == 2
    assert arguments[0] in capfd.readouterr().err


def test_a_model_that_is_not_there(capfd, tmp_path):
    assert run("--prompt", "x", "--model", tmp_path / "none") == 2
    assert "none" in capfd.readouterr().err


def test_export_refuses_what_is_no_trace(tmp_path, capfd):
    (tmp_path / "x").write_bytes(b"PK nonsense")
    assert cli.main(["export", str(tmp_path / "x"), "--json", str(tmp_path / "y")]) == 2
    assert "not a trace file" in capfd.readouterr().err
    assert cli.main(["export", str(tmp_path / "x")]) == 2
    assert "--csv" in capfd.readouterr().err
    assert not (tmp_path / "y").exists()


def test_ctrl_c_keeps_what_was_made(folder, capfd, tmp_path, monkeypatch):
    import loopviz.engine

    def interrupted(*args, **settings):
        for frame in stream(*args, **settings):
            if frame["phase"] == "generated":
                raise KeyboardInterrupt
            yield frame

    stream = loopviz.engine.stream
    monkeypatch.setattr(loopviz.engine, "stream", interrupted)
    saved = tmp_path / "t"
    assert run("--prompt", "a dog", "--model", folder, *LOOP, "--save", saved) == 130
    assert "interrupted" in capfd.readouterr().err
    assert len(io.load(saved)) == io.load(saved).meta["prompt_tokens"]


def test_help_does_not_wait_for_torch():
    code = "import sys, loopviz.cli as c\ntry: c.main(['run', '--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--loop-layers" in done.stdout


def test_a_closed_pipe_ends_quietly(folder):
    command = [sys.executable, "-m", "loopviz", "run", "--prompt", "a dog", "--model", folder, "--max-new-tokens", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait() == 0
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_loop_is_changed_on_the_way(folder, tmp_path, capfd):
    saved = tmp_path / "run.loopviz"
    asked = ("--change", "4:loop-count=5", "--change", "4:loop_damping=0.5", "--change", "6:loop_count=2")
    words = ("--prompt", "a dog", "--model", folder, "--max-new-tokens", 8, "--loop-layers", "1-2", "--save", saved)
    assert run(*words, *asked) == 0, capfd.readouterr().err
    trace = io.load(saved)
    assert [(change["index"], change["loop"]) for change in trace.meta["changes"]] == [
        (4, {"loop_count": 5, "loop_damping": 0.5}),
        (6, {"loop_count": 2}),
    ]
    counts = [frame["blocks"][0]["n_steps"] for frame in trace.frames]
    assert counts == [3] * 4 + [5] * 2 + [2] * (len(trace) - 6)
    assert run(*words, "--change", "4:virtual_layer_count=2") == 2
    assert "start a new run" in capfd.readouterr().err
    for wrong in ("loop_count=2", "4:loops=2", "x:loop_count=2", "4:loop_count=many"):
        with pytest.raises(SystemExit):
            run(*words, "--change", wrong)


@pytest.mark.parametrize("asked", [["--loop-injection", "linear"], ["--loop-norm", "yes"]])
def test_a_loop_with_weights_nobody_trained_is_refused(folder, capfd, asked):
    """researcher A2: `run --loop-injection linear` ran an untrained injection, exit 0, no warning."""
    assert cli.main(["run", "--model", str(folder), "--prompt", "a", "--loop-layers", "0-1", *asked]) == 2
    said = capfd.readouterr().err
    assert asked[0][2:].replace("-", "_") in said
    assert "trained" in said
