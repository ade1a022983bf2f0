"""B7: places are tried before the work, files are whole or not there, and what cannot be saved is put elsewhere."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from loopviz import outputs
from loopviz.outputs import OutputError, check_file, check_folder, check_free, replacing, rescue, write


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_place_that_is_free_is_let_through_and_left_as_it_was(here):
    check_file(Path("new.json"), "--json")
    check_file(Path("a/b/new"), "--out", parents=True)
    check_folder(Path("a/b"), "--csv", ["x.csv"])
    check_folder(Path("."), "--csv")
    check_file(Path(os.devnull), "--json")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("folder", "--save folder: is a folder; name a file"),
        ("none/x", "there is no such folder"),
        ("file/x", "is no folder"),
        ("x" * 300, "cannot be written (File name too long)"),
        ("a\0b", "cannot be written (embedded null byte)"),
        ("read", "is the file that is read"),
        ("link", "is the file that is read"),
    ],
)
def test_a_file_that_could_not_be_written_is_refused_by_option_and_path(here, path, says):
    (here / "folder").mkdir()
    (here / "file").write_text("")
    (here / "read").write_text("text")
    (here / "link").symlink_to("read")
    with pytest.raises(OutputError) as refused:
        check_file(Path(path), "--save", inputs=[Path("read"), None])
    assert says in str(refused.value)
    assert str(refused.value).startswith("--save")
    assert (here / "read").read_text() == "text"


def test_a_full_disk_and_a_folder_that_may_not_be_written_are_noticed(here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(outputs.os, "write", full)
        with pytest.raises(OutputError, match=r"takes no more \(No space left on device\)"):
            check_file(Path("x"), "--save")
    with monkeypatch.context() as patch:
        patch.setattr(outputs.tempfile, "mkstemp", lambda **_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
        with pytest.raises(OutputError, match=r"cannot be written to \(Read-only\)"):
            check_folder(Path("new/deep"), "--csv")
    assert list(here.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(here):
    (here / "file").write_text("")
    with pytest.raises(OutputError, match="--csv file: is a file; name a folder"):
        check_folder(Path("file"), "--csv")
    with pytest.raises(OutputError, match="is a file, no folder"):
        check_folder(Path("file/deep"), "--csv")
    with pytest.raises(OutputError, match="is a file, no folder"):
        check_file(Path("file/a/b"), "--out", parents=True)


def test_what_is_not_ours_is_not_written_over(here):
    (here / "a.csv").write_text("mine")
    check_free([Path("b.csv")], "--out", "of another task")
    with pytest.raises(OutputError, match=r"--out: a.csv is there already, of another task; .*--force"):
        check_free([Path("b.csv"), Path("a.csv")], "--out", "of another task")


def test_a_file_is_whole_or_as_it_was(here):
    write("x", b"old")
    with pytest.raises(ZeroDivisionError), replacing("x") as part:
        part.write_bytes(bytes([1 // 0]))
    assert (here / "x").read_bytes() == b"old"
    told = r"^x: cannot be written \(No space left on device\)$"
    with pytest.raises(OutputError, match=told), replacing("x") as part:
        full(part.write_bytes(b"ne"))
    assert [path.name for path in here.iterdir()] == ["x"]
    with pytest.raises(OutputError, match="no/x: cannot be written"):
        write("no/x", b"")
    write("x", b"new")
    assert (here / "x").read_bytes() == b"new"


def test_a_link_is_written_through_a_device_is_not_replaced_and_modes_are_kept(here):
    (here / "real").write_text("")
    (here / "real").chmod(0o600)
    (here / "link").symlink_to("real")
    write("link", b"new")
    assert (here / "link").is_symlink()
    assert (here / "real").read_bytes() == b"new"
    assert (here / "real").stat().st_mode & 0o777 == 0o600
    write(os.devnull, b"gone")
    assert not Path(os.devnull).is_file()
    before = os.umask(0o027)
    try:
        write("other", b"")
    finally:
        os.umask(before)
    assert (here / "other").stat().st_mode & 0o777 == 0o640


def test_what_libraries_raise_for_a_full_disk_is_recognised():
    for error in (Exception("No space left on device (os error 28)"), RuntimeError("unexpected pos 10816 vs 10710")):
        with pytest.raises(OutputError, match="model: cannot be written"), outputs.naming("model"):
            raise error
    with pytest.raises(ZeroDivisionError), outputs.naming("model"):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), outputs.naming("model"):
        Path("data.txt").read_text()  # another file's error is not the model's


def test_what_cannot_be_saved_is_put_elsewhere(here, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    place = rescue(Path("full/run.loopviz"), lambda path: path.write_bytes(b"trace"))
    assert place is not None
    assert place.name == "run.loopviz"
    assert place.read_bytes() == b"trace"
    assert rescue(Path("full/run.loopviz"), full) is None


def test_an_output_error_is_what_both_kinds_of_callers_catch():
    assert issubclass(OutputError, OSError)
    assert issubclass(OutputError, ValueError)
    assert str(OutputError("a: b")) == "a: b"


def test_a_disk_that_fills_leaves_no_half_file(here):
    """The system's own limit on a file's size stands for a full disk."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from loopviz import outputs\n"
        "try: outputs.write('x', bytes(9999))\n"
        "except OSError as error: print(error)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout == "x: cannot be written (File too large)\n"
    assert list(here.iterdir()) == []


# -- M5 saved_table_is_replaced_by_half_a_table: kills, and what they leave ------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a trial is a forked process")
def test_saved_table_is_replaced_by_half_a_table_files_of_every_kind_are_old_or_new_after_a_kill(here):
    """Processes that save in a loop are killed at random moments: 26 times, every kind of file twice."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "tests.saving", str(here), "26", str(os.getpid())],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    assert "26 kills" in done.stdout


def left_by(folder: Path, prefix: str = ".loopviz-") -> Path:
    """What a process that is gone has left in a folder."""
    code = f"from loopviz import outputs; import tempfile; print(tempfile.mkdtemp(prefix=outputs._mark({prefix!r}), dir={str(folder)!r}))"
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    return Path(done.stdout.strip())


@pytest.mark.parametrize(
    "write_there",
    [
        lambda: write("new", b"x"),
        lambda: check_file(Path("new"), "--save"),
        lambda: check_folder(Path("."), "--csv"),
        lambda: outputs.filling(".").__enter__(),
        lambda: outputs.scratch_folder(),
        lambda: outputs.sweep("."),
    ],
)
def test_what_a_kill_left_is_swept_by_the_next_that_writes_there(here, monkeypatch, write_there):
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    gone = left_by(here)
    (gone / "half").write_text("a half")
    with replacing("mine") as part:
        write_there()
        assert not gone.exists()
        assert part.exists(), "of a process that is at work"


def test_visitors_texts_that_a_killed_server_left_are_swept_at_the_start(here, monkeypatch):
    """L13."""
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    mine = outputs.scratch_folder()
    gone = left_by(here, "loopviz-lab-")
    (gone / "text.txt").write_text("a visitor's")
    from loopviz.app import main

    class Page:
        def __getattr__(self, name):
            raise InterruptedError  # far enough

    with pytest.raises(InterruptedError):
        main.launch(Page())
    assert (gone.exists(), mine.exists()) == (False, True)


def test_only_what_is_ours_and_old_is_swept_where_it_is_not_known_whose_it_is(here):
    """Of an older LoopViz, or of another machine that writes to the same folder."""
    names = ["loopviz-lab-abcd1234", ".loopviz-abcd1234.part", ".loopviz-0123abcd-77-abcd1234.part"]
    others = ["loopviz-rescued-abcd1234", ".loopviz-mine", "loopviz-lab-of-mine", ".loopvizrc"]
    for name in [*names, *others]:
        (here / name).write_text("")
    outputs.sweep(here)
    assert {path.name for path in here.iterdir()} == {*names, *others}
    for name in [*names, *others]:
        os.utime(here / name, (1e9, 1e9))
    outputs.sweep(here)
    assert {path.name for path in here.iterdir()} == {*others}


def test_a_folder_is_filled_with_whole_files_and_what_is_there_besides_stays(here):
    (here / "kept.txt").write_text("kept")
    (here / "card.md").write_text("mine")
    with outputs.filling(here, keep=["card.md"]) as part:
        assert part.name == here.name, "some libraries write the folder's name into a file"
        (part / "deep").mkdir()
        for name in ("new.txt", "card.md", "deep/x"):
            (part / name).write_text("new")
    files = {str(path.relative_to(here)): path.read_text() for path in here.rglob("*") if path.is_file()}
    assert files == {"kept.txt": "kept", "card.md": "mine", "new.txt": "new", "deep/x": "new"}
    with pytest.raises(ZeroDivisionError), outputs.filling(here / "none") as part:
        (part / "half").write_text(str(1 // 0))
    assert not (here / "none").exists()
    told = r"^none: cannot be written \(No space left on device\)$"
    with pytest.raises(OutputError, match=told), outputs.filling("none") as part:
        full((part / "half").write_text("x"))
    assert not (here / "none").exists()
    (here / "file").write_text("")
    with pytest.raises(OutputError, match="file"), outputs.filling("file"):
        pass


def test_a_disk_that_is_full_only_when_it_must_have_the_bytes_leaves_the_old_file(here, monkeypatch):
    write("x", b"old")
    monkeypatch.setattr(outputs.os, "fsync", full)
    with pytest.raises(OutputError, match=r"^x: cannot be written \(No space left on device\)$"):
        write("x", b"new")
    assert {path.name: path.read_bytes() for path in here.iterdir()} == {"x": b"old"}


WRITES = {
    "write_text",
    "write_bytes",
    "to_csv",
    "to_parquet",
    "to_excel",
    "write_html",
    "write_image",
    "save_pretrained",
    "save_file",
    "savez",
    "savez_compressed",
    "tofile",
    "open_memmap",
    "copyfile",
    "copy2",
    "copytree",
    "move",
    "rename",
    "mkstemp",
    "mkdtemp",
    "NamedTemporaryFile",
    "TemporaryDirectory",
    "symlink_to",
}
WRITES_OF = {("json", "dump"), ("torch", "save"), ("np", "save"), ("os", "replace"), ("os", "open"), ("pickle", "dump")}
INSIDE = {"replacing", "filling", "scratch"}  # of loopviz.outputs
# What may write without them, and why.
DIRECT = {
    "cli/main.py": {"_open_streams": "to nowhere", "_mute_stdout": "to nowhere", "_export": "calls our own"},
    "csv_file.py": {"table_bytes": "into memory"},
    "export/panel_table.py": {"panel_file": "into memory"},
    "lab/experiment.py": {"file_of": "into memory", "save": "inside replacing, three of them on a stack"},
    "lab/tasks/loop_use.py": dict.fromkeys(["distribution", "means"], "a column's name"),
    "lab/sweep.py": {
        "_append": "adds a line to a growing file; half a line is taken off",
        "read_results": "takes off half a line",
    },
    "train/state.py": {"add": "adds rows to a growing file; half a row is left out when it goes on"},
    "model/checkpoints/tokenizer.py": {"save_pretrained": "transformers' own call, of whoever gives the folder"},
    "model/modeling.py": {"save_pretrained": "transformers' own call, of whoever gives the folder"},
    "model/checkpoints/smollm2_wheel.py": dict.fromkeys(
        ["_make", "_pip_download", "unpack", "convert"], "in a folder that is put in its place when it is whole"
    ),
    "store/mirror.py": {"fetch": "moves what was there aside"},
    "app/lab/form.py": {"_keep": "in a folder for temporary files, which is swept"},
}


def direct_writes(path: Path, package: Path) -> list[str]:
    """Calls in a module that write files and do not stand inside `outputs.replacing` or the like."""
    tree, found = ast.parse(path.read_text("utf-8")), []
    allowed = DIRECT.get(path.relative_to(package).as_posix(), {})

    def name_of(call: ast.expr) -> tuple[str, str]:
        if isinstance(call, ast.Attribute):
            return getattr(call.value, "id", ""), call.attr
        return "", getattr(call, "id", "")

    def mode_of(call: ast.Call, name: str, owner: str) -> str:
        place = 1 if (owner, name) in {("", "open"), ("io", "open")} else 0
        given = [word.value for word in call.keywords if word.arg == "mode"] or call.args[place : place + 1]
        return (
            "".join(str(part.value) for part in ast.walk(given[0]) if isinstance(part, ast.Constant)) if given else ""
        )

    def walk(node: ast.AST, function: str, safe: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                walk(item, function, safe)
                call = item.context_expr
                if isinstance(call, ast.Call) and name_of(call.func)[1] in INSIDE:
                    safe = True
            for part in node.body:
                walk(part, function, safe)
            return
        if isinstance(node, ast.Call):
            owner, name = name_of(node.func)
            writes = name in WRITES or (owner, name) in WRITES_OF
            writes = writes or (name == "open" and bool(set("wax+") & set(mode_of(node, name, owner))))
            if owner == "outputs" and name == "write_text":
                writes = False
            if writes and not safe and function not in allowed:
                found.append(f"{path.relative_to(package)}:{node.lineno}: {function}: {name}")
        for child in ast.iter_child_nodes(node):
            walk(child, function, safe)

    walk(tree, "", False)
    return found


def test_no_module_writes_a_file_in_place():
    """Whoever writes a file does it inside `outputs.replacing`; the exceptions are told above, with their reasons."""
    package = Path(outputs.__file__).parent
    files = [path for path in package.rglob("*.py") if path.name != "outputs.py"]
    assert len(files) > 100
    assert [line for path in files for line in direct_writes(path, package)] == []


@pytest.mark.parametrize(
    "code",
    [
        "open(p, 'w')",
        "p.open(mode='ab')",
        "p.open('r+b')",
        "p.write_text('x')",
        "io.open(p, 'x')",
        "json.dump(1, f)",
        "model.save_pretrained(p)",
        "table.to_csv(p)",
        "open(p, 'w' if x else 'r')",
        "with outputs.naming(p): p.write_bytes(b'')",
    ],
)
def test_a_new_direct_write_would_be_found(here, code):
    (here / "module.py").write_text(f"def f(p, f, x, model, table):\n    {code}\n")
    assert len(direct_writes(here / "module.py", here)) == 1


@pytest.mark.parametrize("code", ["open(p)", "p.open('rb')", "with outputs.replacing(p) as q: q.write_text('x')"])
def test_reading_and_safe_writing_are_let_through(here, code):
    (here / "module.py").write_text(f"def f(p):\n    {code}\n")
    assert direct_writes(here / "module.py", here) == []
