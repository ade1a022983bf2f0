"""Formulas in the page's language: the panels write them once, in TeX; the words in them are said here in Chinese."""

from __future__ import annotations

import re

# What stands in `\text{...}`: names that are symbols (an index, a unit) stay as they are.
SYMBOLS = {"head"}
CHINESE: dict[str, str] = {
    "(direct)": "（直接）",
    "(exit)": "（出口）",
    "blocks": "各块",
    "bytes": "字节数",
    "clock after the last": "最后一个之后的时刻",
    "clock after the prompt's pass": "读完提示词之后的时刻",
    "fixed: ": "固定点：",
    "generated passes": "生成时的各次前向",
    "generated tokens read": "读入的生成词元数",
    "given the tokens written before place ": "给定此前已写出的词元，位置 ",
    " or ": " 或 ",
    "itemsize": "每个数的字节数",
    "next": "下一个",
    "pass ms": "前向毫秒数",
    "passes/s in the model": "模型每秒前向次数",
    "plain": "不循环",
    "run": "本次",
    "saved": "省去",
    "share": "比例",
    "slot": "槽位",
    "slots": "各槽位",
    "slots held, summed over layers": "占用的槽位数，对各层求和",
    "slots held, summed over this run's layers": "占用的槽位数，对本次运行的各层求和",
    "tokens": "词元数",
    "tokens/s": "每秒词元数",
    "unrolled": "展开",
}
_TEXT = re.compile(r"\\text\{([^}]*)\}")


def spoken(tex: str, lang: str) -> str:
    """A panel's formula with its words in a language; words without a translation stay."""
    if lang != "zh":
        return tex
    return _TEXT.sub(lambda found: rf"\text{{{CHINESE.get(found[1], found[1])}}}", tex)


def words(tex: str) -> list[str]:
    """The words of a formula, each as often as it occurs."""
    return _TEXT.findall(tex)
