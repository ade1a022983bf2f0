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
        from loopviz.version import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "explore", "__version__"})
