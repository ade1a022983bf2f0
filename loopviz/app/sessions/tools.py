"""What programs may ask of a server: each page offers its work as a tool, called by name, typed, told in a docstring.

A tool says what it takes (its function's signature and docstring, which are the API's documentation too), makes the very job
that the page makes of it, and puts what became of it into plain data. So a program waits in the same line, under the same
limits, and is refused in the same words. Who asks, and how (:mod:`loopviz.app.server.api`), is not known here.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import secrets
import threading
import time
import typing
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from loopviz.app.controls.refusal import told
from loopviz.app.profile import Profile
from loopviz.app.sessions import run_log
from loopviz.app.sessions.messages import unwire
from loopviz.app.texts import LANGUAGES, pick_language, text
from loopviz.checks import FieldError, shortened
from loopviz.fields import options_of, typed_values

if TYPE_CHECKING:
    from loopviz.app.sessions.job import Job, Jobs

LANG = "lang"  # every tool takes it
PROGRAMS = "api"  # in the log, in the place of a page: calls that came to no job of a page's
_LANG_WORDS = "language of refusals and of what is told in words."
_ARGUMENT = re.compile(r"^ {4}(\w+): (.*)")


class ToolRefused(Exception):
    """What a program asked for is not done.

    Args:
        words: why, in its language.
        fields: by field, what is wrong with it.
        full: whether as many wait, or ask, as may: later it may be done.
    """

    def __init__(self, words: str, fields: Mapping[str, str] | None = None, full: bool = False) -> None:
        super().__init__(words)
        self.fields, self.full = dict(fields or {}), full


class Call(NamedTuple):
    """One call: its language, and the session of it alone, so that no call ends another's."""

    lang: str
    session: str


class Made(NamedTuple):
    """What a tool makes of a call: the job, and what its run comes to as plain data."""

    job: Job
    answer: Callable[[Any], dict[str, Any]]


class Ready(NamedTuple):
    """What a tool makes of a call that needs neither a model nor a place among the runs: its answer, at once; may raise ToolRefused."""

    answer: Callable[[], dict[str, Any]]


class Tool:
    """One thing that programs may ask for.

    Args:
        jobs: by which its jobs are carried out.
        make: `(call, **arguments) -> Made | Ready`; its name, hints and docstring are the tool's. Raises ValueError for what is refused
            before a job is made.
        schemas: of arguments, a JSON Schema that says more than their type.
        answer: a TypedDict: what it answers.
    """

    def __init__(
        self,
        jobs: Jobs,
        make: Callable[..., Made | Ready],
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        answer: type,
    ) -> None:
        self._jobs, self._make, self._answer = jobs, make, answer
        self.name = make.__name__
        self._schemas = {LANG: {"enum": [*LANGUAGES]}, **(schemas or {})}
        self.doc = inspect.getdoc(make) or ""
        self.words, self._docs = _documented(self.doc)
        hints = typing.get_type_hints(make)
        fields: list[tuple[str, Any, Any]] = []
        for name, parameter in inspect.signature(make).parameters.items():
            if name == "call":
                continue
            given = {} if parameter.default is parameter.empty else {"default": parameter.default}
            fields.append((name, hints[name], dataclasses.field(**given)))
        fields.append((LANG, str, dataclasses.field(default="en")))
        self.parameters: type = dataclasses.make_dataclass(self.name, fields, frozen=True)

    # --- what it says of itself -----------------------------------------------------------------------------------

    def schema(self) -> dict[str, Any]:
        """JSON Schema of its arguments."""
        hints, required = typing.get_type_hints(self.parameters), []
        properties: dict[str, Any] = {}
        for thing in dataclasses.fields(self.parameters):
            found = {**schema_of(hints[thing.name]), **self._schemas.get(thing.name, {})}
            found["description"] = self._docs.get(thing.name, _LANG_WORDS)
            if thing.default is dataclasses.MISSING:
                required.append(thing.name)
            elif thing.default is not None:
                found["default"] = [*thing.default] if isinstance(thing.default, tuple) else thing.default
            properties[thing.name] = found
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of what it answers."""
        return schema_of(self._answer)

    def described(self) -> dict[str, Any]:
        """Name, words and schemas."""
        return {
            "name": self.name,
            "description": self.words,
            "arguments": self.schema(),
            "answer": self.answer_schema(),
        }

    # --- what it does ---------------------------------------------------------------------------------------------

    def carry_out(
        self, arguments: Mapping[str, Any], session: str, address: str = ""
    ) -> Generator[str, None, dict[str, Any]]:
        """Do what is asked: lines that say how far it is; returns what it comes to. Closing it ends the work.

        Args:
            arguments: by name; nothing in them is trusted.
            session: of this call (:func:`fresh_session`).
            address: whose call it is: all that come from there wait in line as one visitor.

        Raises:
            ToolRefused: in words.
        """
        lang = pick_language(arguments.get(LANG))
        made = self._made(arguments, lang, session)
        if not isinstance(made, Made):
            return made
        job, answer = made
        last: dict[str, Any] = {}
        self._jobs.visits.meet(session, "", address)
        try:
            for message in self._jobs.carry_out(job):
                said = unwire(message)
                if said.get("kind") == "status":
                    last = said
                    if not said.get("over"):
                        yield str(said["text"])
            if last.get("over") and last.get("bad"):
                raise _refusal(last)
            if job.run is None:
                raise ToolRefused(last.get("text") or text(lang, "live.end.stopped"))
            return answer(job.run)
        finally:
            self._jobs.forget(session, job.runs)  # an answer is all that is kept of a call

    def _made(self, arguments: Mapping[str, Any], lang: str, session: str) -> Made | dict[str, Any]:
        """What a call comes to: a job, which will have a line of its own in the log; or, with its line here, the answer of one that needs none.

        Raises:
            ToolRefused: in words.
        """
        began, end = time.monotonic(), "error"
        why: list[str] | None = None
        try:
            values = typed_values(self.parameters, arguments)
            values.pop(LANG, None)
            made = self._make(Call(lang, session), **values)
            if isinstance(made, Made):
                end = ""
                return made
            found = made.answer()
            end = "done"
            return found
        except FieldError as error:
            end, why = "refused", self._own([error.field])
            raise ToolRefused(told(error, lang), {error.field: told(error, lang)}) from None
        except ToolRefused as refused:
            end, why = "refused", self._own(refused.fields)
            raise
        finally:
            if end:
                self._jobs.files.note(self.name, PROGRAMS, began, end, why)

    def _own(self, fields: Iterable[str]) -> list[str]:
        """Names of fields as the log may have them: one that no argument has was made up by who asks."""
        known_names = {thing.name for thing in dataclasses.fields(self.parameters)}
        named = {field.split(".")[0] for field in fields}
        return sorted({name if name in known_names else run_log.OTHER for name in named})

    def end(self, session: str) -> None:
        """End the call of a session; waits for nothing."""
        self._jobs.starts.leave(session)


def fresh_session() -> str:
    """The session of one call."""
    return f"call-{secrets.token_urlsafe(12)}"


def _refusal(last: Mapping[str, Any]) -> ToolRefused:
    """A job's last message, as a refusal."""
    words, beside = str(last["text"]), dict(last.get("beside") or {})
    if not beside and last.get("field"):
        beside = {str(last["field"]): words}
    reasons = {str(at): str(said) for at, said in (last.get("reasons") or {}).items()}
    several = [said for said in (*beside.values(), *reasons.values()) if said not in words]
    return ToolRefused(" ".join([words, *several]), beside | reasons, bool(last.get("full")))


class Calls:
    """How many calls are answered at a time, of all programs and of one address.

    Args:
        profile: says how many.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._lock = threading.Lock()
        self._now: Counter[str] = Counter()

    @contextmanager
    def taken(self, address: str, lang: str) -> Iterator[None]:
        """Be one of them for a block.

        Raises:
            ToolRefused: as many are answered as may be.
        """
        profile = self._profile
        with self._lock:
            if self._now[address] >= profile.calls_of_one:
                raise ToolRefused(text(lang, "api.busy.own", n=profile.calls_of_one), full=True)
            if self._now.total() >= profile.calls_at_once:
                raise ToolRefused(text(lang, "api.busy", n=profile.calls_at_once), full=True)
            self._now[address] += 1
        try:
            yield
        finally:
            with self._lock:
                self._now[address] -= 1
                if not self._now[address]:
                    del self._now[address]


# --- what a function says of itself ---------------------------------------------------------------------------------------

_KINDS: Mapping[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


@functools.cache
def schema_of(hint: Any) -> dict[str, Any]:
    """JSON Schema of a value that has a type: what :func:`loopviz.fields.typed` takes for it; of answers, TypedDicts too."""
    options = options_of(hint)
    if len(options) > 1:
        return {"anyOf": [schema_of(option) for option in options]}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (tuple, list):
        return {"type": "array", "items": schema_of(args[0])}
    if origin is dict and args[1] is not Any:
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    if hint is Any:
        return {}
    if typing.is_typeddict(hint):
        found = {name: schema_of(kind) for name, kind in typing.get_type_hints(hint).items()}
        required = [name for name in found if name in hint.__required_keys__]
        return {"type": "object", "properties": found, "required": required, "additionalProperties": False}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        inner: dict[str, Any] = {}
        for thing in dataclasses.fields(hint):
            inner[thing.name] = {**schema_of(hints[thing.name]), **thing.metadata.get("schema", {})}
        return {"type": "object", "properties": inner, "additionalProperties": False}
    return {"type": _KINDS.get(hint, "object")}


def _documented(doc: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of a function, and of each of its arguments."""
    head, _, rest = doc.partition("\nArgs:\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.partition("\n\n")[0].splitlines():
        if (begun := _ARGUMENT.match(line)) is not None:
            name, found[begun[1]] = begun[1], begun[2]
        elif name:
            found[name] += " " + line.strip()
    returns = rest.partition("\nReturns:\n")[2]
    told_of = f"{head.strip()}\n\nReturns: {' '.join(returns.split())}" if returns else head.strip()
    return told_of, found


def known(names: Iterable[str], given: Mapping[str, Any], field: str) -> None:
    """Refuse what a mapping of settings names and nobody knows.

    Raises:
        FieldError: `field.name`.
    """
    offered = [*names]
    for name, value in given.items():
        if name not in offered:
            raise FieldError(f"{field}.{name}", value, "not_a_field", shown=shortened(value), known=", ".join(offered))
