"""Panels of a TTT run: pictures of what its inner loops did, one module each, made as those of `loop/` are.

They look by layer and head (`focus.TTTFocus`), for a TTT run has no loop steps; so they are a list of their own, `TTT_PANELS`.
"""

from __future__ import annotations

from types import ModuleType

from loopviz.panels.ttt import cost, drift, dual, held, inner_loss, rates
from loopviz.panels.ttt.focus import TTTFocus

TTT_PANELS: dict[str, ModuleType] = {panel.NAME: panel for panel in (inner_loss, drift, rates, held, dual, cost)}

__all__ = ["TTT_PANELS", "TTTFocus"]
