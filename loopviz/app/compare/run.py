"""One visitor's comparison: what it has found, and the messages that bring it to the page.

The messages: :mod:`loopviz.app.contract`. The page's script: `assets/web/compare/main.js`.

Importing this needs no torch; the measurements are `loopviz.lab.tasks.compare`'s.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from loopviz.app.controls.model_name import short_name
from loopviz.app.controls.refusal import told
from loopviz.app.sessions.chosen_precision import measured_in
from loopviz.app.sessions.columns import column_words
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import pack, wire
from loopviz.app.texts import pick_language, table, text
from loopviz.trace.weight import deep_bytes

if TYPE_CHECKING:
    from loopviz.app.sessions.turns import Turn
    from loopviz.lab.comparison.stored import Finished
    from loopviz.lab.experiment import Experiment
    from loopviz.lab.kept import Kept
    from loopviz.lab.tasks.compare import Comparison, Event

SEND_EVERY = 0.12  # seconds
WEIGH_EVERY = 1.0  # seconds


class ComparisonRun:
    """One comparison of one visitor. Its methods may be called from any thread.

    Args:
        comparison: what is measured.
        experiment: the table it fills.
        places: of each configuration, the place of its card on the page; all of a sweep's rows are of one card.
        links: by place, the word that opens the card's settings in Explore; None where no address can hold it.
        session: whose it is; compared, never sent.
        ticket: the page's own name for what it asked for; it may end it.
    """

    def __init__(
        self,
        comparison: Comparison | Finished,
        experiment: Experiment | Kept,
        places: list[int],
        links: Mapping[int, str | None],
        session: str = "",
        lang: str = "en",
        ticket: str = "",
    ) -> None:
        from loopviz.lab.comparison.table import first_axes

        self.id = secrets.token_urlsafe(16)
        self.comparison, self.experiment, self.links = comparison, experiment, links
        self.places = [places[setup.of] for setup in comparison.setups]  # of each setup
        # curves are of configurations: of a sweep only its points are drawn, against each other
        self.lines = [i for i, setup in enumerate(comparison.setups) if setup.swept is None]
        self.session, self.lang, self.ticket = session, lang, ticket
        self.refused: Mapping[int, str] = {}  # by place, why a card is not among them
        self.view = "cosine"
        self.axes = first_axes(bool(comparison.params.continuation.strip()), self.learning)
        self.stages: list[dict[str, Any]] = [{"stage": "waiting"} for _ in self.places]
        self.rows: list[dict[str, Any] | None] = [None] * len(self.places)
        self.end: str | None = None  # done, stopped, time, memory, error
        self.halted: str | None = None  # its end, if it is ended before it is done
        self.opened = False
        self.keeper: Keeper | None = None  # weighs it as it grows
        self.turn: Turn | None = None  # its visitor's
        self._weight, self._weigh_at = 0, 0.0  # bytes; when to weigh again
        self.finished = threading.Event()
        self.seq = 0
        self._sent = 0
        self._known = [0] * len(self.places)  # tokens of each setup that the page has
        self._changed: set[int] = set()
        self._lock = comparison.lock

    @property
    def learning(self) -> bool:
        """Whether a TTT model is among its configurations."""
        return any(result.learns for result in self.comparison.results)

    @property
    def gated(self) -> bool:
        """Whether an exit gate chooses in one of its configurations, by what was asked for or by what has come of it."""
        asked = [(setup.loop or {}).get("exit_selection", "last") for setup in self.comparison.setups]
        blocks = [one for each in asked for one in (each if isinstance(each, (list, tuple)) else [each])]
        return any(one != "last" for one in blocks) or any(result.read_out for result in self.comparison.results)

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes: what is known of each configuration.

        While it is made it is weighed now and then: all of it at a time, so the more seldom the longer that takes.
        """
        with self._lock:
            now = time.monotonic()
            if self.finished.is_set() or now >= self._weigh_at:
                held = [self.comparison.results, self.rows, self.experiment.rows, self.links]
                self._weight = deep_bytes([*held, dict(vars(self.comparison.params))])
                self._weigh_at = now + WEIGH_EVERY + 20 * (time.monotonic() - now)
            return self._weight

    def halt(self, end: str = "stopped") -> None:
        """End all of it, as `end` says, in the middle of a pass too; what was measured stays."""
        self.halted = self.halted or end
        for place in {*self.places}:
            self.stop(place)

    def stop(self, place: int) -> None:
        """End the configuration of one card, in the middle of a pass too.

        Its row says when it has; where others are before it in the line, or share its passes, it is told at once.
        """
        for i, at in enumerate(self.places):
            if place == at:
                self.comparison.stops[i].set()
                with self._lock:
                    if self.stages[i]["stage"] in ("waiting", "text", "written"):
                        self.stages[i] = {"stage": "stopped"}
                        self.seq += 1
                        self._changed.add(i)

    def events(self) -> Generator[Event, None, None]:
        """What comes of the comparison, in its visitor's turns."""
        made = self.comparison.events()
        return made if self.turn is None else self.turn.of(made, lambda: self.halted is not None)

    def _waited(self) -> float:
        return 0.0 if self.turn is None else self.turn.waited

    def advance(self, events: Iterator[Event]) -> bool:
        """Take the next event; False when there is none."""
        started, waited = time.perf_counter(), self._waited()
        event = next(events, None)  # without the lock: a question must not wait for a pass
        with self._lock:
            self.experiment.seconds += time.perf_counter() - started - (self._waited() - waited)
            if event is None:
                return False
            self.seq += 1
            i = event.setup
            self._changed.add(i)
            if event.row is not None:
                self.rows[i] = event.row
                self.experiment.rows.append(event.row)
                self.stages[i] = {"stage": "stopped" if self.comparison.stops[i].is_set() else "done"}
            elif event.error is not None:
                self.stages[i] = {"stage": "refused", "reason": told(event.error, self.lang)}
            elif event.stage and not self.comparison.stops[i].is_set():
                self.stages[i] = {"stage": event.stage, "done": event.done, "total": event.total}
        if self.keeper is not None and not self.keeper.weigh(self):
            self.halt("memory")
            self.finish("memory")
            return False
        return True

    def finish(self, end: str) -> None:
        """Nothing computes for it any more."""
        with self._lock:
            if self.end is None:
                self.end = end
                # a row that was stopped is kept, but it is not what the manifest would give again
                self.experiment.complete = end == "done" and not any(stop.is_set() for stop in self.comparison.stops)
        self.finished.set()
        if self.keeper is not None:
            self.keeper.settled(self)

    # --- messages -------------------------------------------------------------------------------------------------

    def _card(self, i: int, known: int = 0) -> dict[str, Any]:
        """What the page shows on a configuration's card, its text from the token `known` on."""
        result, row = self.comparison.results[i], self.rows[i]
        card: dict[str, Any] = {**self.stages[i], "from": known, "pieces": result.pieces[known:]}
        if row is not None:
            card |= {
                "row": row,
                "said": said_of(row, self.lang),
                "differs": result.differs,
                "same": result.same_until,
                "link": self.links[self.places[i]],
            }
        return card

    def _news_of(self, place: int, known: Mapping[int, int] | None = None) -> dict[str, Any]:
        """What the page shows on the card at a place; `known`: tokens that it has of each setup."""
        own = [i for i, at in enumerate(self.places) if at == place]
        if self.comparison.setups[own[0]].swept is None:
            return self._card(own[0], (known or {}).get(own[0], 0))
        rows = [{**row, **said_of(row, self.lang)} for i in own if (row := self.rows[i]) is not None]
        stages = [self.stages[i] for i in own]
        ended = [stage for stage in stages if stage["stage"] in ("refused", "stopped", "done")]
        refused = next((stage for stage in stages if stage["stage"] == "refused"), None)
        if len(ended) == len(own):
            now = refused if refused and not rows else ended[-1]
        else:
            now = {"stage": "sweep" if ended or stages[0]["stage"] != "waiting" else "waiting"}
        return {**now, "done": len(rows), "total": len(own), "from": 0, "pieces": [], "rows": rows, "link": None}

    def _verdict(self) -> str:
        from loopviz.lab.comparison.verdict import verdict

        rows = [row for row in self.rows if row is not None]
        if self.end is None and len(rows) < 2:
            return ""  # of one alone there is nothing to say while others come
        have = {place for place, row in zip(self.places, self.rows, strict=True) if row is not None}
        names = [
            setup.name for setup, place in zip(self.comparison.setups, self.places, strict=True) if place not in have
        ]
        said = verdict(
            rows,
            self.lang,
            list(dict.fromkeys(names)) if self.end else [],
            continued=bool(self.comparison.params.continuation.strip()),
            refused=any(stage["stage"] == "refused" for stage in self.stages),
        )
        return text(self.lang, "said.so_far", said=said) if rows and not self.experiment.complete else said

    def _pareto(self) -> dict[str, Any]:
        from loopviz.lab.comparison.table import pareto

        known = [(row, place) for row, place in zip(self.rows, self.places, strict=True) if row is not None]
        return pareto([row for row, _ in known], *self.axes, self.lang, [place for _, place in known])

    def snapshot(self) -> dict[str, Any]:
        """Everything there is."""
        from loopviz.lab.comparison.curves import TEXTS, figures

        with self._lock:
            params, results = self.comparison.params, self.comparison.results
            self._sent, self._changed = self.seq, set()
            self._known = [len(result.ids) for result in results]
            return {
                "kind": "snapshot",
                "run": self.id,
                "ticket": self.ticket,
                "seq": self.seq,
                "end": self.end,
                "model": short_name(self.comparison.model_name),
                "prompt": params.prompt,
                "names": {
                    str(place): setup.name for setup, place in zip(self.comparison.setups, self.places, strict=True)
                },
                "baseline": self.places[self.comparison.baseline],
                "refused": {str(place): reason for place, reason in self.refused.items()},
                "cards": {str(place): self._news_of(place) for place in dict.fromkeys(self.places)},
                "figures": figures(
                    [self.comparison.setups[i].name for i in self.lines],
                    [results[i] for i in self.lines],
                    self.lang,
                    self.view,
                    [self.places[i] for i in self.lines],
                ),
                "pareto": self._pareto(),
                "columns": columns(self.lang, self.learning, self.gated),
                "words": {name: words for name, words in TEXTS[self.lang].items() if isinstance(words, dict)},
                "choose": TEXTS[self.lang]["choose"],
                "view": self.view,
                "axes": self.axes,
                "verdict": self._verdict(),
                "held": measured_in(self.experiment.held, self.lang),
            }

    def news(self) -> dict[str, Any] | None:
        """What came since the last message; None when nothing did."""
        from loopviz.lab.comparison.curves import edits

        with self._lock:
            if self._sent == self.seq and self.end is None:
                return None
            cards, ops, rows = {}, {}, False
            for i in sorted(self._changed) if self.end is None else range(len(self.places)):
                result, known = self.comparison.results[i], self._known[i]
                cards[str(self.places[i])] = self._news_of(self.places[i], {i: known})
                rows = rows or self.rows[i] is not None
                if i in self.lines:
                    for name, made in edits(self.lines.index(i), result, known, self.view).items():
                        ops.setdefault(name, []).extend(made)
                self._known[i] = len(result.ids)
            message = {"kind": "news", "run": self.id, "ticket": self.ticket, "end": self.end}
            message |= {"first": self._sent, "last": self.seq}
            message |= {"cards": cards, "ops": {name: pack(made) for name, made in ops.items()}}
            if rows or self.end is not None:
                message |= {"pareto": self._pareto(), "verdict": self._verdict()}
            self._sent, self._changed = self.seq, set()
            return message

    def look(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The page wants another language, quantity or pair of columns: a snapshot drawn so."""
        from loopviz.lab.comparison.curves import VIEWS
        from loopviz.lab.comparison.table import AXES

        with self._lock:
            self.lang = pick_language(asked.get("lang"))
            if asked.get("view") in VIEWS:
                self.view = asked["view"]
            axes = asked.get("axes", [])
            if len(axes) == 2 and all(name in AXES for name in axes):
                self.axes = (axes[0], axes[1])
            return self.snapshot()


def said_of(row: Mapping[str, Any], lang: str) -> dict[str, str]:
    """A row's cells that are words, in the page's language: how the text ended, and why its passes stopped."""
    said = {}
    if row.get("finish"):
        said["finish"] = table(lang).get(f"compare.finish.{row['finish']}", row["finish"])
    reasons = [part.rpartition(" ") for part in str(row.get("stops") or "").split(", ") if part]
    if row.get("memory"):
        said["memory"] = text(lang, f"compare.kept.{row['memory']}")
    if row.get("memory") == "state":  # of a TTT model
        no_loop = text(lang, "compare.no_loop")
        said |= {"loops_mean": no_loop, "loops_max": no_loop, "kv_bytes_per_token": text(lang, "compare.no_kv")}
    if row.get("swept") is not None:
        said["setup"] = text(lang, "compare.swept", name=row["setup"], n=row["swept"])
    if reasons:
        words = table(lang)
        said["stops"] = text(lang, "compare.and").join(
            f"{words.get(f'live.reason.{reason}', reason)} × {count}"
            if reason
            else words.get(f"compare.stops.{count}", count)
            for reason, _, count in reasons
        )
    return said


def columns(lang: str, learning: bool = False, gated: bool = False) -> list[dict[str, Any]]:
    """The table's columns as the page shows them: name, unit, heading, what it is, its group, which way is better.

    Args:
        learning: whether a TTT model is among the configurations: what all of them hold is in sight then, and not what a token takes.
        gated: whether an exit gate chooses in one of them: which step it chose is in sight then.

    `first`: whether it is in sight until all are asked for; `noise`: what two values may differ by, absolutely or as a share, and still be the same.
    """
    from loopviz.lab.comparison.table import BETTER, COLUMNS, FIRST_SHOWN, GATED_SHOWN, GROUPS, LEARNING_SHOWN, NOISE

    shown = (*(LEARNING_SHOWN if learning else FIRST_SHOWN), *(GATED_SHOWN if gated else ()))
    groups = {name: group for group, names in GROUPS.items() for name in names}
    return [
        {
            **column_words(column, lang),
            "better": BETTER.get(column.name),
            "group": groups.get(column.name),
            "first": column.name in shown,
            "noise": NOISE.get(column.name, (0.0, 0.0)),
        }
        for column in sorted(COLUMNS, key=lambda column: [*groups].index(column.name) if column.name in groups else -1)
    ]


def messages(
    run: ComparisonRun, *, every: float = SEND_EVERY, clock: Callable[[], float] = time.monotonic
) -> Iterator[str]:
    """A comparison's messages: a snapshot, then what is new every `every` seconds, and its end."""
    last = clock()
    try:
        with closing(run.events()) as events:
            yield wire(run.snapshot())
            while run.advance(events):
                now = clock()
                if now - last >= every and (message := run.news()):
                    last = now
                    yield wire(message)
        run.finish(run.halted or "done")
        yield wire(run.news() or run.snapshot())
    except GeneratorExit:
        run.finish("stopped")
        raise
    except BaseException:
        run.finish("error")
        raise
    finally:
        run.finish("stopped")
