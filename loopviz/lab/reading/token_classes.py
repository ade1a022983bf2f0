"""What kind of word a token belongs to: rules simple enough to be said, on the text alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

CLASSES = ("punctuation", "function", "name", "number", "other")

RULES = {
    "en": "A token has the class of the word that its first visible character stands in. Punctuation: no letter or digit "
    "(symbols and emoji too). Number: the word contains a digit (number words are not counted). Function word: on a list "
    "of English articles, pronouns, prepositions, conjunctions, auxiliaries and particles, or a Chinese token on a list of "
    "such words. Name: a capitalised word inside a sentence, or at its beginning if the text has it capitalised inside "
    "one too (Chinese names cannot be told this way). Other: the rest, white space and special tokens included.",
    "zh": "词元取其首个可见字符所在词的类别。标点：不含字母或数字（也包括符号和表情）。数字：词中含有数字字符（数词不算）。"
    "虚词：属于英语冠词、代词、介词、连词、助动词和小品词表的词，或属于中文虚词表的词元。人名等专名：句中首字母大写的词，"
    "或句首的词而文中别处在句中也大写（中文专名无法这样识别）。其他：其余，包括空白和特殊词元。",
}

_ENGLISH_WORDS = """
an a the this that these those some any no every each either neither both all half such another other
i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us our ours
ourselves they them their theirs themselves who whom whose which what one someone anyone everyone nobody something
anything everything nothing there here
am is are was were be been being do does did done doing have has had having will would shall should can could may
might must ought ca wo sha ai
of in on at to from by with about against between into through during before after above below under over up down
out off near for as like than upon without within along across behind beyond toward towards around among onto
and or but nor so yet if because although though while when where why how until unless since whether
not too very also just then only even still again ever never
"""
_CHINESE_WORDS = """
的 了 着 过 地 得 在 是 和 与 或 而 但 但是 也 都 就 还 又 再 很 不 没 没有 有 把 被 让 给 对 从 到 向 往 为 为了 因为 所以
如果 虽然 然后 于是 这 那 这个 那个 这些 那些 这里 那里 什么 谁 怎么 哪 我 你 他 她 它 我们 你们 他们 她们 它们 自己 会 能 可以
要 想 吗 呢 吧 啊 呀 嘛 之 其 以 于 所 并 并且 而且 只 才 最 更 个
"""
_FUNCTION, _CHINESE = frozenset(_ENGLISH_WORDS.split()), frozenset(_CHINESE_WORDS.split())
_HAN = "㐀-䶿一-鿿豈-﫿"
_LETTER = rf"(?:(?![{_HAN}_])\w)"
_WORD = re.compile(rf"{_LETTER}+(?:['’\-]{_LETTER}+)*")
_ENDING = re.compile(r"(?:n['’]t|['’](?:s|t|re|ve|ll|d|m))$", re.IGNORECASE)
_OPENS = frozenset(".!?…。！？:：\n\"“”‘’'«»「」『』()（）[]—–")  # a capital after one of these says little


def token_classes(pieces: Sequence[str], special: Sequence[bool] | None = None) -> list[str]:
    """The class of each token of a text, of :data:`CLASSES`.

    Args:
        pieces: the text each token adds; "" for one that ends inside a character (it gets the class of the next).
        special: which tokens are none of the text (end marks); they are "other" and end a sentence.
    """
    special = [False] * len(pieces) if special is None else special
    texts = ["\n" if mark else piece for piece, mark in zip(pieces, special, strict=True)]
    text = "".join(texts)
    word_at = {i: match for match in _WORD.finditer(text) for i in range(*match.span())}
    inside = {match.group() for match in _WORD.finditer(text) if not _opens_sentence(text, match.start())}
    classes: list[str | None] = []
    start = 0
    for piece, mark in zip(texts, special, strict=True):
        if mark:
            classes.append("other")
        elif not piece:
            classes.append(None)
        else:
            classes.append(_class(text, start, piece, word_at, inside))
        start += len(piece)
    for i in range(len(classes) - 1, -1, -1):
        if classes[i] is None:
            classes[i] = classes[i + 1] if i + 1 < len(classes) else "other"
    return [str(name) for name in classes]


def _class(text: str, start: int, piece: str, word_at: dict[int, re.Match[str]], inside: set[str]) -> str:
    visible = piece.strip()
    if not visible:
        return "other"
    first = start + piece.index(visible[0])
    if first in word_at:
        return _word_class(text, word_at[first], inside)
    if re.match(f"[{_HAN}]", visible):
        return "function" if visible in _CHINESE else "other"
    # A word's own apostrophe or hyphen is in word_at; what is left is no letter.
    return "other" if visible[0] == "\ufffd" else "punctuation"


def _word_class(text: str, match: re.Match[str], inside: set[str]) -> str:
    word = match.group()
    if any(character.isdigit() for character in word):
        return "number"
    if _ENDING.sub("", word).lower() in _FUNCTION or word.lower() in _FUNCTION:
        return "function"
    capital = word[0].isupper() and (word in inside or not _opens_sentence(text, match.start()))
    return "name" if capital else "other"


def _opens_sentence(text: str, start: int) -> bool:
    """Whether a word that starts here may be capitalised for its place alone."""
    at = start - 1
    while at >= 0 and text[at] in " \t":
        at -= 1
    return at < 0 or text[at] in _OPENS
