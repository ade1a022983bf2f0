"""The Dockerfile, read as Docker reads it: what it copies is there and comes along, and what it starts and asks exists.

No Docker is needed; whether the image was ever built is said in docs/hosting.md.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from loopviz.app import command
from loopviz.app.profile import PUBLIC, profile_of
from loopviz.app.server.request_guard import USED
from loopviz.paths import PACKAGE

ROOT = Path(__file__).resolve().parents[1]


def instructions(text: str) -> list[tuple[str, str]]:
    """What a Dockerfile says, in order: each word of command, and what follows it."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", lines)
    return [
        (head.upper(), rest.strip())
        for head, _, rest in (line.strip().partition(" ") for line in joined.splitlines())
        if head
    ]


def is_left_out(path: str, rules: list[str]) -> bool:
    """Whether a `.dockerignore` leaves a path out: the last rule that fits it, or a folder above it, decides."""
    left_out, parts = False, PurePosixPath(path).parts
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for rule in rules:
        pattern = rule.removeprefix("!").strip("/")
        patterns = {pattern, pattern.removeprefix("**/")}
        depth = None if pattern.startswith("**/") else pattern.count("/")
        fits = (one for one in above if depth is None or one.count("/") == depth)
        if any(
            fnmatch.fnmatchcase(one, p) or fnmatch.fnmatchcase(PurePosixPath(one).name, p)
            for one in fits
            for p in patterns
        ):
            left_out = not rule.startswith("!")
    return left_out


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
RULES = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n") if line and line[0] != "#"]


def said(instruction: str) -> list[str]:
    return [rest for head, rest in DOCKERFILE if head == instruction]


def copied() -> list[str]:
    return [source for rest in said("COPY") for source in rest.split()[:-1]]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in said("ENV") for pair in shlex.split(rest))


def test_the_reader_of_instructions_and_rules_reads_as_docker_does() -> None:
    assert instructions("# x\nFROM a\nRUN b \\\n    && c\n") == [("FROM", "a"), ("RUN", "b      && c")]
    rules = ["*", "!kept", "kept/not", "**/*.pyc"]
    expected = {
        "other": True,
        "kept": False,
        "kept/a/b.py": False,
        "kept/not": True,
        "kept/not/x": True,
        "kept/a/b.pyc": True,
    }
    assert {path: is_left_out(path, rules) for path in expected} == expected


def test_what_is_copied_is_in_the_repository_and_comes_along() -> None:
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not is_left_out(source, RULES), source


def test_every_file_of_the_package_and_its_assets_comes_along_but_the_pictures_of_the_readme() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "loopviz", "assets"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    files = listed.stdout.split("\n")[:-1]
    if not files:
        pytest.skip("no checkout of git")
    assert {"loopviz", "assets"} <= set(copied())
    without = [path for path in files if is_left_out(path, RULES)]
    assert without == [path for path in files if path.startswith("assets/screenshots/")]
    for secret in (".git/config", "tests/conftest.py", ".venv/bin/python", ".env"):
        assert is_left_out(secret, RULES), secret


def test_lists_of_packages_are_there_before_they_are_installed() -> None:
    order = [(head, rest) for head, rest in DOCKERFILE if head in ("COPY", "RUN")]
    there: set[str] = set()
    for head, rest in order:
        if head == "COPY":
            there |= set(rest.split()[:-1])
        for name in re.findall(r"-r (\S+)", rest) if head == "RUN" else []:
            wanted = [name, *re.findall(r"^-r (\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)]
            assert set(wanted) <= there
    (pinned,) = re.findall(r"^torch==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"torch=={pinned}+cpu" in " ".join(said("RUN")), "another PyTorch would be fetched twice"


def test_it_runs_as_a_number_that_owns_what_it_writes_to() -> None:
    (user,) = said("USER")
    assert user.isdigit(), "a cluster that asks for no root cannot tell by a name"
    assert int(user) > 0
    (volume,) = said("VOLUME")
    made = " ".join(said("RUN"))
    assert f"install -d -o {user} -g {user} {volume}" in made
    assert f"--uid {user}" in made
    hosting = (ROOT / "docs" / "hosting.md").read_text(encoding="utf-8")
    assert f"--read-only --tmpfs /tmp --tmpfs {volume}:uid={user}" in hosting
    folders = ("HOME", "HF_HOME", "LOOPVIZ_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "GRADIO_TEMP_DIR")
    assert {name for name in folders if not variables()[name].startswith((volume, "/tmp"))} == set()


def test_its_health_is_asked_at_an_address_that_the_app_serves() -> None:
    (check,) = said("HEALTHCHECK")
    (port, path), *more = re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/-]*)", check)
    assert not more
    assert [port] == said("EXPOSE") == [variables()["GRADIO_SERVER_PORT"]]
    (methods,) = [methods for known, (methods, _) in USED.items() if known == path]
    assert "GET" in methods
    json.loads(check[check.index("CMD") + 3 :])


def test_what_it_starts_takes_its_options_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    (started,) = map(json.loads, said("CMD"))
    assert started[:2] == ["python", "app.py"]
    assert "app.py" in copied()
    assert said("STOPSIGNAL") == ["SIGINT"], (
        "Python hears no SIGTERM as the first process: it would be killed after ten seconds"
    )
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.setenv(name, variables()[name])
    options = command._parser(None, None).parse_args(started[2:])
    assert (options.host, options.port) == ("0.0.0.0", int(variables()["GRADIO_SERVER_PORT"]))
    profile = profile_of(options.host, variables(), options.profile)
    assert (profile.name, profile.log) == (PUBLIC.name, "json")
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert {name for name in variables() if name.startswith("LOOPVIZ_") and name not in source} == set()
