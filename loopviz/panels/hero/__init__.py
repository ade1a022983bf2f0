"""What a page says of one word above its panels: the strip of its guesses and the ring (`strip`), which word is worth a look
(`telling`), and a paragraph made of recorded numbers by rules (`facts`, `sentences`). No panel: a page has it always."""

from loopviz.panels.hero.sentences import explain
from loopviz.panels.hero.strip import data, patch, stack
from loopviz.panels.hero.telling import telling

__all__ = ["data", "explain", "patch", "stack", "telling"]
