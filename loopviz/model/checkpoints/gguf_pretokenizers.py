"""How byte-level BPE cuts a text before merging, by the names GGUF files give it (`tokenizer.ggml.pre`).

Facts of llama.cpp's table of pre-tokenizers; where it holds an approximation of a published tokenizer.json because its
regular expressions lack Unicode classes, the published expression is used. A name that is not here is one whose rules are
not certain, or that belongs to encoders or other vocabularies.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers


@dataclass(frozen=True)
class Rules:
    """How one family cuts.

    Args:
        patterns: regular expressions, applied one after the other to what the last one left; what matches is a piece of
            its own, and so is what lies between.
        whole_words: a piece that is a token is that token, whatever the merges make of it.
        begins: texts begin with the begin mark unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"


def _llama3(digits: str = r"\p{N}{1,3}") -> str:
    return rf"{_CONTRACTIONS}|{_START}\p{{L}}+|{digits}|{_OTHERS}|{_SPACES}"


def _cased(after: str, digits: str) -> str:
    """Words cut where capitals begin, with what may follow a word."""
    words = rf"{_START}{_UPPER}*{_LOWER}+{after}|{_START}{_UPPER}+{_LOWER}*{after}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


# Letters with a case, as the tokenizer of DeepSeek LLM lists them (an older Unicode than \p{L} follows); hexadecimal.
_CASED_RANGES = (
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C "
    "38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B "
    "1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 "
    "1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 "
    "2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B "
    "2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 "
    "FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF "
    "1E900-1E943"
)


def _of(ranges: str) -> str:
    """Code points ("41-5A B5") as the inside of a character class."""
    return "".join("-".join(rf"\x{{{end}}}" for end in part.split("-")) for part in ranges.split())


_CJK = _of("4E00-9FA5 800-4E00 AC00-D7FF")
_HAN_KANA = _of("4E00-9FA5 3040-309F 30A0-30FF")
_WIDE_MARKS = _of("FF01-FF0F FF1A-FF5E 2018-201F 3000-3002")
_ASCII_MARKS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_STOPS = _of("2026 3002 FF0C 3001 964 6D4 60C")

_LLAMA3_CUT = _llama3()
_QWEN2_CUT = _llama3(r"\p{N}")
_LETTERS_MARKS = r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"

_DEFAULT = Rules((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))
_GPT2_RULES = Rules((_GPT2,))
_DIGITS_GPT2 = Rules((r"\p{N}", _GPT2))
_LLAMA3 = Rules((_LLAMA3_CUT,), whole_words=True, begins=True)
_QWEN2 = Rules((_QWEN2_CUT,))
_BLOOM = Rules((rf" ?[^(\s|.,!?{_STOPS})]+",))
_DEEPSEEK_V3 = Rules(
    (
        r"\p{N}{1,3}",
        rf"[{_HAN_KANA}]+",
        rf"{_ASCII_MARKS}[A-Za-z]+|{_LETTERS_MARKS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
    )
)
_GPT4O = Rules((_cased(rf"{_CONTRACTIONS}?", r"\p{N}{1,3}"),))
_BAILING = Rules(
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
        r"\s+(?!\S)|\s+",
    )
)

PRETOKENIZERS: dict[str, Rules] = {
    "default": _DEFAULT,
    **dict.fromkeys(
        (
            "gpt-2",
            "phi-2",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ),
        _GPT2_RULES,
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"), _DIGITS_GPT2
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA3
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), Rules((_LLAMA3_CUT,))),
    **dict.fromkeys(("glm4", "glm5"), Rules((_LLAMA3_CUT,), whole_words=True)),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "kormo", "stablelm2", "megrez", "hunyuan", "solar-open", "grok-2"), _QWEN2
    ),
    "qwen35": Rules(
        (rf"{_CONTRACTIONS}|{_START}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",)
    ),
    "ufakzeka": Rules((rf"{_START}\p{{L}}+|\p{{N}}|{_OTHERS}|{_SPACES}",)),
    "seed-coder": Rules((rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)),
    "laguna": Rules((r"[^\n]+|[\n]+", _QWEN2_CUT)),
    "minicpm5": Rules((r"\p{N}{1,3}", _llama3(r"\p{N}+")), whole_words=True),
    "jais-2": Rules(
        (
            rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1,3}}|{_OTHERS}|\s*[\r\n]+|"
            + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
            + r"|\s{1}",
        )
    ),
    "deepseek-llm": Rules(
        (
            r"[\r\n]",
            rf"\s?[{_of(_CASED_RANGES)}]+",
            rf"\s?[!-/:-~{_WIDE_MARKS}]+",
            r"\s+$",
            rf"[{_CJK}]+",
            r"\p{N}+",
        )
    ),
    "deepseek-coder": Rules((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", rf"[{_CJK}]+", r"\p{N}")),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK_V3),
    "falcon": Rules((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), _BLOOM),
    "viking": Rules((*_BLOOM.patterns, r"\p{N}")),
    "tekken": Rules((_cased("", r"\p{N}"),), whole_words=True, begins=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _GPT4O),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _BAILING),
}


def byte_level(rules: Rules) -> pre_tokenizers.PreTokenizer:
    """The cuts of `rules`, each piece then spelled in bytes."""
    cuts = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in rules.patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
