"""What a visitor of the Compare page asks for, read from what the page's script sends; nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from loopviz.app import controls as st
from loopviz.app.contract import CardAsked, Compare
from loopviz.app.controls.model_name import short_name
from loopviz.app.controls.refusal import told
from loopviz.app.sessions.chosen_precision import chosen
from loopviz.app.sessions.tickets import is_ticket, number
from loopviz.app.sessions.untrusted import fitting
from loopviz.app.texts import pick_language, text
from loopviz.checks import FieldError
from loopviz.engine.engine import Description, TTTDescription

LEAST, MOST = 2, 6  # configurations
SWEEP_LEAST, SWEEP_MOST, SWEEP = 2, 256, 16  # loops that a sweep reaches: at least, at most, as it is added
NAME_LIMIT = 40  # characters of a configuration's name
_SHARED = tuple(control.name for control in st.CONTROLS if control.group == "sampling")


@dataclass(frozen=True)
class Card:
    """A configuration: its name, the controls that were set for it, and whether it is the model without its loop.

    `sweep`: up to how many loops it is measured, as a curve; 0: once, as it is set.
    `named`: the model it is of, as that comes; "": the page's.
    `linked`: whether a link named that model, and the visitor has not agreed to it yet.
    `base`: what a link set for its model, `base_model`; what was not set otherwise is so while that model is chosen.
    """

    name: str
    plain: bool
    values: Mapping[str, Any]
    base: Mapping[str, Any] = field(default_factory=dict)
    base_model: str = ""
    sweep: int = 0
    named: str = ""
    linked: bool = False

    @property
    def set(self) -> list[str]:
        """What of a loop is set on it: controls, the model without its loop (`plain`), a sweep."""
        own = [
            control.name for control in st.CONTROLS if control.group in st.LOOP_GROUPS and control.name in self.values
        ]
        return [*own, *(name for name in ("plain", "sweep") if getattr(self, name))]


class Setup(NamedTuple):
    """A card in its place, with its controls read.

    `of`: the name of its model; `learns`: whether that is known to be a TTT model.
    """

    place: int
    card: Card
    form: st.Form
    of: str
    learns: bool = False

    @property
    def fixed(self) -> bool:
        """Whether it runs as its model comes."""
        return self.learns or bool(self.card.named)

    @property
    def loop(self) -> dict[str, Any] | None:
        """The loop fields it asks for; None: the model without its loop."""
        if self.fixed:
            return {}
        return None if self.card.plain else st.loop_fields(self.form.settings)

    def problems(self, lang: str) -> list[st.Problem]:
        """What of its controls, or of its sweep, is wrong by itself."""
        if self.fixed and self.card.set:
            return [self._idle(lang)]
        most = self.card.sweep
        if most and not SWEEP_LEAST <= most <= SWEEP_MOST:
            rule = FieldError("sweep", most, "whole_in", low=SWEEP_LEAST, high=f"{SWEEP_MOST:,}")
            return [st.Problem("sweep", told(rule, lang))]
        return self.form.problems(lang)

    def _idle(self, lang: str) -> st.Problem:
        """Why what is set of a loop has no effect here, by name."""
        names = [
            text(lang, {"plain": "compare.plain", "sweep": "compare.sweep"}.get(name, f"{name}.label"))
            for name in self.card.set
        ]
        key = "compare.ttt.idle" if self.learns else "compare.other.idle"
        said = text(lang, "compare.and").join(names)
        return st.Problem(self.card.set[0], text(lang, key, model=short_name(self.of), names=said))


@dataclass(frozen=True)
class Asked:
    """A comparison as asked for.

    Attributes:
        baseline: a place in `cards`.
        shared: the controls that are everybody's.
        suits: the model whose settings the cards hold; what was set for another one's may give way.
        n: its number among the page's starts.
        linked: whether a link named the model, and the visitor has not agreed to it yet.
        lengths: characters of prompt and continuation, of who only asks what it would cost.
        look: whether the visitor does not want the model (any more), and only looks where it is.
        precision: what all models are to be held in; misnamed: why what was asked for is no precision.
    """

    model: str
    prompt: Any
    continuation: str
    shared: Mapping[str, Any]
    cards: tuple[Card, ...]
    baseline: int
    lang: str
    ticket: str = ""
    suits: str = ""
    n: int | None = None
    linked: bool = False
    look: bool = False
    lengths: tuple[int, int] = (0, 0)
    precision: str = st.SERVER
    misnamed: tuple[st.Problem, ...] = ()

    @classmethod
    def read(cls, payload: Any, default_model: str) -> Asked:
        """From the script's data; what is not well-formed is left to :meth:`problems`, or takes its usual value."""
        found = fitting(payload, Compare)
        # what was typed as it came: half a character in it is refused in words, beside it, and not left out
        prompt, continuation = (payload.get(name) if found else None for name in ("prompt", "continuation"))
        lang = pick_language(found.get("lang"))
        name = found.get("model")
        model, _ = st.clean_name(name if isinstance(name, str) and name.strip() else default_model, lang)
        cards = tuple(_card(one, model) for one in found.get("cards", [])[: MOST + 1])
        place = found.get("baseline", 0)
        precision, misnamed = chosen(found.get("precision"), lang)
        return cls(
            model=model,
            prompt=prompt,
            continuation=continuation if isinstance(continuation, str) else "",
            shared=found.get("shared", {}),
            cards=cards,
            baseline=place if 0 <= place < len(cards) else 0,
            lang=lang,
            ticket=found["ticket"] if is_ticket(found.get("ticket")) else "",
            suits=found.get("suits", model),
            n=number(found.get("n")),
            linked=found.get("linked", False),
            look=found.get("look", False),
            lengths=_lengths(found.get("lengths", ())),
            precision=precision,
            misnamed=tuple(misnamed),
        )

    def of(self, card: Card) -> str:
        """The name of the model that a card is of."""
        return card.named or self.model

    @property
    def others(self) -> tuple[str, ...]:
        """The names of the models of cards that are not of the page's."""
        return tuple(dict.fromkeys(name for card in self.cards if (name := self.of(card)) != self.model))

    @property
    def unagreed(self) -> frozenset[str]:
        """The names of models of cards that a link named, and that the visitor has not agreed to."""
        return frozenset(card.named for card in self.cards if card.linked)

    def form(self, card: Card, described: Description | None = None) -> st.Form:
        """A card's controls as they stand, read; once the model is there (`described`), as it brings them."""
        if self.of(card) != self.model:
            as_it_comes = {} if described is None else st.brought(described)
            if described is not None and not described.blocks:
                as_it_comes |= st.NEUTRAL
            return st.Form.read({**st.defaults(), **self._shared, **as_it_comes, **self._held(card)})
        own, linked = ({name: at[name] for name in st.BROUGHT if name in at} for at in (card.values, card.base))
        brought = {} if described is None else st.brought(described)
        base = linked if card.base_model == self.model else brought
        values = {**st.defaults(), **self._shared, **base, **own, **self._held(card)}
        if card.plain:
            return st.Form.read(values | st.NEUTRAL)  # the plain model in the words of the controls
        form = st.Form.read(values)
        if form.errors:
            return form
        if described is None or self.suits == self.model:
            return form.changed(st.fitted(form.settings, own))
        if base is not brought:
            return form
        settings, gave = st.suited(form.settings, described, own)
        return replace(form, settings=settings, gave=gave)

    def setups(self, described: Mapping[str, Description | TTTDescription]) -> list[Setup]:
        """Every card, read (:meth:`form`).

        Args:
            described: by name, the models that are here.
        """
        return [self._setup(place, card, described.get(self.of(card))) for place, card in enumerate(self.cards)]

    def _setup(self, place: int, card: Card, described: Description | TTTDescription | None) -> Setup:
        if isinstance(described, TTTDescription):  # nothing of a loop is read for it
            form = st.Form.read({**st.defaults(), **self._shared, **self._held(card)})
            return Setup(place, card, form, self.of(card), learns=True)
        return Setup(place, card, self.form(card, described), self.of(card))

    def everybodys(self) -> st.Form:
        """The controls that no card has of its own."""
        return self.form(Card("", True, {}))

    def _held(self, card: Card) -> dict[str, Any]:
        """The model that a card is of, and what it is held in."""
        return {"model": self.of(card), "precision": self.precision}

    @property
    def _shared(self) -> dict[str, Any]:
        return {name: self.shared[name] for name in (*_SHARED, *st.OLD_NAMES) if name in self.shared}

    def names(self) -> list[str]:
        """The cards' names; one that is empty or taken gets a number."""
        found: list[str] = []
        for place, card in enumerate(self.cards):
            name, n = card.name or str(place + 1), 2
            while name in found:
                name, n = f"{card.name or place + 1} ({n})", n + 1
            found.append(name)
        return found

    def problems(self) -> list[st.Problem]:
        """What is wrong before any model is asked: the prompt, the texts' lengths, the number of cards, what all share."""
        problems = st.check_prompt(self.prompt, self.lang)
        if len(self.continuation) > st.PROMPT_LIMIT:
            n, limit = len(self.continuation), st.PROMPT_LIMIT
            problems.append(st.Problem("continuation", text(self.lang, "compare.long", n=n, limit=limit)))
        problems += st.check_text("continuation", self.continuation, self.lang)
        if not LEAST <= len(self.cards) <= MOST:
            problems.append(
                st.Problem("cards", text(self.lang, "compare.count", n=len(self.cards), least=LEAST, most=MOST))
            )
        problems += self.misnamed
        return problems + [
            problem for problem in self.everybodys().problems(self.lang) if problem.control in (*_SHARED, *st.OLD_NAMES)
        ]


def _lengths(found: Any) -> tuple[int, int]:
    if len(found) != 2 or not all(0 <= n <= st.PROMPT_LIMIT for n in found):
        return (0, 0)
    return found[0], found[1]


def _card(found: CardAsked, model: str) -> Card:
    base = found.get("base") or {"model": "", "values": {}}
    return Card(
        name=found.get("name", "").strip()[:NAME_LIMIT],
        plain=found.get("plain", False),
        values=found.get("values", {}),
        base=base["values"],
        base_model=base["model"].strip(),
        named="" if (named := found.get("model", "").strip()) == model else named,
        linked=found.get("linked", False),
        sweep=0 if found.get("plain", False) else found.get("sweep", 0),
    )
