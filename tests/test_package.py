"""LoopViz as a package: a wheel of it, installed, works from any folder with nothing of this checkout; one list of packages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LONGEST = 120  # seconds that anything here is waited for
# Writes down what a process opens of the checkout's package and assets; Python runs it before all else.
WATCH = """
import os, sys
def watch(event, arguments, own={own!r}, seen={seen!r}):
    if event == "open" and isinstance(arguments[0], str) and os.path.abspath(arguments[0]).startswith(own):
        with os.fdopen(os.open(seen, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as file:
            print(arguments[0], file=file)
sys.addaudithook(watch)
"""


class Installed:
    """LoopViz from a wheel, in a folder of its own beside the packages of this environment."""

    def __init__(self, folder: Path) -> None:
        self.site, self.away, self.seen = folder / "site", folder / "elsewhere", folder / "seen.txt"
        self.away.mkdir()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _succeeds([*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", folder, ROOT])
        (self.wheel,) = folder.glob("*.whl")
        _succeeds([*pip, "install", "--no-index", "--no-deps", "--no-compile", "--target", self.site, self.wheel])
        own = tuple(str(ROOT / name) + os.sep for name in ("loopviz", "assets"))
        (self.site / "sitecustomize.py").write_text(WATCH.format(own=own, seen=str(self.seen)))
        found = shutil.which("loopviz", path=self.site / "bin")
        assert found, "the wheel brings the command"
        self.command = found

    @property
    def options(self) -> dict[str, Any]:
        """Of a process that finds this LoopViz, started elsewhere."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("LOOPVIZ_", "GRADIO_"))}
        environ |= {"PYTHONPATH": str(self.site), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return {"cwd": self.away, "env": environ}

    def says(self, *arguments: object) -> str:
        """What the command prints."""
        return _succeeds([self.command, *arguments], **self.options)

    def python(self, code: str) -> str:
        """What this code prints."""
        return _succeeds([sys.executable, "-c", code], **self.options)

    @contextlib.contextmanager
    def opened(self) -> Iterator[str]:
        """The app, opened by the command without a command: its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = self.away / "app.log"
        with log.open("w") as file:
            app = subprocess.Popen([self.command, "--port", str(port)], stdout=file, stderr=file, **self.options)
        try:
            url, until = f"http://127.0.0.1:{port}/", time.monotonic() + LONGEST
            while not _answers(url):
                assert app.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield url
        finally:
            app.terminate()
            try:
                app.wait(20)
            except subprocess.TimeoutExpired:
                app.kill()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    made = Installed(tmp_path_factory.mktemp("installed"))
    yield made
    assert not made.seen.exists(), f"of the checkout: {sorted(set(made.seen.read_text().splitlines()))}"


@pytest.mark.package
def test_what_is_opened_of_the_checkout_would_be_seen(installed: Installed) -> None:
    """Else nothing here would say that the installed LoopViz needs none of it."""
    file = ROOT / "loopviz" / "py.typed"
    installed.python(f"open({str(file)!r})")
    assert installed.seen.read_text().split() == [str(file)]
    installed.seen.unlink()


@pytest.mark.package
def test_importing_it_is_light_and_says_the_release(installed: Installed) -> None:
    code = (
        "import sys, loopviz, importlib.metadata as m; own = set(sys.modules)\n"
        "heavy = {'torch', 'gradio', 'transformers', 'numpy', 'pandas', 'plotly'} & own\n"
        "print(loopviz.__file__, loopviz.__version__, m.version('loopviz'), heavy or 'light', sep='|')"
    )
    version = PROJECT["project"]["version"]
    here = str(installed.site / "loopviz" / "__init__.py")
    assert installed.python(code).strip() == f"{here}|{version}|{version}|light"


@pytest.mark.package
def test_the_command_says_what_it_can(installed: Installed) -> None:
    assert installed.says("--version").strip() == f"loopviz {PROJECT['project']['version']}"
    told = installed.says("--help")
    for word in ("--port", "--profile", "run, export, train, evaluate, eval, sweep"):
        assert word in told


@pytest.mark.package
def test_a_model_that_comes_along_runs_from_another_folder(installed: Installed) -> None:
    task = "b>c f>a a>b c>d f?"  # 4 arrows from f to d
    told = installed.says(
        "run", "--model", "arrows-loop", "--prompt", task, "--max-new-tokens", 1, "--save", "a.loopviz"
    )
    assert task in told
    installed.says("export", "a.loopviz", "--json", "a.json")
    with (installed.away / "a.json").open(encoding="utf-8") as file:
        assert json.load(file)["meta"]["versions"]["loopviz"] == PROJECT["project"]["version"]


@pytest.mark.package
def test_the_page_opens_with_its_scripts_and_the_recorded_run(installed: Installed) -> None:
    with installed.opened() as url:
        page = _fetched(url).decode()
        names = {found.rsplit("/", 1)[-1]: found for found in re.findall(r"loopviz-assets/[\w./-]+", page)}
        fetched = {name: _fetched(url + address) for name, address in names.items()}
        source = _fetched(f"{url}loopviz-source/loopviz/trace/metrics.py")
    assert source == (ROOT / "loopviz/trace/metrics.py").read_bytes()
    assert json.loads(fetched["opening.en.json"])["snapshot"]["run"] == "recorded"
    assert len([name for name in fetched if name.endswith(".js")]) > 10
    assert all(fetched.values())


@pytest.mark.package
def test_the_wheel_has_every_asset_but_the_pictures_of_the_readme(installed: Installed) -> None:
    kept = subprocess.run(["git", "ls-files", "assets"], cwd=ROOT, capture_output=True, text=True)
    if kept.returncode:
        pytest.skip("no git, or no checkout: nothing says which assets are kept")
    wanted = {name for name in kept.stdout.split() if not name.startswith("assets/screenshots/")}
    missing = {name for name in wanted if not (installed.site / "loopviz" / name).is_file()}
    assert not missing
    assert (installed.site / "loopviz" / "py.typed").is_file()
    assert not (installed.site / "assets").exists(), "not among everybody's packages"


@pytest.mark.parametrize(
    ("file", "extra"),
    [
        ("requirements.txt", None),
        ("requirements-dev.txt", "dev"),
        ("requirements-ray.txt", "ray"),
        ("requirements-teach.txt", "teach"),
        ("requirements-bnb.txt", "bnb"),
    ],
)
def test_the_pinned_packages_are_those_of_the_metadata_within_its_ranges(file: str, extra: str | None) -> None:
    project = PROJECT["project"]
    named = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    ranges = {requirement.name.lower(): requirement.specifier for requirement in map(Requirement, named)}
    pins = [Requirement(line) for line in _pinned(file)]
    assert {pin.name.lower() for pin in pins} == set(ranges)
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert ranges[pin.name.lower()].contains(exact.version), f"{pin} is outside {ranges[pin.name.lower()]}"


@pytest.mark.parametrize(
    "file",
    [
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-ray.txt",
        "requirements-teach.txt",
        "requirements-bnb.txt",
    ],
)
def test_a_pin_is_for_every_python_that_it_is_given_to(file: str) -> None:
    """`pip install -r requirements.txt` stopped on Python 3.10: a release of one package was made for newer ones only."""
    pythons = [f"3.{minor}" for minor in range(10, 14)]
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(pythons[0]), "the oldest that is promised"
    wrong = []
    for pin in map(Requirement, _pinned(file)):
        try:
            installed = metadata.distribution(pin.name)
        except metadata.PackageNotFoundError:
            continue  # Ray is not everywhere
        if pin.specifier.contains(installed.version):
            made_for = SpecifierSet(installed.metadata["Requires-Python"] or "")
            given_to = [
                python for python in pythons if not pin.marker or pin.marker.evaluate({"python_version": python})
            ]
            wrong += [
                f"{pin} on {python}: it is for {made_for}" for python in given_to if not made_for.contains(python)
            ]
    assert not wrong


def _pinned(file: str) -> list[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r "))]


def _succeeds(command: list[Any], **options: Any) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=LONGEST, stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _answers(url: str) -> bool:
    try:
        return bool(_fetched(url))
    except OSError:
        return False


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=LONGEST) as answer:
        return answer.read()
