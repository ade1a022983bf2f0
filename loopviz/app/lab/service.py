"""What the Lab page's events do: tasks offered, measurements started, stopped, asked about. Knows no task by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loopviz import outputs
from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.lab import recorded
from loopviz.app.lab.form import brought, describe, params_of, usual_loop
from loopviz.app.lab.run import SEND_EVERY, LabRun, messages
from loopviz.app.sessions import bounds, questions
from loopviz.app.sessions.chosen_precision import InPrecision, chosen, face_of, overflow, refusals
from loopviz.app.sessions.job import Jobs, Refused, in_line
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.model_notes import together
from loopviz.app.sessions.model_status import Status
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.table_file import file_of
from loopviz.app.sessions.tickets import is_ticket, number
from loopviz.app.sessions.ttt_models import either_room, learns
from loopviz.app.sessions.untrusted import fitting, read
from loopviz.app.sessions.waiting_line import Ahead, Place
from loopviz.app.texts import pick_language, text
from loopviz.checks import FieldError
from loopviz.engine.engine import Engine, EngineLost
from loopviz.worker import ended_by

GONE = dumps({"kind": "gone"})
SIZES_LIMIT = 200_000  # characters of a question that holds a form, and the beginning of a text


def task_of(asked: Mapping[str, Any]) -> Any:
    """The task that was asked for; None where there is none of that name."""
    from loopviz.lab import TASKS

    name = asked.get("task")
    return TASKS.get(name) if isinstance(name, str) else None


class MeasurementJob(InPrecision):
    """A measurement that was asked for.

    Attributes:
        folder: of the texts that came with it; it goes with the run, or with this if there is none.
    """

    page, what, later = "lab", "measurement", True

    def __init__(self, service: Laboratory, asked: Mapping[str, Any], session: str) -> None:
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""  # kept with the page: no other is
        super().__init__(service.runs, pick_language(asked.get("lang")), session, number(asked.get("n")), ticket)
        self.service, self.room, self.asked = service, service.room, asked
        self.model, self._problems = st.clean_name(asked.get("model") or service.room.default, self.lang)
        self.precision, misnamed = chosen(asked.get("precision"), self.lang)
        self._problems += misnamed
        self.folder: Path | None = None
        self.wanted: tuple[Any, Any, Any] | None = None  # task, subject, parameters
        self._told: Ahead | None = None  # where it waits in between, as last said

    def check(self) -> None:
        """Refuse a name that is none, and a precision that is none."""
        if self._problems:
            raise Refused(*self._problems)

    def prepare(self, loaded: Engine) -> None:
        """Refuse now, and not after waiting, what cannot be measured."""
        self.folder = outputs.scratch_folder()
        self.wanted = self.service.read(self.asked, loaded, self.folder, self.lang)

    def cost(self, loaded: Engine) -> bounds.Cost:
        """By its task's work."""
        return bounds.UNKNOWN if self.wanted is None else bounds.cost_of_measurement(*self.wanted, loaded)

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Measure."""
        with ended_by(self.start.over.is_set):
            run = self._prepared()
        if run is None:
            return self.stopped()
        place.left = lambda: run.experiment.eta
        run.rest, run.turn = (lambda: [*place.give_way(lambda: run.halted is not None)]), place.turn
        return self._shown(run, place)

    def _shown(self, run: LabRun, place: Place) -> Iterator[str]:
        """The measurement's messages; numbers that grew beyond float16 are told beside the precision."""
        # the place is kept until the measurement's own thread has ended
        yield from self.show(run, messages(run, every=self.service.every, ended=place.keep()), None)
        if run.overflowed:
            raise overflow(self.lang)

    def rest(self, run: LabRun, clock: bounds.Clock) -> Iterator[str]:
        """The measurement's own thread lets others go before, and has a clock of its own; here it is only said."""
        ahead = None if self.place is None else self.place.ahead()
        if ahead != self._told:
            self._told = ahead
            yield self.say("" if ahead is None else in_line(ahead, self.lang))

    def _prepared(self) -> LabRun | None:
        """The measurement, not begun yet; None when it was taken back meanwhile."""
        from loopviz.lab.measure import begin
        from loopviz.lab.trained import trained_loops

        profile, folder = self.service.room.profile, self.folder
        assert folder is not None  # `prepare` has been here
        assert self.wanted is not None
        experiment = begin(*self.wanted, folder, self.start.over)
        if experiment is None:
            return None
        bounded = (profile.seconds_lab, profile.paths, profile.rows_shown)
        trained = trained_loops(experiment.subject)
        run = LabRun(experiment, folder, self.session, self.ticket, self.lang, *bounded, trained, self.precision)
        self.folder = None
        return run

    def beside(self, error: BaseException) -> str:
        """The form's field that a refusal is told beside; "" for none."""
        task = task_of(self.asked)
        if task is None or not isinstance(error, FieldError):
            return super().beside(error)
        from loopviz.lab.task import param_of

        return param_of(task.params, error)

    def close(self) -> None:
        """Its texts go, unless a run has them."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Laboratory:
    """The measurements of a page's visitors.

    Args:
        jobs: what all pages of the server share; here models of either kind may be named.
    """

    def __init__(self, jobs: Jobs, every: float = SEND_EVERY) -> None:
        self.room, self.every = either_room(jobs.room), every
        self.jobs = jobs.among(self.room)
        self.runs: Registry[LabRun] = Registry(jobs.keeper, LabRun.forget)

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """One measurement: messages for the page. Whatever goes wrong becomes a message.

        What the session measured or waited for before is over as this begins.

        Args:
            payload: `{lang, ticket, n, model, precision, task, values}` from the page's script; nothing in it is trusted.
        """
        return self.jobs.carry_out(MeasurementJob(self, fitting(payload, contract.Measure), session))

    def read(self, asked: Mapping[str, Any], loaded: Engine, folder: Path, lang: str) -> tuple[Any, Any, Any]:
        """The task, the model and the parameters that were asked for.

        Raises:
            ValueError: what is refused, before anything is made of it; TooMuch where a limit of the server's is why.
        """
        from loopviz.lab import TASKS
        from loopviz.lab.fellows import check_kind
        from loopviz.lab.measure import subject_of

        task = task_of(asked)
        if task is None:
            raise ValueError(text(lang, "lab.unknown", names=", ".join(TASKS)))
        subject = subject_of(loaded, paths=self.room.local)
        check_kind(task, subject, TASKS.values())
        filled = brought(task, asked.get("values", {}), loaded.describe())
        params = params_of(task, filled, folder, lang, bounds.Sizes.of(self.room.profile))
        bounds.check_measurement(task, subject, params, loaded, self.room.profile, lang)
        return task, subject, params

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs or waits for them and keep nothing."""
        self.jobs.forget(session, self.runs)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def tasks(self, question: Any) -> str:
        """What can be measured: every task's words and fields. The first answer waits for PyTorch."""
        from loopviz.lab import TASKS

        sizes = bounds.Sizes.of(self.room.profile)
        tasks = [describe(task, sizes) | {"kept": recorded.path_of(task.name).is_file()} for task in TASKS.values()]
        return dumps({"kind": "tasks", "tasks": tasks})

    def sizes(self, question: Any) -> str:
        """`{lang, model, precision, task, values, cut}`: what the sizes of a task come to with a model that is here, and about how long each takes.

        `values`: the form, as for a measurement; long texts only their beginning, which `cut` says.
        """
        from loopviz.app.lab.sizes import sized

        asked = read(question, contract.AskSizes, SIZES_LIMIT)
        lang, task = pick_language(asked.get("lang")), task_of(asked)
        name, problems = st.clean_name(asked.get("model"), lang)
        precision, _ = chosen(asked.get("precision"), lang)
        loaded = None if problems or task is None else self.room.ready(name, precision)
        unknown = [] if task is None else [{"values": {}, "text": ""} for _ in task.sizes]
        nothing = dumps({"kind": "sizes", "task": str(asked.get("task", "")), "sizes": unknown, "as_set": ""})
        if task is None or loaded is None or (learns(loaded) and not task.learns):
            return nothing
        folder = outputs.scratch_folder()
        try:
            found = sized(
                task,
                asked.get("values", {}),
                loaded,
                folder,
                lang,
                bounds.Sizes.of(self.room.profile),
                cut=asked.get("cut", False),
            )
        except EngineLost:  # not known now; a measurement says so as it begins
            return nothing
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return dumps({"kind": "sizes", "task": task.name, **found})

    def model(self, question: Any) -> str:
        """`{model, precision, lang, linked, look}`: where a model is, and the tokens it can read at once (`context`).

        `loop`: the loop fields it brings where a form says nothing of them (:func:`loopviz.app.lab.form.usual_loop`). `precision`: how
        the control stands; `notes`: what is to be known of the model.
        """
        asked = read(question, contract.AskLabModel)
        lang = pick_language(asked.get("lang"))
        precision, misnamed = chosen(asked.get("precision"), lang)

        def more(loaded: Engine | None, now: Status) -> dict[str, Any]:
            face = face_of(precision, [*misnamed, *refusals([now], lang)], self.room, lang)
            if loaded is None:
                return {"loop": {}, "precision": face}
            described, notes = loaded.describe(), together([loaded], lang)
            answer = {"loop": usual_loop(described), "context": described.shape.context, "precision": face}
            return answer if notes is None else answer | {"notes": notes}

        return questions.where_is(asked, self.room, more=more, precision=precision)

    def look(self, question: Any) -> str:
        """`{run, lang}`: everything of a measurement."""
        asked = read(question, contract.LookMeasured)
        if (task := recorded.task_of(asked.get("run"))) is not None:
            drawn = recorded.snapshot(task, pick_language(asked.get("lang")), self.room.profile.rows_shown)
            return GONE if drawn is None else dumps(drawn)
        run = self.runs.get(asked.get("run"))
        return GONE if run is None else dumps(run.look(asked.get("lang")))

    def link(self, question: Any) -> str:
        """`{run, row, lang}`: the word of the address that opens a row's model in Explore, or why there is none."""
        asked = read(question, contract.LinkRow)
        run = self.runs.get(asked.get("run"))
        if run is None:
            return GONE
        word = run.link(asked.get("row"))
        told = "" if word else text(pick_language(asked.get("lang")), "lab.no_model")
        return dumps({"kind": "link", "word": word, "text": told})

    def stop(self, question: Any) -> str:
        """`{ticket}`: end what was asked for by this ticket, also what has not begun yet."""
        return questions.stop(read(question, contract.StopMeasured), self.jobs.starts, self.runs)

    def download(self, question: Any) -> str:
        """`{run, kind}`: the table so far as a file: `{"name", "data"}`, base64."""
        asked = read(question, contract.Download)
        if (task := recorded.task_of(asked.get("run"))) is not None:
            kept = recorded.stored(task)
            return GONE if kept is None else dumps(file_of(kept, asked.get("kind")))
        run = self.runs.get(asked.get("run"))
        return GONE if run is None else dumps(file_of(run.experiment, asked.get("kind")))
