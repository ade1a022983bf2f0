"""The roofline: what a pass reads and computes, counted by hand, and that the limits are this machine's."""

from __future__ import annotations

import pytest

from loopviz.anatomy import families, roofline
from loopviz.anatomy.roofline import Machine, Pass


def counted(config, tokens, past, layer_runs, itemsize, key_runs):
    H, F, V, D = (
        config.hidden_size,
        config.intermediate_size,
        config.vocab_size,
        config.hidden_size // config.num_attention_heads,
    )
    N, K = config.num_attention_heads, config.num_key_value_heads
    weights = 2 * H * N * D + 2 * H * K * D + 3 * H * F + 2 * H
    products = 2 * H * N * D + 2 * H * K * D + 3 * H * F
    read = layer_runs * weights + key_runs * 2 * K * D * (past + tokens) + V * H
    pairs = sum(past + t + 1 for t in range(tokens))
    flops = 2 * (layer_runs * tokens * products + key_runs * 2 * pairs * N * D + V * H)
    return itemsize * read, flops, 2 * layer_runs * tokens * 2 * H


@pytest.mark.parametrize("name", ["LLaMA 7B", "Llama 3 8B"])
@pytest.mark.parametrize(("tokens", "past"), [(1, 0), (1, 500), (64, 0), (8, 100)])
@pytest.mark.parametrize("slots", [None, 4])
def test_bytes_and_operations_by_hand(name, tokens, past, slots):
    config = families.SIZES[name]
    runs = 2 * config.num_hidden_layers
    found = roofline.pass_of(config, 2, tokens=tokens, past=past, layer_runs=runs, key_runs=slots and runs * slots)
    read, flops, norms = counted(config, tokens, past, runs, 2, runs * (slots or 1))
    assert found.bytes == pytest.approx(read, rel=1e-9)
    assert found.flops == pytest.approx(flops + norms, rel=1e-9)  # a gain counts as a weight: one in some thousands


def test_a_decode_of_one_token_makes_about_two_operations_a_weight():
    config = families.SIZES["LLaMA 7B"]
    found = roofline.passes(config, 2, config.num_hidden_layers, 16)
    assert found["decode"].intensity == pytest.approx(1, rel=0.02)  # 2 for each number of 2 bytes
    assert found["prefill"].intensity == pytest.approx(16, rel=0.05)


def test_the_slower_limit_counts():
    machine = Machine(bytes_per_second=10.0, flops_per_second=100.0)
    assert Pass(bytes=10, flops=50).bound(machine) == "memory"
    assert Pass(bytes=10, flops=50).seconds(machine) == 1
    assert Pass(bytes=10, flops=500).bound(machine) == "arithmetic"
    assert Pass(bytes=10, flops=500).seconds(machine) == 5


def test_this_machine_is_measured_once():
    machine = roofline.measure()
    assert machine.bytes_per_second > 1e6
    assert machine.flops_per_second > 1e6
    assert roofline.measure() is machine


def test_a_gpu_is_measured_with_so_much_that_launches_do_not_count():
    """A product of two matrices of 1024 takes a GPU less time than it takes to tell it so."""
    read, side = roofline.sizes("cuda")
    assert 2 * side**3 / 1e15 > 1e-3, "a millisecond at the least, at a thousand TFLOP/s"
    assert read / 8e12 > 1e-4, "ten launches at the least, at 8 TB/s"
    assert roofline.sizes("cpu") == (roofline.READ, roofline.SQUARE)
    assert roofline.measuring_bytes("cuda", 2) == read + 3 * 2 * side**2
