"""How a prompt becomes what a model reads: as it is, in the model's own chat template, or in a published form of instructions.

Alpaca's form is the one of Stanford's training code, Vicuna's the one of FastChat since version 1.1, byte for byte: a model that
was taught one of them knows no other. Nothing in them ends an answer but the model's own end mark; a model that was never taught
the form goes on after it, often with another instruction. On the ground floor: pages, runs and training data read the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from loopviz.checks import FieldError, check_characters, check_one_of

Template = Literal["none", "chat", "alpaca", "vicuna"]
TEMPLATES: tuple[str, ...] = get_args(Template)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{prompt}\n\n### Input:\n{input}\n\n### Response:"
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: {prompt} ASSISTANT:"
)
# The article's numbers, drawn by; of transformers what it leaves unsaid (top_k). The article's own call draws nothing: it has 4 beams
# and no do_sample, under which transformers searches over beams and looks at neither temperature nor top_p. Whoever offers it says so.
ARTICLE_SAMPLING: Mapping[str, Any] = {
    "do_sample": True,
    "temperature": 1.5,
    "top_k": 50,
    "top_p": 0.8,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "max_new_tokens": 256,
}
ARTICLE_BEAMS = 4
BEFORE_ANSWER: Mapping[str, str] = {
    "vicuna": " "
}  # what stands between a form and an answer to it, where anything does


def written(template: str, prompt: str, input: str = "") -> str:
    """`prompt` in a form of its own; as it is under ``"none"`` and ``"chat"``, where the tokenizer writes the template.

    Args:
        input: what the instruction is about. Alpaca has a place for it; elsewhere it follows after a blank line.
    """
    if template == "alpaca":
        return (ALPACA_INPUT if input else ALPACA).format(prompt=prompt, input=input)
    whole = f"{prompt}\n\n{input}" if input else prompt
    return VICUNA.format(prompt=whole) if template == "vicuna" else whole


def check_template(template: Any, input: Any = "", *, chat: bool = False) -> None:
    """FieldError unless a run may be asked for so.

    Args:
        chat: what ``template="chat"`` was called before there were others.
    """
    check_one_of("template", template, TEMPLATES)
    if chat and template not in ("none", "chat"):
        raise FieldError("template", template, "template_and_chat")
    if not isinstance(input, str):
        raise FieldError("input", input, "text_kind")
    check_characters("input", input)
    if input and template != "alpaca":
        raise FieldError("input", input[:40], "input_of_alpaca", template=template)


def template_of(settings: Mapping[str, Any]) -> str:
    """The template of a run by its settings, a file's of before there was any but ``chat`` too."""
    return "chat" if settings.get("chat") is True else str(settings.get("template", "none"))
