"""Presets: each is a loop the model takes, each sets another, and the page knows which one is set."""

from __future__ import annotations

import pytest
from transformers import GenerationConfig
from transformers.generation.configuration_utils import GenerationMode

from loopviz.app import controls as st
from loopviz.app.controls.presets import ARTICLE, PRESETS, Preset, is_set, matching
from loopviz.app.explore import first_run
from loopviz.app.texts import text
from loopviz.loop_fields import BLOCK_FIELDS
from loopviz.prompt_templates import ARTICLE_BEAMS
from tests.conftest import make_llama


def set_to(preset: Preset, **others: object) -> dict[str, object]:
    return {**st.defaults(), "block_start": 1, "block_end": 1, **others, **preset.values}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_is_taken_by_any_model_whatever_was_set_before(preset: Preset) -> None:
    from loopviz.model.checkpoints.load import as_loop_llama

    model = as_loop_llama(make_llama())
    before = {"max_loop_count": 1, "min_loop_count": 9, "virtual_layer_count": 16, "kv_cache_mode": "merge_strategy"}
    values, problems = st.clean(set_to(preset, **before))
    assert problems == []
    assert st.check_loop(values, model) == []
    (block,) = model.with_loop(**st.loop_fields(values)).config.loop_blocks()
    wanted = {
        "four": (4, "virtual_layers", 4, "serial"),
        "one_slot": (4, "virtual_layers", 1, "serial"),
        "parallel": (4, "virtual_layers", 4, "parallel"),
        "ema": (4, "merge_strategy", 1, None),
        "cosine": (16, "virtual_layers", 1, "serial"),
        "kl": (16, "virtual_layers", 1, "serial"),
    }[preset.name]
    mode = block.attention_mode if block.kv_mode == "virtual_layers" else None
    assert (block.max_steps, block.kv_mode, block.slots if mode else 1, mode) == wanted
    if preset.name in ("cosine", "kl"):
        assert (block.strategy, block.criterion, block.floor) == ("dynamic_stop", preset.name, 1)


def test_the_page_knows_which_preset_is_set() -> None:
    for preset in PRESETS:
        assert matching(set_to(preset)) is preset
        assert matching(set_to(preset, seed=7, max_new_tokens=3)) is preset, "a preset says nothing of sampling"
        changed = {**set_to(preset), "max_loop_count": 17}
        assert matching(changed) is None
    assert matching(st.defaults()) is None


def test_presets_set_no_model_no_layers_and_no_sampling() -> None:
    for preset in PRESETS:
        assert {st.BY_NAME[name].group for name in preset.values} <= {"loop", "kv"}
        assert not {"block_start", "block_end"} & preset.values.keys()


def test_the_article_s_numbers_are_of_sampling_alone_and_that_its_own_call_draws_nothing_is_said() -> None:
    assert {st.BY_NAME[name].group for name in ARTICLE.values} == {"sampling"}
    values, problems = st.clean({**st.defaults(), "greedy": True, "min_p": 0.3, **ARTICLE.values})
    assert problems == []
    assert is_set(ARTICLE, values)
    assert matching(values) is None, "it is no way to loop"
    made = st.stream_fields(values)
    assert (made["do_sample"], made["temperature"], made["top_p"], made["max_new_tokens"]) == (True, 1.5, 0.8, 256)
    call = GenerationConfig(temperature=1.5, top_p=0.8, num_beams=ARTICLE_BEAMS)  # as it stands there
    assert call.get_generation_mode() is GenerationMode.BEAM_SEARCH, "and not a drawing one"
    for lang, said in (("en", ("draws nothing", "4 beams")), ("zh", ("并不抽取", "4 条束"))):
        line = text(lang, "preset.article.line")
        numbers = ("1.5", "0.8", "top-k 50", "256")  # all that it sets
        assert [part for part in (*said, *numbers, "--preset article --beams 4") if part not in line] == []


def test_the_page_opens_on_the_settings_of_the_run_it_shows() -> None:
    """A9: the page showed "until settled", and the controls stood at 8 loops: the first Run was another thing."""
    trace, found = first_run.stored(), first_run.settings("stories-loop")
    assert trace is not None
    assert found is not None
    values, prompt = found
    assert prompt == trace.meta["prompt"]
    fields = st.loop_fields(values)
    later = {
        field.name: field.plain for field in BLOCK_FIELDS if field.since > 4
    }  # than the run, whose model had none of it
    shown = {**later, **trace.meta["loop"], "loop_layers": tuple(trace.meta["loop"]["loop_layers"])}
    assert fields["kl_threshold"] == pytest.approx(shown.pop("kl_threshold"), rel=0.01), "to the slider's precision"
    idle = ("kl_threshold", "loop_count", "layer_threshold")  # compared above; not looked at in such a run
    assert shown.items() >= {name: value for name, value in fields.items() if name not in idle}.items()
    assert values["precision"] == "server", "which nobody has chosen"
    chosen = matching(values)
    assert chosen is not None, "and its preset is lit"
    assert chosen.name == "kl"
    assert first_run.settings("glassbox") is None, "of another model's page it says nothing"
