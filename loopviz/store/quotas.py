"""How much a store keeps, and how long."""

from __future__ import annotations

from dataclasses import dataclass

DAY = 86_400.0
MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Quotas:
    """The limits of one store.

    Attributes:
        run_bytes: of one run's file, packed and unpacked.
        answer_bytes: of what a pupil hands in of one lesson; a visitor may hand in `owner_runs` of them, and all count as bytes of runs do.
        folder_answers, folder_answer_bytes: of all that is handed in to one class folder.
        run_tokens, run_rows: that it may have when it is read.
        owner_runs, owner_bytes: of one visitor, told by their secret.
        place_bytes: of all visitors of one address: nobody fills the store with new names.
        all_bytes: of all runs together.
        folders: class folders.
        seconds: that a run is kept; runs of a class folder and featured ones end no sooner than that is.
        folder_seconds: that a class folder is.
    """

    run_bytes: int = 48 * MIB
    answer_bytes: int = 256 * 1024
    run_tokens: int = 50_000
    run_rows: int = 2_000_000
    folder_answers: int = 2_000
    folder_answer_bytes: int = 16 * MIB
    owner_runs: int = 500
    owner_bytes: int = 1 * GIB
    place_bytes: int = 4 * GIB
    all_bytes: int = 4 * GIB
    folders: int = 200
    seconds: float = 365 * DAY
    folder_seconds: float = 365 * DAY
