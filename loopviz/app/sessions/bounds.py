"""What is refused because it is more than the server's limits allow: the one place that compares work with a profile.

Explore, Compare and Lab ask it before anything runs; it never makes anything of what was asked for but arithmetic
(:mod:`loopviz.engine.work`). Importing this needs no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loopviz.app import controls as st
from loopviz.app.profile import GIB, LOCAL, MIB, Profile
from loopviz.app.sessions.waiting_line import rounded
from loopviz.app.texts import text

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine, Request
    from loopviz.engine.work import Rate, Shape, Work

WAYS = 2  # that are told to one who asked for too much
_UNITS = ((90, 1, "s"), (5_400, 60, "min"), (172_800, 3_600, "h"), (31_536_000, 86_400, "d"))


class Sizes(NamedTuple):
    """How long what a visitor writes into a form of the Lab may be, in characters: a text or file; any other field."""

    text: int
    line: int

    @classmethod
    def of(cls, profile: Profile) -> Sizes:
        """As a server allows."""
        return cls(profile.text_characters, profile.line_characters)


SIZES = Sizes.of(LOCAL)
PROMPT_CHARACTERS = st.PROMPT_LIMIT  # of a prompt, before a token of it is counted


@dataclass(frozen=True)
class Way:
    """A number that was asked for and might be lower.

    Attributes:
        control: where it stands; `title`: what it is called there.
        value, least: as asked for, and as low as it goes.
        work: what it costs with another value; ValueError for a value that cannot be.
    """

    control: str
    title: str
    value: int
    least: int
    work: Callable[[int], Work]


@dataclass(frozen=True)
class Excess:
    """By how much work is too much: `kind` is the text that says so, `need` and `limit` in its unit."""

    kind: str
    need: float
    limit: float


class Cost(NamedTuple):
    """What something takes while it is made: seconds, None where that is not known, and bytes held at a time."""

    seconds: float | None = None
    bytes: float = 0.0


UNKNOWN = Cost()


class TooMuch(ValueError):
    """Work that is more than the server's limits allow; the message says what, by how much, and what would fit.

    Attributes:
        control: the field it stands beside.
    """

    def __init__(self, control: str, reason: str) -> None:
        super().__init__(reason)
        self.control = control


def excess(work: Work, rate: Rate | None, profile: Profile) -> Excess | None:
    """What of a profile's limits some work goes beyond; None when it may begin."""
    if work.bytes > profile.work_bytes:
        return Excess("bounds.bytes", work.bytes, profile.work_bytes)
    return _too_long("bounds.seconds", work, rate, profile.estimate_seconds)


class Rated(Protocol):
    """What knows how fast it is."""

    def rate(self, *, doubted: bool = False) -> Rate:
        """How fast it is; measured anew if `doubted`."""


class Slowest(NamedTuple):
    """Several models as one that is as slow as the slowest of them in each: an upper end of what they take together."""

    engines: Sequence[Rated]

    def rate(self, *, doubted: bool = False) -> Rate:
        """The largest of their times."""
        from loopviz.engine.work import Rate

        each = [dataclasses.astuple(engine.rate(doubted=doubted)) for engine in self.engines]
        return Rate(*map(max, zip(*each, strict=True)))


def _rate(loaded: Rated, work: Work, limit: float | None) -> Rate | None:
    """The model's rate; measured anew where by the one that is known the work would be refused. None: nobody asks."""
    if limit is None:
        return None
    rate = loaded.rate()
    return rate if work.seconds(rate) <= limit else loaded.rate(doubted=True)


def _too_long(kind: str, work: Work, rate: Rate | None, limit: float | None) -> Excess | None:
    if limit is None or rate is None or (need := work.seconds(rate)) <= limit:
        return None
    return Excess(kind, need, limit)


def refused(
    over: Callable[[Work], Excess | None], work: Work, ways: Sequence[Way], lang: str, control: str = "prompt"
) -> st.Problem | None:
    """What is said of work that is too much, beside the first number that would make it fit; None of what is not.

    Args:
        over: whether some work is too much.
        ways: numbers that might be lower, the likeliest first.
        control: what it is said beside when none of them alone would do.
    """
    found = over(work)
    if found is None:
        return None
    fitting: list[tuple[Way, int]] = []
    for way in ways:
        if len(fitting) < WAYS and (most := _most(way, over)) is not None:
            fitting.append((way, most))
    blamed = fitting[0][0] if fitting else next((way for way in ways if way.value > way.least), None)
    said = [text(lang, "bounds.way", title=way.title, most=f"{most:,}") for way, most in fitting]
    fits = text(lang, "bounds.fits", ways=text(lang, "bounds.or").join(said)) if said else ""
    shown = size if found.kind == "bounds.bytes" else duration
    reason = text(
        lang,
        found.kind,
        field=control if blamed is None else field(blamed, lang),
        need=shown(found.need, lang),
        limit=shown(found.limit, lang),
        fits=fits or text(lang, "bounds.nothing_fits"),
    )
    return st.Problem(control if blamed is None else blamed.control, reason)


def _most(way: Way, over: Callable[[Work], Excess | None]) -> int | None:
    """The largest value of a number that fits, to a twentieth below it; None if not even its least does."""

    def fits(value: int) -> bool:
        try:
            return over(way.work(value)) is None
        except ValueError:
            return False

    low, high = way.least, way.value
    if low >= high or not fits(low):
        return None
    while high - low > max(1, low // 20):
        # over a wide range the middle is that of the logarithms
        middle = max(low + 1, min(high - 1, int((max(low, 1) * high) ** 0.5) if high > 4 * low else (low + high) // 2))
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if low < 100 else low - low % 10 ** (len(str(low)) - 2)


def field(way: Way, lang: str) -> str:
    """The number as it was asked for."""
    if way.control == "prompt":
        return text(lang, "bounds.prompt", n=f"{way.value:,}")
    return f"{way.control}={way.value:,}"


def duration(seconds: float, lang: str) -> str:
    """Seconds as people say them."""
    for most, each, unit in _UNITS:
        if seconds <= most:
            return text(lang, f"bounds.unit.{unit}", n=f"{max(1, round(seconds / each)):,}")
    return text(lang, "bounds.unit.y")


def size(amount: float, _lang: str) -> str:
    """Bytes as people say them."""
    each, unit = (MIB, "MiB") if amount < GIB else (GIB, "GiB")
    return f"{amount / each:,.1f} {unit}" if amount < 100 * each else f"{amount / each:,.0f} {unit}"


# -- Explore -----------------------------------------------------------------------------------------------------------


def of_run(
    loaded: Engine,
    values: Mapping[str, Any],
    prompt: int,
    extras: Collection[str],
    profile: Profile,
    lang: str,
) -> list[st.Problem]:
    """Why a run may not begin: it would hold too much, or take too long, or do nothing but read its prompt.

    Args:
        values: cleaned, and such as the model takes them (:func:`loopviz.app.controls.check_loop`).
        prompt: its tokens.
        extras: what is recorded beyond what every run records.
    """
    from loopviz.engine import work as cost

    shape = shape_of(loaded, values)
    if prompt > shape.context:  # told in its own words
        return []
    new = values["max_new_tokens"]
    longest = min((s for s in (profile.seconds_run, profile.estimate_seconds) if s is not None), default=None)

    def reading(shape: Shape, prompt: int) -> Work:
        return cost.reading(shape, prompt, extras=extras)

    def whole(shape: Shape, prompt: int, new: int) -> Work:
        return cost.run(shape, prompt, new, extras=extras)

    _rate(loaded, reading(shape, prompt), longest)  # doubted where that alone would be too long
    rate = _rate(loaded, whole(shape, prompt, new), profile.estimate_seconds or longest)

    def reading_over(work: Work) -> Excess | None:
        return _too_long("bounds.reading", work, rate, longest)

    asked = _Asked(shape, values, prompt, lang)
    problem = refused(reading_over, reading(shape, prompt), asked.ways(reading), lang)
    if problem is None:
        ways = asked.ways(lambda shape, prompt: whole(shape, prompt, new), lambda n: whole(shape, prompt, n))
        problem = refused(lambda work: excess(work, rate, profile), whole(shape, prompt, new), ways, lang)
    return [] if problem is None else [problem]


def shape_of(loaded: Engine, values: Mapping[str, Any] | None) -> Shape:
    """What of a model under cleaned values decides what a run costs; None: without a loop."""
    from loopviz.engine.work import Loop, kept_itemsize

    plain = loaded.describe().shape.plain
    if values is None:
        return plain
    used = st.effective(values)
    steps = used["loop_count" if used["loop_strategy"] == "fixed_count" else "max_loop_count"]
    slots = used["virtual_layer_count"] if used["kv_cache_mode"] == "virtual_layers" else 1
    reads = slots if used["virtual_attention_mode"] == "parallel" else 1
    first, last = used["block_start"], used["block_end"]
    loop = Loop(last - first + 1, steps, slots, reads, plain.layers - 1 - last)
    number = kept_itemsize([used["kv_cache_dtype"]], plain.head_dim, plain.itemsize)
    return dataclasses.replace(plain, loops=(loop,), chosen=used["layer_chooser"] != "none", kv_itemsize=number)


@dataclass(frozen=True)
class _Asked:
    """The numbers of a form that decide what a run costs."""

    shape: Shape
    values: Mapping[str, Any]
    prompt: int
    lang: str

    def ways(self, work: Callable[[Shape, int], Work], new: Callable[[int], Work] | None = None) -> list[Way]:
        """What might be lower.

        Args:
            work: `(shape, prompt tokens)` -> what it costs.
            new: new tokens -> what it costs, where they count.
        """
        values, shape, prompt = self.values, self.shape, self.prompt
        dynamic = values["loop_strategy"] == "dynamic_stop"
        steps = "max_loop_count" if dynamic else "loop_count"
        least = values["min_loop_count"] if dynamic else 1
        parallel = values["virtual_attention_mode"] == "parallel"
        found = [self._way(steps, least, lambda n: work(shape.at(n), prompt))] if shape.loops else []
        if new is not None:
            found.append(self._way("max_new_tokens", 1, new))
        title = text(self.lang, "bounds.prompt.title")
        found.append(Way("prompt", title, prompt, 1, lambda n: work(shape, n)))
        if shape.loops and values["kv_cache_mode"] == "virtual_layers":
            keeping = lambda n: work(shape.keeping(n, n if parallel else 1), prompt)  # noqa: E731
            found.append(self._way("virtual_layer_count", 1, keeping))
        return found

    def _way(self, name: str, least: int, work: Callable[[int], Work]) -> Way:
        return Way(name, text(self.lang, f"{name}.label"), int(self.values[name]), least, work)


# -- Compare -----------------------------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """A configuration of a comparison: what decides its cost, its cleaned values, and up to how many loops it is swept (0: not)."""

    shape: Shape
    values: Mapping[str, Any]
    sweep: int = 0

    @property
    def shapes(self) -> list[Shape]:
        """Of each of its rows."""
        from loopviz.lab.comparison.setups import shapes_of

        return shapes_of(self.shape, self.sweep)

    def work(self, prompt: int, new: int, continuation: int) -> Work:
        """What all its rows cost, one after the other."""
        from loopviz.engine.work import NOTHING
        from loopviz.lab.tasks.compare import work_of

        greedy = self.values["greedy"] and self.values["repetition_penalty"] == 1
        return sum((work_of(shape, prompt, new, continuation, greedy=greedy) for shape in self.shapes), NOTHING)


def work_of_comparison(cards: Sequence[Compared], prompt: int, new: int, continuation: int) -> Work:
    """What configurations cost, their texts written together and each read by itself; of `prompt`, `new` and `continuation` tokens."""
    from loopviz.lab.comparison.together import beside

    shapes = [shape for card in cards for shape in card.shapes]
    return sum((card.work(prompt, new, continuation) for card in cards), beside(shapes, prompt, new))


def of_comparison(
    cards: Sequence[Compared | tuple[Shape, Mapping[str, Any]]],
    loaded: Rated,
    prompt: int,
    continuation: int,
    profile: Profile,
    lang: str,
) -> st.Problem | None:
    """Why configurations may not be compared, their texts together and each by itself; None when they may.

    Args:
        cards: each configuration's shape, cleaned values and, if it is swept, up to how many loops.
        prompt, continuation: tokens.
    """
    made = [card for card in (Compared(*one) for one in cards) if prompt + continuation <= card.shape.context]
    if not made:  # those that are left out are told in their own words
        return None
    first, new = made[0], made[0].values["max_new_tokens"]

    def costs(prompt: int, new: int, only: Compared | None = None) -> Work:
        return work_of_comparison(made if only is None else [only], prompt, new, continuation)

    ways = []
    if len(made) == 1 and first.sweep:
        title = text(lang, "compare.sweep")
        ways.append(Way("sweep", title, first.sweep, 2, lambda n: costs(prompt, new, first._replace(sweep=n))))
    elif len(made) == 1:
        asked_of = _Asked(first.shape, first.values, prompt, lang)
        ways += asked_of.ways(lambda shape, prompt: costs(prompt, new, first._replace(shape=shape)))
    title = text(lang, "max_new_tokens.label")
    ways.insert(1, Way("max_new_tokens", title, new, 1, lambda n: costs(prompt, n)))
    if len(made) > 1:
        ways.append(Way("prompt", text(lang, "bounds.prompt.title"), prompt, 1, lambda n: costs(n, new)))
    asked = costs(prompt, new)
    rate = _rate(loaded, asked, profile.estimate_seconds)
    return refused(lambda work: excess(work, rate, profile), asked, ways, lang)


# -- Learn -------------------------------------------------------------------------------------------------------------


def _whole(asked: Sequence[tuple[Engine, Request, int]]) -> list[tuple[Engine, Work]]:
    """What runs cost that are made one after the other, by model; each with the tokens of its prompt."""
    from loopviz.engine import work as cost

    whole: dict[str, tuple[Engine, Work]] = {}
    for loaded, request, prompt in asked:
        shape, settings = loaded.describe(request.loop).shape, request.settings
        if prompt <= shape.context:  # else it is told in its own words
            work = cost.run(shape, prompt, settings["max_new_tokens"], extras=settings["extras"])
            before = whole.get(loaded.name)
            whole[loaded.name] = loaded, work if before is None else before[1] + work
    return [*whole.values()]


def bytes_of_requests(asked: Sequence[tuple[Engine, Request, int]]) -> float:
    """What runs hold at a time that are made one after the other; as :func:`of_requests`."""
    return max((work.bytes for _, work in _whole(asked)), default=0.0)


def of_requests(asked: Sequence[tuple[Engine, Request, int]], profile: Profile, lang: str) -> st.Problem | None:
    """Why runs may not be made, one after the other; None when they may.

    Args:
        asked: of each the engine, what that is asked for, and the tokens of its prompt.
    """
    for loaded, work in _whole(asked):
        over = functools.partial(excess, rate=_rate(loaded, work, profile.estimate_seconds), profile=profile)
        if problem := refused(over, work, [], lang):
            return problem
    return None


# -- Lab ---------------------------------------------------------------------------------------------------------------


def check_measurement(task: Any, subject: Any, params: Any, loaded: Engine, profile: Profile, lang: str) -> None:
    """Refuse a measurement of the Lab that is more than the server's limits allow.

    Raises:
        TooMuch: naming the parameter.
        ValueError: what the task refuses by itself.
    """
    if task.work is None:
        if profile.estimate_seconds is not None:
            raise TooMuch("", text(lang, "bounds.no_work"))
        return
    work = task.work(subject, params)
    rate = _rate(loaded, work, profile.estimate_seconds)
    over = lambda some: excess(some, rate, profile)  # noqa: E731
    if over(work) is None:
        return
    if problem := refused(over, work, _ways(task, subject, params, lang), lang, control=""):
        raise TooMuch(problem.control, problem.reason)


def cost_of_measurement(task: Any, subject: Any, params: Any, loaded: Engine) -> Cost:
    """About what a measurement takes here, by its work and the model's speed; not known where it does not tell its work.

    Raises:
        ValueError: what the task refuses by itself.
    """
    if task.work is None:
        return UNKNOWN
    work: Work = task.work(subject, params)
    return Cost(work.seconds(loaded.rate()), work.bytes)


def cost_of_run(loaded: Engine, values: Mapping[str, Any], prompt: int, extras: Collection[str]) -> Cost:
    """About what a run takes, all of its new tokens counted; as :func:`of_run`."""
    from loopviz.engine import work as cost

    work = cost.run(shape_of(loaded, values), prompt, values["max_new_tokens"], extras=extras)
    return Cost(work.seconds(loaded.rate()), work.bytes)


def seconds_of_reading(loaded: Engine, values: Mapping[str, Any], prompt: int, extras: Collection[str]) -> float:
    """About how many seconds pass until a run has read its prompt; as :func:`of_run`."""
    from loopviz.engine import work as cost

    return cost.reading(shape_of(loaded, values), prompt, extras=extras).seconds(loaded.rate())


def within(task: Any, subject: Any, params: Any, size: Any, loaded: Engine) -> Any:
    """The parameters of a size, its numbers lowered, each in turn, until the measurement takes no longer than the size may.

    Raises:
        ValueError: what the task refuses by itself.
    """
    rate = loaded.rate()

    def over(work: Work) -> Excess | None:
        return _too_long("bounds.seconds", work, rate, size.seconds)

    for name in size.fits:
        if task.work is None or over(task.work(subject, params)) is None:
            break
        thing = next(thing for thing in dataclasses.fields(params) if thing.name == name)
        least = max(1, int(thing.metadata["low"] or 1), params.window if name == "limit_tokens" else 1)
        way = Way(name, name, getattr(params, name), least, _with(task, subject, params, name, False))
        params = dataclasses.replace(params, **{name: _most(way, over) or min(least, way.value)})
    return params


def about(seconds: float, lang: str) -> str:
    """An estimate as people say it: in steps as coarse as it is."""
    return text(lang, "bounds.about", time=duration(rounded(seconds), lang))


def _ways(task: Any, subject: Any, params: Any, lang: str) -> list[Way]:
    """Its whole numbers, and the largest of several; those furthest from what they usually are first."""
    from loopviz.app.sessions.columns import title_of
    from loopviz.lab.task import ends_of

    found = []
    for thing in dataclasses.fields(params):
        value, several = getattr(params, thing.name), False
        if isinstance(value, tuple) and value and all(type(item) is int for item in value):
            value, several = max(value), True
        if type(value) is not int or thing.name == "seed":
            continue
        least = max(int(ends_of(thing.metadata)[0]), 1)
        title = title_of(task.name, thing.name, lang)
        found.append(Way(thing.name, title, value, least, _with(task, subject, params, thing.name, several)))
    return sorted(found, key=lambda way: -way.value / _usual(params, way))


def _usual(params: Any, way: Way) -> int:
    """What a number usually is; itself where that depends on others."""
    usual = next(thing.default for thing in dataclasses.fields(params) if thing.name == way.control)
    usual = max(usual, default=None) if isinstance(usual, tuple) else usual
    return max(1, usual if type(usual) is int else way.value)


def _with(task: Any, subject: Any, params: Any, name: str, several: bool) -> Callable[[int], Work]:
    """What the task costs with one parameter no more than a number."""

    def work(most: int) -> Work:
        value: Any = most
        if several:
            value = tuple(item for item in getattr(params, name) if item <= most) or (most,)
        return task.work(subject, dataclasses.replace(params, **{name: value}))

    return work


# -- time --------------------------------------------------------------------------------------------------------------


class Clock:
    """Calls `end` when so many seconds are over, but for those in which it stood; None: never."""

    def __init__(self, seconds: float | None, end: Callable[[], None]) -> None:
        self._end, self._lock = end, Lock()
        self._left, self._since = seconds, 0.0
        self._timer: Timer | None = None
        self.go()

    def go(self) -> None:
        """Go on."""
        with self._lock:
            if self._left is None or self._timer is not None:
                return
            self._timer, self._since = Timer(self._left, self._end), time.monotonic()
            self._timer.daemon = True
            self._timer.start()

    def stand(self) -> None:
        """What is timed rests, or is over: it ends nothing until it goes on."""
        with self._lock:
            timer, self._timer = self._timer, None
            if timer is None or self._left is None:
                return
            timer.cancel()
            self._left = max(0.0, self._left - (time.monotonic() - self._since))


@contextmanager
def deadline(seconds: float | None, end: Callable[[], None]) -> Iterator[Clock]:
    """Call `end` when the block has taken so long, but for the time in which its clock was told to stand; None: never."""
    clock = Clock(seconds, end)
    try:
        yield clock
    finally:
        clock.stand()
