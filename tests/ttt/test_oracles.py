"""Every tensor of every folder that the official code made (data/*/README.md says how): 1e-4, gradients 5e-4."""

import pytest

from .official import KINDS, computed, of_kind
from .tiny import DATA, ORACLES, close, oracle

TOLERANCE, GRADIENTS = 1e-4, 5e-4


@pytest.mark.parametrize("name", ORACLES)
def test_no_tensor_of_a_folder_is_left_out(name):
    assert {path.name for path in DATA.iterdir()} == set(ORACLES)
    wanted = set(oracle(name)[1]) - {"input_ids"}
    assert set(computed(name)) == wanted == {key for kind in KINDS for key in of_kind(kind, name)}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_official_code_computes(kind, name):
    keys = of_kind(kind, name)
    assert keys
    for key in keys:
        expected = oracle(name)[1][key]
        assert computed(name)[key].shape == expected.shape, key
        close(computed(name)[key], expected, GRADIENTS if kind == "gradients" else TOLERANCE)


@pytest.mark.parametrize("name", ORACLES)
def test_no_gradient_passes_by_being_small(name):
    for key in of_kind("gradients", name):
        assert oracle(name)[1][key].abs().max() > 2 * GRADIENTS
