"""What is wrong with a lesson file: everything at once, each by its field, as data that is said in any language.

    lesson, faults = read_lesson(text)      # faults: FieldErrors; their field is a path, steps[0].predict.choices[1].text.zh

First the types that :mod:`loopviz.lessons.schema` states, then, of what has them, what types cannot say: that a name is known,
that a choice has what its rule asks for, that a loop field takes its value. What a model refuses of a lesson is known when the
model is there (:mod:`loopviz.lessons.play`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, is_typeddict

from loopviz import loop_fields
from loopviz.checks import (
    ABSENT,
    FieldError,
    Term,
    check_characters,
    check_number,
    check_real,
    check_whole,
    finite,
    shortened,
)
from loopviz.engine import limits
from loopviz.lessons import schema, tables
from loopviz.lessons.measurements import MEASUREMENTS, kind_of
from loopviz.lessons.schema import (
    ChoicePrediction,
    Lesson,
    LessonMeasure,
    LessonRun,
    LessonStep,
    LinePrediction,
    NumberPrediction,
    Part,
    Prediction,
)
from loopviz.trace.typed import hints_of

MOST_FAULTS = 40  # that are told at once
NAME = re.compile(r"[a-z][a-z0-9_-]*")
PLACE = re.compile(r"\{([\w-]+)\}")  # of a measured value, in a sentence: all that a name may be made of
TAKEN = frozenset({"constructor"})  # what an empty mapping of a page's script already has of the names there may be
_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS: Mapping[Any, Term] = {
    str: Term(("text",)),
    int: Term(("whole",)),
    float: Term(("finite",)),
    bool: Term(("yes_no",)),
}


def read_lesson(text: str) -> tuple[Lesson | None, list[FieldError]]:
    """A lesson file's text as a lesson, or everything that is wrong with it. Never raises."""
    if len(text) > schema.LONGEST_FILE:
        return None, [FieldError("file", ABSENT, "characters", n=len(text), most=schema.LONGEST_FILE)]
    try:
        found = json.loads(text, parse_constant=_no_number, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        return None, [FieldError("file", ABSENT, "not_json", said=str(error))]
    faults = faults_of(found)
    return (None, faults) if faults else (cast(Lesson, found), [])


class _Doubled(dict[str, Any]):
    """What a mapping of the file says, in which a key stands twice: JSON would keep the last and say nothing."""

    twice: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled, keys = _Doubled(found), [key for key, _ in pairs]
    doubled.twice = tuple(key for key in found if keys.count(key) > 1)
    return doubled


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def faults_of(found: Any) -> list[FieldError]:
    """Everything that is wrong with what JSON holds for a lesson, in the file's order; [] of one that can be taught."""
    faults = list(_typed(found, Lesson, ""))
    wrong = [fault.field for fault in faults]
    if isinstance(found, dict):
        faults += _lesson(found, lambda path: any(_inside(field, path) for field in wrong))
    return faults[:MOST_FAULTS]


def _inside(field: str, path: str) -> bool:
    return field == path or field.startswith((f"{path}.", f"{path}["))


# --- types -----------------------------------------------------------------------------------------------------------------


def _typed(value: Any, kind: Any, path: str) -> Iterator[FieldError]:
    """Where `value` is not of a type of the schema."""
    origin = get_origin(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        yield from _mapping(value, kind, path)
    elif origin is list:
        (item,) = get_args(kind)
        if not isinstance(value, list):
            yield _no_kind(path, value, Term(("list",), _term(item)))
            return
        for i, entry in enumerate(value):
            yield from _typed(entry, item, f"{path}[{i}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield _no_kind(path, value, Term(("mapping",)))
            return
        yield from _doubled(value, f"{path}.")
        for key, entry in value.items():
            yield from _typed(entry, get_args(kind)[1], f"{path}.{_key(key)}")
    elif origin is Literal:
        known = get_args(kind)
        if not any(type(value) is type(one) and value == one for one in known):
            yield _fault(path, value, "one_of", choices=", ".join(map(_quoted, known)))
    elif origin in (Union, UnionType):
        yield from _either(value, get_args(kind), path)
    elif (finite(value) is None) if kind is float else type(value) is not kind:
        yield _no_kind(path, value, _KINDS[kind])
    elif kind is str:
        yield from _said(check_characters, path, value)


def _mapping(value: Any, kind: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield _no_kind(path or "file", value, Term(("mapping",)))
        return
    hints, before = hints_of(kind), f"{path}." if path else ""
    yield from _doubled(value, before)
    for key in hints:
        if key in kind.__required_keys__ and key not in value:
            yield FieldError(before + key, ABSENT, "missing")
    for key, entry in value.items():
        if key in hints:
            yield from _typed(entry, hints[key], before + key)
        else:
            yield _fault(before + _key(key), entry, "not_a_field", known=", ".join(hints))


def _doubled(value: dict[str, Any], before: str) -> Iterator[FieldError]:
    """The keys that stand twice in a mapping."""
    for key in value.twice if isinstance(value, _Doubled) else ():
        yield FieldError(before + _key(key), ABSENT, "lesson_twice")


def _either(value: Any, kinds: tuple[Any, ...], path: str) -> Iterator[FieldError]:
    """One of several types: of mappings the one that its `kind` names."""
    named = {get_args(hints_of(kind)["kind"])[0]: kind for kind in kinds if is_typeddict(kind)}
    if named:
        if not isinstance(value, dict):
            yield _no_kind(path, value, Term(("mapping",)))
        elif "kind" not in value:
            yield FieldError(f"{path}.kind", ABSENT, "missing")
        elif value["kind"] not in list(named):
            known = ", ".join(map(_quoted, named))
            yield _fault(f"{path}.kind", value["kind"], "one_of", choices=known)
        else:
            yield from _typed(value, named[value["kind"]], path)
    elif all(any(True for _ in _typed(value, kind, path)) for kind in kinds):
        yield _no_kind(path, value, Term(tuple(key for kind in kinds for key in _KINDS[kind].keys)))


def _term(kind: Any) -> Term:
    return _KINDS.get(kind, Term(("mapping",)))


def _no_kind(path: str, value: Any, kind: Term) -> FieldError:
    return _fault(path, value, "kind", kind=kind)


def _fault(path: str, value: Any, rule: str, **places: Any) -> FieldError:
    """As FieldError, of a stranger's value: not all of a long one, and no half characters in it."""
    return FieldError(path, value, rule, shown=_whole(shortened(value)), **places)


def _key(key: str) -> str:
    """A stranger's name as part of a path."""
    return _whole(key)[: schema.LONGEST_NAME]


def _whole(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- what types cannot say -------------------------------------------------------------------------------------------------


def _said(check: Callable[..., Any], path: str, *more: Any, **named: Any) -> Iterator[FieldError]:
    """What a check raises."""
    try:
        check(path, *more, **named)
    except FieldError as error:
        yield error


def _lesson(found: dict[str, Any], wrong: Callable[[str], bool]) -> Iterator[FieldError]:
    """`wrong(path)`: whether something there has another type, so that no more can be said of it."""
    if not wrong("id") and "id" in found:
        yield from _name("id", found["id"])
    if not wrong("version") and "version" in found:
        yield from _said(check_whole, "version", found["version"], 1, 1_000_000)
    if not wrong("minutes") and "minutes" in found:
        yield from _said(check_whole, "minutes", found["minutes"], *schema.MINUTES)
    for name in ("title", "about"):
        if not wrong(name) and name in found:
            yield from _words(name, found[name])
    if not wrong("model") and "model" in found:
        yield from _line("model", found["model"])
    if wrong("steps") and not isinstance(found.get("steps"), list):
        return
    steps = found.get("steps", [])
    if "steps" in found:
        yield from _number_of("steps", steps, 1, schema.MOST_STEPS)
    seen: set[str] = set()
    for i, step in enumerate(steps[: schema.MOST_STEPS]):
        path = f"steps[{i}]"
        if isinstance(step, dict) and isinstance(step.get("id"), str):
            if step["id"] in seen:
                yield _fault(f"{path}.id", step["id"], "lesson_twice")
            seen.add(step["id"])
        if not wrong(path):
            yield from _step(step, path)


def _step(step: LessonStep, path: str) -> Iterator[FieldError]:
    yield from _name(f"{path}.id", step["id"])
    for name in ("question", "about", "notes"):
        if name in step:
            yield from _words(f"{path}.{name}", step[name])
    yield from _part(step, path)
    first = next(iter(step["runs"].values()), None)
    if "picture" in step and first is not None and ("task" in first or not is_arrows(first["prompt"])):
        yield _fault(f"{path}.picture", step["picture"], "lesson_no_arrows")
    yield from _predict(step["predict"], step, f"{path}.predict")
    yield from _words(f"{path}.why", step["why"], step["measure"])
    if "what_if" in step:
        what_if = step["what_if"]
        yield from _words(f"{path}.what_if.ask", what_if["ask"])
        yield from _part(what_if, f"{path}.what_if")
        yield from _words(f"{path}.what_if.says", what_if["says"], what_if["measure"])


def _part(part: Part, path: str) -> Iterator[FieldError]:
    """Runs, and what is measured of them."""
    runs, asked = part["runs"], part["measure"]
    yield from _number_of(f"{path}.runs", runs, 1, schema.MOST_RUNS)
    yield from _number_of(f"{path}.measure", asked, 1, schema.MOST_MEASURES)
    for name, run in runs.items():
        at = f"{path}.runs.{_key(name)}"
        yield from _name(at, name)
        yield from _run(run, at)
        if len(runs) > 1 and "called" not in run:
            yield FieldError(f"{at}.called", ABSENT, "missing")
    for name, one in asked.items():
        at = f"{path}.measure.{_key(name)}"
        yield from _name(at, name)
        kind = MEASUREMENTS[one["what"]]
        for key in ("run", "other"):
            if key in one and one[key] not in runs:
                yield _unknown(f"{at}.{key}", one[key], "lesson_run", runs)
        if one["run"] in runs:
            yield from _cell(one, runs[one["run"]], at)
        if "called" in one:
            yield from _words(f"{at}.called", one["called"])
        for key in one.keys() - {"what", "run", *kind.takes}:
            known = ", ".join(("what", "run", *kind.takes))
            yield FieldError(f"{at}.{key}", ABSENT, "not_a_field", known=known)
        yield from (FieldError(f"{at}.{key}", ABSENT, "missing") for key in kind.needs if key not in one)
        for key in ("nth", "loop"):
            if key in one:
                yield from _said(check_whole, f"{at}.{key}", one[key], 1, loop_fields.MOST_STEPS)  # type: ignore[literal-required]
        if "word" in one:
            yield from _line(f"{at}.word", one["word"])
    yield from _once(part.get("show", []), f"{path}.show")
    for i, name in enumerate(part.get("show", [])):
        if name not in asked:
            yield _unknown(f"{path}.show[{i}]", name, "lesson_measure", asked)


def is_arrows(prompt: str) -> bool:
    """Whether a prompt is a problem of the task "follow the arrows", as the page draws it: `a>b b>c a?`.

    At most one arrow leads away from a letter, none to the letter itself, and one letter is asked about, last.
    """
    *arrows, question = re.split(r"[ \t\r\n]+", prompt.strip(" \t\r\n"))
    if not re.fullmatch(rf"[{_LETTERS}]\?", question):
        return False
    ways = [re.fullmatch(rf"([{_LETTERS}])>([{_LETTERS}])", arrow) for arrow in arrows]
    found = [way.groups() for way in ways if way]
    sources = {source for source, _ in found}
    return len(found) == len(ways) == len(sources) and all(source != to for source, to in found)


_LETTERS = f"{schema.ARROW_LETTERS[0]}-{schema.ARROW_LETTERS[-1]}"


def _run(run: LessonRun, path: str) -> Iterator[FieldError]:
    yield from _line(f"{path}.prompt", run["prompt"], schema.LONGEST_WORDS)
    if "called" in run:
        yield from _words(f"{path}.called", run["called"])
    if "model" in run:
        yield from _line(f"{path}.model", run["model"])
    if "task" in run:
        yield from _task(run, path)
        return
    if "params" in run:
        known = "prompt, called, model, loop, sampling, task"
        yield FieldError(f"{path}.params", ABSENT, "not_a_field", known=known)
    for name, value in run.get("loop", {}).items():
        at = f"{path}.loop.{_key(name)}"
        field = loop_fields.BY_NAME.get(name)
        if field is None:
            yield _fault(at, value, "not_a_loop_field", known=", ".join(loop_fields.NAMES))
        elif field.kind == "layers":
            if not _is_layers(value):
                yield _fault(at, value, "lesson_layers")
        else:
            yield from _of_loop(field, value, at)
    for name, value in run.get("sampling", {}).items():
        if name in _SAMPLING:
            low, high, whole = _SAMPLING[name]
            yield from _said(check_whole if whole else check_real, f"{path}.sampling.{name}", value, low, high)


def _task(run: LessonRun, path: str) -> Iterator[FieldError]:
    """Of a run that is a measurement of the Lab."""
    for field, error in tables.wrong(run):
        way = ".".join(map(_key, field.split(".")))
        shown = None if error.shown is None else _whole(shortened(error.shown))
        places: dict[str, Any] = dict(error.places)
        yield FieldError(f"{path}.{way}", ABSENT, error.rule, shown=shown, **places)


def _cell(asked: LessonMeasure, run: LessonRun, path: str) -> Iterator[FieldError]:
    """That cells are asked of tables, and of columns that these have."""
    if ("task" in run) != (asked["what"] == tables.CELL):
        yield _fault(f"{path}.what", asked["what"], "lesson_table")
    elif "task" in run:
        for field, name, known in tables.wrong_cell(run, asked):
            where = field if field == "column" else f"row.{_key(name)}"
            yield _fault(f"{path}.{where}", name, "one_of", choices=known)


_SAMPLING: Mapping[str, tuple[Any, Any, bool]] = {
    "max_new_tokens": (1, schema.MOST_NEW_TOKENS, True),
    "temperature": (limits.MIN_TEMPERATURE, limits.MAX_TEMPERATURE, False),
    "top_k": (0, limits.MAX_TOP_K, True),
    "top_p": (0, 1, False),
    "min_p": (0, 1, False),
    "repetition_penalty": (limits.MIN_PENALTY, limits.MAX_PENALTY, False),
    "seed": (0, 2**31 - 1, True),
}


def _of_loop(field: loop_fields.LoopField, value: Any, path: str) -> Iterator[FieldError]:
    """What a loop field's own rule says of a value."""
    try:
        field.check(value)
    except FieldError as error:
        yield _fault(path, value, error.rule, **error.places)


def _is_layers(value: Any) -> bool:
    """Whether it is a pair of layer numbers, or null: a plain Llama."""
    pair = isinstance(value, list) and len(value) == 2 and all(type(layer) is int and layer >= 0 for layer in value)
    return value is None or (pair and value[0] <= value[1])


def _predict(predict: Prediction, step: LessonStep, path: str) -> Iterator[FieldError]:
    if predict["kind"] == "choice":
        yield from _choice(predict, step, path)
    elif predict["kind"] == "number":
        yield from _number(predict, step, path)
    elif predict["kind"] == "line":
        yield from _drawn(predict, step, path)
    else:
        yield from _number_of(f"{path}.runs", predict["runs"], 2, schema.MOST_RUNS)
        yield from _once(predict["runs"], f"{path}.runs")
        yield from _apart(predict["runs"], step["runs"], f"{path}.runs")
        for i, name in enumerate(predict["runs"]):
            if "task" in step["runs"].get(name, {}):
                yield _fault(f"{path}.runs[{i}]", name, "lesson_table")
        for i, name in enumerate(predict["runs"]):
            if name not in step["runs"]:
                yield _unknown(f"{path}.runs[{i}]", name, "lesson_run", step["runs"])
        if predict["find"] not in predict["runs"]:
            yield _unknown(f"{path}.find", predict["find"], "lesson_run", predict["runs"])


def _choice(predict: ChoicePrediction, step: LessonStep, path: str) -> Iterator[FieldError]:
    choices, right = predict["choices"], predict["right"]
    yield from _number_of(f"{path}.choices", choices, *schema.CHOICES)
    for i, choice in enumerate(choices):
        yield from _words(f"{path}.choices[{i}].text", choice["text"])
    rule, of, at = right["rule"], right["of"], f"{path}.right.of"
    many = rule in ("largest", "smallest")
    yield from _number_of(at, of, 2 if many else 1, schema.MOST_MEASURES if many else 1)
    kinds = ("number",) if many or rule == "between" else ("text", "number", "flag")
    yield from _once(of, at)
    good = True
    for i, name in enumerate(of):
        for fault in _measured(f"{at}[{i}]", name, step, kinds):
            good = False
            yield fault
    if not of or not good:
        return
    if rule == "between":
        yield from _ranges(predict, path)
        return
    wanted = {"text": str, "number": float, "flag": bool}[kind_of(step["measure"][of[0]])] if not many else str
    values: list[Any] = []
    for i, choice in enumerate(choices):
        place = f"{path}.choices[{i}].value"
        if "value" not in choice:
            yield FieldError(place, ABSENT, "missing")
            continue
        value = choice["value"]
        yield from _typed(value, wanted, place)
        if many and isinstance(value, str) and value not in of:
            yield _unknown(place, value, "lesson_measure", of)
        if any(type(value) is type(one) and value == one for one in values):
            yield FieldError(place, value, "lesson_twice")
        values.append(value)


def _ranges(predict: ChoicePrediction, path: str) -> Iterator[FieldError]:
    """Of choices with ends: that each has one, and no two share a number."""
    ends: list[tuple[float, float]] = []
    for i, choice in enumerate(predict["choices"]):
        place = f"{path}.choices[{i}]"
        if "low" not in choice and "high" not in choice:
            yield FieldError(f"{place}.low", ABSENT, "missing")
            continue
        low, high = choice.get("low", float("-inf")), choice.get("high", float("inf"))
        if low > high:
            yield _fault(f"{place}.low", low, "at_most", high=high)
        if any(low <= there and here <= high for here, there in ends):
            yield FieldError(place, ABSENT, "lesson_overlap")
        ends.append((low, high))


def _number(predict: NumberPrediction, step: LessonStep, path: str) -> Iterator[FieldError]:
    yield from _measured(f"{path}.of", predict["of"], step, ("number",))
    yield from _said(check_number, f"{path}.step", predict["step"], 0, above=True)
    yield from _said(check_number, f"{path}.near", predict["near"], 0)
    yield from _said(check_number, f"{path}.high", predict["high"], predict["low"], above=True)
    yield from _words(f"{path}.unit", predict["unit"])


def _drawn(predict: LinePrediction, step: LessonStep, path: str) -> Iterator[FieldError]:
    yield from _measured(f"{path}.of", predict["of"], step, ("curve",))
    yield from _said(check_whole, f"{path}.loops", predict["loops"], *schema.LOOPS)
    yield from _said(check_number, f"{path}.high", predict["high"], predict["low"], above=True)
    if predict["scale"] == "log":
        yield from _said(check_number, f"{path}.low", predict["low"], 0, above=True)
    yield from _words(f"{path}.axis", predict["axis"])


# --- small things ----------------------------------------------------------------------------------------------------------


def _measured(path: str, name: str, step: LessonStep, kinds: tuple[str, ...]) -> Iterator[FieldError]:
    """That a measurement is there, and of a kind that can be judged so."""
    if name not in step["measure"]:
        yield _unknown(path, name, "lesson_measure", step["measure"])
    elif (kind := kind_of(step["measure"][name])) not in kinds:
        wanted = Term(tuple(f"measured_{one}" for one in kinds))
        yield _fault(path, name, "lesson_kind", found=Term((f"measured_{kind}",)), wanted=wanted)


def _once(names: list[str], path: str) -> Iterator[FieldError]:
    """That none stands twice in a list."""
    for i, name in enumerate(names):
        if name in names[:i]:
            yield _fault(f"{path}[{i}]", name, "lesson_twice")


def _apart(names: list[str], runs: Mapping[str, LessonRun], path: str) -> Iterator[FieldError]:
    """That runs to be told apart are not one run under two names: they would write the same text."""
    seen: list[dict[str, Any]] = []
    for i, name in enumerate(dict.fromkeys(names)):
        made = {key: value for key, value in runs.get(name, {"prompt": name}).items() if key != "called"}
        if made in seen:
            yield _fault(f"{path}[{i}]", name, "lesson_same_run")
        seen.append(made)


def _unknown(path: str, name: str, rule: str, known: Any) -> FieldError:
    return _fault(path, name, rule, known=", ".join(map(_key, known)) or "–")


def _number_of(path: str, things: Any, least: int, most: int) -> Iterator[FieldError]:
    if not least <= len(things) <= most:
        yield FieldError(path, ABSENT, "lesson_entries", n=len(things), low=least, high=most)


def _name(path: str, name: str) -> Iterator[FieldError]:
    if not NAME.fullmatch(name) or len(name) > schema.LONGEST_NAME:
        yield _fault(path, name, "lesson_name", most=schema.LONGEST_NAME)
    elif name in TAKEN:
        yield _fault(path, name, "lesson_taken")


def _line(path: str, text: str, most: int = 300) -> Iterator[FieldError]:
    if not text.strip():
        yield FieldError(path, ABSENT, "lesson_blank")
    elif len(text) > most:
        yield FieldError(path, ABSENT, "characters", n=len(text), most=most)


def _words(path: str, words: Any, measured: Mapping[str, Any] | None = None) -> Iterator[FieldError]:
    """That a sentence is there in each language, and that what stands in its places is measured."""
    for lang, text in words.items():
        yield from _line(f"{path}.{lang}", text, schema.LONGEST_WORDS)
        for name in dict.fromkeys(PLACE.findall(text)):
            if measured is not None and name not in measured:
                yield _unknown(f"{path}.{lang}", f"{{{name}}}", "lesson_measure", measured)
