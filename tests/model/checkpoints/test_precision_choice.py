"""Which dtype a precision means: by times that are given, measured once and kept, and what a checkpoint is then held in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.app.texts import LANGUAGES, text
from loopviz.checks import FieldError
from loopviz.model import LoopLlamaConfig
from loopviz.model.checkpoints import precision_choice
from loopviz.model.checkpoints.load import CheckpointError, load_checkpoint, load_model, prepare_checkpoint
from loopviz.model.checkpoints.precision_choice import (
    FILE,
    FORMATS,
    Times,
    choose,
    measured,
    surely_exact,
    times_of,
    token_ms,
)
from loopviz.model.precision import Int8Linear, held_name, plain_state, quantise, weight_bytes
from loopviz.paths import MODELS, model_type_of
from tests.conftest import make_llama

SAME = (1.0, 1.0)
SIZES = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
}
CONFIG = LoopLlamaConfig(**SIZES, num_key_value_heads=2, loop_layers=(1, 2), loop_count=3)
IDS = torch.tensor([[5, 17, 300, 2, 9, 44]])


def given(monkeypatch: pytest.MonkeyPatch, **times: tuple[float, float]) -> None:
    monkeypatch.setattr(precision_choice, "times_of", lambda config: times)
    monkeypatch.setattr(precision_choice, "SMALL", 0)  # a tiny model is looked at as a large one is


@pytest.mark.parametrize(
    ("float16", "bfloat16", "found"),
    [
        ((1.0, 1.0), (2.0, 2.0), torch.float16),
        ((2.0, 2.0), (1.0, 1.0), torch.bfloat16),
        ((1.0, 6.0), (2.0, 1.0), torch.bfloat16),  # a slow prompt weighs more than quick tokens: 48 and 64 of them
        ((1.0, 2.0), (2.0, 1.0), torch.float16),
    ],
)
def test_half_is_the_quicker_one_for_a_prompt_and_an_answer(
    monkeypatch: pytest.MonkeyPatch, float16: Any, bfloat16: Any, found: torch.dtype
) -> None:
    given(monkeypatch, float32=(9.0, 9.0), float16=float16, bfloat16=bfloat16, int8=(0.1, 0.1))
    choice = choose(CONFIG, "half")
    assert choice.dtype is found
    assert [note.code for note in choice.notes] == ["precision_half"]
    assert str(choice.notes[0]).startswith(f"its weights are held in {str(found).removeprefix('torch.')}")


def test_where_there_is_no_half_it_is_exact_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, float32=SAME)
    choice = choose(CONFIG, "half")
    assert (choice.dtype, [note.code for note in choice.notes]) == (torch.float32, ["precision_no_half"])


def test_exact_and_int8_need_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_choice, "times_of", lambda config: pytest.fail("measured"))
    assert (choose(CONFIG, "exact").dtype, choose(CONFIG, "exact").notes) == (torch.float32, ())
    assert (choose(CONFIG, "int8").dtype, choose(CONFIG, "int8").notes) == (torch.int8, ())
    with pytest.raises(FieldError, match=r"precision='double': must be one of 'exact', 'half', 'int8', 'auto'"):
        choose(CONFIG, "double")


def test_what_a_token_costs_is_its_weights_by_the_times_they_are_read() -> None:
    times: Times = {"float32": (2.0, 1.0), "float16": (1.0, 1.0), "int8": (0.5, 1.0)}
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96  # q and o, k and v, the MLP
    runs = 5 + 2 * 2  # two layers twice more
    assert token_ms(CONFIG, times, "float32") == pytest.approx((layer * runs + 64_000) * 2e-6)
    assert token_ms(CONFIG, times, "float16") == pytest.approx((layer * runs + 64_000) * 1e-6)
    assert token_ms(CONFIG, times, "int8") == pytest.approx((layer * runs + 64_000) * 0.5e-6)


@pytest.mark.parametrize(
    ("scale", "found"),
    [(0.5, torch.float32), (1.5, torch.float16), (2.5, torch.int8), (9.0, torch.int8)],
)
def test_auto_is_the_mildest_that_is_quick_enough(
    monkeypatch: pytest.MonkeyPatch, scale: float, found: torch.dtype
) -> None:
    unit = scale * precision_choice.ENOUGH / token_ms(CONFIG, {"float32": SAME}, "float32")
    given(monkeypatch, float32=(unit, unit), float16=(unit / 2, unit), bfloat16=(unit, unit), int8=(unit / 4, unit))
    choice = choose(CONFIG, "auto")
    assert choice.dtype is found
    assert choice.notes[0].values["exact_ms"] == pytest.approx(scale * precision_choice.ENOUGH, abs=0.01)


def test_auto_never_takes_what_is_slower_than_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = (1e6, 1e6)
    given(monkeypatch, float32=(1e5, 1e5), float16=slow, bfloat16=slow, int8=slow)
    assert choose(CONFIG, "auto").dtype is torch.float32


@pytest.mark.parametrize("name", sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()))
def test_what_comes_along_is_so_small_that_auto_is_exact_wherever_it_runs(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(precision_choice, "times_of", lambda config: pytest.fail("measured"))
    if model_type_of(name) == "ttt":
        pytest.skip("a TTT model is held in float32 alone")
    config = prepare_checkpoint(name).config
    assert surely_exact(config, "auto")
    assert choose(config, "auto") == precision_choice.Choice(torch.float32), "and nothing is said of it"
    assert not surely_exact(config, "half")


def test_a_large_model_is_exact_where_one_reads_along_and_else_what_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of the app and of `run`: 135 M weights on a machine that keeps up, and on one that does not."""
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    config = LoopLlamaConfig(**shape, num_key_value_heads=3, vocab_size=49152, loop_layers=None)
    assert precision_choice.weights_read(config) == 134_479_872, "matrices alone, the table once"
    assert not surely_exact(config, "auto")
    given(monkeypatch, float32=(0.5, 0.1), float16=(0.3, 0.2), bfloat16=(0.4, 0.1), int8=(0.2, 0.1))
    quick = choose(config, "auto")
    assert (quick.dtype, quick.notes[0].code) == (torch.float32, "precision_auto_exact")
    assert "67.2 ms on this machine, and up to 125 ms stay exact" in str(quick.notes[0])
    given(monkeypatch, float32=(2.0, 0.1), float16=(0.8, 0.2), bfloat16=(1.5, 0.1), int8=(0.4, 0.1))
    slow = choose(config, "auto")
    assert (slow.dtype, slow.notes[0].code) == (torch.float16, "precision_auto")
    assert "269 ms in float32 and 108 in float16" in str(slow.notes[0])
    given(monkeypatch, float32=(2.0, 0.1), float16=(3.0, 3.0), int8=(2.5, 2.5))
    assert choose(config, "auto").notes[0].code == "precision_auto_none"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_pages_and_commands_say_from_when_on_it_is_exact(lang: str) -> None:
    from loopviz.app.command import _parser as of_the_app
    from loopviz.cli.main import _parser as of_commands

    enough = f"{precision_choice.ENOUGH:g}"
    assert enough in text(lang, "precision.info.auto")
    assert f"{enough} ms here" in " ".join(of_the_app(None, None).format_help().split())
    run = next(action for action in of_commands()._actions if action.dest == "command").choices["run"]
    assert f"{enough} ms here" in " ".join(run.format_help().split())


# -- measured --------------------------------------------------------------------------------------------------------------------------


def test_every_format_is_timed() -> None:
    found = measured(64, numbers=64 * 50)
    assert set(found) == set(FORMATS)
    assert all(one > 0 and many > 0 for one, many in found.values())


def test_a_format_that_is_not_computed_here_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = precision_choice._seconds

    def seconds(module: torch.nn.Module, rows: torch.Tensor) -> float:
        if rows.dtype == torch.float16 or isinstance(module, Int8Linear):
            raise RuntimeError("not implemented for 'Half'")
        return whole(module, rows)

    monkeypatch.setattr(precision_choice, "_seconds", seconds)
    assert set(measured(64, numbers=64 * 50)) == {"float32", "bfloat16"}


def test_it_is_measured_once_a_width_and_kept(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    asked: list[int] = []

    def once(width: int) -> Times:
        asked.append(width)
        return {"float32": (1.5, 2.5), "bfloat16": (1.0, float(len(asked)))}

    monkeypatch.setattr(precision_choice, "measured", once)
    first = times_of(CONFIG)
    assert times_of(CONFIG) == first
    assert asked == [64]
    times_of(LoopLlamaConfig(**{**SIZES, "hidden_size": 128}))
    assert asked == [64, 128]
    assert times_of(CONFIG) == first
    (own_cache / FILE).write_text("{")  # cut off
    times_of(CONFIG)
    assert asked == [64, 128, 64]


@pytest.mark.parametrize(
    "value", [[], {"float32": [1.0]}, {"float32": [1.0, -1.0]}, {"float16": [1.0, 1.0]}, {"float32": "x"}, 3]
)
def test_a_cache_that_holds_something_else_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, value: Any
) -> None:
    monkeypatch.setattr(precision_choice, "measured", lambda width: {"float32": (1.5, 2.5)})
    times_of(CONFIG)
    kept = json.loads((own_cache / FILE).read_text())
    (own_cache / FILE).write_text(json.dumps(dict.fromkeys(kept, value)))
    assert times_of(CONFIG) == {"float32": (1.5, 2.5)}


def test_a_cache_that_cannot_be_written_costs_a_measurement_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOPVIZ_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(precision_choice, "measured", lambda width: {"float32": (1.5, 2.5)})
    assert times_of(CONFIG) == {"float32": (1.5, 2.5)}


@pytest.mark.parametrize("home", ["~nobody-of-that-name/cache", None])
def test_a_machine_without_a_home_and_a_cache_gone_wrong_cost_a_measurement_and_no_more(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, home: str | None
) -> None:
    own_cache.mkdir(parents=True, exist_ok=True)
    (own_cache / FILE).write_text("[" * 100_000)
    if home is not None:
        monkeypatch.setenv("LOOPVIZ_CACHE", home)
    monkeypatch.setattr(precision_choice, "measured", lambda width: {"float32": (1.5, 2.5)})
    assert times_of(CONFIG) == {"float32": (1.5, 2.5)}


# -- loaded ----------------------------------------------------------------------------------------------------------------------------


def test_a_folder_loads_as_int8_of_its_own_floats(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder()
    exact, loaded = load_checkpoint(folder), load_checkpoint(folder, precision="int8")
    assert held_name(loaded.model) == "int8"
    assert loaded.model.dtype == torch.float32
    assert loaded.notes == exact.notes
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, quantise(exact.model)(IDS).logits)
    assert torch.equal(load_model(folder, dtype=torch.int8)(IDS).logits, loaded.model(IDS).logits)


def test_a_half_is_loaded_as_that_dtype_and_its_note_says_why(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, float32=(9.0, 9.0), float16=(2.0, 2.0), bfloat16=SAME)
    folder = llama_folder()
    loaded = load_checkpoint(folder, precision="half")
    assert loaded.model.dtype == torch.bfloat16
    assert [note.code for note in loaded.notes] == ["precision_half"]
    assert torch.equal(loaded.model(IDS).logits, load_checkpoint(folder, dtype=torch.bfloat16).model(IDS).logits)
    assert weight_bytes(loaded.model) * 2 == weight_bytes(load_checkpoint(folder, precision="exact").model)


def test_both_are_refused_and_so_is_what_has_no_numbers(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder()
    with pytest.raises(ValueError, match=r"dtype=torch.float16, precision='int8': both say"):
        load_checkpoint(folder, dtype=torch.float16, precision="int8")
    with pytest.raises(ValueError, match=r"dtype=torch.int32: must be one of .*torch.int8"):
        load_checkpoint(folder, dtype=torch.int32)
    llama = make_llama()
    with torch.no_grad():
        llama.model.layers[1].mlp.gate_proj.weight[0, 0] = float("nan")
    llama.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.gate_proj has 1 weights that are not finite"):
        load_checkpoint(folder, precision="int8")


def test_what_an_int8_model_stands_for_loads_as_a_plain_one(llama_folder: Callable[..., Path]) -> None:
    model = load_checkpoint(llama_folder(), precision="int8").model
    plain = make_llama()
    plain.load_state_dict(plain_state(model))
    with torch.no_grad():
        off = (plain(IDS).logits - model(IDS).logits).abs().max()
    assert 0 < off < 2**-5 * plain(IDS).logits.abs().max()
