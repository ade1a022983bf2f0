"""The release is written once, and read where it is: in a checkout, in an installed package, in a copied folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import loopviz
from loopviz.paths import PACKAGE


def _version(folder: Path) -> str:
    code = "import loopviz; print(loopviz.__version__)"
    environ = {"PYTHONPATH": str(folder), "PATH": ""}
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the package's files that say the release."""
    (tmp_path / "loopviz").mkdir()
    for name in ("__init__.py", "moved.py", "paths.py", "version.py"):
        shutil.copy(PACKAGE / name, tmp_path / "loopviz")
    return tmp_path


def test_a_checkout_says_what_its_project_file_says_whatever_is_installed(copied: Path) -> None:
    (copied / "pyproject.toml").write_text('[project]\nname = "loopviz"\nversion = "9.8.7"\n')
    _metadata(copied, "1.0")
    assert _version(copied) == "9.8.7"


def test_an_installed_package_says_what_its_metadata_says(copied: Path) -> None:
    (copied / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9.8.7"\n')  # strayed in beside it
    _metadata(copied, "1.0")
    assert _version(copied) == "1.0"


def test_a_copied_folder_says_that_it_does_not_know(copied: Path) -> None:
    assert _version(copied) == "unknown"


def test_this_checkout_writes_it_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", loopviz.__version__)
    written = [path for path in PACKAGE.rglob("*.py") if f'"{loopviz.__version__}"' in path.read_text(encoding="utf-8")]
    assert written == []


def _metadata(folder: Path, version: str) -> None:
    info = folder / f"loopviz-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: loopviz\nVersion: {version}\n")


def _repository(folder: Path) -> str:
    code = "from loopviz.version import repository; print(repository())"
    environ = {"PYTHONPATH": str(folder), "PATH": ""}
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PROJECT = '[project]\nname = "loopviz"\nversion = "9.8.7"\n'


def test_the_source_s_address_is_the_one_in_the_metadata_and_none_is_made_up(copied: Path) -> None:
    assert _repository(copied) == "None"
    (copied / "pyproject.toml").write_text(PROJECT + '[project.scripts]\nSource = "https://not.example"\n')
    assert _repository(copied) == "None"
    urls = '[project.urls]\nHomepage = "https://home.example"\nSource = "https://code.example/loopviz"\n[tool.x]\n'
    (copied / "pyproject.toml").write_text(PROJECT + urls)
    assert _repository(copied) == "https://code.example/loopviz"
    (copied / "pyproject.toml").write_text(PROJECT + '[project.urls]\nSource = "javascript:alert(1)"\n')
    assert _repository(copied) == "None"


def test_an_installed_package_s_source_is_its_metadata_s(copied: Path) -> None:
    _metadata(copied, "1.0")
    assert _repository(copied) == "None"
    with (copied / "loopviz-1.0.dist-info" / "METADATA").open("a") as file:
        file.write(
            "Project-URL: Documentation, https://docs.example\nProject-URL: Repository, https://code.example/a\n"
        )
    assert _repository(copied) == "https://code.example/a"
