"""A pass as mini-batches: every token at its own place, whatever the padding and wherever the rows stand."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.ttt.chunk import Chunk

CPU = torch.device("cpu")


@st.composite
def passes(draw):
    size, rows, n = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 14))
    offsets = draw(st.lists(st.integers(0, 12), min_size=rows, max_size=rows))
    real = draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=rows, max_size=rows))
    return offsets, n, size, draw(st.sampled_from([None, real]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(passes())
def test_every_real_token_stands_once_in_the_mini_batch_and_slot_of_its_position(made):
    offsets, n, size, given_mask = made
    real = None if given_mask is None else torch.tensor(given_mask)
    chunk = Chunk(offsets, n, size, real, CPU)
    tokens, slots = chunk.tokens(), chunk.slots.expand(len(offsets), -1)
    for row, offset in enumerate(offsets):
        columns = [t for t in range(n) if real is None or real[row, t]]
        placed = [(int(tokens[row, g]), g) for g in range(chunk.columns) if tokens[row, g] >= 0]
        assert [t for t, _ in placed] == columns
        assert chunk.counts[row] == len(columns)
        part_of = {g: part for part in chunk.parts for g in range(part.start, part.stop)}
        batches = {}
        for rank, (_, g) in enumerate(placed):
            position = offset + rank
            assert int(slots[row, g]) == position % size
            batches.setdefault(position // size, set()).add(part_of[g])
        assert all(len(parts) == 1 for parts in batches.values()), "a mini-batch is torn apart"
        assert len({next(iter(parts)) for parts in batches.values()}) == len(batches), "two of them in one"
        for index, part in enumerate(chunk.parts):
            closes = part.closing if isinstance(part.closing, bool) else part.closing[row]
            last = [offset + rank for rank, (_, g) in enumerate(placed) if part.start <= g < part.stop]
            assert closes == bool(last and last[-1] % size == size - 1), f"part {index}"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(passes())
def test_there_and_back_again(made):
    offsets, n, size, given_mask = made
    real = None if given_mask is None else torch.tensor(given_mask)
    chunk = Chunk(offsets, n, size, real, CPU)
    x = torch.arange(1.0, 1 + len(offsets) * n).view(len(offsets), n)
    packed = chunk.pack(x)
    assert packed.shape == (len(offsets), chunk.width)
    grid = chunk.to_grid(packed[:, None])
    assert grid.shape == (len(offsets), 1, chunk.columns)
    mask = torch.ones_like(x, dtype=torch.bool) if real is None else real
    given = chunk.as_given(grid)[:, 0]
    assert torch.equal(given[mask], x[mask])
    assert not given[~mask].any()
    out = chunk.unpack(chunk.from_grid(grid)[:, 0])
    assert torch.equal(out[mask], x[mask])
    for row in range(len(offsets)):
        last = 0.0
        for t in range(n):
            last = float(x[row, t]) if mask[row, t] else last
            assert float(out[row, t]) == last, "padding repeats the token before it"


def test_rows_at_one_place_need_no_gather_and_no_mask():
    chunk = Chunk([5, 13], 7, 4, None, CPU)
    x = torch.rand(2, 3, 7)
    assert chunk.to_grid(x) is x
    assert chunk.valid is None
    assert chunk.slots.tolist() == [[1, 2, 3, 0, 1, 2, 3]]
    assert [(p.start, p.stop, p.closing) for p in chunk.parts] == [(0, 3, True), (3, 7, True)]


def test_one_token_a_row_is_one_column_wherever_the_rows_stand():
    chunk = Chunk([0, 3, 6], 1, 4, None, CPU)
    assert chunk.columns == 1
    assert chunk.slots.tolist() == [[0], [3], [2]]
    assert chunk.parts[0].closing == (False, True, False)


def test_positions_count_a_rows_own_tokens():
    real = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert Chunk([10, 0], 4, 4, real, CPU).positions.tolist() == [[10, 10, 11, 11], [0, 1, 2, 3]]
