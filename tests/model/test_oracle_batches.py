"""Oracle 5: a padded batch gives every prompt what it gets alone, in every mode, under both strategies."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .tiny import MODES, TOLERANCE, any_loop, build, close, ids, precision, random_shapes, reference

pytestmark = pytest.mark.usefixtures("no_gradients")

LENGTHS = (5, 2, 4)
THEN = 3  # tokens decoded after the prompts
VIRTUAL = ("serial", "serial_wrapping", "parallel", "parallel_wrapping")


def prompts(lengths, seed=0):
    """One random row of ids per length, and the tokens that follow it."""
    rows = [ids(n, seed + 10 * i)[0] for i, n in enumerate(lengths)]
    return rows, ids(THEN, seed + 99, rows=len(lengths))


def run(model, rows, after, side="left", positions=True, chunks=(1, 1, 1)):
    """Prefill `rows` as one padded batch, then feed `after` in chunks.

    Returns the logits of each row's real tokens in order, and for each pass the steps and reasons of every block and row.
    """
    width, batch = max(map(len, rows)), len(rows)
    tokens = torch.zeros(batch, width, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens[i, at], mask[i, at] = row, 1
    where = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(tokens, attention_mask=mask, position_ids=where if positions else None)
    logits = [[out.logits[i, mask[i].bool()]] for i in range(batch)]
    passes = [(model.last_pass.steps, model.last_pass.reasons)]
    start, lengths = 0, torch.tensor([len(row) for row in rows])[:, None]
    for size in chunks:
        part = after[:, start : start + size]
        mask = torch.cat((mask, torch.ones_like(part)), dim=1)
        where = lengths + start + torch.arange(size)
        out = model(
            part,
            attention_mask=mask,
            position_ids=where if positions else None,
            past_key_values=out.past_key_values,
        )
        for i in range(batch):
            logits[i].append(out.logits[i])
        passes.append((model.last_pass.steps, model.last_pass.reasons))
        start += size
    return [torch.cat(row) for row in logits], passes


def assert_each_as_alone(model, rows, after, tolerance, **how):
    """Compare a batch with every row run by itself; returns the steps `[passes][blocks][rows]`."""
    logits, passes = run(model, rows, after, **how)
    for i, row in enumerate(rows):
        alone, alone_passes = run(model, [row], after[i : i + 1], chunks=how.get("chunks", (1, 1, 1)))
        close(logits[i], alone[0], tolerance)
        for (steps, reasons), (own_steps, own_reasons) in zip(passes, alone_passes, strict=True):
            assert [int(block[i]) for block in steps] == [int(block[0]) for block in own_steps]
            assert [block[i] for block in reasons] == [block[0] for block in own_reasons]
    return [[block.tolist() for block in steps] for steps, _ in passes]


def telling_threshold(trails, floor, largest):
    """The threshold on a rising measure that makes the rows of `trails` stop at the most different steps."""

    def stops(threshold):
        return [next((r for r, v in enumerate(trail, 1) if r >= floor and v >= threshold), largest) for trail in trails]

    values = sorted(v for trail in trails for v in trail)
    between = [(a + b) / 2 for a, b in itertools.pairwise(values) if b - a > 1e-4]
    return max(between, key=lambda threshold: len(set(stops(threshold))))


def dynamic(mode, criterion, rows):
    """A dynamic-stop configuration under which the rows stop at different steps, measured on the reference."""
    loop = {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "convergence_criterion": criterion,
        "loop_damping": 0.5,
        "max_loop_count": 8,
        "min_loop_count": 2,
        **MODES[mode],
    }
    if mode in VIRTUAL:
        loop["virtual_layer_count"] = 2
    never = {**loop, "cosine_threshold": 1.0, "kl_threshold": 0.0}
    slow = reference(build(never), never)
    measured = [slow(row.tolist()) for row in rows]
    cosine = telling_threshold([m.cosine[0] for m in measured], 2, 8)
    kl = -telling_threshold([[-v for v in m.kl[0]] for m in measured], 2, 8)
    return {**loop, "cosine_threshold": cosine, "kl_threshold": max(kl, 0.0)}


# Decoding after right padding needs positions: without them a plain Llama would be wrong too.
@pytest.mark.parametrize(("side", "positions"), [("left", True), ("left", False), ("right", True)])
@pytest.mark.parametrize("mode", list(MODES))
def test_fixed_count(mode, side, positions):
    model = build({"loop_layers": (1, 2), "loop_count": 3, **MODES[mode]})
    rows, after = prompts(LENGTHS)
    assert_each_as_alone(model, rows, after, TOLERANCE[torch.float32], side=side, positions=positions)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", list(MODES))
def test_dynamic_stop_rows_freeze_at_their_own_step(mode, side, attention):
    rows, after = prompts(LENGTHS)
    model = build(dynamic(mode, "cosine", rows), attn_implementation=attention)
    steps = assert_each_as_alone(model, rows, after, TOLERANCE[torch.float32], side=side)
    assert len(set(steps[0][0])) > 1, "all rows stop together: the test would prove nothing"


@pytest.mark.parametrize("criterion", ["kl", "either", "both"])
@pytest.mark.parametrize("mode", ["serial", "parallel_wrapping", "ema"])
def test_dynamic_stop_criteria(mode, criterion):
    rows, after = prompts(LENGTHS)
    model = build(dynamic(mode, criterion, rows))
    steps = assert_each_as_alone(model, rows, after, TOLERANCE[torch.float32])
    if criterion == "kl":
        assert len(set(steps[0][0])) > 1, "all rows stop together: the test would prove nothing"


@pytest.mark.parametrize("mode", list(MODES))
def test_a_row_never_depends_on_its_neighbours(mode):
    rows, after = prompts(LENGTHS)
    model = build(dynamic(mode, "cosine", rows))
    others, _ = prompts(LENGTHS, seed=500)
    logits, passes = run(model, rows, after)
    again, others_passes = run(model, [others[0], rows[1], others[2]], after)
    close(again[1], logits[1], 1e-6)
    assert [int(s[0][1]) for s, _ in passes] == [int(s[0][1]) for s, _ in others_passes]
    assert (again[0] - logits[0]).abs().max() > 0.1, "the neighbours are the same: the test would prove nothing"


@pytest.mark.parametrize("mode", list(MODES))
def test_content_of_padding_does_not_matter(mode):
    rows, _ = prompts(LENGTHS)
    model = build(dynamic(mode, "cosine", rows))
    tokens, mask = torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    tokens[0], tokens[1, 3:], mask[1, :3] = rows[0], rows[1], 0
    first = model(tokens, attention_mask=mask)
    steps = model.last_pass.steps[0].tolist()
    tokens[1, :3] = torch.tensor([50, 60, 70])
    second = model(tokens, attention_mask=mask)
    assert model.last_pass.steps[0].tolist() == steps
    close(second.logits[1, 3:], first.logits[1, 3:], 1e-6)


@pytest.mark.parametrize("strategy", ["fixed_count", "dynamic_stop"])
@pytest.mark.parametrize("mode", list(MODES))
def test_generate_from_a_left_padded_batch(mode, strategy):
    rows, _ = prompts(LENGTHS)
    loop = dynamic(mode, "cosine", rows) if strategy == "dynamic_stop" else {"loop_layers": (1, 2), **MODES[mode]}
    model = build(loop)
    width = max(LENGTHS)
    tokens = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in rows])
    mask = torch.stack([(torch.arange(width) >= width - len(row)).long() for row in rows])
    together = model.generate(tokens, attention_mask=mask, max_new_tokens=6, do_sample=False)
    for i, row in enumerate(rows):
        alone = model.generate(row[None], attention_mask=torch.ones(1, len(row)), max_new_tokens=6, do_sample=False)
        assert together[i, width:].tolist() == alone[0, len(row) :].tolist()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.data(),
    random_shapes(),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.sampled_from(["left", "right"]),
    st.sampled_from([(1, 1, 1), (2, 1), (3,)]),
    st.booleans(),
)
def test_any_configuration(data, shape, lengths, side, chunks, gradients):
    model = build(data.draw(any_loop(shape["num_hidden_layers"])), **shape).double()
    rows, after = prompts(lengths)
    with precision(torch.float64) as tolerance, torch.set_grad_enabled(gradients):
        assert_each_as_alone(model, rows, after, tolerance, side=side, chunks=chunks)


@pytest.mark.parametrize("mode", ["serial", "parallel", "average"])
def test_a_row_of_padding_only_leaves_its_neighbours_alone(mode):
    model = build({"loop_layers": (1, 2), **MODES[mode]})
    tokens = ids(4, rows=2)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    out = model(tokens, attention_mask=mask)
    close(out.logits[0], model(tokens[:1]).logits[0], TOLERANCE[torch.float32])
    assert torch.isfinite(out.logits).all()
