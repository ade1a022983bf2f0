"""Tokenizers of the kinds that Llamas come with, small: how each spells a text and decodes it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.engine import tiny

SPECIALS = ("<unk>", "<s>", "</s>")
WORDS = ["▁hello", "▁world", "▁", "he", "llo", "h", "w", "or", "ld", "你", "▁你", "é", "🙂", "\ufffd", "!"]


def _whole(inner: Tokenizer) -> PreTrainedTokenizerFast:
    inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def sentencepiece(*, strip: int = 1, bos: bool = True) -> PreTrainedTokenizerFast:
    """As Llama 1 and 2: pieces with a blank in front, a token for each byte, the first blank dropped."""
    names = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    vocabulary = {name: i for i, name in enumerate(names)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", strip, 0)] if strip else [])])
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _whole(inner)


def unigram() -> PreTrainedTokenizerFast:
    """Pieces with a score, no bytes; its decoder drops the first blank (T5, XGLM)."""
    vocabulary = [(name, -float(i)) for i, name in enumerate([*SPECIALS, *WORDS])]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return _whole(inner)


def wordpiece() -> PreTrainedTokenizerFast:
    """Whole words, and endings that begin with ##."""
    names = [*SPECIALS, "hello", "world", "##s", "##ing", "do", "not", ".", "!", "'", "你", "##好", "n't"]
    inner = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return _whole(inner)


def endings() -> PreTrainedTokenizerFast:
    """Words marked at their end (`hello</w>`): the last one of a text is decoded in another way."""
    names = [*SPECIALS, "hello</w>", "world</w>", "he", "llo</w>", "!</w>", "你</w>"]
    inner = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    inner.decoder = decoders.BPEDecoder()
    return _whole(inner)


class Slow:
    """A tokenizer written in Python: only its own decoding is known."""

    is_fast = False

    def __init__(self, real: Any) -> None:
        self._real = real

    def decode(self, ids: list[int], **how: Any) -> str:
        return self._real.decode(ids, **how)

    def __call__(self, text: str, **how: Any) -> Any:
        return self._real(text, **how)

    def __len__(self) -> int:
        return len(self._real)


class Raising(Slow):
    """Its decoder raises at what it does not like, as huggingface/tokenizers does: nothing but a bare Exception."""

    def __init__(self, real: Any, bad: set[int]) -> None:
        super().__init__(real)
        self.bad = bad

    def decode(self, ids: list[int], **how: Any) -> str:
        if self.bad & set(ids):
            raise Exception("Invalid prefix encountered while decoding stream")
        return super().decode(ids, **how)


@lru_cache
def kinds() -> dict[str, Any]:
    """Every kind by its name."""
    from loopviz.model.checkpoints.load import load_checkpoint

    return {
        "bytes": tiny.tokenizer(),
        "bytes, slow": Slow(tiny.tokenizer()),
        "sentencepiece": sentencepiece(),
        "sentencepiece, nothing dropped": sentencepiece(strip=0),
        "sentencepiece, slow": Slow(sentencepiece()),
        "unigram": unigram(),
        "wordpiece": wordpiece(),
        "endings": endings(),
        "stories": load_checkpoint("stories-loop").tokenizer,
    }
