"""A link that reopens what a visitor had set up: model, settings, prompt, selection and view. Never a result.

The address is ``?s=`` and one word: the version's digit, then base64url of deflated JSON that holds only what differs
from version 1's defaults. Those are frozen below: a link keeps its meaning when a default of the page changes.

Anything may be in an address. :func:`decode` bounds what it unpacks, checks every value as if a visitor had typed it,
leaves out what does not pass, says so in the visitor's language, and never raises.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from loopviz.app.controls.controls import BY_NAME, NEUTRAL, OLD_NAMES, defaults
from loopviz.app.controls.refusal import Problem
from loopviz.app.controls.run_settings import (
    PROMPT_LIMIT,
    RunSettings,
    check_prompt,
    clean,
    clean_name,
    default_settings,
)
from loopviz.app.texts.links import TEXTS
from loopviz.panels import Focus

VERSION = "1"
MOST_CHARACTERS = 7_000  # of the word: common proxies take a request line of 8 kB
MOST_UNPACKED = 120_000  # bytes of JSON: the longest prompt in the widest script, escapes included
MOST_PANELS = 64
LARGEST_POSITION = 1_000_000

# Version 1's defaults and dictionary. Never change them: links in the world are read by them.
DEFAULTS: Mapping[str, Any] = {
    **defaults(),  # of a control that came after the links that do not have it,
    **NEUTRAL,  # what was so before; of those below, this is what links mean
    "model": "stories-loop",
    "precision": "server",
    "block_start": 10,
    "block_end": 14,
    "loop_strategy": "fixed_count",
    "loop_count": 4,
    "max_loop_count": 10,
    "min_loop_count": 5,
    "convergence_criterion": "either",
    "cosine_threshold": -1.3,
    "kl_threshold": -2.0,
    "kv_cache_mode": "virtual_layers",
    "virtual_layer_count": 5,
    "virtual_attention_mode": "parallel",
    "merge_strategy": "ema",
    "merge_ema_alpha": 0.7,
    "loop_damping": 1.0,
    "loop_injection": "none",
    "loop_norm": False,
    "layer_chooser": "none",
    "layer_threshold": 0.15,
    "max_new_tokens": 64,
    "greedy": True,
    "temperature": 0.8,
    "top_k": 50,
    "top_p": 0.95,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "seed": 0,
    "template": "none",  # in links: chat, false; and true for "chat"
    "input": "",
}
FOCUS: Mapping[str, Any] = {
    "token": None,
    "block": 0,
    "step": None,
    "metric": "cosine",
    "pins": (),
    "layer": None,
    "lens": None,
    "dims": 2,
    "context": 8192,
    "batch": 1,
    "threshold": None,
}
# What links often hold: deflate then writes a short reference instead. The likeliest comes last.
_DICTIONARY = (
    b'"recorded":"panels":["state_trajectory","loops_per_token","would_say","attention","kv_occupancy","cost",'
    b'"token_loop_map","convergence"]"lens":"exit","dims":3,"layer":"metric":"rel_delta","entropy","rank","norm","kl",'
    b'"pins":["block":"chat":true,"min_p":"repetition_penalty":"loop_norm":true,"loop_damping":0.5,'
    b'"loop_injection":"linear","add","merge_ema_alpha":"merge_strategy":"average","last",'
    b'"kv_cache_mode":"merge_strategy","virtual_attention_mode":"serial","virtual_layer_count":1,'
    b'"convergence_criterion":"both","cosine","kl","kl_threshold":-"cosine_threshold":-"min_loop_count":'
    b'"max_loop_count":"loop_strategy":"dynamic_stop","top_p":"top_k":"temperature":"greedy":false,"seed":'
    b'"max_new_tokens":"block_start":"block_end":"loop_count":"model":"stories-loop","arrows-loop",'
    b'"focus":{"step":"token":{"prompt":"Once upon a time, there was a little girl named The capital of France is",'
    b'"values":{'
)

_SURROGATE = re.compile("[\ud800-\udfff]")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_POSITIONS = ("token", "block", "step", "layer")


@dataclass(frozen=True)
class PageState:
    """What a link reopens.

    Args:
        values: one entry per control (``controls.CONTROLS``).
        prompt: None leaves the page's own.
        focus: the selection and view; its language is not in a link, a reader has one of their own.
        panels: names of the panels that are on; None leaves the page's own choice.
        recorded: name of a stored run that LoopViz brings, shown before anything is run; None: none is asked for.
        foreign: whether the settings were made for a model that cannot be named here, and another stands in its place.
        beside: a folder of this machine whose model Compare shows beside the model without its loop; None: none. Never a name of
            the Hub's.
    """

    values: Mapping[str, Any] = field(default_factory=default_settings)
    prompt: str | None = None
    focus: Focus = field(default_factory=Focus)
    panels: tuple[str, ...] | None = None
    recorded: str | None = None
    foreign: bool = False
    beside: str | None = None


def is_path(model: str) -> bool:
    """Whether a model's name is a place on one machine rather than a name everybody has."""
    return model.startswith(("/", ".", "~")) or "\\" in model or ":" in model


def encode(state: PageState, *, local: bool = True, lang: str = "en") -> tuple[str | None, list[Problem]]:
    """The word of the link to ``state`` (``?s=<word>``), and what is not in it.

    Args:
        local: whether the link may name folders and files of this machine.

    Returns:
        None for a state that no address can hold (a prompt too long), with the reason.
    """
    values, problems = clean(state.values, lang)
    problems = left_out(problems, lang)
    stored = {name: value for name, value in values.items() if name not in DEFAULTS or value != DEFAULTS[name]}
    if stored.get("template") == "chat":  # as links always had it: servers of before open it too
        stored |= {"chat": True}
        del stored["template"]
    if not local and is_path(values["model"]):
        stored["model"] = None
        problems.append(Problem("model", _say(lang, "kept_path")))
    looking = asdict(state.focus)
    del looking["lang"]
    focus = {name: value for name, value in looking.items() if name not in FOCUS or value != FOCUS[name]}
    data: dict[str, Any] = {"values": stored, "prompt": state.prompt, "focus": focus}
    data |= {"panels": state.panels, "recorded": state.recorded}
    data |= {"beside": state.beside if local else None}
    data = {name: value for name, value in data.items() if value is not None and value != {}}
    text = _SURROGATE.sub("\ufffd", json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    word = VERSION + _pack(text.encode())
    if len(word) > MOST_CHARACTERS:
        return None, [Problem("prompt", _say(lang, "long", n=len(word), limit=MOST_CHARACTERS))]
    return word, problems


def decode(
    word: Any,
    *,
    default_model: str = DEFAULTS["model"],
    local: bool = True,
    lang: str = "en",
    panels: Collection[str] | None = None,
    recorded: Collection[str] | None = None,
) -> tuple[PageState, list[Problem]]:
    """What a link's word (:func:`encode`) asks for, and what of it could not be used. Never raises.

    Args:
        default_model: the server's own model, for links that name none or none that can be opened here.
        local: whether a link may name folders and files of this machine.
        panels: the panels there are; None takes any name that could be one.
        recorded: the stored runs there are; None takes any name that could be one.
    """
    nothing = PageState(values=RunSettings({**defaults(), "model": default_model}))
    if not isinstance(word, str) or not word:
        return nothing, [Problem("link", _say(lang, "damaged"))]
    if word[0] != VERSION:
        known = "newer" if word[0].isascii() and word[0].isdigit() and word[0] != "0" else "damaged"
        return nothing, [Problem("link", _say(lang, known))]
    data = _unpack(word[1:])
    if data is None:
        return nothing, [Problem("link", _say(lang, "damaged"))]
    problems: list[Problem] = []
    stored = data.pop("values", {})
    values = _values(stored, default_model, local, lang, problems)
    named = stored.get("model", DEFAULTS["model"]) if isinstance(stored, dict) else None
    foreign = not isinstance(named, str) or values["model"] != named.strip()
    prompt = data.pop("prompt", None)
    if not (prompt is None or isinstance(prompt, str)) or len(prompt or "") > PROMPT_LIMIT:
        reason = check_prompt(prompt, lang)[0].reason
        problems.append(Problem("prompt", _say(lang, "value", reason=reason)))
        prompt = None
    focus = _focus(data.pop("focus", {}), lang, problems)
    beside = _beside(data.pop("beside", None), local, lang, problems)
    unknown = sorted(data.keys() - {"panels", "recorded"})
    shown = data.get("panels")
    if shown is not None:
        names = shown[:MOST_PANELS] if isinstance(shown, list) else [shown]
        shown = tuple(dict.fromkeys(name for name in names if _is_slug(name, panels)))
        unknown += [name for name in names if not _is_slug(name, panels)]
    run = data.get("recorded")
    if run is not None and not _is_slug(run, recorded):
        unknown.append(run)
        run = None
    if unknown:
        problems.append(Problem("link", _say(lang, "unknown", names=_names(unknown))))
    return PageState(values, prompt, focus, shown, run, foreign, beside), problems


def left_out(refused: Iterable[Problem], lang: str) -> list[Problem]:
    """What is said of values that no control can hold, and that are therefore not in a link, or not taken from it."""
    return [Problem(problem.control, _say(lang, "value", reason=problem.reason)) for problem in refused]


def opens(word: Any) -> bool:
    """Whether :func:`decode` takes anything at all from a link's word."""
    return isinstance(word, str) and word[:1] == VERSION and _unpack(word[1:]) is not None


def _say(lang: str, key: str, **places: Any) -> str:
    return TEXTS[lang][key].format(**places)


def _names(names: list[Any]) -> str:
    """A few of the names, short: they are a stranger's."""
    short = [name[:40] if isinstance(name, str) else type(name).__name__ for name in names]
    return ", ".join(short[:5]) + (" …" if len(short) > 5 else "")


def _is_slug(name: Any, known: Collection[str] | None) -> bool:
    return isinstance(name, str) and bool(_SLUG.fullmatch(name)) and (known is None or name in known)


def _pack(data: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_DICTIONARY)
    return base64.urlsafe_b64encode(packer.compress(data) + packer.flush()).rstrip(b"=").decode()


def _unpack(word: str) -> dict[str, Any] | None:
    """The JSON object of a word; None when there is none, it is too large, or anything comes after it."""
    if len(word) > MOST_CHARACTERS or not re.fullmatch(r"[A-Za-z0-9_-]*", word, re.ASCII):
        return None
    unpacker = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        packed = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
        raw = unpacker.decompress(packed, MOST_UNPACKED)
        if not unpacker.eof or unpacker.unused_data:
            return None
        found = _whole(json.loads(raw.decode()))
    except (ValueError, zlib.error, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _whole(value: Any, depth: int = 0) -> Any:
    """The value without half characters, which no message can carry; ValueError when it is nested beyond all need."""
    if depth > 6:
        raise ValueError("nested")
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(entry, depth + 1) for key, entry in value.items()}
    return value


def _values(stored: Any, default_model: str, local: bool, lang: str, problems: list[Problem]) -> RunSettings:
    """Every control's value; ``problems`` is told of those that could not be taken."""
    if not isinstance(stored, dict):
        problems.append(Problem("link", _say(lang, "unknown", names="values")))
        stored = {}
    stored = dict(stored)
    if unknown := sorted(stored.keys() - BY_NAME.keys() - {*OLD_NAMES}):
        problems.append(Problem("link", _say(lang, "unknown", names=_names(unknown))))
    settings, refused = clean({**DEFAULTS, **stored}, lang)
    if "model" in stored and stored["model"] is None:  # the sender's server would not name its own
        settings = RunSettings(settings | {"model": default_model})
        refused = [problem for problem in refused if problem.control != "model"]
    elif not local and is_path(settings.model):
        settings = RunSettings(settings | {"model": default_model})
        problems.append(Problem("model", _say(lang, "path")))
    problems += left_out(refused, lang)
    return settings


def _beside(stored: Any, local: bool, lang: str, problems: list[Problem]) -> str | None:
    """The folder of the model beside; None where there is none, or it is none that may be opened here."""
    if stored is None:
        return None
    name, refused = clean_name(stored, lang)
    if refused or not is_path(name):
        problems.append(Problem("link", _say(lang, "unknown", names=_names([stored]))))
    elif not local:
        problems.append(Problem("model", _say(lang, "path")))
    else:
        return name
    return None


def _focus(stored: Any, lang: str, problems: list[Problem]) -> Focus:
    """The selection, field by field: what cannot be used is left out and told to ``problems``."""
    known = {entry.name for entry in fields(Focus)} - {"lang"}
    items = stored.items() if isinstance(stored, dict) else [("focus", stored)]
    good: dict[str, Any] = {}
    bad: list[Any] = []
    for name, value in items:
        try:
            one = Focus(**{name: value}) if name in known else None
        except (ValueError, TypeError):
            one = None
        places = [] if one is None else [getattr(one, at) or 0 for at in _POSITIONS] + list(one.pins)
        if one is None or max(places, default=0) > LARGEST_POSITION:
            bad.append(name)
        else:
            good[name] = getattr(one, name)
    if bad:
        problems.append(Problem("link", _say(lang, "focus", names=_names(bad))))
    return Focus(**{**FOCUS, **good}, lang=lang)
