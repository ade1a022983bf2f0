"""The published forms are theirs byte for byte, whatever stands in a prompt."""

from __future__ import annotations

import pytest

from loopviz.prompt_templates import TEMPLATES, template_of, written

# As Stanford's training code and FastChat's conversation `vicuna_v1.1` write them.
PUBLISHED = {
    (
        "alpaca",
        "",
    ): "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
    "\n### Instruction:\nAdd {them}.\n\n### Response:",
    (
        "alpaca",
        "7 %s {prompt}",
    ): "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\nAdd {them}.\n\n### Input:\n7 %s {prompt}\n\n### Response:",
    (
        "vicuna",
        "",
    ): "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: Add {them}. ASSISTANT:",
}


@pytest.mark.parametrize(("form", "text"), PUBLISHED.items())
def test_a_form_is_as_published(form: tuple[str, str], text: str) -> None:
    assert written(form[0], "Add {them}.", form[1]) == text


def test_an_input_without_a_place_of_its_own_follows_the_instruction() -> None:
    assert written("none", "Add.", "7") == "Add.\n\n7"
    assert written("vicuna", "Add.", "7").endswith("USER: Add.\n\n7 ASSISTANT:")
    assert written("none", " as it is\n") == " as it is\n"


def test_a_run_s_template_by_its_settings_of_then_and_now() -> None:
    assert template_of({}) == template_of({"chat": False}) == "none"
    assert template_of({"chat": True}) == template_of({"chat": True, "template": "chat"}) == "chat"
    assert [template_of({"chat": False, "template": name}) for name in TEMPLATES] == [*TEMPLATES]
