"""Who waits in Gradio's queue keeps their messages, whoever else comes; what is used of Gradio is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gradio.queueing import Queue
from gradio.utils import LRUCache

from loopviz.app.sessions.mailbox import Mailbox, keep_mail


def _queue(most: int = 3) -> Any:
    return SimpleNamespace(
        pending_messages_per_session=LRUCache(most),
        pending_event_ids_session={},
        event_queue_per_concurrency_id={"run": SimpleNamespace(queue=[])},
        active_jobs=[None, None],
    )


def test_queue_without_an_end_who_waits_first_is_not_dropped_for_strangers() -> None:
    queue = _queue()
    keep_mail(queue)
    mail = queue.pending_messages_per_session
    mail["runs"], mail["waits"] = "messages of one", "messages of another"
    queue.active_jobs[1] = [SimpleNamespace(session_hash="runs")]
    queue.event_queue_per_concurrency_id["run"].queue.append(SimpleNamespace(session_hash="waits"))
    for n in range(100):
        mail[f"stranger {n}"] = n
        queue.pending_event_ids_session[f"stranger {n}"] = {n}
    assert {"runs", "waits", "stranger 99"} == mail.keys()
    assert queue.pending_event_ids_session.keys() == {"stranger 99"}
    queue.active_jobs[1] = None
    mail["last"] = 0
    assert "runs" not in mail, "what is over gives way"


def test_gradio_s_own_queue_has_what_the_mailbox_looks_at() -> None:
    queue = Queue(live_updates=False, concurrency_count=2, update_intervals=1, max_size=1, blocks=None)  # type: ignore[arg-type]
    most = queue.pending_messages_per_session.max_size
    keep_mail(queue)
    mail = queue.pending_messages_per_session
    assert isinstance(mail, Mailbox)
    for n in range(most + 1):
        mail[str(n)] = n
    assert len(mail) == most
    assert "0" not in mail
