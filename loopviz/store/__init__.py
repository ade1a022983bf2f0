"""Runs that a server keeps: an index in SQLite and a file a Trace, in one folder. Knows nothing of the web.

A save that was acknowledged is on the disk, whatever kills the process afterwards; what was not acknowledged leaves nothing that
anybody could find. Who has a run's id may read it, who has its owner's secret may delete it; neither can be guessed.
"""

from loopviz.store.answers import HandedIn
from loopviz.store.classes import Dropped
from loopviz.store.index import Entry, Folder
from loopviz.store.marks import is_id, new_secret
from loopviz.store.mirror import Mirror
from loopviz.store.quotas import Quotas
from loopviz.store.refusals import StoreError
from loopviz.store.store import Store, Stored

__all__ = [
    "Dropped",
    "Entry",
    "Folder",
    "HandedIn",
    "Mirror",
    "Quotas",
    "Store",
    "StoreError",
    "Stored",
    "is_id",
    "new_secret",
]
