"""B7: places are tried before the work, files are whole or not there, and what cannot be saved is put elsewhere."""

from __future__ import annotations

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
