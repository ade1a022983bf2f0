"""Messages on their way to the pages: nobody who still waits for theirs loses them to those who came later.

Gradio keeps the messages of so many sessions, and lets go of the session that came first: a stranger who starts runs under
new names all the time, and fetches nothing, would push out a visitor who has been waiting in the queue.
"""

from __future__ import annotations

from typing import Any

from gradio.utils import LRUCache


class Mailbox(LRUCache[str, Any]):
    """Messages by session, in place of the one in a queue of Gradio's.

    A session goes only once nothing of it waits or runs; how many of these there are is what the queue bounds.
    """

    def __init__(self, queue: Any) -> None:
        super().__init__(queue.pending_messages_per_session.max_size)
        self._queue = queue

    def __setitem__(self, session: str, messages: Any) -> None:
        if session not in self and len(self) >= self.max_size:
            self._let_one_go()
        super().__setitem__(session, messages)

    def _let_one_go(self) -> None:
        busy = self._busy()
        gone = next((session for session in self if session not in busy), None)
        if gone is not None:
            del self[gone]
            self._queue.pending_event_ids_session.pop(gone, None)

    def _busy(self) -> set[str]:
        """Sessions of which something waits or runs."""
        waiting = (event for line in self._queue.event_queue_per_concurrency_id.values() for event in line.queue)
        running = (event for job in self._queue.active_jobs if job for event in job)
        return {event.session_hash for events in (waiting, running) for event in events}


def keep_mail(queue: Any) -> None:
    """Give a queue of Gradio's, which nobody has used yet, such a mailbox."""
    queue.pending_messages_per_session = Mailbox(queue)
