"""What the Teach page's events do: a model is taught, rests, goes on, is stopped; what was learned is kept, and fetched as a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopviz import outputs
from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.sessions import questions
from loopviz.app.sessions.file_desk import File, FileRefused
from loopviz.app.sessions.job import Job, Jobs, Refused
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.model_status import Status
from loopviz.app.sessions.models import ModelRefused
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.tickets import is_ticket, number
from loopviz.app.sessions.untrusted import fitting, read
from loopviz.app.sessions.waiting_line import Place
from loopviz.app.teach.run import SEND_EVERY, TeachRun, messages
from loopviz.app.texts import pick_language, text
from loopviz.checks import ABSENT, FieldError
from loopviz.engine.engine import Engine

if TYPE_CHECKING:
    from loopviz.train.teach_door import Prepared

GONE = dumps({"kind": "gone"})


class TeachJob(Job):
    """A teaching that was asked for.

    Attributes:
        folder: of its text and what is made; it goes with the run, or with this if there is none.
    """

    page, what, later = "teach", "teaching", True

    def __init__(self, service: Teaching, asked: Mapping[str, Any], session: str) -> None:
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""
        super().__init__(service.runs, pick_language(asked.get("lang")), session, number(asked.get("n")), ticket)
        self.service, self.asked = service, asked
        self.model, self._problems = st.clean_name(asked.get("model") or service.room.default, self.lang)
        self.folder: Path | None = None
        self.prepared: Prepared | None = None

    def check(self) -> None:
        """Refuse where nothing is taught, a name that is none, a prompt that is none, a text that is too long."""
        profile = self.service.room.profile
        if not profile.teaches:
            raise Refused(st.Problem("", text(self.lang, "teach.elsewhere")))
        problems = self._problems or st.check_prompt(self.asked.get("prompt"), self.lang)
        if problems:
            raise Refused(*problems)
        given = self.asked.get("text", "")
        if len(given) > profile.text_characters:
            most = f"{profile.text_characters:,}"
            raise FieldError("text", ABSENT, "characters", n=f"{len(given):,}", most=most)

    def prepare(self, loaded: Engine) -> None:
        """Refuse now, and not after waiting, what cannot be taught."""
        from loopviz.train.teach_door import prepare

        self.folder = outputs.scratch_folder()
        asked = self.asked
        self.prepared = prepare(loaded, asked.get("values", {}), asked.get("text", ""), asked["prompt"], self.folder)

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Teach."""
        assert self.prepared is not None  # `prepare` has been here
        room = self.service.room
        run = TeachRun(self.prepared, self.model, self.session, self.ticket, self.lang, room.words)
        run.prompt, run.linked = self.asked["prompt"], room.local
        self.folder = None
        run.place, place.left = place, lambda: run.left
        told = messages(run, run.work, every=self.service.every, ended=place.keep())
        return self.show(run, told, None)

    def rest(self, run: TeachRun, clock: Any) -> Iterator[str]:
        """The teaching's own thread lets others go before; here nothing is to be done."""
        return iter(())

    def beside(self, error: BaseException) -> str:
        """The form's field that a refusal is told beside; "" for none."""
        if isinstance(error, ModelRefused):
            return "model"
        if not isinstance(error, FieldError):
            return super().beside(error)
        from loopviz.train.teach_door import field_of

        return field_of(error)

    def close(self) -> None:
        """Its files go, unless a run has them."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class KeepJob(Job):
    """A teaching of the session's is to be kept: it ends, is measured, and is written. The model is read for it alone, as for a teaching."""

    page, what, later, alone = "teach", "keeping", True, True

    def __init__(self, service: Teaching, asked: Mapping[str, Any], session: str) -> None:
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""
        super().__init__(service.runs, pick_language(asked.get("lang")), session, number(asked.get("n")), ticket)
        self.service = service
        run = service.runs.get(asked.get("keep"))
        self.wanted = run if run is not None and run.session == session else None
        self.model = service.room.default if self.wanted is None else self.wanted.base

    def admit(self) -> None:
        """Refuse what is not there, or has learned nothing yet: what is made goes on then."""
        if self.wanted is None:
            raise Refused(st.Problem("", text(self.lang, "teach.gone")))
        if not self.wanted.keepable:
            raise self._nothing_of(self.wanted)

    def _nothing_of(self, run: TeachRun) -> Refused:
        """Why there is nothing to keep: not yet, or not any more."""
        if not run.finished.is_set():
            return Refused(st.Problem("", text(self.lang, "teach.nothing")))
        said = text(self.lang, "teach.end.unlearned", steps=run.prepared.recipe.steps)
        return Refused(st.Problem("", run.reason or said), line=run.reason or None)  # its own words are whole

    def make_alone(self, place: Place) -> Iterator[str]:
        """Wait until its last step has been left, then keep it."""
        run = self.wanted
        assert run is not None  # `admit` has been here
        run.finished.wait()  # it was told to end as this began
        if not run.begin_to_keep():
            raise (
                self._nothing_of(run) if run.learned is None else Refused(st.Problem("", text(self.lang, "teach.gone")))
            )
        self.run, run.ticket, run.lang = run, self.ticket, self.lang
        if self.start.over.is_set():
            run.halt()
        return messages(run, run.keep, every=self.service.every, ended=place.keep())


class Teaching:
    """What a page's visitors have taught.

    Args:
        jobs: what all pages of the server share.
    """

    def __init__(self, jobs: Jobs, every: float = SEND_EVERY) -> None:
        self.jobs, self.room, self.every = jobs, jobs.room, every
        self.runs: Registry[TeachRun] = Registry(jobs.keeper, TeachRun.forget)

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """One teaching, or the keeping of one: messages for the page. Whatever goes wrong becomes a message.

        What the session had taught, or waited for, before is over as this begins.

        Args:
            payload: `contract.BeginTeach` from the page's script; nothing in it is trusted.
        """
        asked = fitting(payload, contract.BeginTeach)
        kind = KeepJob if asked.get("keep") else TeachJob
        return self.jobs.carry_out(kind(self, asked, session))

    def forget(self, session: str) -> None:
        """A visitor left: stop what is taught for them and keep nothing."""
        self.jobs.forget(session, self.runs)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def model(self, question: Any) -> str:
        """`{model, lang, linked, look}`: where a model is; of one that is here, what of the form it decides."""
        from loopviz.train.teach_form import usual

        def more(loaded: Engine | None, now: Status) -> dict[str, Any]:
            if loaded is None:
                return {}
            described = loaded.describe()
            block, shape = st.brought(described), described.shape
            suits = usual(int(block["block_start"]), int(block["block_end"]), shape.context)
            return {"usual": suits, "layers": shape.layers, "context": shape.context}

        return questions.where_is(read(question, contract.AskLabModel), self.room, more=more)

    def look(self, question: Any) -> str:
        """`{run, lang}`: everything of a teaching."""
        asked = read(question, contract.LookTaught)
        run = self.runs.get(asked.get("run"))
        return GONE if run is None else dumps(run.look(asked.get("lang")))

    def pause(self, question: Any) -> str:
        """`{run, on}`: rest after the step at hand, or go on."""
        asked = read(question, contract.PauseTeaching)
        run = self.runs.get(asked.get("run"))
        if run is None:
            return GONE
        run.pause(asked.get("on", False))
        return dumps({"kind": "ok"})

    def stop(self, question: Any) -> str:
        """`{ticket}`: end what was asked for by this ticket, also what has not begun yet."""
        return questions.stop(read(question, contract.StopMeasured), self.jobs.starts, self.runs)

    # --- a file -------------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application: `GET loopviz-share/teach/<run>/adapter` fetches what was kept."""
        return [Route(f"/{contract.FILES}/teach/{{run}}/adapter", self._send, methods=["GET"])]

    async def _send(self, request: Request) -> Response:
        async def work(lang: str) -> Response:
            run = self.runs.get(request.path_params["run"])
            file = None if run is None else run.file
            if file is None or not file.is_file():
                raise FileRefused(404, text(lang, "teach.gone"))
            return await self.jobs.files.hand(lambda: (file.name, File(".zip", "application/zip", file.read_bytes())))

        return await self.jobs.files.answer(request, work, "file/save", "teach")
