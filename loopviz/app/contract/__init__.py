"""What a page and its server say to each other: every message, question and event, and the constants that both halves use.

The only place where both halves are written down: constants (`constants.py`), what messages of several pages are made of
(`shared.py`; of the pages beside Explore: `scripted.py`), and a file a page. Their names are all offered here, and here
stands who says what. From it `scripts/contract.py` writes `assets/web/core/contract.js` (the constants) and `contract.d.ts`
(the types, which `tsc` holds the scripts to); a test makes both again and compares. Messages are checked against it by the
tests of the pages, questions whenever one comes (:mod:`loopviz.app.sessions.untrusted`), by the reader that checks Frames.

Everything is plain JSON. A *message* goes down and has a `kind`; a *question* goes up and is answered by a message; an
*event* goes up through Gradio, and what comes of it are messages. Keys that may be missing stand in a class of their own
(`total=False`). It imports nothing of the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Union, get_args

from loopviz.app.contract import anatomy, compare, explore, lab, learn, scripted, shared, stored, teach, ttt
from loopviz.app.contract.anatomy import *  # noqa: F403
from loopviz.app.contract.compare import *  # noqa: F403
from loopviz.app.contract.constants import *  # noqa: F403
from loopviz.app.contract.explore import *  # noqa: F403
from loopviz.app.contract.lab import *  # noqa: F403
from loopviz.app.contract.learn import *  # noqa: F403
from loopviz.app.contract.scripted import *  # noqa: F403
from loopviz.app.contract.shared import *  # noqa: F403
from loopviz.app.contract.stored import *  # noqa: F403
from loopviz.app.contract.teach import *  # noqa: F403
from loopviz.app.contract.ttt import *  # noqa: F403
from loopviz.trace.typed import check_type, hints_of

# Where types are stated, in the order in which they are written for the scripts.
PARTS: tuple[ModuleType, ...] = (shared, explore, stored, scripted, compare, lab, learn, anatomy, ttt, teach)

# Types that scripts use by name, beside those of messages.
TYPES: Mapping[str, Any] = {
    "Lang": shared.Lang,
    "Row": scripted.Row,
    "TokenRow": shared.TokenRow,
    "Pieces": shared.Pieces,
    "Values": shared.Values,
    "TTTWord": ttt.TTTWord,
}

MESSAGES: Mapping[str, tuple[type, ...]] = {
    "learn": (learn.LearnConfig, scripted.MeasureStatus, learn.LessonProgress, learn.LessonResult, learn.LessonVisit),
    "explore": (
        explore.ExploreConfig,
        explore.ExploreStatus,
        explore.ExploreSnapshot,
        explore.Frames,
        explore.LinkMade,
        explore.Brought,
        explore.Revisit,
    ),
    "anatomy": (anatomy.AnatomyConfig, scripted.MeasureStatus, anatomy.AnatomyToken, anatomy.AnatomyParity),
    "ttt": (ttt.TTTConfig, scripted.MeasureStatus, ttt.TTTSnapshot, ttt.TTTNews, ttt.TTTVisit),
    "compare": (compare.CompareConfig, scripted.MeasureStatus, compare.CompareSnapshot, compare.CompareNews),
    "lab": (lab.LabConfig, scripted.MeasureStatus, lab.LabSnapshot, lab.LabNews),
    "teach": (teach.TeachConfig, scripted.MeasureStatus, teach.TeachSnapshot),
}
# By page and the method that answers: what is asked, and the answers there may be.
QUESTIONS: Mapping[str, Mapping[str, tuple[type, tuple[type, ...]]]] = {
    "learn": {
        "lesson": (learn.OpenLesson, (learn.OpenedLesson, shared.Failed)),
        "model": (lab.AskLabModel, (lab.LabModel, shared.Failed)),
        "look": (learn.LookTried, (learn.LessonResult, shared.Gone, shared.Failed)),
        "judge": (learn.JudgeGuess, (learn.Judged, shared.Gone, shared.Failed)),
        "stop": (lab.StopMeasured, (shared.Done, shared.Failed)),
        "pack": (learn.PackLesson, (learn.PackedLesson, shared.Failed)),
        "code": (learn.DrawCode, (learn.LinkCode, shared.Failed)),
        "answers": (learn.AnswersAsked, (shared.KeptFile, shared.Failed)),
    },
    "explore": {
        "resync": (explore.Resync, (explore.ExploreSnapshot, explore.Current, shared.Gone, shared.Failed)),
        "focus": (explore.Look, (explore.ExploreSnapshot, shared.Gone, shared.Failed)),
        "advance": (explore.Advance, (explore.Steps, explore.ExploreSnapshot, shared.Gone, shared.Failed)),
        "explain": (explore.Explain, (explore.Told, shared.Gone, shared.Failed)),
        "text_until": (explore.TextUntil, (explore.Prompt, shared.Gone, shared.Failed)),
        "guesses": (explore.AskGuesses, (explore.Guesses, shared.Gone, shared.Failed)),
        "carry": (explore.Carry, (shared.Done, shared.Gone, shared.Failed)),
        "model_status": (explore.AskModel, (explore.ModelStatus, shared.Failed)),
    },
    "anatomy": {
        "show": (anatomy.ShowRun, (anatomy.AnatomyRun, shared.Gone, shared.Failed)),
        "model": (lab.AskLabModel, (lab.LabModel, shared.Failed)),
        "layer": (anatomy.AskLayer, (anatomy.AnatomyLayer, anatomy.NotThere, shared.Gone, shared.Failed)),
        "beside": (anatomy.AskBeside, (anatomy.AnatomyBeside, anatomy.NotThere, shared.Gone, shared.Failed)),
        "distance": (anatomy.AskDistance, (anatomy.AnatomyDistance, anatomy.NotThere, shared.Gone, shared.Failed)),
        "need": (anatomy.AskNeed, (anatomy.ParityNeeded, shared.Failed)),
        "draw": (anatomy.AskDraw, (anatomy.AnatomyDraw, anatomy.NotThere, shared.Gone, shared.Failed)),
        "stop": (lab.StopMeasured, (shared.Done, shared.Failed)),
    },
    "ttt": {
        "model": (lab.AskLabModel, (lab.LabModel, shared.Failed)),
        "look": (ttt.LookTTT, (ttt.TTTSnapshot, shared.Gone, shared.Failed)),
        "steer": (ttt.SteerTTT, (shared.Done, anatomy.NotThere, shared.Gone, shared.Failed)),
        "attention": (ttt.AskAttention, (ttt.ControlAttention, anatomy.NotThere, shared.Gone, shared.Failed)),
        "rules": (ttt.AskAttention, (ttt.InnerRules, anatomy.NotThere, shared.Gone, shared.Failed)),
        "forgetting": (ttt.AskForgetting, (ttt.Forgetting, anatomy.NotThere, shared.Gone, shared.Failed)),
        "stop": (lab.StopMeasured, (shared.Done, shared.Failed)),
    },
    "compare": {
        "check": (compare.Check, (compare.Checked, shared.Failed)),
        "look": (compare.LookCompared, (compare.CompareSnapshot, shared.Gone, shared.Failed)),
        "stop": (compare.StopCompared, (shared.Done, shared.Failed)),
        "download": (shared.Download, (shared.KeptFile, shared.Gone, shared.Failed)),
        "opening": (compare.OpenLink, (compare.OpenedComparison, shared.Failed)),
    },
    "lab": {
        "tasks": (lab.ListTasks, (lab.LabTasks, shared.Failed)),
        "model": (lab.AskLabModel, (lab.LabModel, shared.Failed)),
        "sizes": (lab.AskSizes, (lab.LabSizes, shared.Failed)),
        "look": (lab.LookMeasured, (lab.LabSnapshot, shared.Gone, shared.Failed)),
        "link": (lab.LinkRow, (lab.RowLink, shared.Gone, shared.Failed)),
        "stop": (lab.StopMeasured, (shared.Done, shared.Failed)),
        "download": (shared.Download, (shared.KeptFile, shared.Gone, shared.Failed)),
    },
    "teach": {
        "model": (lab.AskLabModel, (teach.TeachModel, shared.Failed)),
        "look": (teach.LookTaught, (teach.TeachSnapshot, shared.Gone, shared.Failed)),
        "pause": (teach.PauseTeaching, (shared.Done, shared.Gone, shared.Failed)),
        "stop": (lab.StopMeasured, (shared.Done, shared.Failed)),
    },
}
# By page, what the script has Gradio say; None: no more than that.
EVENTS: Mapping[str, Mapping[str, Union[type, None]]] = {  # noqa: UP007
    "explore": {
        "loaded": None,
        "start": explore.Start,
        "halt": explore.Halt,
        "again": explore.Retype,
        "adopt": explore.Adopt,
        "dial": None,
        "retype": explore.Retype,
        "link": explore.MakeLink,
        "visit": None,
        "keep": None,
        "restore": None,
    },
    "learn": {"begin": learn.TryLesson},
    "anatomy": {"begin": anatomy.Dissect},
    "ttt": {"begin": ttt.BeginTTT},
    "compare": {"begin": compare.Compare},
    "lab": {"begin": lab.Measure},
    "teach": {"begin": teach.BeginTeach},
}
# What is fetched as a file of its own, by anyone.
DOCUMENTS: tuple[type, ...] = (explore.Opening, explore.OpenedLink, explore.Tour, explore.Glossary)
# Of stored runs, by the end of the address: the body of a request (None: it has none), and its answer.
STORE_CALLS: Mapping[str, tuple[Union[type, None], Union[type, None]]] = {  # noqa: UP007
    "save": (stored.KeepRun, stored.KeptRun),
    "open": (stored.OpenKept, stored.OpenedRun),
    "delete": (stored.DeleteKept, shared.Done),
    "class": (stored.AskFolder, stored.KeptList),
    "class/new": (stored.NewFolder, stored.MadeFolder),
    "class/delete": (stored.DeleteFolder, stored.DeletedFolder),
    "class/run/delete": (stored.DeleteFromFolder, shared.Done),
    "class/answer/delete": (stored.DeleteFromFolder, shared.Done),
    "gallery": (None, stored.KeptList),
    "learn/hand_in": (stored.HandIn, stored.HandedIn),
    "learn/withdraw": (stored.Withdraw, shared.Done),
    "learn/handed": (stored.AskHanded, shared.KeptFile),
    "ttt/save": (stored.KeepRun, stored.KeptRun),
    "ttt/open": (stored.OpenKept, ttt.OpenedTTT),
}


def check(said: Any, kinds: tuple[type, ...], what: str) -> None:
    """Raise ValueError, naming the place, unless `said` (JSON, as it was sent) is one of these messages.

    Args:
        kinds: as they stand in `MESSAGES`, or as the answers of one of `QUESTIONS`.
        what: how the error begins.
    """
    named = [kind for kind in kinds if not isinstance(said, dict) or _kind_of(kind) in (None, said.get("kind"))]
    if not named:
        raise ValueError(f"{what}: kind={said.get('kind')!r} is none of {', '.join(map(str, map(_kind_of, kinds)))}")
    faults = []
    for kind in named:
        try:
            return check_type(said, kind, what)
        except ValueError as error:
            faults.append(str(error))
    raise ValueError("; ".join(faults))


def _kind_of(message: type) -> str | None:
    """The `kind` that a message says it is; None for one that says none."""
    found = get_args(hints_of(message).get("kind"))
    return found[0] if len(found) == 1 else None
