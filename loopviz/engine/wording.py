"""What an engine of this process says of texts: how many tokens they have."""

from __future__ import annotations

from typing import Any

from loopviz.engine.pieces import chat_text, encode, encode_prompt
from loopviz.prompt_templates import written


class Wording:
    """Counts the tokens of texts as its model reads them.

    Attributes:
        tokenizer: of the model.
    """

    tokenizer: Any

    @property
    def context(self) -> int:
        """Tokens that it can read at most."""
        raise NotImplementedError

    @property
    def chats(self) -> bool:
        """Whether it has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def prompt_tokens(self, prompt: str, *, chat: bool = False, template: str = "none", input: str = "") -> int:
        """Tokens of a prompt as a run reads it; ValueError where a run would refuse it."""
        ids = encode_prompt(self.tokenizer, prompt, context=self.context, chat=chat, template=template, input=input)
        return len(ids)

    def tokens(
        self, text: str, *, chat: bool = False, template: str = "none", input: str = "", marks: bool = True
    ) -> int:
        """Tokens of a text, however many; in the template, if that is there. ValueError: it cannot be read."""
        if chat or template == "chat":
            if self.chats:
                return len(encode(self.tokenizer, chat_text(self.tokenizer, text), add_special_tokens=False))
        else:
            text = written(template, text, input)
        return len(encode(self.tokenizer, text, **({} if marks else {"add_special_tokens": False})))
