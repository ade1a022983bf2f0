"""Which limits a server has."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import threading
from pathlib import Path

import pytest

from loopviz.app.explore import first_run
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.form import params_of
from loopviz.app.lab.service import Laboratory
from loopviz.app.profile import (
    CLASS,
    LOCAL,
    PROFILES,
    PUBLIC,
    Profile,
    profile_of,
    with_usual_precision,
    with_usual_store,
)
from loopviz.app.sessions.bounds import Sizes
from loopviz.app.sessions.models import ModelRoom
from loopviz.lab import TASKS
from loopviz.paths import PACKAGE

APP = PACKAGE / "app"
# Numbers of a module of the app that are no limits of a server, and why.
NO_LIMITS = {
    "how often something is done, or looked at": """
        main.WARM_AFTER main.WARM_SOON sessions.turns._LOOK explore.run.NOTICED explore.run.FORGOTTEN sessions.models.TURN explore.run.HOLD explore.service.WONDER compare.run.SEND_EVERY compare.run.WEIGH_EVERY learn.run.SEND_EVERY explore.run.SEND_EVERY explore.run.SUMMARY_EVERY
        explore.event_stream.KEEP_ALIVE ttt.run.SEND_EVERY ttt.run.REST ttt.run.DRAWN lab.run.SEND_EVERY lab.run.DRAW_EVERY teach.run.SEND_EVERY sessions.models.LINGER sessions.models.LOOK sessions.model_status.STEP
        sessions.waiting_line._LOOK sessions.waiting_line._COUNT sessions.memory_budget._TRIM_EVERY server.assets.PATIENCE""",
    "what a page, a link or a call looks like that is well-formed: the same on every server, for links go from one to another": """
        compare.request.LEAST compare.request.MOST compare.request.NAME_LIMIT compare.service.CHECK_LIMIT
        compare.request.SWEEP_LEAST compare.request.SWEEP_MOST compare.request.SWEEP lab.service.SIZES_LIMIT
        contract.constants.MOST_SLUG contract.constants.MOST_STUDENT
        learn.answer_file.LONGEST learn.answer_file.MOST learn.answer_file.SHORT learn.lesson_link.MOST_CHARACTERS learn.lesson_link.MOST_IN_CODE
        controls.link_word.MOST_CHARACTERS controls.link_word.MOST_UNPACKED controls.link_word.MOST_PANELS
        controls.link_word.LARGEST_POSITION controls.controls.PROMPT_LIMIT controls.run_settings.MODEL_NAME_LIMIT
        controls.run_settings.MARKS_LIMIT explore.answers.LARGEST_POSITION explore.answers.LONGEST_PIECE lab.form.FILE_NAME_LIMIT explore.tool.NAME_LENGTH
        server.link_preview._LONGEST server.link_preview.MOST_WORD server.request_guard.NESTING server.request_guard.LARGEST_WHOLE
        sessions.tickets.LONGEST sessions.tickets.MOST_NUMBER sessions.untrusted.QUESTION_LIMIT ttt.service.MOST_SCALE ttt.service.PACES""",
    "how much of something is shown": """
        controls.examples.EXAMPLES_SHOWN server.link_preview.TITLE_PROMPT explore.run_card.MOST_BYTES server.link_preview._LINK_SECONDS server.link_preview._RUN_SECONDS server.link_card.SIZE
        server.link_card.MOST_PROMPT server.link_card.MOST_FACT server.link_card.MOST_SEGMENTS server.link_card.LEFT
        server.link_card.RIGHT server.link_card.LINES sessions.bounds.WAYS sessions.model_notes.LONGEST
        sessions.model_notes.SHOWN teach.pictures.MOST_POINTS teach.pictures.HEIGHT""",
    "how a thing is done, and not whether: who comes beyond it gets the picture of all pages": """
        server.link_preview.KEPT_CARDS server.link_preview.WAITING_CARDS""",
    "whose turn it is in the line, and not whether": """
        sessions.fair_share.HALF_LIFE sessions.fair_share.CROWD sessions.fair_share.OWED sessions.fair_share.LATER
        sessions.turns.TURN sessions.turns.AHEAD sessions.turns.AWAY sessions.fair_share.REST sessions.fair_share.PASSED sessions.fair_share._IDLE sessions.fair_share._KEPT sessions.fair_share._RECENT""",
    "how a thing is done, and not whether": """
        compare.service.CHARACTERS_A_TOKEN explore.event_stream._QUICK explore.run.LOST server.request_guard.SHORT teach.run._STEP_BYTES teach.run._TRAINED_BYTES""",
}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]"])
def test_a_server_for_this_machine_alone_is_local(host: str) -> None:
    assert profile_of(host, {}) is LOCAL


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "teacher.example", "", "10.0.0.1"])
def test_m4_a_server_that_others_reach_is_public_unless_told_otherwise(host: str) -> None:
    assert profile_of(host, {}) is PUBLIC
    assert profile_of(host, {"LOOPVIZ_PROFILE": "local"}) is LOCAL
    assert profile_of(host, {"LOOPVIZ_PROFILE": "public"}, "local") is LOCAL


def test_a_space_is_public_wherever_it_listens() -> None:
    assert profile_of("127.0.0.1", {"SPACE_ID": "someone/loopviz"}) is PUBLIC


def test_the_host_names_models() -> None:
    found = profile_of("0.0.0.0", {"LOOPVIZ_NAMED_MODELS": "org/one, org/two,"})
    assert found == dataclasses.replace(PUBLIC, named_models=("org/one", "org/two"))


def test_the_host_says_what_weights_are_held_in() -> None:
    assert {profile.precision for profile in PROFILES.values()} == {"exact"}
    found = profile_of("0.0.0.0", {"LOOPVIZ_PRECISION": " int8 "})
    assert found == dataclasses.replace(PUBLIC, precision="int8")
    assert with_usual_precision(LOCAL, {}) == dataclasses.replace(LOCAL, precision="auto")
    assert with_usual_precision(found, {"LOOPVIZ_PRECISION": " int8 "}) is found
    with pytest.raises(ValueError, match="LOOPVIZ_PRECISION='quarter': must be one of exact, half, int8, auto"):
        profile_of("0.0.0.0", {"LOOPVIZ_PRECISION": "quarter"})


def test_an_unknown_profile_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="profile='open': no such profile; choose one of local, class, public"):
        profile_of("127.0.0.1", {}, "open")


@pytest.mark.parametrize("profile", [PUBLIC, CLASS], ids=lambda profile: profile.name)
def test_no_limit_of_a_server_for_others_is_wider_than_a_local_one_s(profile: Profile) -> None:
    assert set(PROFILES) == {"local", "class", "public"}
    for field in dataclasses.fields(LOCAL):
        one, other = getattr(LOCAL, field.name), getattr(profile, field.name)
        if isinstance(one, bool):
            assert one or not other, field.name
        elif field.name == "queue" and profile is CLASS:
            assert other >= 30 * 3, "thirty pupils, each on a few pages"
        elif field.name not in ("name", "named_models", "precision"):
            assert one is None or (other is not None and other <= one), field.name


def test_a_class_names_no_files_of_the_teacher_and_no_models_of_its_own() -> None:
    """Thirty pupils on a laptop asked which files and folders it has, and loaded models from any."""
    for host in ("0.0.0.0", "127.0.0.1"):
        assert profile_of(host, {"LOOPVIZ_PROFILE": "class"}) is CLASS
        assert profile_of(host, {}, "class") is CLASS
    assert not CLASS.paths
    assert not CLASS.any_model
    assert CLASS.kept_bytes // 30 >= 32 * 2**20, "what each of thirty may keep holds a run of the usual length"


@pytest.mark.parametrize("profile", [PUBLIC, CLASS], ids=lambda profile: profile.name)
def test_as_many_runs_as_are_made_at_a_time_have_room_and_hosting_says_so(profile: Profile) -> None:
    assert profile.runs_at_once * profile.run_bytes < profile.kept_bytes, "none is ended because others grow"
    hosting = (Path(__file__).parents[2] / "docs" / "hosting.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| `{profile.name}` .*(?:never|min) .*", hosting, re.M)
    assert f"| {profile.kept_bytes / 2**30:g} GiB |" in line
    runs, measured = profile.runs_at_once, profile.measurements_at_once
    most = profile.together_bytes / 2**30
    assert profile.together_bytes >= profile.work_bytes, "what may be asked for can be made"
    assert (
        f"{runs} runs are made at a time (`runs_at_once`), at most {measured} of them comparisons or measurements"
        in hosting
    )
    assert f"`{profile.name}` {most:g} GiB" in hosting


def size(amount: int) -> str:
    """Bytes as documents write them."""
    return f"{amount / 2**30:g} GiB" if amount >= 2**30 else f"{amount / 2**20:g} MiB"


def test_the_readme_s_figures_are_those_of_the_profile() -> None:
    """It said 512 MB and 192 MB when the profile had other values."""
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split())
    most = PUBLIC
    seconds = (most.seconds_run or 0, most.seconds_compare or 0, most.seconds_lab or 0)
    run, compare, lab = (f"{one / 60:g}" for one in seconds)
    for said in (
        f"({size(most.download_bytes)} of files, {size(most.one_model_bytes)} once loaded, {most.layers} layers, "
        f"{most.vocabulary:,} tokens)",
        f"A run ends after {run} minutes, a comparison after {compare}, a measurement after {lab}",
        f"A public server keeps {size(most.kept_bytes)} of all visitors' work and {size(most.run_bytes)} of one run, and opens "
        f"trace files of at most {size(most.trace_bytes)}, {most.trace_tokens:,} tokens and {most.trace_rows:,} rows",
        f"Other models are kept up to {size(most.model_bytes)} (local: {size(LOCAL.model_bytes)})",
    ):
        assert said in readme, said


def is_number(node: ast.expr | None) -> bool:
    """Whether an expression is made of numbers alone."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    return isinstance(node, ast.Tuple) and bool(node.elts) and all(map(is_number, node.elts))


def numbers_of(source: str) -> set[str]:
    """The names of a module that stand for numbers."""
    found = set()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if is_number(getattr(node, "value", None)):
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def test_no_limit_of_a_server_stands_anywhere_else() -> None:
    """Some 30 stood in 17 files; three were called KEEP, two LONGEST, and none could be set for a public server alone."""
    found = set()
    for path in APP.rglob("*.py"):
        module = ".".join(path.relative_to(APP).with_suffix("").parts)
        found |= {f"{module}.{name}" for name in numbers_of(path.read_text(encoding="utf-8")) if module != "profile"}
    listed = [name for names in NO_LIMITS.values() for name in names.split()]
    assert found - set(listed) == set(), "a limit belongs into the profile; what is none, into the list above"
    assert set(listed) - found == set(), "these are there no more"


def test_a_number_of_a_module_would_be_seen() -> None:
    source = (
        "KEEP = 4 * 2**10\nLEAST, MOST = 2, 6\nWAIT: float = -1.5\nNAMES = ('a',)\nOFF = False\ndef f():\n    N = 3\n"
    )
    assert numbers_of(source) == {"KEEP", "LEAST", "MOST", "WAIT"}


def test_every_limit_is_asked_for_somewhere() -> None:
    asked = "".join(path.read_text(encoding="utf-8") for path in APP.rglob("*.py") if path.name != "profile.py")
    for field in dataclasses.fields(LOCAL):
        assert re.search(rf"\.{field.name}\b", asked), field.name


def test_a_servers_own_limits_are_those_that_count() -> None:
    """Some stood in modules, where every server had the same."""
    few = dataclasses.replace(
        PUBLIC, runs_at_once=1, pages=3, answer_messages=2, models_wanted=1, text_characters=9, line_characters=7
    )
    wait = threading.Event()
    room = ModelRoom("none", profile=few, load=lambda *_: wait.wait(60))
    service = Service(room, Registry())
    assert (service.places.most, service.places.longest, service.starts._keep) == (1, few.queue, 3)

    for name in ("glassbox", "arrows-loop"):
        room.want(name)
    assert [*room._loads] == ["glassbox"], "one more is begun when its page asks again"
    wait.set()

    asked = {"run": first_run.RUN, "from": 0, "to": 9, "split": True, "panels": []}
    assert len(json.loads(service.questions.advance(json.dumps(asked)))["steps"]) == 2

    laboratory = Laboratory(service)
    offered = {task["name"]: task["fields"] for task in json.loads(laboratory.tasks("{}"))["tasks"]}
    assert {field["limit"] for field in offered["perplexity"]} == {9, 7}
    for filled, told in ({"text": "a" * 10}, "at most 9"), ({"loops": "1" * 8}, "at most 7"):
        with pytest.raises(ValueError, match=told):
            params_of(TASKS["perplexity"], filled, Path(), "en", Sizes.of(few))


def test_a_dataset_for_stored_runs_is_named_by_its_id_and_gives_a_public_server_a_folder(tmp_path: Path) -> None:
    named = {"LOOPVIZ_STORE_DATASET": "somebody/runs", "XDG_DATA_HOME": str(tmp_path)}
    public = with_usual_store(profile_of("0.0.0.0", named), named)
    assert (public.name, public.store_dataset) == ("public", "somebody/runs")
    assert public.store == str(tmp_path / "loopviz" / "store")
    assert profile_of("0.0.0.0", {}).store_dataset == ""
    for wrong in ("runs", "https://huggingface.co/datasets/somebody/runs", "somebody/runs/more", "../runs"):
        with pytest.raises(ValueError, match=r"LOOPVIZ_STORE_DATASET='.*': must be the id of a private dataset"):
            profile_of("0.0.0.0", {"LOOPVIZ_STORE_DATASET": wrong})
