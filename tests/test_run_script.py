"""scripts/run.py: when it installs, what it returns, what it says. No test here installs anything."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "run.py"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, in a project of its own whose .venv is this Python."""
    spec = importlib.util.spec_from_file_location("run_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp.json")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("a==1\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements.txt\nb==1\n")
    monkeypatch.setattr(module, "_usable", lambda python: True)
    return module


@pytest.fixture
def calls(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands the script ran; all succeed."""
    made: list[list[str]] = []
    monkeypatch.setattr(run.subprocess, "call", lambda command, **kwargs: made.append(command[1:]) or 0)
    return made


def test_packages_are_installed_once_and_again_when_the_requirements_change(
    run: ModuleType, calls: list[list[str]], tmp_path: Path
) -> None:
    def installs() -> int:
        return sum("install" in command for command in calls)

    run.make_environment("requirements-dev.txt")
    assert installs() == 1
    run.make_environment("requirements-dev.txt")
    run.make_environment("requirements.txt")  # the tests' environment serves the app too
    assert installs() == 1
    (tmp_path / "requirements.txt").write_text("a==2\n")  # included by the other file
    run.make_environment("requirements-dev.txt")
    assert installs() == 2
    run.make_environment("requirements.txt")
    assert installs() == 2


def test_a_requirements_file_elsewhere_includes_what_is_beside_it_as_pip_does(run: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "requirements.txt").write_text("-r ../requirements.txt\nc==1\n")
    before = run.fingerprint("there/requirements.txt")
    (tmp_path / "requirements.txt").write_text("a==2\n")
    assert run.fingerprint("there/requirements.txt") != before


def test_the_apps_environment_is_not_enough_for_the_tests(run: ModuleType, calls: list[list[str]]) -> None:
    run.make_environment("requirements.txt")
    run.make_environment("requirements-dev.txt")
    assert [Path(command[-1]).name for command in calls] == ["requirements.txt", "requirements-dev.txt"]


def test_a_failed_install_is_told_and_tried_again(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.subprocess, "call", lambda command, **kwargs: 1)
    assert run.main([]) == 1
    assert "pip could not install requirements.txt" in capsys.readouterr().err
    assert not run.STAMP.exists()


@pytest.mark.parametrize("desktop", [True, False])
def test_the_app_gets_the_arguments(
    run: ModuleType, calls: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, desktop: bool
) -> None:
    monkeypatch.setattr(run, "_has_desktop", lambda: desktop)
    assert run.main(["--port", "7861"]) == 0
    opening = ["--open"] if desktop else []
    assert calls[-1] == [str(tmp_path / "app.py"), *opening, "--port", "7861"]


@pytest.mark.parametrize(
    ("ruff", "mypy", "tests", "expected"),
    [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1), (1, 1, 2, 2), (0, 0, 5, 5)],
    ids=str,
)
def test_the_exit_code_is_pytests_unless_only_another_check_complains(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, ruff: int, mypy: int, tests: int, expected: int
) -> None:
    codes = {"ruff": ruff, "pytest": tests, "pip": 0}
    seen: list[list[str]] = []
    monkeypatch.setattr(run, "drive_a_browser", lambda python, arguments: False)
    monkeypatch.setattr(run, "start_mypy", lambda python: _mypy(mypy))
    monkeypatch.setattr(run.subprocess, "call", lambda command, **kw: seen.append(command[1:]) or codes[command[2]])
    assert run.main(["test", "-k", "panels"]) == expected
    assert seen[-1] == ["-m", "pytest", "-k", "panels"]


def test_without_arguments_every_test_is_in_one_of_two_phases_and_a_failure_of_either_counts(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(run, "ensure_chromium", lambda python: None)
    monkeypatch.setattr(run, "start_mypy", lambda python: _mypy(0))
    for failing in ("tests", "tests/browser"):
        monkeypatch.setattr(
            run.subprocess,
            "call",
            lambda command, failing=failing, **kw: seen.append(command[1:]) or failing in command,
        )
        assert run.main(["test"]) == 1
    phases = [command[command.index("pytest") + 1 :][:2] for command in seen if "pytest" in command]
    # the one leaves out what the other is told of, and nothing else
    assert phases == [["tests", "--ignore=tests/browser"], ["tests/browser", "-n"]] * 2


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["unit.py"], False),
        (["-k", "other", "."], False),
        (["page.py"], True),
        (["page.py", "-m", "not browser"], False),
        (["page.py", "-k", "nothing"], False),
        (["."], True),
        (["missing.py"], False),
    ],
    ids=str,
)
def test_a_chromium_is_looked_for_only_when_a_chosen_test_drives_one(
    run: ModuleType,
    calls: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    wanted: bool,
) -> None:
    """Whoever runs one unit test had a browser installed for it."""
    tests = {"unit.py": "def test_one(): pass", "page.py": "import pytest\n@pytest.mark.browser\ndef test_page(): pass"}
    for name, text in tests.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npython_files = unit.py page.py\nmarkers =\n    browser: drives one\n"
    )
    made: list[str] = []
    monkeypatch.setattr(run, "make_environment", lambda requirements: Path(sys.executable))
    monkeypatch.setattr(run, "ensure_chromium", lambda python: made.append("chromium"))
    monkeypatch.setattr(run, "start_mypy", lambda python: _mypy(0))
    run.run_tests(arguments)
    assert made == ["chromium"] * wanted
    assert calls[-1] == ["-m", "pytest", *arguments]


def test_what_mypy_says_is_shown_after_the_tests(
    run: ModuleType, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "drive_a_browser", lambda python, arguments: False)
    monkeypatch.setattr(run, "start_mypy", lambda python: _mypy(1))
    assert run.main(["test", "unit.py"]) == 1
    shown = capfd.readouterr()
    assert "what mypy says" in shown.out
    assert "mypy complained" in shown.err


def _mypy(code: int) -> subprocess.Popen[str]:
    """Something that ends as mypy does."""
    command = [sys.executable, "-c", f"print('what mypy says'); raise SystemExit({code})"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _program(file: Path, exit_code: int) -> str:
    file.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.skipif(sys.platform == "win32", reason="uses a shell script as the browser")
def test_a_chromium_that_does_not_start_is_not_one(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, good = _program(tmp_path / "broken", 1), _program(tmp_path / "good", 0)
    monkeypatch.setenv("LOOPVIZ_CHROMIUM", broken)
    assert run.find_chromium() is None
    monkeypatch.setenv("LOOPVIZ_CHROMIUM", good)
    assert run.find_chromium() == good
    monkeypatch.delenv("LOOPVIZ_CHROMIUM")
    found = {"chromium": broken, "google-chrome": good}
    monkeypatch.setattr(run.shutil, "which", found.get)
    monkeypatch.setattr(run, "CHROMIUM_PATHS", ())
    assert run.find_chromium() == good


def test_no_chromium_is_told_with_what_to_do(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find_chromium", lambda: None)
    monkeypatch.setattr(run, "_playwright_has_chromium", lambda python: False)
    monkeypatch.setattr(run, "_is_root", lambda: False)
    monkeypatch.setattr(run.subprocess, "call", lambda command, **kwargs: 1)
    with pytest.raises(run.SetupError, match="sudo apt install chromium"):
        run.ensure_chromium(Path(sys.executable))


def test_a_python_that_is_too_old_is_told(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "MINIMUM", (99, 0))
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    assert run.main([]) == 1
    assert "needs Python" in capsys.readouterr().err


def test_the_script_needs_nothing_but_the_standard_library() -> None:
    isolated = subprocess.run([sys.executable, "-I", "-S", str(SCRIPT), "--help"], capture_output=True, text=True)
    assert isolated.returncode == 0, isolated.stderr
    assert "scripts/run.py test" in isolated.stdout


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned(name: str) -> None:
    lines = (SCRIPT.parent.parent / name).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert packages
    assert all("==" in line.split(";")[0] for line in packages), packages
