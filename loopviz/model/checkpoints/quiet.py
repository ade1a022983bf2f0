"""Loading beside others: without transformers' bars and reports on the terminal, and its readers one at a time.

What transformers sets while it loads is the process's, not the thread's: how much it says, and how a model that is built begins.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

# Held around `from_pretrained`: of two at once one has been seen to miss a tied weight that its file rightly lacks.
ONE_READER = threading.RLock()

_COUNTING = threading.Lock()
_inside = 0
_before = (0, False)  # of the first who came in: verbosity, and whether there are bars


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers logs only errors and draws no bars of its own; the last who leaves puts both back as they were."""
    global _inside, _before
    with _COUNTING:
        if not _inside:
            _before = logging.get_verbosity(), logging.is_progress_bar_enabled()
        _inside += 1
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        with _COUNTING:
            _inside -= 1
            if not _inside:
                verbosity, bars = _before
                logging.set_verbosity(verbosity)
                if bars:
                    logging.enable_progress_bar()
