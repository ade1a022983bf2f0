"""Where LoopViz's own files are: the package, and the assets (page, models, texts, the recorded run) that come with it.

In a checkout the assets stand beside the package; in an installed LoopViz they are inside it. No other module counts folders.

On the ground floor: it imports nothing of LoopViz, and nothing heavy.
"""

from __future__ import annotations

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
