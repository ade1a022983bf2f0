"""B5: modules of one's own, by name or by file; what is wrong with them is told with their line."""

from __future__ import annotations

import sys

import pytest

from loopviz import imports


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(imports, "_loaded", {})
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_what_is_named_is_found_before_anything_is_parsed():
    arguments = ["run", "--import", "a", "--prompt=--import", "--import=b.py", "--", "--import", "c"]
    assert imports.named(arguments) == ["a", "b.py"]
    assert imports.named(["run", "--import"]) == []


def test_a_module_and_a_file_are_imported_once(here):
    (here / "mine_by_name.py").write_text("import mine_beside\n")
    (here / "mine_beside.py").write_text("")
    (here / "deep").mkdir()
    (here / "deep" / "mine_file.py").write_text("import mine_helper\nruns = globals().get('runs', 0) + 1\n")
    (here / "deep" / "mine_helper.py").write_text("")
    names = imports.load(["mine_by_name", "deep/mine_file.py", "deep/../deep/mine_file.py"])
    assert names == ["mine_by_name", str(here / "deep" / "mine_file.py"), str(here / "deep" / "mine_file.py")]
    assert sys.modules["mine_file"].runs == 1
    assert [entry["name"] for entry in imports.loaded()] == ["mine_by_name", "mine_file.py"]
    before = imports.loaded()[1]["sha256"]
    (here / "deep" / "mine_file.py").write_text("other code\n")
    assert imports.loaded()[1]["sha256"] != before


def test_a_file_called_as_an_installed_module_hides_nothing(here):
    import json

    (here / "json.py").write_text("x = 1\n")
    imports.load(["json.py"])
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("no_such_module_at_all", None, "--import no_such_module_at_all: there is no such module on the path"),
        ("none.py", None, "--import none.py: there is no such file"),
        ("bad.py", "x = 1\ny = x /\n", "--import bad.py: bad.py, line 2: SyntaxError"),
        ("bad.py", "def f():\n    raise KeyError('k')\n\nf()\n", "--import bad.py: bad.py, line 2: KeyError: 'k'"),
        ("bad.py", "import sys\nsys.exit(3)\n", "--import bad.py: bad.py, line 2: SystemExit: 3"),
        ("bad.py", "import no_such_thing\n", "bad.py, line 1: ModuleNotFoundError: No module named 'no_such_thing'"),
        (
            "bad.py",
            "from loopviz.model.merges import register_merge\n\nregister_merge('ema')(lambda *a: a[1])\n",
            "bad.py, line 3: ValueError: register_merge('ema')",
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_users_line(here, name, code, says):
    if code is not None:
        (here / name).write_text(code)
    with pytest.raises(imports.ImportingError) as refused:
        imports.load([name])
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
