"""The command line on a tiny model in a folder: text to stdout, the rest to stderr, refusals in one line."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pandas as pd
import pytest

from loopviz import outputs, text_file
from loopviz.cli import main
from loopviz.engine import StreamSettings, weights_digest
from loopviz.trace import file
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
    return main.main(["run", *map(str, arguments)])


def test_run_prints_the_text_and_the_table(folder, capfd, tmp_path):
    saved = tmp_path / "run.loopviz"
    code = run("--prompt", "Once 🙂 upon", "--model", folder, *LOOP, "--max-new-tokens", 12, "--save", saved)
    out, err = capfd.readouterr()
    assert code == 0
    trace = file.load(saved)
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


def test_the_closing_table_says_which_step_an_exit_gate_read_out(capfd, tmp_path):
    saved, asked = tmp_path / "run.loopviz", ["--prompt", "Once upon", "--model", "stories-loop", "--max-new-tokens", 3]
    assert run(*asked, "--exit-selection", "gate", "--exit-threshold", 0.2, "--save", saved) == 0
    steps = [frame["blocks"][0]["gate"]["read_out"] for frame in file.load(saved).frames]
    assert f"its exit gate read out step {sum(steps) / len(steps):.2f} on average" in capfd.readouterr().err
    assert run(*asked) == 0
    assert "exit gate" not in capfd.readouterr().err


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
        *("--cosine-threshold", "0.9,0.99", "--kl-threshold", "0.5", "--convergence-criterion", "both,huginn_kl"),
        *("--criterion-threshold", "0.0,0.25", "--unreached-slots", "latest", "--loop-final-norm", "none,every_step"),
        *("--loop-init", "random", "--loop-init-std", "0.5,0", "--loop-init-seed", "3,4", "--exit-threshold", "0.5"),
        *("--kv-cache-mode", "merge_strategy,virtual_layers", "--virtual-layer-count", "2"),
        *("--kv-cache-dtype", "int8,exact"),
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
    meta = file.load(saved).meta
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
        **{"template": "none", "input": ""},
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
        "convergence_criterion": ["both", "huginn_kl"],
        "criterion_threshold": [0.0, 0.25],
        "unreached_slots": "latest",
        "loop_final_norm": ["none", "every_step"],
        "loop_init": "random",
        "loop_init_std": [0.5, 0.0],
        "loop_init_seed": [3, 4],
        "exit_selection": "last",
        "exit_threshold": 0.5,
        "kv_cache_mode": ["merge_strategy", "virtual_layers"],
        "virtual_layer_count": 2,
        "kv_cache_dtype": ["int8", "exact"],
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
    assert main.main(["export", str(saved), "--csv", str(tmp_path / "csv"), "--json", str(tmp_path / "t.json")]) == 0
    trace = file.load(saved)
    assert trace.meta["settings"]["extras"] == ["exit", "attention"]
    rows = {name: len(pd.read_csv(tmp_path / "csv" / f"{name}.csv")) for name in ("steps", "exit", "keys", "attention")}
    positions = len(trace) * (len(trace) + 1) // 2
    assert rows == {"steps": 3 * len(trace), "exit": 3 * len(trace), "keys": 0, "attention": 2 * 3 * positions}
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["frames"] == trace.frames


def test_export_writes_python_and_a_notebook_of_the_run(folder, capfd, tmp_path):
    saved, script, book = (tmp_path / name for name in ("t", "again.py", "again.ipynb"))
    options = ("--max-new-tokens", 3, "--sample", "--seed", 4, "--save", saved)
    assert run("--prompt", "a dog", "--model", folder, *LOOP, *options) == 0
    capfd.readouterr()
    again = ["--python", str(script), "--notebook", str(book), "--model", str(folder), "--lang", "zh"]
    assert main.main(["export", str(saved), *again]) == 0
    names = {}
    exec(compile(script.read_text(encoding="utf-8"), "again.py", "exec"), names)
    trace = file.load(saved)
    assert names["trace"].text == trace.text == capfd.readouterr().out.removesuffix("\n")
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    assert any(str(folder) in "".join(cell["source"]) for cell in cells)
    assert "重新生成" in "".join(cells[0]["source"])
    assert main.main(["export", str(saved), "--json", str(tmp_path / "t.json"), "--model", "x"]) == 2
    assert "--model: no effect without --python or --notebook" in capfd.readouterr().err


def test_a_template_is_read_and_the_answer_alone_is_printed(folder, tmp_path, capfd):
    saved = tmp_path / "t.loopviz"
    asked = ("--prompt", "Add them.", "--template", "alpaca", "--input", "7", "--max-new-tokens", 3, "--save", saved)
    assert run("--model", folder, *asked) == 0
    out = capfd.readouterr().out
    trace = file.load(saved)
    prompt = "".join(frame["text"] for frame in trace.frames if frame["phase"] == "prompt")
    assert prompt.endswith("### Instruction:\nAdd them.\n\n### Input:\n7\n\n### Response:")
    assert "Instruction" not in out


def test_the_article_s_numbers_are_drawn_by_and_it_is_said_that_its_own_call_draws_nothing(folder, tmp_path, capfd):
    saved = tmp_path / "t.loopviz"
    asked = ("--prompt", "word", "--preset", "article", "--max-new-tokens", 2, "--seed", 3, "--save", saved)
    assert run("--model", folder, *asked) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "own call draws nothing, but searches over 4 beams" in said
    assert "--beams 4 makes that call" in said
    settings = file.load(saved).meta["settings"]
    drawn = {"do_sample": True, "temperature": 1.5, "top_k": 50, "top_p": 0.8, "seed": 3, "max_new_tokens": 2}
    assert drawn.items() <= settings.items()


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
        (["--prompt", "x", "--template", "chat"], "chat template"),
        (["--prompt", "x", "--template", "vicuna", "--chat"], "template='vicuna': chat=True is template='chat'"),
        (["--prompt", "x", "--input", "y"], "input='y': only template='alpaca'"),
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


@pytest.mark.parametrize("arguments", [["--loop-layers", "ten"], ["--loop-count", "x"], ["--dtype", "int4"]])
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
    assert main.main(["export", str(tmp_path / "x"), "--json", str(tmp_path / "y")]) == 2
    assert "not a trace file" in capfd.readouterr().err
    assert main.main(["export", str(tmp_path / "x")]) == 2
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
    assert len(file.load(saved)) == file.load(saved).meta["prompt_tokens"]


def test_help_does_not_wait_for_torch():
    code = "import sys, loopviz.cli.main as c\ntry: c.main(['run', '--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
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
    trace = file.load(saved)
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
    assert main.main(["run", "--model", str(folder), "--prompt", "a", "--loop-layers", "0-1", *asked]) == 2
    said = capfd.readouterr().err
    assert asked[0][2:].replace("-", "_") in said
    assert "trained" in said


# -- issue 10 ----------------------------------------------------------------------------------------------------------

PROMPT = ("--prompt", "a dog")


def test_b7_what_cannot_be_written_is_refused_before_a_model_is_loaded(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "load", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("my notes")
    for place, says in (
        ("folder", "is a folder"),
        ("notes.txt/x", "is no folder"),
        ("no/x", "there is no such folder"),
        ("notes.txt", "is no trace"),
    ):
        assert run(*PROMPT, "--save", place) == 2
        assert says in capfd.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "my notes"
    with pytest.raises(SystemExit):
        run(*PROMPT, "--save", "")
    assert "--save: empty" in capfd.readouterr().err
    (tmp_path / "t").write_bytes(b"PK")
    for arguments, says in (
        (["--csv", "notes.txt"], "--csv notes.txt: is a file"),
        (["--json", "folder"], "--json folder: is a folder"),
        (["--html", "no/x"], "--html no/x"),
        (["--python", "no/x"], "--python no/x"),
        (["--notebook", "folder"], "--notebook folder: is a folder"),
        (["--json", "t"], "--json t: is the file that is read"),
        (["--panel", "steps", "folder"], "--panel folder: is a folder"),
    ):
        assert main.main(["export", "t", *arguments]) == 2
        assert says in capfd.readouterr().err


def full_disk(path, *_):
    """Writes as to a full disk, but into a rescue folder."""
    if "loopviz-rescued" not in str(path):
        raise outputs.OutputError(f"{path}: cannot be written (No space left on device)")


def test_b7_a_trace_that_cannot_be_saved_at_the_end_is_put_elsewhere_and_named(folder, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    save = file.save
    monkeypatch.setattr(file, "save", lambda trace, path: full_disk(path) or save(trace, path))
    assert run(*PROMPT, "--model", folder, "--max-new-tokens", 3, "--save", tmp_path / "t") == 2
    out, err = capfd.readouterr()
    assert out.startswith("a dog")
    assert "3 new" in err, "the table comes first"
    told = err.splitlines()[-1]
    assert "No space left on device" in told
    assert len(file.load(told.partition("the trace is in ")[2].removesuffix(" instead"))) > 0


def test_b7_an_error_on_the_way_keeps_the_trace(folder, capfd, tmp_path, monkeypatch):
    import loopviz.engine

    stream = loopviz.engine.stream

    def blows_up(*args, **settings):
        for frame in stream(*args, **settings):
            if frame["phase"] == "generated":
                raise ValueError("its state has blown up")
            yield frame

    monkeypatch.setattr(loopviz.engine, "stream", blows_up)
    assert run(*PROMPT, "--model", folder, "--save", tmp_path / "t") == 2
    assert capfd.readouterr().err.splitlines()[-1] == "loopviz: its state has blown up"
    assert len(file.load(tmp_path / "t")) == file.load(tmp_path / "t").meta["prompt_tokens"]


def command_line(folder, tmp_path, *arguments, **how) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    command = [sys.executable, "-m", "loopviz", "run", *PROMPT, "--model", folder, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, **how
    )


def test_b9_sigterm_keeps_the_trace_and_exits_143(folder, tmp_path):
    long = ("--max-new-tokens", 250, "--save", "t", "--extras", "exit,keys,attention", *LOOP)
    with command_line(folder, tmp_path, *long, stdout=subprocess.PIPE) as process:
        process.stdout.read(8)  # it has begun to speak
        process.send_signal(signal.SIGTERM)
        told = process.communicate()[1].decode()
    assert process.returncode == 143, told
    assert "interrupted" in told
    assert "Traceback" not in told
    assert 0 < len(file.load(tmp_path / "t")) < 250


def test_b8_a_closed_stdout_ends_without_a_traceback_and_the_trace_is_saved(folder, tmp_path):
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    command = ["-m", "loopviz", "run", *PROMPT, "--model", folder, "--max-new-tokens", "2", "--save", "t"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(file.load(tmp_path / "t")) > 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_b8_a_full_stdout_is_told_in_one_line_and_the_trace_is_saved(folder, tmp_path):
    with (
        open("/dev/full", "w") as full,
        command_line(folder, tmp_path, "--max-new-tokens", 2, "--save", "t", stdout=full) as process,
    ):
        told = process.stderr.read().decode()
    assert process.returncode == 2
    assert told.splitlines()[-1] == "loopviz: stdout: cannot be written (No space left on device)"
    assert len(file.load(tmp_path / "t")) > 0


def test_b8_a_plain_llama_is_refused_by_name():
    from loopviz.engine import run as run_model
    from tests.conftest import make_llama

    with pytest.raises(ValueError, match=r"model=LlamaForCausalLM: no LoopLlama.*as_loop_llama"):
        run_model(make_llama(), tiny.tokenizer(), "a dog")


def test_b4_a_device_is_refused_by_name_in_every_command(folder, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("a dog and a cat\n" * 9)
    (tmp_path / "g.yaml").write_text(f"task: perplexity\nmodels: [{json.dumps(folder)}]\nparams: {{file: t.txt}}\n")
    for arguments in (
        ["run", *PROMPT, "--model", folder],
        ["eval", "perplexity", "--model", folder, "--file", "t.txt"],
        ["evaluate", folder, "--data", "t.txt"],
        ["sweep", "g.yaml", "--out", "r"],
        ["train", "arrows-loop", "--out", "new"],
    ):
        assert main.main([*arguments, "--device", "cuda:99"]) == 2
        err = capfd.readouterr().err
        assert "device='cuda:99'" in err
        assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.yaml", "t.txt"]


def test_b5_a_merge_of_ones_own_is_known_after_import(folder, capfd, tmp_path):
    from loopviz.model.merges import MERGES

    (tmp_path / "first_step_merge.py").write_text(
        "from loopviz.model.merges import register_merge\n"
        "@register_merge('first_step')\n"
        "def first_step(merged, new, step, alpha):\n"
        "    return new if merged is None else merged\n"
    )
    options = ("--model", folder, *LOOP, "--kv-cache-mode", "merge_strategy", "--merge-strategy", "first_step")
    assert run(*PROMPT, *options, "--max-new-tokens", 2) == 2
    assert "merge_strategy='first_step'" in capfd.readouterr().err
    try:
        added = ("--import", tmp_path / "first_step_merge.py")
        assert run(*PROMPT, *options, "--max-new-tokens", 2, *added) == 0, capfd.readouterr().err
    finally:
        MERGES.pop("first_step", None)
    (tmp_path / "bad.py").write_text("\n1 / 0\n")
    capfd.readouterr()
    assert run(*PROMPT, "--import", tmp_path / "bad.py") == 2
    assert capfd.readouterr().err == "loopviz: --import bad.py: bad.py, line 2: ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--merge-strategy", "last"), "--merge-strategy: no effect without --kv-cache-mode merge_strategy"),
        (("--cosine-threshold", "0.9"), "--cosine-threshold: no effect without --loop-strategy dynamic_stop"),
        (("--layer-threshold", "0.5"), "--layer-threshold: no effect without --layer-chooser"),
        (("--min-loop-count", "99"), "--min-loop-count: no effect without --loop-strategy dynamic_stop"),
        (
            ("--loop-strategy", "dynamic_stop", "--convergence-criterion", "kl", "--cosine-threshold", "0.9"),
            "--cosine-threshold: no effect without --loop-strategy dynamic_stop and a criterion that looks at the cosine",
        ),
        (("--kv-cache-mode", "merge_strategy", "--virtual-layer-count", "2"), "--virtual-layer-count: no effect under"),
        (("--change", "1:loop_count=2"), "--change 1:loop_count=2: token 1 is in the prompt"),
    ],
)
def test_c4_an_option_without_effect_is_told_in_one_line(folder, capfd, given, told):
    loop = LOOP[:2] if "dynamic_stop" in given else LOOP
    assert run(*PROMPT, "--model", folder, *loop, "--max-new-tokens", 2, *given) == 0
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("loopviz: note: ")]
    assert len(notes) == 1, notes
    assert told in notes[0]


def test_c4_what_has_an_effect_later_is_not_told(folder, capfd):
    later = ("--cosine-threshold", "0.9", "--change", "7:loop_strategy=dynamic_stop")
    assert run(*PROMPT, "--model", folder, *LOOP, "--max-new-tokens", 9, *later) == 0
    assert "note" not in capfd.readouterr().err


def test_c4_a_change_that_no_token_of_the_run_waits_for_is_refused(folder, capfd):
    assert run(*PROMPT, "--model", folder, *LOOP, "--max-new-tokens", 2, "--change", "500:loop_count=2") == 2
    assert "--change 500:loop_count=2: this run reads tokens 0 to" in capfd.readouterr().err


def test_c5_a_trace_names_the_model_without_its_folder_and_says_what_it_was_made_of(folder, capfd, tmp_path):
    from loopviz.engine import run as run_model
    from loopviz.engine import weights_digest
    from loopviz.model.checkpoints.load import load_checkpoint

    saved = tmp_path / "t"
    assert run(*PROMPT, "--model", folder, "--max-new-tokens", 2, "--save", saved) == 0
    meta = file.load(saved).meta
    assert meta["model"] == Path(folder).name
    assert meta["provenance"] == {
        "weights": weights_digest(load_checkpoint(folder).model),
        "device": "cpu",
        "dtype": "float32",
    }
    bundled = load_checkpoint("arrows-loop")
    settings = StreamSettings(max_new_tokens=1)
    meta = run_model(bundled.model, bundled.tokenizer, "a>b a?", settings).meta
    assert meta["model"] == "arrows-loop"
    assert str(Path.cwd()) not in json.dumps(meta)


def test_c7_words_that_the_model_has_not_are_named_and_its_help_shows_a_prompt(capfd):
    assert run("--prompt", "b>c f>a a>b c>d who f?", "--model", "arrows-loop", "--max-new-tokens", 2) == 0
    assert "note: prompt: 'who': not in the model's vocabulary, read as <unk>" in capfd.readouterr().err
    assert run("--prompt", "b>c f>a a>b c>d f?", "--model", "arrows-loop", "--max-new-tokens", 2) == 0
    assert "note" not in capfd.readouterr().err
    with pytest.raises(SystemExit):
        run("--help")
    assert "b>c f>a a>b c>d f?" in " ".join(capfd.readouterr().out.split())


def test_more_threads_than_a_machine_starts_are_refused_as_threads(capfd):
    for command in (["run", *PROMPT], ["train", "arrows-loop", "--out", "o"], ["evaluate", "m", "--data", "d"]):
        assert main.main([*command, "--threads", "100000"]) == 2
        assert "--threads 100000: at most" in capfd.readouterr().err


def test_the_help_of_an_option_names_what_people_have_registered(capsys):
    from loopviz.cli.options import loop_options
    from loopviz.model import MERGES, register_merge

    register_merge("of_mine")(lambda merged, new, step, alpha: new)
    try:
        with pytest.raises(SystemExit):
            main.main(["run", "--help"])
    finally:
        del MERGES["of_mine"]
    told = " ".join(capsys.readouterr().out.split())
    assert "how the steps' K/V become one entry: ema, average, last, first or of_mine" in told
    assert "of_mine" not in loop_options()["merge_strategy"][1]


def test_a_registered_name_with_a_percent_sign_does_not_end_the_help(capsys):
    """argparse fills places in help texts: `run --help` and `eval ablation --help` were a ValueError."""
    from loopviz.model import MERGES, register_merge

    register_merge("50%")(lambda merged, new, step, alpha: new)
    try:
        for command in (["run"], ["eval", "ablation"]):
            with pytest.raises(SystemExit) as ended:
                main.main([*command, "--help"])
            assert ended.value.code == 0
            told = " ".join(capsys.readouterr().out.split())
            assert "ema, average, last, first or 50%" in told
            assert "50%%" not in told
    finally:
        del MERGES["50%"]


def test_precision_is_said_in_the_trace_and_the_run_is_the_loaders(folder, capfd, tmp_path):
    from loopviz.engine import run as run_model
    from loopviz.model.checkpoints.load import load_checkpoint

    saved = tmp_path / "int8"
    assert run(*PROMPT, "--model", folder, *LOOP, "--max-new-tokens", 4, "--precision", "int8", "--save", saved) == 0
    trace = file.load(saved)
    loaded = load_checkpoint(folder, precision="int8", loop_layers=(1, 2), loop_count=3)
    expected = run_model(loaded.model, loaded.tokenizer, trace.meta["prompt"], StreamSettings(max_new_tokens=4))
    assert [frame["next_logprob"] for frame in trace.frames] == [frame["next_logprob"] for frame in expected.frames]
    assert trace.meta["provenance"]["dtype"] == "int8"
    assert trace.meta["shape"]["itemsize"] == 4  # keys and values stay float32
    exact = load_checkpoint(folder)
    assert trace.meta["provenance"]["weights"] != weights_digest(exact.model)


@pytest.mark.parametrize(
    ("precision", "says"),
    [("half", "say --dtype float16 or bfloat16"), ("int8", "layers of int8 run on the CPU alone")],
)
def test_a_precision_and_a_device_that_do_not_go_together(folder, capfd, monkeypatch, precision, says):
    import torch

    from loopviz.model import devices

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.resolve_device("cuda").type == "cuda"
    assert run(*PROMPT, "--model", folder, "--precision", precision, "--device", "cuda") == 2
    assert says in capfd.readouterr().err


def test_half_says_which_and_why(folder, capfd, own_cache, tmp_path):
    saved = tmp_path / "half"
    assert run(*PROMPT, "--model", folder, "--max-new-tokens", 1, "--precision", "half", "--save", saved) == 0
    found = file.load(saved).meta["provenance"]["dtype"]
    assert found in ("float16", "bfloat16")
    assert f"its weights are held in {found}, the quicker half on this machine" in capfd.readouterr().err
    assert list(own_cache.glob("*.json"))


@pytest.mark.parametrize(
    ("float32", "asked", "held", "said"),
    [
        (1.0, (), "float32", "held in float32: a token is expected to take"),
        (1e5, (), "float16", "held in float16: a token is expected to take"),
        (1e5, ("--dtype", "float32"), "float32", ""),
        (1e5, ("--precision", "exact"), "float32", ""),
    ],
)
def test_a_run_that_names_no_precision_is_exact_where_one_reads_along_and_says_so(
    folder, capfd, monkeypatch, tmp_path, float32, asked, held, said
):
    from loopviz.model.checkpoints import precision_choice

    known = {"float32": (float32, 2.0), "float16": (1.0, 1.0), "bfloat16": (3.0, 3.0), "int8": (2.0, 2.0)}
    monkeypatch.setattr(precision_choice, "times_of", lambda config: known)
    monkeypatch.setattr(precision_choice, "SMALL", 0)
    saved = tmp_path / "saved"
    assert run(*PROMPT, "--model", folder, "--max-new-tokens", 1, *asked, "--save", saved) == 0
    assert file.load(saved).meta["provenance"]["dtype"] == held
    err = capfd.readouterr().err
    assert said in err
    assert bool(said) == ("a token is expected" in err)


def test_a_run_of_a_small_model_is_exact_and_measures_nothing(folder, capfd, monkeypatch, tmp_path):
    from loopviz.model.checkpoints import precision_choice

    monkeypatch.setattr(precision_choice, "times_of", lambda config: pytest.fail("measured"))
    saved = tmp_path / "saved"
    assert run(*PROMPT, "--model", folder, "--max-new-tokens", 1, "--save", saved) == 0
    assert file.load(saved).meta["provenance"]["dtype"] == "float32"
    assert "precision" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "quantization", "device", "found"),
    [
        (None, None, "cpu", "auto"),
        ("float32", None, "cpu", None),
        (None, "nf4", "cpu", None),
        (None, None, "cuda", None),
    ],
)
def test_what_a_run_is_held_in_is_chosen_on_the_cpu_where_nothing_else_says_it(
    monkeypatch, dtype, quantization, device, found
):
    import torch

    from loopviz.cli.options import usual_precision

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert usual_precision(dtype, quantization, device) == found


def test_what_half_cannot_hold_is_exact_and_that_is_said(folder, capfd, monkeypatch, tmp_path):
    """On the page it was; on the command line weights became infinite."""
    from loopviz.model.checkpoints import precision_choice

    known = {"float32": (2.0, 2.0), "float16": (1.0, 1.0), "bfloat16": (3.0, 3.0)}
    monkeypatch.setattr(precision_choice, "times_of", lambda config: known)
    from loopviz.model.checkpoints import load_checkpoint

    large = load_checkpoint(folder).model
    large.model.layers[1].mlp.up_proj.weight.data[2, 3] = 1e6
    large.save_pretrained(tmp_path / "large")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "large" / name).write_bytes((Path(folder) / name).read_bytes())
    saved = tmp_path / "saved"
    asked = [*PROMPT, "--model", tmp_path / "large", "--max-new-tokens", 1, "--precision", "half", "--save", saved]
    assert run(*asked) == 0
    assert file.load(saved).meta["provenance"]["dtype"] == "float32"
    said = capfd.readouterr().err
    assert "weights beyond 65504" in said
    assert "it is held in float32 instead" in said


def test_a_dtype_and_a_precision_contradict_each_other(capfd):
    with pytest.raises(SystemExit) as refused:
        run("--prompt", "x", "--dtype", "float16", "--precision", "int8")
    assert refused.value.code == 2
    assert "not allowed with" in capfd.readouterr().err


def test_a_quantization_is_said_in_the_trace_and_the_run_is_the_loaders(folder, capfd, tmp_path):
    pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")
    import torch

    from loopviz.engine import run as run_model
    from loopviz.export.python_code import python_code
    from loopviz.model.checkpoints.load import load_checkpoint

    saved = tmp_path / "nf4"
    asked = [*PROMPT, "--model", folder, *LOOP, "--max-new-tokens", 4, "--save", saved]
    assert run(*asked, "--quantization", "nf4", "--dtype", "bfloat16") == 0
    assert "slower than floats on a CPU" in capfd.readouterr().err
    trace = file.load(saved)
    how = {"quantization": "nf4", "dtype": torch.bfloat16}
    loaded = load_checkpoint(folder, **how, loop_layers=(1, 2), loop_count=3)
    expected = run_model(loaded.model, loaded.tokenizer, trace.meta["prompt"], StreamSettings(max_new_tokens=4))
    assert [frame["next_logprob"] for frame in trace.frames] == [frame["next_logprob"] for frame in expected.frames]
    assert (trace.meta["provenance"]["dtype"], trace.meta["provenance"]["quantization"]) == ("bfloat16", "nf4")
    assert trace.meta["provenance"]["weights"] == weights_digest(loaded.model)
    assert "dtype=torch.bfloat16, quantization='nf4')" in python_code(trace)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--precision", "int8", "--quantization", "nf4"), "--precision int8, --quantization nf4: both say what"),
        (("--dtype", "int8", "--quantization", "int8"), "dtype=torch.int8, quantization='int8': what is not packed"),
        (("--quantization", "nf4"), "pip install -r requirements-bnb.txt"),
    ],
)
def test_a_quantization_that_cannot_be_had_is_refused_before_anything_is_loaded(capfd, monkeypatch, asked, says):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert run(*PROMPT, "--model", "no such model", *asked) == 2
    assert says in capfd.readouterr().err


def test_a_ttt_model_is_not_packed(capfd):
    assert run(*PROMPT, "--model", "stories-ttt", "--quantization", "nf4") == 2
    assert "--quantization nf4: a TTT model runs in float32 here" in capfd.readouterr().err
