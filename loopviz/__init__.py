"""LoopViz: see how a looped language model thinks, live in the browser.

Kept free of heavy imports: the page's first paint must not wait for torch.
"""

from loopviz import moved

__version__: str

moved.install()


def __getattr__(name: str) -> object:
    """``loopviz.explore``, imported when it is asked for, and ``loopviz.__version__``, read then."""
    if name == "explore":
        from loopviz.export.notebook import explore

        return explore
    if name == "__version__":
        return globals().setdefault(name, _version())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "explore", "__version__"})


def _version() -> str:
    """The release. It is written once, in `pyproject.toml`: a checkout reads it there, an installed package in its metadata.

    "unknown" for a package's folder that somebody has copied without either.
    """
    import re
    from importlib import metadata

    from loopviz.paths import PACKAGE

    project = PACKAGE.parent / "pyproject.toml"  # first: another release may be installed beside this checkout
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    written = re.search(r'^name = "loopviz"\nversion = "(.+)"$', text, re.M)
    if written:
        return written[1]
    try:
        return metadata.version("loopviz")
    except metadata.PackageNotFoundError:
        return "unknown"
