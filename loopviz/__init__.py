"""LoopViz: see how a looped language model thinks, live in the browser.

Kept free of heavy imports: the page's first paint must not wait for torch.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """``loopviz.explore``, imported when it is asked for."""
    if name == "explore":
        from loopviz.notebook import explore

        return explore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "explore"]
