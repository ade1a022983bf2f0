"""Where LoopViz's own files are: the package, and the assets (page, models, texts, the recorded run) that come with it; and so, how what
it can do without is installed.

In a checkout the assets stand beside the package; in an installed LoopViz they are inside it. No other module counts folders.

On the ground floor: it imports nothing of LoopViz, and nothing heavy.
"""

from __future__ import annotations

import json
from pathlib import Path


def assets_of(package: Path) -> Path:
    """The folder of the assets that belong to a package's folder.

    Those inside come first: beside an installed package is everybody's `site-packages`, where an `assets` is somebody else's.
    """
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


PACKAGE = Path(__file__).resolve().parent
ASSETS = assets_of(PACKAGE)
WEB = ASSETS / "web"  # scripts and styles: a folder a page, and those that pages share
MODELS = ASSETS / "models"  # those that come along, a folder each


def install_hint(extra: str, package: Path = PACKAGE) -> str:
    """The command that installs what an extra of LoopViz needs: in a checkout its file of pinned versions, else by the package's name."""
    pinned = f"requirements-{extra}.txt"
    checkout = assets_of(package) == package.parent / "assets" and (package.parent / pinned).is_file()
    return f"pip install -r {pinned}" if checkout else f"pip install 'loopviz[{extra}]'"


def model_type_of(name: str, *, allow_paths: bool = True) -> str | None:
    """The `model_type` that a checkpoint's config.json says: of a model that comes along, or of a folder of this machine.

    Args:
        allow_paths: False looks at no folder but those that come along (for names that strangers type).

    Returns:
        None where no config.json can be read, which who loads the model then says; nothing is fetched.
    """
    folders = [MODELS / name] if name not in ("", ".", "..") and Path(name).name == name else []
    for folder in [*folders, *([Path(name)] if allow_paths else [])]:
        try:
            said = json.loads((folder.expanduser() / "config.json").read_text("utf-8"))
        except (OSError, ValueError, RuntimeError):  # RuntimeError: the home of a user who is not
            continue
        kind = said.get("model_type") if isinstance(said, dict) else None
        return kind if isinstance(kind, str) else None
    return None
