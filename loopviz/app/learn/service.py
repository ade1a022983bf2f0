"""What the Learn page's events do: lessons opened and checked, their steps tried, guesses judged, answers handed out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.controls.refusal import told
from loopviz.app.learn import answer_file, lesson_link
from loopviz.app.learn.handed_in import Handing
from loopviz.app.learn.run import SEND_EVERY, Attempt, messages
from loopviz.app.sessions import bounds, questions
from loopviz.app.sessions.job import Job, Jobs, Refused
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.tickets import is_ticket, number
from loopviz.app.sessions.untrusted import fitting, read
from loopviz.app.sessions.waiting_line import Place
from loopviz.app.texts import LANGUAGES, pick_language, text
from loopviz.checks import FieldError, finite
from loopviz.engine.engine import Engine
from loopviz.lessons.bundled import bundled
from loopviz.lessons.faults import read_lesson
from loopviz.lessons.play import Planned, models, part_of, planned, refusal
from loopviz.lessons.schema import LONGEST_FILE, Lesson, LessonRun, LessonStep, Prediction
from loopviz.lessons.sentences import number as written
from loopviz.lessons.sentences import said
from loopviz.lessons.tables import ready
from loopviz.lessons.verdict import Verdict, judge, right_choice
from loopviz.prompt_templates import template_of

GONE = dumps({"kind": "gone"})
SOURCE_LIMIT = (
    2 * LONGEST_FILE + 4_000
)  # characters of a question that holds a lesson, its quotes and line ends written as two


class Try(Job):
    """A step's runs that were asked for.

    Attributes:
        step: which; known from :meth:`check` on.
        making: its runs, each with the engine that makes it.
        need: bytes that they hold at a time.
    """

    page, what = "learn", "step of a lesson"

    def __init__(self, service: Lessons, asked: Mapping[str, Any], session: str) -> None:
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""
        super().__init__(service.runs, pick_language(asked.get("lang")), session, number(asked.get("n")), ticket)
        self.service, self.asked, self.model = service, asked, service.room.default
        self.what_if = bool(asked.get("what_if"))
        self.lesson: Lesson | None = None
        self.step: LessonStep | None = None
        self.making: list[tuple[Planned, Engine]] = []
        self.need = 0.0

    def check(self) -> None:
        """Refuse what is no lesson, and a step that it does not have."""
        self.lesson, faults = self.service.find(self.asked.get("id", ""), self.asked.get("source", ""))
        if self.lesson is None:
            raise faults[0]
        steps = {step["id"]: step for step in self.lesson["steps"]}
        self.step = steps.get(self.asked.get("step", ""))
        if self.step is None or part_of(self.step, self.what_if) is None:
            raise Refused(st.Problem("step", text(self.lang, "lesson.no_step", names=", ".join(steps))))
        self.model = self._planned()[0].needs
        for run in self._planned():
            if (words := self.service.room.refusal(run.needs)) is not None:
                raise Refused(st.Problem("model", words(self.lang)))

    def _planned(self) -> list[Planned]:
        assert self.lesson is not None
        assert self.step is not None
        part = part_of(self.step, self.what_if)
        assert part is not None
        return planned(self.lesson, part)

    def prepare(self, loaded: Engine) -> None:
        """Refuse now, and not after waiting, what a model refuses, or the server. Other models of the step are had here."""
        self.making, self.need, asked = [], 0.0, []
        for run in self._planned():
            engine = loaded if run.needs == self.model else self._other(run.needs)
            if (refused := refusal(engine, run)) is not None:
                raise refused
            if run.measured is not None:
                self._check_measurement(run.measured, engine)
                self.making.append((run, engine))
                continue
            template = template_of(run.request.settings)
            if template == "chat" and not engine.describe().chats:
                raise Refused(st.Problem("template", text(self.lang, "refused.chat")))
            wording = {"template": template, "input": run.request.settings.get("input", "")}
            self.making.append((run, engine))
            asked.append((engine, run.request, engine.prompt_tokens(run.request.prompt, **wording)))
        if (problem := bounds.of_requests(asked, self.service.room.profile, self.lang)) is not None:
            raise Refused(problem)
        self.need = max(self.need, bounds.bytes_of_requests(asked))

    def cost(self, loaded: Engine) -> bounds.Cost:
        """What its runs hold, one after the other."""
        return bounds.Cost(bytes=self.need)

    def _check_measurement(self, run: LessonRun, engine: Engine) -> None:
        """Refuse a measurement that is more than the server's limits allow."""
        task, subject, params = ready(engine, run)
        try:
            bounds.check_measurement(task, subject, params, engine, self.service.room.profile, self.lang)
        except bounds.TooMuch as error:
            raise Refused(st.Problem(error.control or "step", str(error))) from None
        if task.work is not None:
            self.need = max(self.need, task.work(subject, params).bytes)

    def _other(self, model: str) -> Engine:
        return self.service.room.get(model, self.lang, self.start.over.is_set)

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Make its runs."""
        assert self.lesson is not None
        assert self.step is not None
        run = Attempt(self.lesson, self.step, self.what_if, self.making, self.session, self.ticket)
        return self.show(run, messages(run, every=self.service.every), self.service.room.profile.seconds_run)


class Lessons:
    """The lessons of a page's visitors.

    Args:
        jobs: what all pages of the server share.
    """

    def __init__(self, jobs: Jobs, every: float = SEND_EVERY) -> None:
        self.jobs, self.room, self.every = jobs, jobs.room, every
        self.runs: Registry[Attempt] = Registry(jobs.keeper)
        self.handing = Handing(jobs.files)

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """A step's runs: messages for the page. Whatever goes wrong becomes a message.

        What the session tried or waited for before is over as this begins.

        Args:
            payload: `contract.TryLesson` from the page's script; nothing in it is trusted.
        """
        if fitting(payload, contract.TryLesson).get("visit"):
            return iter([self.handing.visit(session)])
        return self.jobs.carry_out(Try(self, fitting(payload, contract.TryLesson), session))

    @staticmethod
    def find(name: str, source: str) -> tuple[Lesson | None, list[FieldError]]:
        """One of our lessons by its id, or the one that a text is; or all that is wrong with that."""
        if not source and name in bundled():
            return bundled()[name], []
        if not source:
            return None, [FieldError("lesson", name, "one_of", choices=", ".join(bundled()))]
        return read_lesson(source)

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs or waits for them and keep nothing."""
        self.jobs.forget(session, self.runs)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def lesson(self, question: Any) -> str:
        """`{lang, id | source | word}`: a lesson, or all that is wrong with it.

        One that a link brings may name the models that are offered here, and no others: nobody has chosen them.
        """
        asked = read(question, contract.OpenLesson, SOURCE_LIMIT)
        lang, source = pick_language(asked.get("lang")), asked.get("source", "")
        if "word" in asked:
            source = lesson_link.unpack(asked["word"]) or ""
            if not source:
                return self._opened(None, "", [{"field": "link", "text": text(lang, "lesson.link.damaged")}])
        lesson, faults = self.find(asked.get("id", ""), source)
        wrong = [{"field": fault.field, "text": told(fault, lang)} for fault in faults]
        for name in models(lesson) if lesson is not None else ():
            refused = self.room.refusal(name)
            offered = self.room.offered(name) or name in self.room.profile.named_models
            if refused is not None:
                wrong.append({"field": "model", "text": f"model={name[:80]!r}: {refused(lang)}"})
            elif "word" in asked and not offered:
                fault = FieldError("model", name, "one_of", choices=", ".join(self.room.names))
                wrong.append({"field": "model", "text": told(fault, lang)})
        return self._opened(None if wrong else lesson, source, wrong)

    @staticmethod
    def _opened(lesson: Lesson | None, source: str, faults: list[dict[str, str]]) -> str:
        needed, key = ([], "") if lesson is None else (models(lesson), _key(lesson, bool(source)))
        return dumps(
            {"kind": "lesson", "lesson": lesson, "source": source, "key": key, "models": needed, "faults": faults}
        )

    def model(self, question: Any) -> str:
        """`{model, lang, linked, look}`: where a model is, as on the Lab."""
        return questions.where_is(read(question, contract.AskLabModel), self.room, self.room.default)

    def look(self, question: Any) -> str:
        """`{run}`: what a step has come to."""
        run = self.runs.get(read(question, contract.LookTried).get("run"))
        return GONE if run is None else dumps(run.result())

    def judge(self, question: Any) -> str:
        """`{run, guess}`: how a guess stands to what was measured."""
        asked = read(question, contract.JudgeGuess)
        run, guess = self.runs.get(asked.get("run")), asked.get("guess")
        if run is None or run.what_if or not run.measured:
            return GONE
        predict = run.step["predict"]
        verdict = judge(predict, run.measured, guess)
        right = right_choice(predict, run.measured) if predict["kind"] == "choice" else None
        return dumps(
            {
                "kind": "judged",
                "right": None if verdict is None else verdict.right,
                "score": 0.0 if verdict is None else verdict.score,
                "said": {lang: _verdict_words(predict, verdict, lang) for lang in LANGUAGES},
                "choice": right,
                "why": run.sentence(run.step["why"]),
                "guess": {lang: _guess_words(run, guess, lang) for lang in LANGUAGES},
                "measured": {lang: _right_words(run, right, lang) for lang in LANGUAGES},
            }
        )

    def stop(self, question: Any) -> str:
        """`{ticket}`: end what was asked for by this ticket, also what has not begun yet."""
        return questions.stop(read(question, contract.StopMeasured), self.jobs.starts, self.runs)

    def pack(self, question: Any) -> str:
        """`{source, lang}`: the word of a link that holds a teacher's own lesson."""
        asked = read(question, contract.PackLesson, SOURCE_LIMIT)
        lang, source = pick_language(asked.get("lang")), asked.get("source", "")
        lesson, _ = read_lesson(source)
        word = None if lesson is None else lesson_link.pack(source)
        return dumps({"kind": "packed", "word": word, "text": "" if word else text(lang, "lesson.link.long")})

    def code(self, question: Any) -> str:
        """`{url, lang}`: a link as a QR code."""
        asked = read(question, contract.DrawCode, 2 * lesson_link.MOST_CHARACTERS)
        found = lesson_link.code_of(asked.get("url", ""))
        told_why = "" if found else text(pick_language(asked.get("lang")), "lesson.code.long")
        size, path = found or (0, "")
        return dumps({"kind": "code", "size": size, "path": path, "text": told_why})

    def answers(self, question: Any) -> str:
        """A file of answers: `{"name", "data"}`, base64."""
        return dumps(answer_file.file_of(read(question, contract.AnswersAsked, self.room.profile.question_bytes)))


def _key(lesson: Lesson, own: bool) -> str:
    """Under which a browser keeps the answers to a lesson: two of teachers' own may have one id, and are two lessons."""
    if not own:
        return lesson["id"]
    digest = hashlib.sha256(json.dumps(lesson, sort_keys=True).encode()).hexdigest()
    return f"{contract.OWN_LESSON}:{lesson['id']}:{digest[:32]}"


# --- words --------------------------------------------------------------------------------------------------------------


def _verdict_words(predict: Prediction, verdict: Verdict | None, lang: str) -> str:
    """A verdict, said."""
    if verdict is None:
        return text(lang, "lesson.verdict.no_guess")
    return text(lang, f"lesson.verdict.{predict['kind']}.{verdict.grade}", percent=round(100 * verdict.score))


def _guess_words(run: Attempt, guess: Any, lang: str) -> str:
    """A guess as an answer file has it."""
    predict = run.step["predict"]
    if predict["kind"] == "choice":
        choices = predict["choices"]
        return choices[guess]["text"][lang] if type(guess) is int and 0 <= guess < len(choices) else ""  # type: ignore[literal-required]
    if predict["kind"] == "blind":
        return _called(run, guess, lang) if guess in predict["runs"] else ""
    asked = run.part["measure"][predict["of"]]
    numbers = [finite(one) for one in (guess if isinstance(guess, list) else [guess])]
    return ", ".join(written(asked, one) for one in numbers if one is not None)


def _right_words(run: Attempt, right: int | None, lang: str) -> str:
    """What was measured, as an answer file has it."""
    predict = run.step["predict"]
    if predict["kind"] == "choice":
        of = predict["right"]["of"]
        values = ", ".join(said(run.part["measure"][name], run.measured[name], lang) for name in of)
        return values if right is None else f"{predict['choices'][right]['text'][lang]} ({values})"  # type: ignore[literal-required]
    if predict["kind"] == "blind":
        return _called(run, predict["find"], lang)
    asked, value = run.part["measure"][predict["of"]], run.measured[predict["of"]]
    if isinstance(value, list):
        return ", ".join("–" if one is None else written(asked, float(one)) for one in value)
    return said(asked, value, lang)


def _called(run: Attempt, name: str, lang: str) -> str:
    called = run.part["runs"][name].get("called")
    return name if called is None else called[lang]  # type: ignore[literal-required]
