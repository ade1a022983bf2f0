"""What the Lab page's events do: tasks offered, measurements started, stopped, asked about. Knows no task by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loopviz import outputs
from loopviz.app.controls import settings as st
from loopviz.app.lab.form import brought, describe, params_of, usual_loop
from loopviz.app.lab.run import SEND_EVERY, LabRun, messages
from loopviz.app.sessions import bounds
from loopviz.app.sessions.faults import kinds, unforeseen
from loopviz.app.sessions.job import Jobs, full, in_line, over, status
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.registry import KeptRuns
from loopviz.app.sessions.table_file import file_of
from loopviz.app.sessions.tickets import Start, is_ticket, number
from loopviz.app.sessions.untrusted import read
from loopviz.app.sessions.waiting_line import LineFull
from loopviz.app.texts import pick_language, text
from loopviz.worker import ended_by

GONE = dumps({"kind": "gone"})


class Laboratory:
    """The measurements of a page's visitors.

    Args:
        jobs: what all pages of the server share.
    """

    def __init__(self, jobs: Jobs, every: float = SEND_EVERY) -> None:
        self.jobs, self.room, self.every = jobs, jobs.room, every
        self.runs: KeptRuns[LabRun] = KeptRuns(LabRun.forget, jobs.keeper)

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """One measurement: messages for the page. Whatever goes wrong becomes a message.

        What the session measured or waited for before is over as this begins.

        Args:
            payload: `{lang, ticket, n, model, task, values}` from the page's script; nothing in it is trusted.
        """
        asked = payload if isinstance(payload, dict) else {}
        lang = pick_language(asked.get("lang"))
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""  # kept with the page: no other is
        start = self.jobs.starts.begin(session, number(asked.get("n")), ticket)
        if not start.replaced:
            self.runs.stop(session)
        try:
            yield from self._run(asked, session, start, lang)
        except LineFull:
            yield over(ticket, full(self.jobs.places, lang), full=True)
        except bounds.TooMuch as error:
            yield over(ticket, text(lang, "refused", reason=str(error)), field=error.control)
        except ValueError as error:
            if start.over.is_set():  # a tokenizer, or a load, that was ended for it
                yield over(ticket, text(lang, "live.end.stopped"), bad=False)
            else:
                yield over(ticket, text(lang, "refused", reason=self.room.words(error, lang)))
        except kinds() as error:
            yield over(ticket, text(lang, "refused", reason=unforeseen(error, lang, "measurement")))

    def _run(self, asked: Mapping[str, Any], session: str, start: Start, lang: str) -> Iterator[str]:
        ticket, stopped, gone = start.ticket, text(lang, "live.end.stopped"), start.over.is_set
        given = asked.get("model")
        name, problems = st.clean_name(given if given else self.room.default, lang)
        if problems:
            raise ValueError(problems[0].reason)
        said, bad = stopped, False
        for said, bad in () if gone() else self.jobs.load(name, lang, gone):
            yield status(said, bad, ticket=ticket)
        if bad or gone():
            yield over(ticket, said if bad else stopped, bad=bad)
            return
        loaded = self.room.get(name, lang, gone)
        from loopviz.model.interrupt import Interrupted, interruptible

        folder = outputs.scratch_folder()
        run: LabRun | None = None
        try:
            with ended_by(gone):
                task, subject, params = self._read(asked, loaded, folder, lang)  # refused now, and not after waiting
            with self.jobs.places.join("lab") as place:
                for ahead in place.wait(gone):
                    yield status(in_line(ahead, lang), ticket=ticket)
                if gone():
                    yield over(ticket, stopped, bad=False)
                    return
                try:
                    with ended_by(gone), interruptible(start.over):
                        run = self._prepare(task, subject, params, folder, session, ticket, lang)
                except Interrupted:
                    yield over(ticket, stopped, bad=False)
                    return
                self.runs.begin(run)
                if gone():  # taken back as it began
                    run.stop()
                yield from messages(run, every=self.every, ended=place.keep())
        finally:
            if run is None:  # else it goes with the run
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self, asked: Mapping[str, Any], loaded: Any, folder: Path, lang: str) -> tuple[Any, Any, Any]:
        """The task, the model and the parameters that were asked for.

        Raises:
            ValueError: what is refused, before anything is made of it; TooMuch where a limit of the server's is why.
        """
        from loopviz.lab import TASKS
        from loopviz.lab.task import Subject

        task = TASKS.get(asked.get("task")) if isinstance(asked.get("task"), str) else None
        if task is None:
            raise ValueError(text(lang, "lab.unknown", names=", ".join(TASKS)))
        values = asked.get("values")
        subject = Subject(loaded.model, loaded.tokenizer, loaded.name, loaded.source)
        filled = brought(task, values if isinstance(values, dict) else {}, loaded.model.config)
        params = params_of(task, filled, folder, lang)
        bounds.check_measurement(task, subject, params, loaded, self.room.profile, lang)
        return task, subject, params

    def _prepare(
        self, task: Any, subject: Any, params: Any, folder: Path, session: str, ticket: str, lang: str
    ) -> LabRun:
        from loopviz.lab.experiment import Experiment

        profile, experiment = self.room.profile, Experiment(task, subject, params, folder=folder)
        return LabRun(experiment, folder, session, ticket, lang, profile.seconds_lab, profile.paths)

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs or waits for them and keep nothing."""
        self.jobs.starts.leave(session)
        self.runs.forget(session)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def tasks(self, question: Any) -> str:
        """What can be measured: every task's words and fields. The first answer waits for PyTorch."""
        from loopviz.lab import TASKS

        return dumps({"kind": "tasks", "tasks": [describe(task) for task in TASKS.values()]})

    def model(self, question: Any) -> str:
        """`{model, lang, linked, look}`: where a model is, and the tokens it can read at once (`context`).

        One that is not here begins to be loaded; of one that a link named (`linked`) the visitor is asked first; who only
        looks (`look`) does not want it.

        `loop`: the loop fields it brings where a form says nothing of them (:func:`loopviz.app.lab.form.usual_loop`).
        """
        asked = read(question)
        lang = pick_language(asked.get("lang"))
        name, problems = st.clean_name(asked.get("model"), lang)
        if problems:
            return dumps({"kind": "model", "name": "", "state": "failed", "text": problems[0].reason})
        loaded = self.room.ready(name)
        now = self.room.want(name, lang, linked=asked.get("linked") is True, look=asked.get("look") is True)
        answer = {"kind": "model", "name": name, "state": now.state, "text": now.tell(lang), "loop": {}}
        if loaded is not None:
            answer |= {"loop": usual_loop(loaded.model.config), "context": loaded.model.config.max_position_embeddings}
        return dumps(answer)

    def look(self, question: Any) -> str:
        """`{run, lang}`: everything of a measurement."""
        asked = read(question)
        run = self.runs.get(asked.get("run"))
        return GONE if run is None else dumps(run.look(asked.get("lang")))

    def link(self, question: Any) -> str:
        """`{run, row, lang}`: the word of the address that opens a row's model in Explore, or why there is none."""
        asked = read(question)
        run = self.runs.get(asked.get("run"))
        if run is None:
            return GONE
        word = run.link(asked.get("row"))
        told = "" if word else text(pick_language(asked.get("lang")), "lab.no_model")
        return dumps({"kind": "link", "word": word, "text": told})

    def stop(self, question: Any) -> str:
        """`{ticket}`: end what was asked for by this ticket, also what has not begun yet."""
        ticket = read(question).get("ticket")
        self.jobs.starts.cancel(ticket)
        for run in self.runs:
            if is_ticket(ticket) and run.ticket == ticket:
                run.stop()
        return dumps({"kind": "ok"})

    def download(self, question: Any) -> str:
        """`{run, kind}`: the table so far as a file: `{"name", "data"}`, base64."""
        asked = read(question)
        run = self.runs.get(asked.get("run"))
        return GONE if run is None else dumps(file_of(run.experiment, asked.get("kind")))
