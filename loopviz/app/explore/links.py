"""Links to the page: made of what a visitor has set up, and opened again. The words themselves: loopviz.app.controls.link_word.

A link never holds a result. What it was made on is said with it: the recorded run is everybody's and is shown again at
once; on a run of the visitor's own the link's view waits for the next run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.controls import Problem, about, link_word
from loopviz.app.controls.link_word import PageState
from loopviz.app.controls.model_name import short_name
from loopviz.app.explore import first_run, replay, snapshot
from loopviz.app.explore.answers import View
from loopviz.app.explore.run import Run, Runs
from loopviz.app.server.link_card import Card
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.untrusted import fitting
from loopviz.app.texts import text
from loopviz.panels import PANELS, Focus, group_of

RECORDED = first_run.FILE.stem  # the stored run's name in links


def message(
    asked: Any, prompt: Any, values: Mapping[str, Any] | st.Form, lang: str, *, registry: Runs, room: ModelRoom
) -> dict[str, Any]:
    """The link to what is set up: `{"kind": "link", "n", "word", "told"}`; no word when no link can be made, and why.

    Args:
        asked: what the page's script says with its wish: `{n, run, view}`; nothing in it is trusted.
        prompt, values: as they stand in the page's controls.
    """
    asked = fitting(asked, contract.MakeLink)
    told: list[str] = []
    form, word = st.Form.read(values), None
    if room.status(form.model, form.precision).state in ("importing", "loading"):
        told.append(text(lang, "share.link.loading"))
    elif isinstance(prompt, str) and len(prompt) > st.PROMPT_LIMIT:
        told.append(st.check_prompt(prompt, lang)[0].reason)
    else:
        state, told = _state(asked, prompt, form.settings, lang, registry)
        word, problems = link_word.encode(state, local=room.local, lang=lang)
        told += [problem.reason for problem in (*link_word.left_out(form.problems(lang), lang), *problems)]
    return {"kind": "link", "n": asked.get("n", 0), "word": word, "told": told}


def _state(
    asked: Mapping[str, Any], prompt: Any, settings: st.RunSettings, lang: str, registry: Runs
) -> tuple[PageState, list[str]]:
    """What is set up, and what is to be said of the run it was made on."""
    view, run = View.read(asked.get("view")), registry.get(asked.get("run"))
    focus, told = view.focus, []
    recorded = RECORDED if asked.get("run") == first_run.RUN else None
    if run is not None and run.opened:
        focus = replace(focus, token=None, step=None, pins=())  # of words that are not in the link
        told.append(text(lang, "share.link.file"))
    elif run is not None and _changed(run, prompt, settings):
        told.append(text(lang, "share.link.changed"))
    prompt = prompt if isinstance(prompt, str) else None
    return PageState(settings, prompt, focus, tuple(view.panels), recorded), told


def _changed(run: Run, prompt: Any, settings: st.RunSettings) -> bool:
    return run.trace.meta["prompt"] != prompt or run.values != settings


def read(word: Any, room: ModelRoom, lang: str) -> tuple[PageState, list[Problem]]:
    """What a link asks of this server, and what of it could not be used; in `lang`. Never raises."""
    known = [RECORDED] if first_run.stored() is not None else []
    return link_word.decode(
        word, default_model=room.default, local=room.local, lang=lang, panels=PANELS, recorded=known
    )


def opening(word: Any, room: ModelRoom, lang: str) -> dict[str, Any]:
    """What the page's script does with the link it was opened by: `{"panels", "group", "focus", "told", "snapshot", "holds"}`.

    `panels`: names of those that are on, null for the usual ones; of a group of which none is named the usual ones are.
    `group`: the one to open, null for the page's own choice. `snapshot`: the recorded run, looked at as the link
    asks; null when the view waits for the visitor's next run. The controls are set by the server (`ExplorePage._open`).
    `holds`: in words what the link holds, `{"prompt", "model", "loop"}`; null when it cannot be read, or shows a run.
    """
    state, problems = read(word, room, lang)
    told = [problem.reason for problem in problems]
    focus, drawn, trace = state.focus, None, first_run.stored()
    if state.recorded is not None and trace is not None:
        focus, lost = within(focus, len(trace))
        if lost:
            told.append(text(lang, "share.link.beyond", names=", ".join(map(str, lost))))
        panels = _drawn(state.panels)
        place = {"run": first_run.RUN, "epoch": 1, "end": first_run.ending(trace)}
        drawn = replay.snapshot(trace, focus, panels, **place)
    named = state.panels
    looks = {"panels": None if named is None else list(named), "group": group_of(named) if named else None}
    holds = None
    if drawn is None and link_word.opens(word):
        # settings of a model that cannot be had here are not those that will run
        loop = None if state.foreign else " · ".join(about.about_loop([st.block_of(state.values)], lang))
        holds = {"prompt": state.prompt, "model": short_name(state.values["model"]), "loop": loop}
    said = {**looks, "focus": focus.to_json(), "told": list(dict.fromkeys(told))}
    return {**said, "snapshot": drawn, "holds": holds}


def _drawn(named: Collection[str] | None) -> snapshot.Panels:
    """The panels of a link that are drawn: of the group that it opens those it names; None: the usual ones."""
    if named is None:
        return first_run.opening_panels()
    group = group_of(named)
    return {name: panel for name, panel in PANELS.items() if name in named and group == panel.GROUP}


def card(word: str, lang: str) -> Card | None:
    """What the picture of a link says; None for a word that cannot be read. Names no place of this machine. Never raises."""
    if not link_word.opens(word):
        return None
    state, _ = link_word.decode(word, local=False, lang=lang, panels=PANELS)
    facts, loops, above = [], 0, ""
    if not state.foreign:  # settings of a model that cannot be named here are not those that will run
        block = st.block_of(state.values)
        facts += about.about_loop([block], lang)[:1]
        loops = block["max_steps"]
        above = "" if block["strategy"] == "fixed_count" else text(lang, "preview.card.most")
        facts.append(text(lang, "preview.card.model", model=short_name(state.values["model"])))
    return Card(text(lang, "preview.card"), state.prompt, tuple(facts), loops, text(lang, "preview.card.loops"), above)


def within(focus: Focus, tokens: int) -> tuple[Focus, list[int]]:
    """The focus without words that a run of so many tokens does not have, and which those were."""
    lost = sorted({at for at in (focus.token, *focus.pins) if at is not None and at >= tokens})
    kept = tuple(pin for pin in focus.pins if pin < tokens)
    if focus.token in lost:
        return replace(focus, token=None, step=None, pins=kept), lost
    return replace(focus, pins=kept), lost
