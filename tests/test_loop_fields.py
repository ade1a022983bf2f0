"""A loop field is declared in one table, and costs three places: its row, how it is resolved, its words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loopviz import loop_fields as table
from loopviz.app.texts import LANGUAGES, text
from loopviz.paths import ASSETS, PACKAGE

# A field that there is not, as somebody would write it down who follows docs/adding.md: the edits of each place, (before what, what).
PLACES = {
    "loop_fields.py": [
        (
            "\n\nclass BlockSettings(TypedDict):",
            """
    sway: float = _row(
        "loop_sway",
        "number",
        0.5,
        "how far a step may sway",
        Dial("step", 0.0, 1.0, 0.01),
        low=0,
        high=1,
        needs=(Needs("loop_strategy", "dynamic_only", among=("dynamic_stop",)),),
        idle="without --loop-strategy dynamic_stop",
        since=7,
    )
""",
        ),
        ("\n\nLAYERS = LoopField(", "    sway: float\n"),
    ],
    "model/configuration.py": [("\n    def __post_init__", "    loop_sway: Any = 0.5\n")],
    "app/texts/en.py": [
        (
            '    "max_new_tokens.label"',
            '    "loop_sway.label": "Sway",\n    "loop_sway.info": "How far a step may sway.",\n',
        )
    ],
    "app/texts/zh.py": [
        ('    "max_new_tokens.label"', '    "loop_sway.label": "摆动",\n    "loop_sway.info": "一步可以摆动多远。",\n')
    ],
}
# What must know it then, without a word about it anywhere else.
KNOWS = r"""
import json, sys, tempfile
import pytest
from loopviz import app, loop_fields
from loopviz.app import controls as st
from loopviz.app.compare.request import Asked
from loopviz.app.controls.face import face
from loopviz.app.controls.link_word import PageState, decode, encode
from loopviz.app.page import page_data
from loopviz.app.sessions.models import ModelRoom
from loopviz.checks import FieldError
from loopviz.cli.main import _parser
from loopviz.cli.options import idle_because
from loopviz.engine import Steering, StreamSettings, run_meta, stream
from loopviz.engine.steering import block_metas
from loopviz.model import LOOP_FIELDS, LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.paths import ASSETS
from loopviz.trace import Trace
from loopviz.trace.file import dumps, load, loads

assert app.__file__.startswith(sys.argv[1])
assert "loop_sway" in LOOP_FIELDS

# configuration: default, a value a block, saved and loaded, refused by name
shape = dict(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2)
loop = dict(loop_layers=(1, 2), loop_strategy="dynamic_stop", min_loop_count=1, virtual_layer_count=1)
config = LoopLlamaConfig(**shape, **loop, loop_sway=0.25)
with tempfile.TemporaryDirectory() as folder:
    config.save_pretrained(folder)
    assert LoopLlamaConfig.from_pretrained(folder).loop_sway == 0.25
    assert LoopLlamaConfig.from_pretrained(folder, loop_sway=0.75).loop_blocks()[0].sway == 0.75
assert LoopLlamaConfig(**shape, **loop).loop_blocks()[0].sway == 0.5
assert [b.sway for b in LoopLlamaConfig(**shape, loop_layers=[(0, 0), (2, 2)], loop_sway=[0.1, 0.2]).loop_blocks()] == [0.1, 0.2]
for wrong in (1.5, "much", True):
    with pytest.raises(FieldError, match="loop_sway"):
        LoopLlamaConfig(**shape, **loop, loop_sway=wrong)

# commands: an option with its help; said where it changes nothing
options = _parser().parse_args(["run", "--prompt", "p", "--loop-sway", "0.25"])
assert options.loop_sway == 0.25
assert idle_because("loop_sway", block_metas(LoopLlamaConfig(**shape, loop_layers=(1, 2)))) == "without --loop-strategy dynamic_stop"
assert idle_because("loop_sway", block_metas(config)) == ""

# a run: its Meta, its file, files from before, a change while it runs
trace = load(ASSETS / "runs" / "first.loopviz")
assert trace.meta["version"] == 7 and [block["sway"] for block in trace.meta["blocks"]] == [0.5]
assert st.of_run(trace.meta)[1] == []
model = LoopLlamaForCausalLM(config).eval()
(block,) = block_metas(model.config)
assert block["sway"] == 0.25
meta = {**trace.meta, "blocks": [block], "loop": config.loop_fields()}
again = loads(dumps(Trace({**meta, "shape": {**meta["shape"], "layers": 4}})))
assert again.meta["blocks"][0]["sway"] == 0.25
steering = Steering()
steering.bind(model)
steering.set_loop(loop_sway=0.75)
assert steering.take(0)["blocks"][0]["sway"] == 0.75
assert st.of_run(again.meta)[0]["loop_sway"] == 0.25

# the page: a control with words, off where it does nothing, a model's own, what a run is asked for
control = st.BY_NAME["loop_sway"]
values = {**st.defaults(), "loop_strategy": "dynamic_stop", "virtual_layer_count": 1, "min_loop_count": 1, "loop_sway": 0.25}
assert face(control, values, [], "zh")["label"] == "摆动"
assert not face(control, st.defaults(), [], "en")["interactive"]
assert st.parse(values)[0] == values
assert st.parse({**values, "loop_sway": 2})[1][0].field == "loop_sway"
assert st.loop_fields(values)["loop_sway"] == 0.25
assert st.brought(config)["loop_sway"] == 0.25
assert "loop_sway" in [entry["name"] for entry in page_data("compare", ModelRoom("m"))["controls"]]

# links: of now, and of before there was the field
word, problems = encode(PageState(values=values))
assert not problems and decode(word)[0].values["loop_sway"] == 0.25
assert decode(sys.argv[2])[0].values["loop_sway"] == 0.5

# Compare: a card of its own
asked = Asked.read({"lang": "en", "cards": [{"name": "a", "values": {"loop_sway": 0.25}}]}, "m")
assert asked.form(asked.cards[0]).settings["loop_sway"] == 0.25
assert "loop_sway" not in st.NEUTRAL  # off in the plain model
print("known everywhere")
"""


def copied(folder: Path) -> Path:
    """A copy of the package with a field more."""
    package = folder / "loopviz"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    if not (package / "assets").exists():
        os.symlink(ASSETS, folder / "assets")
    for name, edits in PLACES.items():
        source = (package / name).read_text(encoding="utf-8")
        for before, what in edits:
            assert source.count(before) == 1, (name, before)
            source = source.replace(before, what + before)
        (package / name).write_text(source, encoding="utf-8")
    return folder


def test_a_loop_field_costs_three_places(tmp_path):
    from loopviz.app.controls.link_word import PageState, encode

    word, _ = encode(PageState())
    script = tmp_path / "knows.py"
    script.write_text(KNOWS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(copied(tmp_path)), word],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUTF8": "1"},
    )
    assert done.stdout == "known everywhere\n", done.stderr


def test_class_attributes_of_the_configuration_are_those_of_the_table():
    from transformers import LlamaConfig

    from loopviz.model import LOOP_FIELDS, LoopLlamaConfig

    own = LoopLlamaConfig.__dataclass_fields__
    assert {field.name: field.default for field in table.FIELDS} | table.MODEL_FIELDS == {
        name: own[name].default for name in own if name not in LlamaConfig.__dataclass_fields__
    }
    assert LOOP_FIELDS == table.NAMES


def test_a_blocks_meta_has_the_fields_of_the_table():
    from typing import get_args, get_type_hints

    hints = get_type_hints(table.BlockSettings)
    assert list(hints) == [field.meta for field in table.BLOCK_FIELDS]
    for field in table.BLOCK_FIELDS:
        closed = field.choices if field.kind == "choice" and field.registered is None else ()
        assert get_args(hints[field.meta]) == closed, field.name
        kinds = {"choice": str, "whole": int, "number": float, "flag": bool}
        assert closed or hints[field.meta] is kinds[field.kind], field.name


def test_names_that_come_with_loopviz_are_those_it_registers():
    from loopviz.model import CHOOSERS, CRITERIA, MERGES

    own = {
        name: [key for key, one in registered.items() if table.comes_with_loopviz(one)]
        for name, registered in (
            ("convergence_criterion", CRITERIA),
            ("merge_strategy", MERGES),
            ("layer_chooser", CHOOSERS),
        )
    }
    for name, names in own.items():
        assert set(names) == set(table.BY_NAME[name].choices) - {table.NO_CHOOSER}, name


@pytest.mark.parametrize("name", [name for name in table.NAMES if name != "loop_layers"])
def test_a_default_is_one_that_the_field_may_have(name):
    field = table.BY_NAME[name]
    import loopviz.model  # noqa: F401  its names are registered then

    assert field.check(field.default) == field.default
    assert field.check(field.plain) == field.plain


@pytest.mark.parametrize("field", table.BLOCK_FIELDS, ids=lambda field: field.name)
def test_a_field_that_may_be_idle_says_why_everywhere(field):
    for need in field.needs:
        assert need.field in table.BY_NAME
        assert all(text(lang, f"off.{need.why}") for lang in LANGUAGES)
    assert bool(field.needs) == bool(field.idle), "a command says it too"


def test_a_number_that_no_float_can_hold_is_refused_by_name():
    """`loop_damping=10**400` was an OverflowError, which no caller of the configuration expects."""
    from loopviz.checks import FieldError
    from loopviz.model import LoopLlamaConfig

    for name in ("loop_damping", "kl_threshold", "layer_threshold", "cosine_threshold"):
        with pytest.raises(FieldError, match=rf"{name}=≥10\^5000: must be a finite number"):
            LoopLlamaConfig(**{name: 10**5000})


def test_a_whole_number_has_the_ends_that_its_row_states():
    """`low` was not looked at, and a row without `high` was an OverflowError."""
    from loopviz.checks import FieldError

    def row(**ends):
        return table.LoopField("loop_pause", "whole", 1, "steps of rest", table.Dial("step"), **ends)

    assert row().check(10**400) == 10**400
    assert row(low=0).check(0) == 0
    for field, value, said in (
        (row(), 1.5, "loop_pause=1.5: must be a whole number"),
        (row(low=0), -1, "loop_pause=-1: must be a whole number >= 0"),
        (row(low=1), 0, "loop_pause=0: must be a whole number >= 1"),
        (row(low=0, high=65_536), 10**5, "loop_pause=100000: must be <= 65,536; every one of them is kept account of"),
    ):
        with pytest.raises(FieldError) as refused:
            field.check(value)
        assert str(refused.value) == said


def test_the_table_is_light():
    code = "import sys, loopviz.loop_fields; print({'torch', 'transformers', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "set()\n", done.stderr


def test_the_merge_first_is_valid_whoever_has_opened_the_lab():
    """`lab/ablation.py` registered it, so that a model saved with it loaded only after somebody had measured something."""
    code = (
        "import sys\nfrom loopviz.model import LoopLlamaConfig\nLoopLlamaConfig(merge_strategy='first')\n"
        "print([name for name in sys.modules if name.startswith('loopviz.lab')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr
