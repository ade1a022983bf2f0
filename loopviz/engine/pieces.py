"""Tokens to text and back: a prompt's ids, the piece each token adds, the text of one token alone.

A looped model writes what no tokenizer was made for: characters broken off in the middle, bytes that are no text. Nothing
a tokenizer or a chat template raises leaves this module as anything but ``ValueError``, and nothing that decoding raises
leaves it at all: a run goes on, with U+FFFD where a character is broken.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from tokenizers import decoders

from loopviz.checks import ABSENT, FieldError
from loopviz.engine import limits
from loopviz.model.interrupt import Interrupted
from loopviz.prompt_templates import check_template, written

BROKEN = "\ufffd"  # what stands for bytes that are no character
MOST_WORDS = 400  # characters of somebody else's error that are passed on
UNFINISHED = 3  # bytes of a character that is not whole, at most
HELD = 8  # tokens: more than a character can be spelled with, each of them a byte or more


def encode_prompt(
    tokenizer: Any, prompt: str, *, context: int, chat: bool = False, template: str = "none", input: str = ""
) -> list[int]:
    """The token ids of ``prompt``, in a template if asked.

    Args:
        chat, template, input: as :class:`~loopviz.engine.StreamSettings` has them.

    Raises:
        ValueError: empty, not text, longer than ``context`` tokens, a tokenizer without a chat template, or whatever the
            template or the tokenizer raises, in its own words.
    """
    limits.check_prompt_text(prompt, context)
    prompt, own_marks = prompt_text(tokenizer, prompt, chat=chat, template=template, input=input)
    if prompt:
        limits.check_prompt_text(prompt, context)  # a template may make a text of any length
    ids = encode(tokenizer, prompt, **({"add_special_tokens": False} if own_marks else {}))
    limits.check_prompt_tokens(len(ids), context)
    return ids


def prompt_text(
    tokenizer: Any, prompt: str, *, chat: bool = False, template: str = "none", input: str = ""
) -> tuple[str, bool]:
    """The whole text that a model reads of ``prompt``, and whether the marks before a text are in it (a chat template's are).

    Raises:
        ValueError: as :func:`chat_text`, or a template that does not exist.
    """
    check_template(template, input, chat=chat)
    if chat or template == "chat":
        return chat_text(tokenizer, prompt, "chat" if chat else "template"), True
    return written(template, prompt, input), False


def chat_text(tokenizer: Any, prompt: str, field: str = "chat", answer: str | None = None) -> str:
    """``prompt`` as the one message of a user, in the chat template, up to where the answer begins; with ``answer`` up to its end.

    Args:
        field: that asked for it.

    Raises:
        ValueError: there is no template, or it refuses or breaks (its own words are in the message), or gives no text.
    """
    asked = (field, True if field == "chat" else "chat")
    if not getattr(tokenizer, "chat_template", None):
        raise FieldError(*asked, "chat_none")
    messages = [{"role": "user", "content": prompt}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=answer is None, tokenize=False)
    except BaseException as error:  # a template is a program that came with a checkpoint: it may raise anything
        if not _from_tokenizer(error):
            raise
        raise FieldError(*asked, "chat_refuses", said=_said(error)) from error
    if not isinstance(text, str) or not is_text(text):
        raise FieldError(*asked, "chat_no_text")
    return text


def encode(tokenizer: Any, text: str, **how: Any) -> list[int]:
    """The tokenizer's ids of ``text``, as many as they are.

    Args:
        how: more arguments of the tokenizer's call.

    Raises:
        ValueError: whatever the tokenizer raises, in its own words.
    """
    try:
        return [int(i) for i in tokenizer(text, **how)["input_ids"]]
    except BaseException as error:
        if not _from_tokenizer(error):
            raise
        raise FieldError("text", ABSENT, "text_unreadable", said=_said(error)) from error


def text_begins_with(tokenizer: Any) -> list[int]:
    """The marks that the tokenizer puts before every text (``<s>``); ``[]`` if it puts none.

    Raises:
        ValueError: as :func:`encode`.
    """
    plain, marked = encode(tokenizer, "a", add_special_tokens=False), encode(tokenizer, "a")
    places = range(len(marked) - len(plain) + 1)
    return marked[: next((i for i in places if marked[i : i + len(plain)] == plain), 0)]


def decode(tokenizer: Any, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
    """The text of ``ids``; what the tokenizer cannot decode is U+FFFD. Never raises."""
    text = _decoded(tokenizer, list(ids), skip_special_tokens)
    if text is not None:
        return text
    single = (_decoded(tokenizer, [token], skip_special_tokens) for token in ids)
    return "".join(BROKEN if text is None else text for text in single)


def is_text(text: str) -> bool:
    """Whether ``text`` can be written to a file: without half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(tokenizer: Any, ids: list[int], skip_special_tokens: bool = False) -> str | None:
    """The tokenizer's own text of ``ids``; None where it raises. The one place where its decoder is called."""
    try:
        text = tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
    except BaseException as error:
        if not _from_tokenizer(error):
            raise
        return None
    if not isinstance(text, str):
        return None
    return text if is_text(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _from_tokenizer(error: BaseException) -> bool:
    """Whether a tokenizer raised this: any Exception, and the panic of Rust code, which is none. A stop is not its doing."""
    if isinstance(error, Interrupted):
        return False
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _said(error: BaseException) -> str:
    """An error's own words in one line that every page and file can hold."""
    words = " ".join(str(error).split()).encode("utf-8", "replace").decode()
    return f"{words[:MOST_WORDS]}…" if len(words) > MOST_WORDS else words or type(error).__name__


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The words (or parts) of `text` that the tokenizer has no token for and reads as its unknown token, each once."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or not getattr(tokenizer, "is_fast", False):
        return []
    encoded = tokenizer(text, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    found = [text[start:end].strip() for token, (start, end) in pairs if token == unknown]
    return [word for word in dict.fromkeys(found) if word and word != tokenizer.unk_token]


class Pieces:
    """The text each token adds; special tokens are spelled out.

    Pieces concatenate to the decoded text. A token that ends inside a character adds what is whole before it, and the token
    that completes the character adds it; a text cut inside a character lacks that character. Bytes that are no character
    are U+FFFD, and what is around them stays (a decoder of tokens like ``<0xE4>`` would give up the whole run of them).
    Nothing raises, and a token costs the same however long the text is.
    """

    def __init__(self, tokenizer: Any) -> None:
        level = _byte_level(tokenizer)
        fallback = {} if level else _fallback_bytes(tokenizer)
        self._spelled: Callable[[int], bytes | None] = level or fallback.get
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._words = _Words(tokenizer)
        self._to_strip = _leading_blanks(tokenizer, fallback)

    def add(self, token: int) -> str:
        """The piece that ``token``, the next of the text, adds."""
        spelled = self._spelled(token)
        if spelled is None:
            self._to_strip = 0
            cut = self._utf8.decode(b"", final=True)  # no byte follows: a character that was begun is broken
            return cut + self._words.add(token)
        return self._words.skip(token) + self._begun(self._utf8.decode(spelled))

    def _begun(self, text: str) -> str:
        """``text`` as the decoder gives it where nothing but bytes came before: it may drop a blank at the beginning."""
        while self._to_strip and text.startswith(" "):
            text, self._to_strip = text[1:], self._to_strip - 1
        if text:
            self._to_strip = 0
        return text


def _byte_level(tokenizer: Any) -> Callable[[int], bytes | None] | None:
    """How a byte-level tokenizer (GPT-2, Llama 3) spells a token; None for any other."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(getattr(backend, "decoder", None), decoders.ByteLevel):
        return None
    alphabet = _alphabet()

    def spelled(token: int) -> bytes:
        try:
            text = backend.id_to_token(token) or ""  # ids without a token add nothing
        except OverflowError:
            return b""
        # A token that holds another character was added as it is.
        return bytes(map(alphabet.__getitem__, text)) if alphabet.keys() >= set(text) else text.encode()

    return spelled


@lru_cache
def _alphabet() -> dict[str, int]:
    """The character that a byte-level vocabulary writes for each byte."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


def _fallback_bytes(tokenizer: Any) -> dict[int, bytes]:
    """Tokens that stand for a byte (``<0xE4>``: Llama 1 and 2, other SentencePiece models), by id; {} where there are none."""
    try:
        found = {}
        for byte in range(256):
            name = f"<0x{byte:02X}>"
            token = tokenizer.convert_tokens_to_ids(name)
            if isinstance(token, int) and tokenizer.convert_ids_to_tokens(token) == name:
                found[token] = bytes([byte])
    except Exception:  # no such vocabulary
        return {}
    letters = [token for token, byte in found.items() if byte.isalpha()]
    # Without a decoder for them they are tokens like any other.
    return found if any(_decoded(tokenizer, [token]) == found[token].decode() for token in letters) else {}


def _leading_blanks(tokenizer: Any, fallback: dict[int, bytes]) -> int:
    """How many blanks the decoder drops at the beginning of a text of byte tokens."""
    blank = next((token for token, byte in fallback.items() if byte == b" "), None)
    return 0 if blank is None else HELD - len(_decoded(tokenizer, [blank] * HELD) or " " * HELD)


class _Words:
    """What each token adds where only the tokenizer's decoder knows: the difference it makes to the last few tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # tokens already said, then those whose last character is not whole yet
        self._context = 0  # how many of them are of the first kind
        self._said = ""  # of the text of `_ids`
        self._open = 0  # marks at its end that what comes may make a character of

    def add(self, token: int) -> str:
        """The text that ``token`` adds."""
        self._ids.append(token)
        text = _decoded(self._tokenizer, self._ids)
        lost = ""
        if text is None or not text.startswith(self._said):  # no going on from what was said: the token alone
            lost, text = self._close(), _decoded(self._tokenizer, [token])
            if text is None:
                return lost + BROKEN
            self._ids = [token]
        whole = self._whole(text, token)
        piece = whole[len(self._said) :]
        self._said, self._open = whole, len(text) - len(whole)
        if piece and not self._open:
            self._keep(len(self._ids) - self._context)
        elif len(self._ids) > 2 * HELD:
            self._keep(HELD)
        return lost + piece

    def skip(self, token: int) -> str:
        """Take note of a token that was spelled out elsewhere; returns what stands for a character it leaves broken."""
        cut = self._close()
        self._ids, self._context, self._said = [token], 1, _decoded(self._tokenizer, [token]) or ""
        return cut

    def _whole(self, text: str, token: int) -> str:
        """``text`` without a last character that is not whole yet: a mark, or (some decoders) one for each of its bytes."""
        marks = len(text) - len(text.rstrip(BROKEN))
        return text[: len(text) - min(marks, UNFINISHED)] if marks and not self._is_mark(token) else text

    def _is_mark(self, token: int) -> bool:
        """Whether the vocabulary itself writes U+FFFD for this token."""
        try:
            return BROKEN in self._tokenizer.convert_ids_to_tokens(token)
        except Exception:
            return False

    def _close(self) -> str:
        """Forget all; returns the marks of a character that was not whole."""
        cut = BROKEN * self._open
        self._ids, self._context, self._said, self._open = [], 0, "", 0
        return cut

    def _keep(self, count: int) -> None:
        """Go on with the last ``count`` tokens alone."""
        self._ids = self._ids[-count:]
        self._context = count
        text = _decoded(self._tokenizer, self._ids) or ""
        self._said = self._whole(text, self._ids[-1])


class TokenTexts:
    """The text of a single token as it looks inside a text (with the space before it), remembered by id."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        try:
            self._anchor = encode(tokenizer, "a", add_special_tokens=False)
        except ValueError:
            self._anchor = []
        self._before = decode(tokenizer, self._anchor)
        self._text = lru_cache(maxsize=65536)(self._look_up)

    def __call__(self, token: int) -> str:
        return self._text(token)

    def _look_up(self, token: int) -> str:
        # Decoders drop the space before the first word: let the token follow something.
        text = _decoded(self._tokenizer, [*self._anchor, token])
        if text is not None and text.startswith(self._before):
            return text[len(self._before) :]
        return decode(self._tokenizer, [token])
