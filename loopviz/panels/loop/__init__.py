"""The panels of a looped run: one module each, found by being here (what a panel has: :mod:`loopviz.panels`)."""
