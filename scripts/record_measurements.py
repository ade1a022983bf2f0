"""Record what Compare and Lab open with: `assets/runs/compare.json`, and `assets/runs/lab-<task>.json` for each measurement.

    python scripts/record_measurements.py                     everything, about a minute
    python scripts/record_measurements.py compare perplexity  these alone

The comparison is the one the page is set up for, and a sweep of the loops; a measurement is what its button Quick gives with the
bundled model on the bundled story. Commit the files. Each says of which version it is (`loopviz/lab/kept.py`,
`loopviz/lab/comparison/stored.py`): where the form, a table's columns or the model change, record again; until then the pages open
without them, and the log says why.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MODEL = "stories-loop"
NAMES = ("plain", "own", "own, V=1", "loops")
TEXT = 12_000  # characters of the story, more than what is read of it: a manifest holds its text


def compare(engine: Any, folder: Path) -> list[Path]:
    """The comparison, and the measurement `compare` from the same rows."""
    from loopviz.app.compare.opening import cards, continuation
    from loopviz.app.compare.request import Asked
    from loopviz.app.compare.run import messages
    from loopviz.app.compare.service import Comparisons
    from loopviz.app.controls.examples import offer_of
    from loopviz.app.sessions.job import Jobs
    from loopviz.app.sessions.memory_budget import Keeper
    from loopviz.app.sessions.models import ModelRoom
    from loopviz.app.texts import text
    from loopviz.lab.comparison.stored import stored_json
    from loopviz.lab.kept import kept_json

    setups = {
        "model": MODEL,
        "prompt": offer_of(MODEL).examples[0],
        "continuation": continuation(MODEL),
        "shared": {},
        "cards": cards(),
        "baseline": 0,
    }
    made = [{**card, "name": text("en", card["origin"], most=card["sweep"])} for card in setups["cards"]]
    asked = Asked.read({**setups, "cards": made, "lang": "en"}, MODEL)
    service = Comparisons(Jobs(ModelRoom(MODEL), Keeper()))
    read = asked.setups({MODEL: engine.describe()})
    run = service.prepared(asked, read, {MODEL: engine}, "")
    for _ in messages(run):
        pass
    assert run.end == "done", run.end
    settings = [None if setup.card.sweep else dict(setup.form.settings) for setup in read]
    page = {"setups": setups, "settings": settings}
    written = [write(folder / "compare.json", stored_json(run.comparison, run.experiment, page))]
    # in the Lab names are no words of a page, but as one writes them
    experiment, called = run.experiment, dict(zip(run.experiment.params.names, NAMES, strict=True))
    experiment.params = dataclasses.replace(experiment.params, names=NAMES)
    experiment.rows[:] = [{**row, "setup": called[row["setup"]]} for row in experiment.rows]
    return [*written, write(folder / "lab-compare.json", kept_json(experiment, None))]


def measure(task: Any, engine: Any, folder: Path) -> Path:
    """One measurement, as its button Quick makes it."""
    from loopviz import outputs
    from loopviz.app.controls.examples import sample_of
    from loopviz.app.lab.form import brought, params_of, shown_value
    from loopviz.app.lab.recorded import path_of
    from loopviz.app.lab.sizes import sized
    from loopviz.app.profile import LOCAL
    from loopviz.app.sessions.bounds import Sizes
    from loopviz.lab import Experiment
    from loopviz.lab.kept import kept_json
    from loopviz.lab.measure import subject_of
    from loopviz.lab.trained import trained_loops

    filled = {"text": sample_of(MODEL)[:TEXT]} | {
        name: shown_value(value) for name, value in task.first.items() if isinstance(value, (str, tuple))
    }
    scratch = outputs.scratch_folder()
    quick = sized(task, filled, engine, scratch, "en", Sizes.of(LOCAL), cut=False)["sizes"][0]
    subject = subject_of(engine)
    params = params_of(task, brought(task, filled | quick["values"], engine.describe()), scratch)
    experiment = Experiment(task, subject, params).run()
    trained = trained_loops(subject) if task.over_loops else None
    print(f"{task.name}: {quick['text']} estimated, {experiment.seconds:.1f} s taken", flush=True)
    return write(folder / path_of(task.name).name, kept_json(experiment, trained))


def write(path: Path, found: dict[str, Any]) -> Path:
    """The file of an object, a line a key: differences of a later recording can be read."""
    from loopviz import outputs

    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in found.items())
    outputs.write(path, f"{{\n{lines}\n}}\n".encode())
    return path


def main(wanted: list[str]) -> int:
    """Record, then read each file as the pages will; returns the exit code."""
    from loopviz.app.sessions.models import ModelRoom
    from loopviz.lab import TASKS
    from loopviz.lab.comparison.stored import read_stored
    from loopviz.lab.kept import read_kept

    if unknown := set(wanted) - set(TASKS):
        print(f"{', '.join(sorted(unknown))}: no such measurement; there are {', '.join(TASKS)}", file=sys.stderr)
        return 2
    folder = ROOT / "assets" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    engine = ModelRoom(MODEL).get(MODEL, "en", lambda: False)
    for name in wanted or TASKS:
        written = compare(engine, folder) if name == "compare" else [measure(TASKS[name], engine, folder)]
        for path in written:
            kept = read_stored(path).kept if path.stem == "compare" else read_kept(path, TASKS[name])
            said = kept.task.headline(kept.rows, "en")
            print(f"{path.relative_to(ROOT)}: {kept.done} rows, {path.stat().st_size:,} bytes. {said}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
