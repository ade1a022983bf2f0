"""A Space on ZeroGPU hardware: which models' runs are made on the card that is lent there, and what is said of it at the start.

There a card is lent to one decorated function at a time (:mod:`loopviz.engine.lent_card`), and each second of it is taken from the
visitor's own daily minutes: models of a few million parameters would not repay them.

Such a Space whose program has no decorated function does not come up at all, so where the card is not used one is declared all the
same, and never called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from loopviz.app.profile import Profile

log = logging.getLogger(__name__)
NOT_USED = (
    "* ZeroGPU: not used, models compute on the processor. CPU hardware does the same for this Space (docs/hosting.md)"
)


def declare(profile: Profile, tell: Callable[[str], Any] = print) -> Profile:
    """Declare the function that a card is lent to, before Gradio is imported, and tell the server's host what it is for.

    Args:
        profile: of the server; models that run on a cluster, or on a device of their own, have no use for a lent card.
        tell: what is said to who starts the server.

    Returns:
        The profile, without the card where the package `spaces`, which Hugging Face installs there, is not there or fails.
    """
    least = None if profile.engine or profile.device != "cpu" else profile.lend_from
    try:
        import spaces

        if least is None:
            spaces.GPU(_unused)
        else:
            from loopviz.engine import lent_card

            lent_card.declare(spaces.GPU, least)
    except Exception as error:  # it looks at PyTorch as it is imported, and not every build has what it looks for
        log.warning("ZeroGPU hardware, and the package `spaces` cannot be used (%s): the Space may not come up", error)
        least = None
    which = f" of models from {least:,} parameters on" if least else ""
    tell(NOT_USED if least is None else f"* ZeroGPU: a card is lent for runs{which}")
    return replace(profile, lend_from=least)


def _unused() -> None:
    """What a card is declared for."""
    raise RuntimeError("LoopViz asks for no card")
