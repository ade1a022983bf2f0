"""The house stands as `docs/architecture.md` says: who imports whom, no circles, a page's two folders, an ordered ground floor."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from loopviz.paths import PACKAGE, WEB

ROOT = PACKAGE.parent
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# What everybody may import. A new file here is a new thing that everybody must know: first look for its room.
GROUND = {
    "checkpoint_rules",
    "checks",
    "csv_file",
    "fields",
    "hub_download",
    "imports",
    "loop_fields",
    "machine",
    "moved",
    "outputs",
    "paths",
    "prompt_templates",
    "signals",
    "text_file",
    "version",
    "worker",
}
ABOVE = {"loopviz", "loopviz.__main__"}
# Between rooms of the app, at most: what pages share among itself and with `main`, and what each page may know of that. A page
# that needs more is where something should be shared that is not.
SHARED_ARROWS, ARROWS_OF_A_PAGE = 25, 5
# Of a model the app knows its engine, and nothing behind it. What it may import of the packages that know models:
ENGINE = {
    "loopviz.engine.engine": "",  # plain data
    "loopviz.engine.address": "",  # where models run, as it is written
    "loopviz.engine.work": "",  # arithmetic on plain data
    "loopviz.engine.summary": "app/explore/tool.py",  # of a Trace, in a few numbers
    "loopviz.engine.local": "app/sessions/models.py app/controls/loop_values.py",  # where an engine is made
    "loopviz.engine.ray_engine": "app/sessions/models.py",  # where one of a cluster's is reached
    "loopviz.engine.ttt_local": "app/sessions/ttt_models.py",  # where a TTT model's is
    "loopviz.engine.lent_card": "app/server/zero_gpu.py app/sessions/models.py",  # where a card is declared, and who lends it
    "loopviz.engine.limits": "app/server/limits.py",  # numbers, to be told
}
# Of what is inside a layer: plain data alone.
ANATOMY = {"loopviz.anatomy.stage_list", "loopviz.anatomy.other_stages", "loopviz.anatomy.picture"}
BEHIND_AN_ENGINE = {"torch", "transformers", "tokenizers", "safetensors", "gguf", "accelerate"}
# What only a model, its configuration or its tokenizer has.
OF_A_MODEL = {
    "apply_chat_template",
    "bos_token_id",
    "chat_template",
    "config",
    "eos_token_id",
    "forward",
    "generate",
    "generation_config",
    "last_pass",
    "lm_head",
    "named_parameters",
    "register_loop_hook",
    "requires_grad_",
    "set_loop",
    "state_dict",
    "tokenizer",
    "unk_token_id",
    "with_loop",
}
NAMES_OF_MODELS = {"asked", "form", "job", "options", "problem", "self", "settings"}  # whose `.model` is a model's name


def modules() -> dict[str, tuple[str, bool]]:
    """Source of every module of the package by its name, and whether it is a package's own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = parts[-1] == "__init__"
        found[".".join(parts[:-1] if own else parts)] = (path.read_text(encoding="utf-8"), own)
    return found


def imports_of(name: str, text: str, own: bool, known: set[str]) -> set[str]:
    """The modules in `known` that a module imports, wherever in it, for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".")[: None if own else -1]
                base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base)
    return (found & known) - {name}


@functools.cache
def graph() -> dict[str, set[str]]:
    found = modules()
    return {name: imports_of(name, text, own, set(found)) for name, (text, own) in found.items()}


def room(module: str) -> str:
    """As the table calls it: `ground`, `model`, `app/explore`."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in GROUND:
        return "ground"
    return "/".join(parts[:2]) if parts[0] == "app" and len(parts) > 1 else parts[0]


@functools.cache
def table() -> dict[str, set[str]]:
    """The rooms that each room may import, as the document says."""
    part = DOCUMENT.split("## Who may import whom")[1].split("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in part.splitlines() if line.startswith("| ")]
    return {row[0].strip(): {name.strip() for name in "".join(row[1:]).split(",") if name.strip()} for row in rows[1:]}


def allowed(here: str, there: str) -> bool:
    """Whether the room `here` may import the room `there`."""
    if there in (here, "ground"):
        return True
    if here.startswith("app/") and not there.startswith("app"):
        return there in table()["app"] | table()[here]  # a page may know of one room what no other page does
    return there in table()[here]


def test_the_table_knows_every_room():
    assert {room(module) for module in graph() if module not in ABOVE} == set(table()) | {"ground"}


@pytest.mark.parametrize("module", sorted(set(modules()) - ABOVE))  # what they import is read when it is asked for
def test_a_module_imports_only_what_its_room_may(module):
    wrong = {other for other in graph()[module] - ABOVE if not allowed(room(module), room(other))}
    assert wrong == set()
    assert graph()[module] & ABOVE <= ({"loopviz"} if room(module) == "cli" else set())


def test_the_table_allows_nothing_that_nobody_needs():
    """Else it would say less from year to year."""
    used = {(room(a), room(b)) for a in graph() for b in graph()[a] if a not in ABOVE}
    unused = {
        (here, there)
        for here, others in table().items()
        for there in others
        if (here, there) not in used
        and not (here == "app" and any(a.startswith("app/") and b == there for a, b in used))
    }
    assert unused == set()


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Every module that can be reached from itself."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(arrows[start])
        while todo:
            if (here := todo.pop()) not in seen:
                seen.add(here)
                todo += arrows[here]
        return seen

    return sorted(name for name in arrows if name in reach(name))


def test_no_import_runs_in_a_circle():
    """A package's own file offers what is in it, so who imports a module in it does not import that file's offers."""
    assert circles(graph()) == []


def test_rooms_of_the_app_know_few_others():
    from loopviz.app.page import PAGES

    arrows = {(room(a), room(b)) for a in graph() for b in graph()[a]}
    between = {(a, b) for a, b in arrows if a != b and a.startswith("app/") and b.startswith("app/")}
    assert len(between) <= SHARED_ARROWS + ARROWS_OF_A_PAGE * len(PAGES)


def touched(text: str) -> set[str]:
    """What of a model a module's source touches: attributes, by name too, and packages that only a model needs."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in BEHIND_AN_ENGINE}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in BEHIND_AN_ENGINE:
            found.add(str(node.module))
        elif isinstance(node, ast.Attribute):
            base = getattr(node.value, "id", "")
            if node.attr in OF_A_MODEL or (node.attr == "model" and base not in NAMES_OF_MODELS):
                found.add(f"{base}.{node.attr}")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            name = getattr(node.args[1], "value", "")
            found |= {f"{ast.unparse(node.args[0])}.{name}"} if name in {*OF_A_MODEL, "model"} else set()
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "app").rglob("*.py")), ids=lambda path: path.stem)
def test_no_page_touches_a_model(path):
    """Change 9: 15 places of 5 files did, so nothing but a model of this process could stand behind a page."""
    here = path.relative_to(PACKAGE).as_posix()
    assert touched(path.read_text(encoding="utf-8")) == set()
    module = ".".join(("loopviz", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for other in graph()[module]:
        assert room(other) != "model", f"{here} imports {other}"
        assert room(other) != "anatomy" or other in ANATOMY, f"{here} imports {other}"
        if room(other) == "engine":
            assert other in ENGINE, f"{here} imports {other}"
            assert here in (ENGINE[other] or here), f"{here} imports {other}"


def test_a_touch_of_a_model_would_be_seen():
    seen = touched(
        "import torch.nn\nfrom transformers import LlamaConfig\ndef f(loaded, asked):\n"
        "    return loaded.model, asked.model, loaded.model.config, getattr(loaded.tokenizer, 'chat_template', None)\n"
    )
    assert {"torch.nn", "transformers", "loaded.model", ".config", "loaded.tokenizer"} <= seen
    assert "loaded.tokenizer.chat_template" in seen
    assert not any(name.startswith("asked") for name in seen)


def test_nothing_new_stands_at_the_root():
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert files == GROUND


def test_a_page_is_two_folders_of_one_name():
    from loopviz.app.page import PAGES

    for page in PAGES:
        assert {"page", "service", "run"} <= {path.stem for path in (PACKAGE / "app" / page).glob("*.py")}, page
        assert (WEB / page / "main.js").is_file(), page
    shared = {"core", "widgets", "styles", "report"}
    assert {path.name for path in WEB.iterdir() if path.is_dir()} == set(PAGES) | shared


def test_every_measurement_is_offered_and_every_panel_found():
    from loopviz.lab import MODULES
    from loopviz.panels import PANELS

    assert {path.stem for path in (PACKAGE / "lab" / "tasks").glob("*.py")} - {"__init__"} == set(MODULES)
    files = {
        path.stem for path in (PACKAGE / "panels").glob("*/*.py") if path.parent.name not in ("kit", "hero", "ttt")
    }
    files -= {"__init__"}
    assert files == {panel.__name__.rsplit(".", 1)[-1] for panel in PANELS.values()}


def test_what_the_documents_name_is_there():
    """A path in the documents that leads nowhere is worse than none."""
    for name in ("architecture.md", "adding.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        for path in set(re.findall(r"`((?:loopviz|assets|tests|docs|scripts|benchmarks)/[\w./-]*)`", text)):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_a_forbidden_import_a_circle_and_an_import_in_a_function_would_be_seen():
    text = "def f() -> None:\n    from loopviz.app import main\n    from . import run\n"
    known = {"loopviz.app.main", "loopviz.panels.run", "loopviz.panels"}
    assert imports_of("loopviz.panels.cost", text, False, known) == {"loopviz.app.main", "loopviz.panels.run"}
    assert not allowed("panels", "app/main")
    assert not allowed("app/explore", "app/compare")
    assert not allowed("app/explore", "train")
    assert allowed("app/teach", "train")
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
