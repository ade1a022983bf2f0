"""Peak memory is counted, block by block: known work gives known bytes, whatever else the process does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from loopviz.lab.memory import NEW_TOKENS, peak_bytes, sequence_memory

from .small import subject

CPU = torch.device("cpu")
MB = 1_000_000


def _known(first: int, second: int) -> int:
    """`first` MB, then `second` beside it, then both gone and a little one."""

    def work() -> None:
        one = torch.zeros(first * MB, dtype=torch.uint8)
        two = torch.zeros(second * MB, dtype=torch.uint8)
        del one, two
        torch.zeros(MB, dtype=torch.uint8)

    found = peak_bytes(work, CPU)
    assert found is not None
    return found


def test_the_peak_is_what_was_held_at_once() -> None:
    assert _known(2, 3) == pytest.approx(5 * MB, abs=1000)  # `zeros` makes a scalar beside it
    held = torch.zeros(4 * MB, dtype=torch.uint8)  # before: not among it
    assert _known(1, 1) == pytest.approx(2 * MB, abs=1000)
    assert len(held) == 4 * MB


def test_what_was_held_before_and_is_given_back_does_not_count() -> None:
    held = [torch.zeros(4 * MB, dtype=torch.uint8)]

    def work() -> None:
        held.clear()
        torch.zeros(3 * MB, dtype=torch.uint8)

    assert peak_bytes(work, CPU) == pytest.approx(3 * MB, abs=1000)


def test_what_another_measurement_left_and_was_given_back_since_does_not_count() -> None:
    """Torch remembers the sizes of blocks by their addresses, which others get later."""
    kept: list[torch.Tensor] = []
    for _ in range(3):
        assert peak_bytes(lambda: kept.append(torch.zeros(4 * MB, dtype=torch.uint8)), CPU) == pytest.approx(
            4 * MB, abs=1000
        )
        kept.clear()
        kept.append(torch.zeros(4 * MB, dtype=torch.uint8))  # unseen, most likely where the other was

        def work() -> None:
            kept.clear()
            torch.zeros(3 * MB, dtype=torch.uint8)

        assert peak_bytes(work, CPU) == pytest.approx(3 * MB, abs=1000)


def test_two_threads_count_each_their_own() -> None:
    """Two visitors measure at once, and a third one's run takes memory meanwhile."""
    over = threading.Event()

    def other() -> None:
        while not over.is_set():
            torch.zeros(7 * MB, dtype=torch.uint8)

    with ThreadPoolExecutor(3) as pool:
        busy = pool.submit(other)
        found = [pool.submit(_known, n, n) for n in (1, 2)]
        peaks = [future.result() for future in found]
        over.set()
        busy.result()
    assert peaks == pytest.approx([2 * MB, 4 * MB], abs=1000)


def test_an_error_in_the_work_is_told_and_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="no"):
        peak_bytes(lambda: int("no"), CPU)
    assert _known(1, 1) == pytest.approx(2 * MB, abs=1000)


@pytest.mark.parametrize(
    ("loop", "slots"),
    [
        ({"loop_layers": None}, [1, 1, 1, 1]),
        ({"loop_count": 3, "virtual_layer_count": 5}, [1, 3, 3, 1]),
        ({"loop_count": 4, "kv_cache_mode": "merge_strategy"}, [1, 1, 1, 1]),
    ],
)
def test_a_sequence_keeps_two_vectors_a_head_token_and_slot(loop: dict, slots: list[int]) -> None:
    thing = subject()
    ids = torch.tensor(thing.tokenizer("Once upon a time there was a little loop")["input_ids"])
    found = sequence_memory(thing.view(loop), ids)
    config = thing.model.config
    entry = 2 * config.head_dim * config.num_key_value_heads * thing.model.dtype.itemsize
    assert found.tokens == len(ids) + NEW_TOKENS - 1
    assert found.kv_bytes == entry * found.tokens * sum(slots)
    assert found.peak_bytes > found.kv_bytes
    # the same work takes the same memory
    assert sequence_memory(thing.view(loop), ids).peak_bytes == found.peak_bytes


def test_more_slots_take_more() -> None:
    thing = subject()
    ids = torch.tensor(thing.tokenizer("Once upon a time there was a little loop")["input_ids"])
    peaks = [
        sequence_memory(thing.view({"loop_count": 8, "virtual_layer_count": V}), ids).peak_bytes for V in (1, 2, 8)
    ]
    assert peaks == sorted(peaks)
    assert len(set(peaks)) == 3
