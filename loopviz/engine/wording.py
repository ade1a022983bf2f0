"""What an engine of this process says of texts: how many tokens they have."""

from __future__ import annotations

from typing import Any

from loopviz.engine.pieces import chat_text, encode, encode_prompt


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

    def prompt_tokens(self, prompt: str, *, chat: bool = False) -> int:
        """Tokens of a prompt as a run reads it; ValueError where a run would refuse it."""
        return len(encode_prompt(self.tokenizer, prompt, chat=chat, context=self.context))

    def tokens(self, text: str, *, chat: bool = False, marks: bool = True) -> int:
        """Tokens of a text, however many; in the chat template if there is one. ValueError: it cannot be read."""
        if chat and self.chats:
            return len(encode(self.tokenizer, chat_text(self.tokenizer, text), add_special_tokens=False))
        return len(encode(self.tokenizer, text, **({} if marks else {"add_special_tokens": False})))
