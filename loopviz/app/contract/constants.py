"""What both halves of a page use as it stands: names of pages, files, elements and stores; limits of what is well-formed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from loopviz.figures.edits import CODES
from loopviz.figures.plotlyjs import SMALL_DRAWS as SMALL_PLOTLY_DRAWS
from loopviz.lessons.schema import ARROW_LETTERS, LONGEST_FILE
from loopviz.panels.kit.focus import MOST_PINS

OPS: Mapping[str, int] = CODES  # the first entry of a packed edit
SMALL_DRAWS = tuple(sorted(SMALL_PLOTLY_DRAWS))  # kinds of traces that the Plotly which pages open with draws
RECORDED = "recorded"  # the id of the recorded run on every page; ids of visitors' runs are longer and random
# In their order, beside the root.
PAGES: Mapping[str, str] = {
    "learn": "./learn",
    "explore": "./",
    "anatomy": "./anatomy",
    "ttt": "./ttt",
    "compare": "./compare",
    "lab": "./lab",
    "teach": "./teach",
}
QUERIES: Mapping[str, str] = {
    "link": "s",
    "lang": "lang",
    "run": "run",  # a stored run
    "class": "class",  # a class folder
    "task": "task",
    "lesson": "lesson",  # the id of one of ours
    "name": "name",  # of who answers, or of a class
    "token": "token",  # on Anatomy: where one looks
    "layer": "layer",
    "step": "step",
    "stage": "stage",
    "beside": "beside",
    "look": "__theme",
}  # the last one is Gradio's
TAKEN = "run"  # behind the # of Anatomy's address: the id of a run that was taken along
OWN_LESSON = "own"  # behind the # of an address, which no browser sends: a teacher's own lesson, packed
CHECK = "check"  # behind the # of Explore's address: the check of the instrument is asked for
FOOTER = "lv-foot"  # the class of every page's foot
# What a browser remembers. The language is written as it is, the rest as JSON.
STORED: Mapping[str, str] = {
    "lang": "loopviz.lang",  # chosen here; and, until its tab is closed, asked for by an address
    "dark": "loopviz.dark",
    "panels": "loopviz.panels",
    "group": "loopviz.group",
    "speed": "loopviz.speed",
    "tour": "loopviz.tour",
    "lessons": "loopviz.lessons",
    "student": "loopviz.student",
    "visitor": "loopviz.visitor",  # a name for the line, made up here
    "class": "loopviz.class",  # until its tab is closed, the class folder whose link was opened
    "form": "loopviz.form",  # until its tab is closed, what stood in Explore's form when its server became another version
    "owner": "loopviz.owner",  # the secret by which runs that were saved here are deleted, and answers handed in here taken back
    "handed": "loopviz.handed",  # under which names answers were handed in here, by class and lesson: they can be taken back
}
FILES = "loopviz-share"  # where links and files are (see loopviz.app.explore.files, loopviz.app.ttt.files)
STORE = "loopviz-store"  # where stored runs are (see loopviz.app.explore.stored, loopviz.app.ttt.stored)
TEACHER = "teacher"  # behind the # of an address, which no browser sends: the secret of a class folder
TICKET_HEADER = "x-loopviz-visit"  # in which a page shows its ticket as it opens a file
USUAL_PRESET = "one_slot"  # what Compare opens with beside the model as it is and without its loop
DIALS = ("loop_count", "max_loop_count", "loop_damping")  # controls that have a slider above the panels as well
PARITY_DTYPES = ("float32", "bfloat16")  # in which a page checks llama.py against transformers
CURVES = ("convergence", "loops", "kv")  # of a comparison
TABLE_GROUPS = ("buys", "costs", "ran")  # of a comparison's columns, each a table of its own
TABLE_FILES = ("csv", "parquet", "json")  # of a comparison or measurement: its table twice, and how it was made
PANEL_FILES = ("csv", "parquet")  # of a panel's numbers
ANSWER_FILES = ("csv", "json")  # of a lesson's answers
MOST_STUDENT = 80  # characters of a name in an answer file
# The task that one model of the list was trained on, "follow the arrows" (its recipe.json): letters, arrows a problem, the deepest chain.
_TASK = {"nodes": len(ARROW_LETTERS), "arrows": 12, "hops": 8}
ARROW_TASK: Mapping[str, Union[str, int]] = {"model": "arrows-loop", **_TASK}  # noqa: UP007
MOST_SLUG = 60  # characters of a stranger's name in a file's name
# Elements that Gradio builds and the script looks for, by their ids.
ELEMENTS: Mapping[str, str] = {
    "prompt": "ctl-prompt",
    "run": "lv-run",
    "stop": "lv-stop",
    "buttons": "lv-buttons",
    "page": "lv-page",
    "settings": "lv-settings",
    "model": "lv-group-model",
    "dark": "lv-dark",
    "learn": "lv-learn",
    "tries": "lv-try",
    "ways": "lv-ways",
    "control": "ctl-",  # and the control's name
}
# ... and by their classes: what begins a run by itself, a button and the list it opens, a control that is refused, the place
# for tour and glossary.
CLASSES: Mapping[str, str] = {
    "example": "lv-example",
    "preset": "lv-preset",
    "drop": "lv-drop",
    "opens": "lv-drop-open",
    "refused": "lv-refused",
    "learn": "lv-learn",
}

CONSTANTS: Mapping[str, Any] = {
    "OPS": OPS,
    "SMALL_DRAWS": SMALL_DRAWS,
    "RECORDED": RECORDED,
    "PAGES": PAGES,
    "QUERIES": QUERIES,
    "TAKEN": TAKEN,
    "OWN_LESSON": OWN_LESSON,
    "CHECK": CHECK,
    "FOOTER": FOOTER,
    "STORED": STORED,
    "FILES": FILES,
    "STORE": STORE,
    "TEACHER": TEACHER,
    "TICKET_HEADER": TICKET_HEADER,
    "MOST_PINS": MOST_PINS,
    "USUAL_PRESET": USUAL_PRESET,
    "DIALS": DIALS,
    "CURVES": CURVES,
    "TABLE_GROUPS": TABLE_GROUPS,
    "TABLE_FILES": TABLE_FILES,
    "PANEL_FILES": PANEL_FILES,
    "ANSWER_FILES": ANSWER_FILES,
    "MOST_STUDENT": MOST_STUDENT,
    "LONGEST_LESSON": LONGEST_FILE,
    "ARROW_TASK": ARROW_TASK,
    "MOST_SLUG": MOST_SLUG,
    "ELEMENTS": ELEMENTS,
    "CLASSES": CLASSES,
}
