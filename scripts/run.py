"""Set LoopViz up and open it, or set it up and test it. Standard library only.

    python3 scripts/run.py [options of app.py]        make .venv if needed, install requirements.txt, open the app
    python3 scripts/run.py test                       the same with requirements-dev.txt and a Chromium, then all checks
    python3 scripts/run.py test tests/model -k merge  only these tests (any options of pytest); a Chromium is not looked
                                                      for unless one of them drives it

The checks are ruff and mypy (see pyproject.toml), and pytest. `.venv` is reused as long as the requirements and the Python
release are the ones it was made with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "loopviz-setup.json"
MINIMUM = (3, 10)
BROWSER = "tests/browser"

# Tests run in several processes, a file's together; each process reads all the files it is told of, so it is told of no others. Of browsers two at most: each has an app beside it, and waits for that half of
# its time; two of them on two cores take two thirds of the time of one.
PHASES = (
    ("tests", f"--ignore={BROWSER}", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile"),
    (BROWSER, "-n", "logical", "--maxprocesses", "2", "--dist", "loadfile"),
)

CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."))

# Run where the tests are: ends with CHOSEN when one of those that the arguments select is marked as driving a browser.
CHOSEN = 100
ASK = f"""
import os, sys, pytest
class Looking:
    def pytest_collection_finish(self, session):
        os._exit({CHOSEN} * any(item.get_closest_marker("browser") for item in session.items))
sys.stdout = sys.stderr = open(os.devnull, "w")
pytest.main(["--collect-only", *sys.argv[1:]], plugins=[Looking()])
"""

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_PATHS = (
    "/usr/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


class SetupError(Exception):
    """Something the set-up cannot do by itself; the message says what to do."""


def main(arguments: list[str]) -> int:
    """Do what the command line asks for and return the exit code."""
    if sys.version_info < MINIMUM:
        return _with_newer_python(arguments)
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        if arguments[:1] == ["test"]:
            return run_tests(arguments[1:])
        return run_app(arguments)
    except SetupError as error:
        print(f"\nLoopViz could not be set up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run_app(arguments: list[str]) -> int:
    """Start the app, and its page where there is a desktop; returns when it is closed."""
    python = make_environment("requirements.txt")
    opening = ["--open"] if _has_desktop() else []
    return subprocess.call([str(python), str(ROOT / "app.py"), *opening, *arguments], cwd=ROOT)


def run_tests(arguments: list[str]) -> int:
    """Ruff, mypy and pytest: all of it, or what `arguments` select. Returns pytest's exit code; 1 if only another complains."""
    python = make_environment("requirements-dev.txt")
    # Dozens of processes import the same modules: without their bytecode kept, each would compile all of them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if not arguments or drive_a_browser(python, arguments):
        ensure_chromium(python)
    types = start_mypy(python)
    complaining = [
        check for check, *options in CHECKS if subprocess.call([str(python), "-m", check, *options], cwd=ROOT)
    ]
    phases = [arguments] if arguments else PHASES
    codes = [subprocess.call([str(python), "-m", "pytest", *options], cwd=ROOT) for options in phases]
    tests = next((code for code in codes if code), 0)
    print(types.communicate()[0], end="", flush=True)
    complaining += ["mypy"] * bool(types.returncode)
    if tests == 0 and complaining:
        print(f"The tests pass; {', '.join(dict.fromkeys(complaining))} complained (see above).", file=sys.stderr)
        return 1
    return tests


# --- the environment ---------------------------------------------------------------------------------------------


def make_environment(requirements: str) -> Path:
    """`.venv` with `requirements` installed, made or brought up to date if it is not; returns its Python.

    Raises:
        SetupError: no venv can be made here, or the packages cannot be installed.
    """
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = fingerprint(requirements)
    if _usable(python) and wanted in _installed():
        return python
    if not _usable(python):
        _say(f"Making {VENV.name} with Python {sys.version.split()[0]} ...")
        _create(python)
    _say(f"Installing {requirements} (the first time this downloads several hundred MB) ...")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    install = ["-m", "pip", "install", "--disable-pip-version-check", *quiet, "-r", str(ROOT / requirements)]
    if subprocess.call([str(python), *install]) != 0:
        raise SetupError(
            f"pip could not install {requirements} (its message is above). Check the network and the free disk space, "
            f"then run this again; to start afresh, delete {VENV}."
        )
    # The development environment serves the app too.
    done = {wanted, fingerprint("requirements.txt")}
    STAMP.write_text(json.dumps(sorted(done)), encoding="utf-8")
    return python


def fingerprint(requirements: str) -> str:
    """Digest of a requirements file, of those it includes (beside it, as pip finds them), and of the Python release."""
    file = ROOT / requirements
    text = file.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("-r "):
            text += (file.parent / line[3:].strip()).read_text(encoding="utf-8")
    return hashlib.sha256(f"{sys.version_info[:2]} {requirements}\n{text}".encode()).hexdigest()


def _installed() -> list[str]:
    try:
        return list(json.loads(STAMP.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def _usable(python: Path) -> bool:
    """Whether the environment runs, has pip, and is of this Python release (a moved or half-made one is not)."""
    code = f"import sys, pip; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _create(python: Path) -> None:
    """Make `.venv` with pip in it. Debian and Ubuntu ship Python without ensurepip, which `venv` needs for that."""
    if not _has_ensurepip() and _is_root() and shutil.which("apt-get"):
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        _say(f"Installing {package} ...")
        _apt_install(package)
    # Asked in a new process: this one has already looked, and an install would not change its mind.
    if _has_ensurepip():
        subprocess.check_call([sys.executable, "-m", "venv", "--clear", str(VENV)])
        return
    venv.create(VENV, clear=True, with_pip=False)
    bootstrap = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "pip"]
    if subprocess.run(bootstrap, capture_output=True, check=False).returncode != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(
            "this Python has neither ensurepip nor a pip that could stand in for it. On Debian or Ubuntu run\n"
            f"    sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv\n"
            "and then this command again."
        )


def _has_ensurepip() -> bool:
    return subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0


def _with_newer_python(arguments: list[str]) -> int:
    """macOS and older systems have a `python3` that is too old, often with a newer one beside it."""
    for minor in range(13, MINIMUM[1] - 1, -1):
        newer = shutil.which(f"python3.{minor}")
        if newer and _runs(newer):
            return subprocess.call([newer, __file__, *arguments])
    print(
        f"LoopViz needs Python 3.{MINIMUM[1]} or newer; this is {sys.version.split()[0]} ({sys.executable}), and no "
        "python3.10 to python3.13 is on the PATH. Install one (macOS: brew install python@3.12; Debian or Ubuntu: "
        "sudo apt install python3 python3-venv) and run this again with it.",
        file=sys.stderr,
    )
    return 1


# --- the browser of the tests ------------------------------------------------------------------------------------


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome, or None. `LOOPVIZ_CHROMIUM` names another one."""
    named = os.environ.get("LOOPVIZ_CHROMIUM")
    candidates = [named] if named else [*map(shutil.which, CHROMIUM_NAMES), *CHROMIUM_PATHS]
    return next((path for path in candidates if path and _runs(path)), None)


def _runs(program: str) -> bool:
    """Whether it starts at all: Ubuntu's `chromium-browser` may only ask for a snap, pyenv's `python3.x` for a choice."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def start_mypy(python: Path) -> subprocess.Popen[str]:
    """mypy beside the tests: the first time it reads for some seconds, and tests often wait."""
    command = [str(python), "-m", "mypy"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def drive_a_browser(python: Path, arguments: list[str]) -> bool:
    """Whether one of the tests that these arguments of pytest select drives a browser."""
    return subprocess.run([str(python), "-c", ASK, *arguments], cwd=ROOT, check=False).returncode == CHOSEN


def ensure_chromium(python: Path) -> None:
    """Make sure that the browser tests find a Chromium: an installed one, else Debian's package, else Playwright's.

    Raises:
        SetupError: none is there and none can be installed.
    """
    if find_chromium() or _playwright_has_chromium(python):
        return
    root = _is_root()
    # Ubuntu's package of that name only points to a snap, which does not run in containers.
    if root and shutil.which("apt-get") and _distribution() == "debian":
        _say("Installing Debian's chromium for the browser tests ...")
        if _apt_install("chromium") and find_chromium():
            return
    _say("Installing Playwright's Chromium for the browser tests ...")
    install = [str(python), "-m", "playwright", "install", *(["--with-deps"] if root else []), "chromium"]
    if subprocess.call(install) == 0 and _playwright_has_chromium(python):
        return
    raise SetupError(
        "the browser tests need a Chromium, and none could be installed. Do one of these, then run this again:\n"
        "    sudo apt install chromium                        (Debian)\n"
        f"    sudo {python} -m playwright install --with-deps chromium   (Ubuntu)\n"
        "    brew install --cask chromium                     (macOS)\n"
        "or set LOOPVIZ_CHROMIUM to the path of a Chromium or Chrome. To leave the browser tests out:\n"
        f"    {python} -m pytest -m 'not browser'"
    )


def _playwright_has_chromium(python: Path) -> bool:
    """Whether Playwright's own Chromium is installed and starts (its system libraries may be missing)."""
    code = (
        "from playwright.sync_api import sync_playwright as s\n"
        "with s() as p: p.chromium.launch(args=['--no-sandbox']).close()"
    )
    return subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0


def _distribution() -> str:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line[3:].strip('"') for line in lines if line.startswith("ID=")), "")


# --- small things ------------------------------------------------------------------------------------------------


def _has_desktop() -> bool:
    """Without one, opening a page would start a text browser in this terminal, or nothing."""
    if sys.platform in ("darwin", "win32"):
        return not os.environ.get("SSH_CONNECTION")
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _apt_install(package: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    update = subprocess.run(["apt-get", "update", "-qq"], env=environment, stdout=subprocess.DEVNULL, check=False)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    install = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    return update.returncode == 0 and install.returncode == 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
