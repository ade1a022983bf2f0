"""How much of a text a measurement reads, told before anything is made of it: for what the work costs."""

from __future__ import annotations

from dataclasses import dataclass

from loopviz.engine.work import NOTHING, Shape, Work, head, through_cache, whole_passes, windows_of

DRAW_SECONDS = 4e-8  # of one resampling, a window
ROW_BYTES = 1_000  # of a row of a table
TOKEN_BYTES = 200  # of a token that a tokenizer has made: its number, its text, its place


@dataclass(frozen=True)
class Reach:
    """Windows of a text.

    Attributes:
        tokens: of the text that are read.
        windows: how many.
        length: tokens of each.
        batch: windows a pass.
    """

    tokens: int
    windows: int
    length: int
    batch: int

    @classmethod
    def of(cls, tokens: int, window: int, overlap: int, batch: int) -> Reach:
        """Windows over so many tokens."""
        tokens = max(2, tokens)
        return cls(tokens, windows_of(tokens, window, overlap), min(window, tokens), batch)

    @property
    def text(self) -> Work:
        """The text itself, as tokens."""
        return Work(kept=self.tokens * TOKEN_BYTES)

    def whole(self, shape: Shape, *, heads: int = 1) -> Work:
        """All windows by whole passes, each token through the head `heads` times."""
        return whole_passes(shape, self.windows, self.length, self.batch, heads=heads)

    def cached(self, shape: Shape, *, fidelity: bool = False) -> Work:
        """All windows token by token through the cache."""
        return through_cache(shape, self.windows, self.length, self.batch, fidelity=fidelity)

    def exits(self, shape: Shape, loops: tuple[int, ...]) -> Work:
        """All windows, and what the model says after each of `loops` steps (:func:`loopviz.lab.reading.full_pass.each_exit`)."""
        if not shape.loops:
            return self.whole(shape)
        if len(shape.loops) > 1 or shape.chosen:  # each by a pass of its own
            return sum((self.whole(shape.at(steps)) for steps in loops), NOTHING)
        through = len(loops) * self.windows * self.length * shape.loops[-1].coda
        return self.whole(shape.at(loops[-1]), heads=len(loops)) + Work(layer_tokens=through)

    def states(self, shape: Shape, *, held: float | None = None) -> Work:
        """States of every step kept: of a pass, or of `held` tokens."""
        tokens = min(self.batch, self.windows) * self.length if held is None else held
        return Work(states=3 * tokens * (shape.steps + 1) * shape.hidden * max(4, shape.itemsize))

    def heads(self, shape: Shape, each: float) -> Work:
        """Every token through the head, `each` times."""
        return head(shape, each * self.windows * self.length, each)

    def intervals(self, rows: float, draws: int) -> Work:
        """`rows` rows, each with a bootstrap interval over the windows."""
        return Work(python=rows * draws * self.windows * DRAW_SECONDS, kept=rows * ROW_BYTES + draws * 8)
