"""What the store says no to, as data: pages say it in their language."""

from __future__ import annotations

# By fault; the places are filled by what a StoreError names.
SAID = {
    "unknown": "there is no such run here",
    "expired": "this run was kept until its time was over",
    "deleted": "this run was deleted: by who saved it, by the teacher of its class, or by the host",
    "lost": "the file of this run is not as it was saved",
    "unread": "the file of this run cannot be read now: {reason}",
    "owner": "this is not the secret of who saved it, or of the teacher whose class folder it is",
    "run_bytes": "the run takes {size:,} bytes; at most {limit:,} are kept of one",
    "owner_runs": "{limit} runs are kept of one visitor; delete one of them first",
    "owner_bytes": "{limit:,} bytes are kept of one visitor; delete a run first",
    "place_bytes": "{limit:,} bytes are kept of all who come from one address; delete a run first",
    "all_bytes": "{limit:,} bytes are kept here in all, and they are full",
    "answer_bytes": "the answers take {size:,} bytes; at most {limit:,} are kept of a lesson",
    "folder_answers": "a class folder takes {limit:,} answers, of {size} MiB together",
    "owner_answers": "answers to {limit} lessons are kept of one visitor",
    "folders": "{limit} class folders are kept here, and there is no room for another",
    "no_folder": "there is no such class folder",
    "no_answer": "there are no such answers: they were handed in with another secret or name, or were taken back or deleted",
    "disk": "the disk does not take it: {reason}",
    "copy": "the dataset that holds this store does not take it: {reason}",
    "copy_often": "the dataset that holds this store takes so many commits an hour, and they are made; it takes more in {minutes} minutes",
    "copy_public": "{dataset}: everybody can read this dataset; make it private, for it has what visitors wrote",
}


class StoreError(Exception):
    """What was not done, and why; nothing that was there before is harmed.

    Args:
        fault: a key of :data:`SAID`.
        named: what fills the places of its sentence.
    """

    def __init__(self, fault: str, **named: object) -> None:
        super().__init__(SAID[fault].format(**named))
        self.fault, self.named = fault, named
