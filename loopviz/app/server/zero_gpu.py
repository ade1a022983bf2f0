"""A Space on ZeroGPU hardware: it starts, says that the graphics card is not used, and computes on the processor.

There a card is lent to one decorated function at a time, which runs in a process of its own, forked for it: what goes in and out is
pickled, nothing else passes. A run here is steered and stopped while it writes, shares its passes with other visitors' runs, and
its model is asked by measurements too; all of that lives in this process. And each second of a lent card is taken from the
visitor's own daily minutes, which models of a few million parameters would not repay.

Such a Space whose program has no decorated function does not come up at all, so one is declared, and never called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)
SAID = (
    "* ZeroGPU: not used, models compute on the processor. CPU hardware does the same for this Space (docs/hosting.md)"
)


def declare(tell: Callable[[str], Any] = print) -> bool:
    """Have the Space come up although it uses no card, and tell its host; before Gradio is imported.

    Args:
        tell: what is said to who starts the server.

    Returns:
        Whether a function was declared: without the package `spaces`, which Hugging Face installs there, or where it fails, none is.
    """
    tell(SAID)
    try:
        import spaces
    except Exception as error:  # it looks at PyTorch as it is imported, and not every build has what it looks for
        log.warning("ZeroGPU hardware, and the package `spaces` cannot be used (%s): the Space may not come up", error)
        return False
    spaces.GPU(_unused)
    return True


def _unused() -> None:
    """What a card is declared for."""
    raise RuntimeError("LoopViz asks for no card")
