"""The tokenizer of a GGUF file, cutting text as llama.cpp does: SentencePiece ('llama') and byte-level BPE ('gpt2').

Built from the file's own metadata with the `tokenizers` library. How byte-level BPE cuts a text before merging
(`tokenizer.ggml.pre`) is `gguf_pretokenizers`' table.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .errors import CheckpointError, Note, reading
from .gguf_header import Array, Header, read_header
from .gguf_pretokenizers import PRETOKENIZERS, byte_level
from .keys import shown
from .tokenizer import check_templates, marks_around

_PREFIX = "tokenizer.ggml."
_SPACE = "▁"


class Kind(IntEnum):
    """What a token is (`tokenizer.ggml.token_type`)."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Texts llama.cpp's loader knows marks by, whatever the file says of them.
_ENDS_OF_TURN = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>"),
    *("[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"),
)
_ENDS = {
    *_ENDS_OF_TURN,
    *("<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "</s>", "<|eom_id|>", "[EOS]", "<eos>", "<turn|>"),
    *("<|tool_response>", "[e~["),
}
_FILL_INS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
_OWN_WORDS = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"}
_MARKS = ("bos", "eos", "eot", "eom", "unknown", "padding", "fim_pad", "fim_rep", "fim_sep")
_SPM_DEFAULTS = {"bos": 1, "eos": 2, "unknown": 0}


def load_gguf_tokenizer(file: Path, notes: list[Note]) -> PreTrainedTokenizerBase:
    """The tokenizer in `file`, with its chat templates.

    Args:
        file: a file `inspect_gguf` has passed.
        notes: what is to be said of it although it loads.

    Raises:
        CheckpointError: of a kind, or with a pre-tokenizer, that is not reproduced; or its parts do not fit together.
    """
    with reading(file):
        header = read_header(file)
        tokens = _tokens(header, file)
        kinds = _kinds(header, tokens, file)
        marks = special_ids(header, file, [])
        model = header.fields.get(_PREFIX + "model")
        if model == "llama":
            backend, begins = _sentencepiece(header, tokens, kinds, marks, file), True
        elif model == "gpt2":
            backend, begins = _byte_level(header, tokens, file, notes)
        else:
            raise CheckpointError(
                f"tokenizer.ggml.model={shown(model)} in {file}: must be 'llama' (SentencePiece) or 'gpt2' (byte-level "
                "BPE), the two kinds Llamas come with"
            )
        _add_marks(backend, header, tokens, kinds)
        backend.post_processor = marks_around(
            _mark(header, "bos", begins, marks, tokens, file), _mark(header, "eos", False, marks, tokens, file)
        )
        template = _template(header, file)
        check_templates(template, file)
        named = {
            name: tokens[number]
            for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding"))
            if (number := marks[key]) is not None
        }  # fmt: skip
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, chat_template=template, clean_up_tokenization_spaces=False, **named
        )


def special_ids(header: Header, file: Path, notes: list[Note]) -> dict[str, int | None]:
    """Ids of the marks by llama.cpp's names: what the file says, else what its kind of vocabulary has, else by text.

    Args:
        header: of a file with `tokenizer.ggml.tokens`.
        file: for messages.
        notes: ids outside the vocabulary, which llama.cpp leaves out, are said here.

    Raises:
        CheckpointError: an id that is not a whole number.
    """
    tokens = header.fields[_PREFIX + "tokens"].values
    defaults = _SPM_DEFAULTS if header.fields.get(_PREFIX + "model") == "llama" else {}
    marks: dict[str, int | None] = {}
    for mark in _MARKS:
        default = defaults.get(mark)
        marks[mark] = default if default is not None and default < len(tokens) else None
        key = f"{_PREFIX}{mark}_token_id"
        if key not in header.fields:
            continue
        number = header.fields[key]
        if isinstance(number, bool) or not isinstance(number, int):
            raise CheckpointError(f"{key}={shown(number)} in {file}: must be a token id")
        if 0 <= number < len(tokens):
            marks[mark] = number
        else:
            notes.append(
                Note(
                    f"{mark}_token_id_dropped",
                    f"{key}={number} in {file}: the vocabulary has {len(tokens)} tokens (0..{len(tokens) - 1}), so the "
                    "model has no such token; it is left out",
                    {"field": key, "ids": [number], "rows": len(tokens)},
                )
            )
    ids = {token: number for number, token in enumerate(tokens)}
    by_text = {"eot": _ENDS_OF_TURN, "eom": ("<|eom_id|>",), **_FILL_INS}
    for mark, texts in by_text.items():
        if marks[mark] is None:
            marks[mark] = next((ids[text] for text in texts if text in ids), None)
    return marks


def end_marks(header: Header, marks: dict[str, int | None]) -> list[int]:
    """Ids generation ends at, as llama.cpp does: the file's end mark first, then those of turns, messages, fill-ins, and
    whatever bears the text of a well-known end.

    Args:
        header: of a file with `tokenizer.ggml.tokens`.
        marks: from `special_ids`.
    """
    tokens = header.fields[_PREFIX + "tokens"].values
    named = [marks[mark] for mark in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")]
    ends = list(dict.fromkeys(number for number in named if number is not None))
    ends += [number for number, token in enumerate(tokens) if token in _ENDS and number not in ends]
    texts = {tokens[number]: number for number in ends}
    # Where turns end with a call or a return, <|end|> ends only a message in them.
    if "<|end|>" in texts and (
        {"<|return|>", "<|call|>"} <= texts.keys()
        or ({"<|call|>", "<|calls|>"} & texts.keys() and "<|flush|>" in texts)
    ):
        ends.remove(texts["<|end|>"])
    if "</s>" in texts and {"<|tool_response>", "<|plamo:eos|>"} & texts.keys():
        ends.remove(texts["</s>"])
    return ends


# --- the vocabulary ----------------------------------------------------------------------------------------------


def _tokens(header: Header, file: Path) -> list[str]:
    tokens = header.fields[_PREFIX + "tokens"].values
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise CheckpointError(f"tokenizer.ggml.tokens in {file}: must be a list of texts; take another file")
    tokens = [token or f"[EMPTY_{number}]" for number, token in enumerate(tokens)]  # llama.cpp's name for them
    ids: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if ids.setdefault(token, number) != number:
            raise CheckpointError(
                f"tokenizer.ggml.tokens in {file}: {shown(token)} is there twice, as {ids[token]} and {number}, so a text "
                "could mean either; take another file of this model"
            )
    return tokens


def _kinds(header: Header, tokens: list[str], file: Path) -> list[int]:
    """What each token is; llama.cpp takes well-known ends for marks whatever the file says."""
    kinds = _column(header, "token_type", len(tokens), file) or [Kind.NORMAL] * len(tokens)
    kinds = [kind if kind in iter(Kind) else Kind.UNDEFINED for kind in kinds]
    for number, token in enumerate(tokens):
        if token in _OWN_WORDS:
            kinds[number] = Kind.USER_DEFINED
        elif kinds[number] not in (Kind.CONTROL, Kind.USER_DEFINED, Kind.UNKNOWN) and (
            token in _ENDS or any(token in texts for texts in _FILL_INS.values())
        ):
            kinds[number] = Kind.CONTROL
    return kinds


def _column(header: Header, key: str, length: int, file: Path) -> list[Any] | None:
    """An array beside the tokens, or None when the file has none."""
    array = header.fields.get(_PREFIX + key)
    if array is None:
        return None
    values = array.values if isinstance(array, Array) else None
    if values is None or len(values) < length or not all(isinstance(value, (int, float)) for value in values):
        raise CheckpointError(f"{_PREFIX}{key} in {file}: must be a list of {length} numbers, one for each token")
    return values[:length]


def _sentencepiece(
    header: Header, tokens: list[str], kinds: list[int], marks: dict[str, int | None], file: Path
) -> Tokenizer:
    """Pieces joined by score, with one token a byte for what no piece spells."""
    prefix = _flag(header, "add_space_prefix", True, file)
    scores = _column(header, "scores", len(tokens), file)
    if scores is None:
        raise CheckpointError(f"{file}: its metadata lack tokenizer.ggml.scores, by which its pieces are joined")
    ids = {token: number for number, token in enumerate(tokens)}
    has_bytes = all(f"<0x{byte:02X}>" in ids for byte in range(256))
    unknown = marks["unknown"]
    if not has_bytes and unknown is None:
        raise CheckpointError(
            f"tokenizer.ggml.tokens in {file}: has neither a token for each byte nor an unknown token, so not every text "
            "can be read; take another file of this model"
        )
    bpe = models.BPE(
        vocab=ids,
        merges=_merges_by_score(tokens, kinds, scores, ids),
        unk_token=None if unknown is None else tokens[unknown],
        fuse_unk=True,
        byte_fallback=has_bytes,
    )
    backend = Tokenizer(bpe)
    steps = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def _merges_by_score(
    tokens: list[str], kinds: list[int], scores: list[float], ids: dict[str, int]
) -> list[tuple[str, str]]:
    """Every way to make a piece of two, the piece of the highest score first: the order SentencePiece joins in.

    Marks are never made of pieces: they are cut out of a text before.
    """
    whole = (Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED)
    merges: list[tuple[float, int, int, str, str]] = []
    for number, token in enumerate(tokens):
        if kinds[number] in whole:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                merges.append((-scores[number], ids[left], ids[right], left, right))
    merges.sort(key=lambda merge: merge[:3])
    return [(left, right) for *_, left, right in merges]


def _byte_level(header: Header, tokens: list[str], file: Path, notes: list[Note]) -> tuple[Tokenizer, bool]:
    """Byte-level BPE as the file's pre-tokenizer cuts it, and whether such texts begin with the begin mark."""
    name = header.fields.get(_PREFIX + "pre")
    if name is None:
        notes.append(
            Note(
                "pretokenizer_missing",
                f"{file}: does not say how its tokenizer cuts text (tokenizer.ggml.pre), as older files; it is cut as "
                "llama.cpp cuts such files ('default'), which may not be how the model was trained",
            )
        )
        name = "default"
    rules = PRETOKENIZERS.get(name) if isinstance(name, str) else None
    if rules is None:
        raise CheckpointError(
            f"tokenizer.ggml.pre={shown(name)} in {file}: LoopViz does not know exactly how it cuts text, so the token "
            f"ids could be others; it knows {', '.join(sorted(PRETOKENIZERS))}. Take the safetensors checkpoint"
        )
    if _flag(header, "add_space_prefix", False, file):
        raise CheckpointError(
            f"tokenizer.ggml.add_space_prefix=True in {file}: with a byte-level vocabulary llama.cpp does not do it; take "
            "the safetensors checkpoint"
        )
    merges = header.fields.get(_PREFIX + "merges")
    if not isinstance(merges, Array) or not all(isinstance(merge, str) for merge in merges.values):
        raise CheckpointError(f"tokenizer.ggml.merges in {file}: must be a list of texts; take another file")
    ids = {token: number for number, token in enumerate(tokens)}
    pairs = []
    for merge in merges.values:
        left, _, right = merge[:1] + merge[1:].partition(" ")[0], None, merge[1:].partition(" ")[2]
        if not right or any(part not in ids for part in (left, right, left + right)):
            raise CheckpointError(
                f"tokenizer.ggml.merges in {file}: {shown(merge)} joins what is not in the vocabulary; take another file"
            )
        pairs.append((left, right))
    backend = Tokenizer(models.BPE(vocab=ids, merges=pairs, ignore_merges=rules.whole_words))
    backend.pre_tokenizer = byte_level(rules)
    backend.decoder = decoders.ByteLevel()
    return backend, rules.begins


def _add_marks(backend: Tokenizer, header: Header, tokens: list[str], kinds: list[int]) -> None:
    """Let marks and own words be found in a text before anything else is cut."""
    name = str(header.fields.get("general.name", "")).lower()
    # llama.cpp knows these models by name: blanks after a mark belong to the mark.
    strips = "phi-3" in name or "phi3" in name
    for number, kind in enumerate(kinds):
        if kind not in (Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED):
            continue
        token, mark = tokens[number], kind != Kind.USER_DEFINED
        rstrip = strips and token not in ("<unk>", "<s>", "<|endoftext|>")
        added = AddedToken(token, special=mark, normalized=False, rstrip=rstrip)
        (backend.add_special_tokens if mark else backend.add_tokens)([added])


def _mark(
    header: Header, mark: str, default: bool, marks: dict[str, int | None], tokens: list[str], file: Path
) -> tuple[str, int] | None:
    """The mark a text begins ('bos') or ends ('eos') with, if it does."""
    if not _flag(header, f"add_{mark}_token", default, file):
        return None
    number = marks[mark]
    if number is None:
        raise CheckpointError(
            f"{_PREFIX}add_{mark}_token=True in {file}: but there is no usable {_PREFIX}{mark}_token_id; take another file"
        )
    return tokens[number], number


def _flag(header: Header, key: str, default: bool, file: Path) -> bool:
    value = header.fields.get(_PREFIX + key, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"{_PREFIX}{key}={shown(value)} in {file}: must be true or false")
    return value


def _template(header: Header, file: Path) -> str | dict[str, str] | None:
    """The chat template, or templates by name when there are several."""
    start = "tokenizer.chat_template"
    named = {key[len(start) + 1 :]: value for key, value in header.fields.items() if key.startswith(start + ".")}
    listed = header.fields.get(start + "s")
    for name in listed.values if isinstance(listed, Array) else []:
        if name not in named:
            raise CheckpointError(f"tokenizer.chat_templates in {file}: names {shown(name)}, which is not there")
    main = header.fields.get(start)
    if not named:
        return main
    return {**({} if main is None else {"default": main}), **named}
