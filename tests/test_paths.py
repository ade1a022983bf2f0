"""The assets are found beside the package in a checkout, inside it when installed, and by one module alone."""

from __future__ import annotations

import re
from pathlib import Path

from loopviz import paths


def test_in_a_checkout_the_assets_stand_beside_the_package(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "loopviz").mkdir()
    assert paths.assets_of(tmp_path / "loopviz") == tmp_path / "assets"


def test_an_installed_package_has_its_own_assets_whoever_else_has_some(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()  # of another package in site-packages
    (tmp_path / "loopviz" / "assets").mkdir(parents=True)
    assert paths.assets_of(tmp_path / "loopviz") == tmp_path / "loopviz" / "assets"


def test_these_assets_are_there() -> None:
    assert (paths.PACKAGE / "__init__.py").is_file()
    assert (paths.ASSETS / "models" / "stories-loop" / "config.json").is_file()


def test_no_other_module_counts_folders_up_from_its_own_file() -> None:
    """A module that moves, or is installed, would look in the wrong place."""
    counting = [
        path.relative_to(paths.PACKAGE).as_posix()
        for path in paths.PACKAGE.rglob("*.py")
        if ".parents[" in (text := path.read_text(encoding="utf-8")) and "__file__" in text
    ]
    assert counting == []


def test_what_is_missing_is_installed_as_this_loopviz_is(tmp_path: Path) -> None:
    """In a checkout, `pip install 'loopviz[teach]'` looks for a package that nobody has published."""
    assert paths.install_hint("teach") == "pip install -r requirements-teach.txt"
    (tmp_path / "requirements-teach.txt").touch()  # of somebody else in site-packages
    (tmp_path / "loopviz" / "assets").mkdir(parents=True)
    assert paths.install_hint("teach", tmp_path / "loopviz") == "pip install 'loopviz[teach]'"
    (tmp_path / "copied").mkdir()
    assert paths.install_hint("ray", tmp_path / "copied") == "pip install 'loopviz[ray]'", "no file that could be named"


def test_every_extra_has_a_file_that_the_hint_can_name() -> None:
    told = {path.stem.removeprefix("requirements-") for path in paths.PACKAGE.parent.glob("requirements-*.txt")}
    used = {
        found
        for path in paths.PACKAGE.rglob("*.py")
        for found in re.findall(r"""install_hint\(["'](\w+)["']""", path.read_text(encoding="utf-8"))
    }
    assert {"teach", "bnb", "ray"} == used <= told
    literal = [path.name for path in paths.PACKAGE.rglob("*.py") if "'loopviz[" in path.read_text(encoding="utf-8")]
    assert literal == ["paths.py"], "one place says how something is installed"
