"""The panels in a notebook: ``loopviz.explore(trace)`` shows them below the cell, and anywhere the notebook is opened later.

It is the report (:mod:`loopviz.export.report`) in a frame: no server, no kernel, no widgets, nothing to install in the notebook. A
slider, a token or a point of a panel moves all panels together to the run as it was after that token. What the panels show
beyond that (another quantity, layer, lens or language) is chosen in Python::

    loopviz.explore(trace, metric="kl", lang="zh")

The frame brings its own Plotly.js, so the notebook's file grows by 1 MB for each explorer shown in it (2 MB with the
states in three dimensions).
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from typing import Any

from loopviz.export import report
from loopviz.panels import Focus
from loopviz.panels.ttt import TTTFocus
from loopviz.trace import Trace


class Explorer:
    """What :func:`explore` returns: shown by a notebook, saved as a page by :meth:`save`.

    Its page is made when it is first shown, and kept: later changes of the trace do not reach it.
    """

    def __init__(
        self, trace: Trace, focus: Focus | TTTFocus, panels: Iterable[str] | None, height: int, replay: bool
    ) -> None:
        self.trace = trace
        self.focus = focus
        self.panels = None if panels is None else tuple(panels)
        self.height = height
        self.replay = replay
        self._page: str | None = None

    @property
    def page(self) -> str:
        """The page, HTML; complete in itself."""
        if self._page is None:
            self._page = report.to_html(self.trace, self.focus, panels=self.panels, replay=self.replay)
        return self._page

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to ``path``: the report of :mod:`loopviz.export.report`."""
        report.write(self.page, path)

    def _repr_html_(self) -> str:
        # Without allow-same-origin the page cannot touch the notebook around it: a trace may be a stranger's.
        return (
            f'<iframe sandbox="allow-scripts allow-downloads" title="LoopViz" width="100%" height="{self.height}" '
            f'style="border:0" srcdoc="{html.escape(self.page, quote=True)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Explorer({self.trace!r}); shown by a notebook, or save('report.html')"


def explore(
    trace: Trace,
    *,
    panels: Iterable[str] | None = None,
    height: int = 900,
    replay: bool = True,
    **focus: Any,
) -> Explorer:
    """Show the panels of ``trace`` in a notebook.

    Args:
        panels: names of the panels (``loopviz.panels.PANELS``, of a TTT run ``loopviz.panels.ttt.TTT_PANELS``); None: all that this run recorded enough for.
        height: of the frame, CSS pixels.
        replay: whether the reader can move through the run; without it the page is smaller.
        focus: what the panels show: ``token``, ``block``, ``step``, ``metric``, ``lang``, ``pins``, ``layer``, ``lens``,
            ``dims``, ... (:class:`loopviz.panels.Focus`); of a TTT run ``token``, ``layer``, ``head``, ``lang``
            (:class:`loopviz.panels.ttt.TTTFocus`).

    Raises:
        ValueError: a panel or a part of the focus there is not, by name; a trace that is none.
    """
    if not isinstance(trace, Trace):
        raise ValueError(
            f"trace: {type(trace).__name__} where a loopviz.trace.Trace belongs (trace.file.load reads a file)"
        )
    if isinstance(height, bool) or not isinstance(height, int) or height < 200:
        raise ValueError(f"height={height!r}: must be a whole number of pixels, at least 200")
    looking = TTTFocus.from_json(focus) if report.is_ttt(trace) else Focus.from_json(focus)
    chosen = None if panels is None else tuple(panels)
    report.check_panels(chosen, report.panels_of(trace))
    return Explorer(trace, looking, chosen, height, replay)
