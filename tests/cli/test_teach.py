"""`teach` and `merge`: an adapter that every door opens, a killed run that goes on, refusals in one line that leave nothing."""

from __future__ import annotations

import csv
import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopviz.cli import main
from loopviz.model.checkpoints import CheckpointError, load_checkpoint, load_model
from loopviz.model.checkpoints.adapter import read_adapter
from loopviz.model.packed import quantization_of
from loopviz.train import teach_data
from loopviz.train.arrows import IGNORE
from loopviz.train.teach_recipe import TeachRecipe
from loopviz.train.teach_trainer import adapter_parameters, put_lora
from loopviz.train.trainer import Trainer
from tests.train.small import story

pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

LITTLE = [
    *("--loop-layers", "1-1", "--loops", "1-3", "--steps", "4", "--rank", "2", "--alpha", "4", "--threads", "1"),
    *("--set", "length=8", "--set", "batch=2", "--set", "optimizer.lr=0.02", "--set", "checkpoint_every=2"),
    *("--set", "evaluation.every=2", "--set", "evaluation.loops=[1,2,3,5]", "--set", "closing_tokens=100000"),
]
OWN = ["--loop-injection", "linear", "--loop-norm", "yes", "--backprop", "2"]


def run(*arguments) -> int:
    return main.main([str(argument) for argument in arguments])


@pytest.fixture
def base(llama_folder):
    return llama_folder()


@pytest.fixture
def texts(tmp_path):
    return story(tmp_path / "t.txt"), story(tmp_path / "h.txt", seed=5, documents=8)


def teach(base, texts, out, *more) -> int:
    data, held = texts
    return run("teach", "--model", base, "--data", data, "--held-out", held, "--out", out, *LITTLE, *more)


def taught_row(table: str) -> list[str]:
    return next(line for line in table.splitlines() if line.startswith("| taught")).strip("| ").split(" | ")[1:]


def test_an_adapter_is_opened_by_every_door_and_says_the_same(base, texts, tmp_path, capfd):
    out, merged = tmp_path / "my-loop", tmp_path / "merged"
    assert teach(base, texts, out, *OWN) == 0
    said = capfd.readouterr()
    table = said.out
    assert "| perplexity by loops | 1 | 2 | 3 | 5 |" in table
    assert said.err.count("held-out loss by loops  1: ") == 2, "while it trains, every second step"
    results = json.loads((out / "results.json").read_text("utf-8"))
    one = {name: results["result"][name]["loss"][0] for name in ("plain", "naive", "damped", "taught")}
    assert one["plain"] == pytest.approx(one["naive"], abs=1e-6), "a block run once, untaught, is the plain model"
    assert one["taught"] != one["naive"]
    assert results["loop_count"] in (1, 2, 3)
    card = (out / "README.md").read_text("utf-8")
    assert table.strip() in card
    assert str(tmp_path) not in card
    with (out / "run" / "train.csv").open() as file:
        drawn = {int(row["loops"]) for row in csv.DictReader(file)}
    assert drawn <= {1, 2, 3}
    with (out / "run" / "evaluation.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "loss"]
    assert [(row["step"], row["loops"]) for row in rows[:4]] == [("2", "1"), ("2", "2"), ("2", "3"), ("2", "5")]

    ask = ["--data", texts[1], "--loops", "1,2,3,5", "--length", "8"]
    assert run("evaluate", out, *ask) == 0
    by_folder = capfd.readouterr().out
    assert run("evaluate", base, "--adapter", out, *ask) == 0
    assert capfd.readouterr().out == by_folder
    assert taught_row(table) == by_folder.splitlines()[3].strip("| ").split(" | ")[1:]
    assert run("merge", out, merged) == 0
    assert json.loads(capfd.readouterr().out)["loop_count"] == results["loop_count"]
    assert run("evaluate", merged, *ask) == 0
    assert capfd.readouterr().out == by_folder

    prompt = ["--prompt", "the cat", "--max-new-tokens", "3", "--threads", "1"]
    assert run("run", "--adapter", out, *prompt) == 0, "it says itself what it is on"
    first = capfd.readouterr().out
    assert run("run", "--model", base, "--adapter", out, *prompt) == 0
    assert capfd.readouterr().out == first
    assert run("run", "--model", merged, *prompt) == 0
    assert capfd.readouterr().out == first
    task = ["perplexity", "--text", "the cat sat on a red hat and ran.", "--loops", "1,2", "--window", "16"]
    assert run("eval", *task, "--model", base, "--adapter", out, "--out", tmp_path / "p") == 0
    assert "taught" not in capfd.readouterr().out
    assert run("eval", "--from", tmp_path / "p.json") == 0, "a manifest finds the adapter, and that its base"

    ask = ["--prompt", "the cat", "--continuation", " sat on a red hat.", "--max-new-tokens", "4", "--threads", "1"]
    for stem, model, names, more in (
        ("before", base, "before", []),
        ("after", out, "after", []),
        ("both", base, "before,after", ["--models", json.dumps(["", str(out)])]),
    ):
        how = ["--names", names, "--loops", json.dumps([{} for _ in names.split(",")])]
        assert run("eval", "compare", "--model", model, *how, *more, *ask, "--out", tmp_path / stem) == 0
    rows = {stem: list(csv.DictReader((tmp_path / f"{stem}.csv").open())) for stem in ("before", "after", "both")}
    before, after = (float(row["perplexity"]) for row in rows["both"])
    assert before == pytest.approx(float(rows["before"][0]["perplexity"]), rel=1e-4)
    assert after == pytest.approx(float(rows["after"][0]["perplexity"]), rel=1e-4)
    assert before != pytest.approx(after, rel=1e-4)
    written = [rows["before"][0]["new_tokens"], rows["after"][0]["new_tokens"]]
    assert [row["new_tokens"] for row in rows["both"]] == written


def test_one_lora_a_loop_step_is_opened_by_every_door_and_never_merged(base, texts, tmp_path, capfd, monkeypatch):
    out, torn = tmp_path / "steps", tmp_path / "torn"
    assert teach(base, texts, out, *OWN, "--lora-per-step") == 0
    said = capfd.readouterr()
    table = said.out
    assert sorted(path.name for path in out.glob("step-*")) == ["step-1", "step-2", "step-3"]
    assert not (out / "adapter_config.json").exists()
    assert not list(out.glob("step-*/README.md"))
    card = (out / "README.md").read_text("utf-8")
    assert "Each of its first 3 loop steps has a LoRA of its own" in card
    assert "loopviz merge" not in card
    assert "--lora-per-step" in card
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["result"]["plain"]["loss"][0] == pytest.approx(results["result"]["naive"]["loss"][0], abs=1e-6)
    weights = [load_file(out / f"step-{step}" / "adapter_model.safetensors") for step in (1, 2, 3)]
    lora = {name for name in weights[0] if "lora_" in name}
    assert all("loop_" in name for name in weights[0].keys() - lora)
    assert weights[1].keys() == weights[2].keys() == lora, "the loop's own weights are the first one's"
    changed = [any(bool(one[name].any()) for name in lora if "lora_B" in name) for one in weights]
    assert changed == [True] * 3, "each of them has learned"
    per_step = sum(value.numel() for name, value in weights[0].items() if name in lora)
    own = sum(value.numel() for name, value in weights[0].items() if name not in lora)
    assert results["trained_parameters"] == 3 * per_step + own

    ask = ["--data", texts[1], "--loops", "1,2,3,5", "--length", "8"]
    assert run("evaluate", out, *ask) == 0
    by_folder = capfd.readouterr()
    assert (
        "each of its first 3 loop steps has a LoRA of its own; loop steps after these use that of step 3"
        in by_folder.err
    )
    assert run("evaluate", base, "--adapter", out, *ask) == 0
    assert capfd.readouterr().out == by_folder.out
    assert taught_row(table) == by_folder.out.splitlines()[3].strip("| ").split(" | ")[1:], (
        "what was saved is what was taught"
    )
    assert run("run", "--adapter", out, "--prompt", "the cat", "--max-new-tokens", "3", "--threads", "1") == 0
    capfd.readouterr()
    for more in ([], ["--model", base]):
        assert run("merge", out, tmp_path / "merged", *more) == 2
        assert (
            "each loop step has a LoRA of its own, which cannot be merged into one set of weights; keep its folder"
            in (capfd.readouterr().err)
        )
    assert not (tmp_path / "merged").exists()

    step = Trainer._step

    def dies(trainer):
        if trainer.progress.step == 3:
            raise RuntimeError("killed")
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            teach(base, texts, torn, *OWN, "--lora-per-step")
    torch.manual_seed(99)
    assert teach(base, texts, torn, *OWN, "--lora-per-step") == 0
    again = [load_file(torn / f"step-{step}" / "adapter_model.safetensors") for step in (1, 2, 3)]
    assert all(torch.equal(one[name], other[name]) for one, other in zip(weights, again, strict=True) for name in one)

    assert teach(base, texts, torn, "--force", "--loops", "1-2", "--lora-per-step") == 0
    assert read_adapter(torn).own == set()
    assert [(torn / f"step-{step}" / "adapter_config.json").exists() for step in (1, 2, 3)] == [True, True, False]
    assert teach(base, texts, torn, "--force") == 0, "anew, with one for all steps"
    assert read_adapter(torn).steps == ()
    assert not list(torn.glob("step-*/adapter_*"))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": "3"}, "steps='3'"),
        ({"steps": 9}, "step-4: is no adapter"),
        ({"version": 3}, "reads versions 1 and 2"),
    ],
)
def test_a_folder_of_steps_that_does_not_hold_what_it_says_is_refused(harm, said, base, tmp_path):
    folder = tmp_path / "steps"
    for step in (1, 2, 3):
        (folder / f"step-{step}").mkdir(parents=True)
        config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
        (folder / f"step-{step}" / "adapter_config.json").write_text(json.dumps(config), "utf-8")
        lora = {f"base_model.model.model.layers.1.self_attn.q_proj.lora_{part}.weight": torch.zeros(shape)
                for part, shape in (("A", (2, 64)), ("B", (64, 2)))}  # fmt: skip
        save_file(lora, folder / f"step-{step}" / "adapter_model.safetensors")
    good = {"version": 2, "steps": 3, "loop": {"loop_layers": [1, 1], "loop_count": 3}, "base": {"name": str(base)}}
    (folder / "loop_adapter.json").write_text(json.dumps({**good, **harm}), "utf-8")
    with pytest.raises(CheckpointError) as refused:
        load_model(folder)
    assert said in str(refused.value)


def test_a_device_that_does_not_hold_what_is_taught_is_refused_before_anything_is_made(
    base, texts, tmp_path, capfd, monkeypatch
):
    from loopviz.model import devices, placing

    monkeypatch.setattr(devices, "resolve_device", lambda name, dtype=None: torch.device(name))
    monkeypatch.setattr(placing, "free_bytes", lambda device: 100_000 if device.type == "cuda" else None)
    for more in ([], [*OWN, "--lora-per-step"]):
        assert teach(base, texts, tmp_path / "out", "--device", "cuda", *more) == 2
        told = capfd.readouterr().err
        assert "device='cuda': teaching (weights " in told
        assert "bytes there, and 87,500 may be taken; use device='cpu', or a smaller model" in told
    assert not (tmp_path / "out").exists()


def test_what_is_trained_is_counted_before_it_is_made(base):
    recipe = TeachRecipe.from_dict({"base": str(base), "loop": {"loop_layers": [1, 1], "loop_injection": "linear"},
                                    "lora": {"per_step": True, "rank": 3}})  # fmt: skip
    model = load_model(base, **recipe.fields)
    counted = adapter_parameters(model, recipe, ["loop_injection"])
    wrapped = put_lora(model, recipe, ["loop_injection"])
    assert counted == sum(one.numel() for one in wrapped.parameters() if one.requires_grad)


def test_a_model_and_an_adapter_are_never_put_into_one_folder(base, texts, tmp_path, capfd):
    out, model = tmp_path / "adapter", tmp_path / "model"
    assert teach(base, texts, out) == 0
    assert run("merge", out, model) == 0
    other = tmp_path / "other"
    other.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "loop_adapter.json"):
        (other / name).write_bytes((out / name).read_bytes())
    before = {path.name: path.read_bytes() for path in (*model.iterdir(), *other.iterdir())}
    capfd.readouterr()
    for arguments in (
        ["merge", out, other, "--force"],
        ["train", "arrows-loop", "--out", other, "--force"],
    ):
        assert run(*arguments) == 2
        assert (
            "holds an adapter (adapter_config.json), and a model beside it would make a folder that nothing opens; name another place"
            in (capfd.readouterr().err)
        )
    assert teach(base, texts, model, "--force") == 2
    assert "holds a model (config.json), and an adapter beside it" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in (*model.iterdir(), *other.iterdir())} == before
    assert run("merge", out, model, "--force") == 0, "over another model, as it says"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA reaches")
def test_on_a_gpu_it_learns_what_it_learns_on_the_cpu(base, texts, tmp_path):
    found = {}
    for device in ("cpu", "cuda"):
        asked = [*OWN, "--device", device, "--set", "lora.dropout=0"]  # each device draws in its own way
        assert teach(base, texts, tmp_path / device, *asked) == 0
        results = json.loads((tmp_path / device / "results.json").read_text("utf-8"))
        found[device] = results["result"]["taught"]["loss"]
        assert results["machine"]["device"].startswith(device)
    assert found["cuda"] == pytest.approx(found["cpu"], abs=1e-3)


def test_a_killed_run_goes_on_by_the_same_command(base, texts, tmp_path, capfd, monkeypatch):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert teach(base, texts, whole, *OWN) == 0
    step = Trainer._step

    def dies(trainer):
        if trainer.progress.step == 3:
            raise RuntimeError("killed")
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            teach(base, texts, torn, *OWN)
    assert not (torn / "adapter_config.json").exists(), "nothing is kept as finished"
    torch.manual_seed(99)  # another process, with another past
    capfd.readouterr()
    assert teach(base, texts, torn, *OWN, "--rank", "3") == 2
    assert "lora={'rank': 3" in capfd.readouterr().err
    assert teach(base, texts, torn, *OWN) == 0
    assert "going on after step 2 of the run" in capfd.readouterr().err
    one, other = (load_model(folder).state_dict() for folder in (whole, torn))
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name in ("train.csv", "evaluation.csv"):
        rows = [list(csv.DictReader((folder / "run" / name).open())) for folder in (whole, torn)]
        assert [row | {"seconds": ""} for row in rows[0]] == [row | {"seconds": ""} for row in rows[1]]


def test_prompts_and_responses_train_the_responses_alone(base, tmp_path, capfd):
    records = [{"instruction": "what?", "output": "a loop"}, {"instruction": "what?", "output": "a"}]
    data, out, add = tmp_path / "chats.jsonl", tmp_path / "out", ["--loop-injection", "add"]
    data.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    how = [*LITTLE, *add, "--set", "length=40", "--template", "none"]
    assert run("teach", "--model", base, "--data", data, "--out", out, *how) == 0
    tokenizer = load_checkpoint(base).tokenizer
    rows = teach_data.read_rows(data, "none", tokenizer, 40)
    result = json.loads((out / "results.json").read_text("utf-8"))["result"]
    assert result["taught"]["tokens"] == sum(label != IGNORE for label in rows[1][1]), "the last row is held out"
    assert result["naive"]["loss"][0] == pytest.approx(result["plain"]["loss"][0]), (
        "naive is without what was asked for"
    )
    listed = tmp_path / "alpaca_data.json"  # as Alpaca's own file is
    listed.write_text(json.dumps(records), "utf-8")
    own = [*LITTLE, *add, "--set", "length=40", "--set", "notes=for a friend"]
    assert run("teach", "--model", base, "--data", listed, "--out", tmp_path / "listed", *own) == 0
    again = json.loads((tmp_path / "listed" / "results.json").read_text("utf-8"))
    shown = teach_data.read_rows(listed, "chat", tokenizer, 40)
    assert again["result"]["taught"]["tokens"] == sum(label != IGNORE for label in shown[1][1]), "not a text"
    assert again["data"]["template"] == "chat", "the one it was taught under, where none was named: the model's own"
    assert "\nfor a friend\n" in (tmp_path / "listed" / "README.md").read_text("utf-8")
    ids, labels = teach_data.stacked(rows)
    assert ids.shape == labels.shape
    assert (labels != IGNORE).sum(1).tolist() == [sum(label != IGNORE for label in row[1]) for row in rows], (
        "labels are those of what follows, and the shorter is filled"
    )
    capfd.readouterr()
    assert (
        run("teach", "--model", base, "--data", data, "--out", tmp_path / "short", *LITTLE, "--template", "alpaca") == 2
    )
    assert "chats.jsonl, line 1: prompt" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--loops", "0-3"], "must be from 1 to"),
        (["--loops", "5-3"], "must be from 1 to"),
        (["--loop-layers", "2-9"], "loop_layers"),
        (["--loop-layers", "0-0,2-2"], "one block (first, last) is taught"),
        (["--targets", "q_proj,qq_proj"], "lora.targets: 'qq_proj' is no linear map of a layer; there are q_proj, k_proj"),
        (["--rank", "0"], "lora.rank=0: must be >= 1"),
        (["--set", "length=4096"], "length=4096: the model's context is 128 tokens"),
        (["--set", "length=120", "--data", "SHORT"], "the text has only"),
        (["--data", "nowhere.txt"], "nowhere.txt: there is no such file"),
        (["--template", "alpaca"], "template='alpaca': plain text has none"),
        (["--set", "loop.loop_strategy=dynamic_stop"], "use 'fixed_count'"),
        (["--set", "loop.exit_selection=gate"], "use 'last'"),
        (["--set", "nothing=1"], "nothing=1: not a field"),
        (["--backprop", "0"], "backprop_steps=0: must be >= 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_taught_is_refused_in_a_line_and_leaves_nothing(more, said, base, texts, tmp_path, capfd):
    short = tmp_path / "short.txt"
    short.write_text("the cat sat.\n", "utf-8")
    try:
        code = teach(base, texts, tmp_path / "out", *(str(short) if part == "SHORT" else part for part in more))
    except SystemExit as ended:  # argparse's
        code = ended.code
    told = capfd.readouterr().err
    assert code == 2
    assert said in told
    assert not (tmp_path / "out").exists()


def test_folders_of_others_are_not_written_over(base, texts, tmp_path, capfd):
    out = tmp_path / "out"
    out.mkdir()
    (out / "adapter_config.json").write_text("{}", "utf-8")
    assert teach(base, texts, out) == 2
    assert "is there already, and not of a run in this folder" in capfd.readouterr().err
    assert run("merge", out, out) == 2
    assert "is the adapter's own folder" in capfd.readouterr().err
    assert run("merge", out, tmp_path / "m") == 2
    assert "peft_type=None" in capfd.readouterr().err
    assert run("teach", "--model", out, "--data", texts[0], "--out", tmp_path / "n", *LITTLE) == 2
    assert "is an adapter itself; merge it into a model first" in capfd.readouterr().err
    assert run("run", "--model", "stories-ttt", "--adapter", out, "--prompt", "x") == 2
    assert "adapters are put on Llamas" in capfd.readouterr().err


def test_a_run_that_is_refused_takes_nothing_away_that_was_there(base, texts, tmp_path, capfd):
    """What it made goes, and a folder `run` may be anybody's."""
    short, out = tmp_path / "short.txt", tmp_path / "out"
    short.write_text("the cat sat.\n", "utf-8")
    (out / "run").mkdir(parents=True)
    (out / "run" / "thesis.txt").write_text("mine", "utf-8")
    assert teach(base, (short, texts[1]), out, "--set", "length=120") == 2
    assert "the text has only" in capfd.readouterr().err
    assert (out / "run" / "thesis.txt").read_text("utf-8") == "mine"
    assert teach(base, texts, out) == 0
    before = (out / "run" / "checkpoint.pt").read_bytes()
    (tmp_path / "empty.txt").write_text("", "utf-8")
    assert teach(base, (tmp_path / "empty.txt", texts[1]), out, "--force") == 2
    assert (out / "run" / "checkpoint.pt").read_bytes() == before, "begun anew once there is something to begin with"


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_it_is_taught_on_packed_weights_and_opened_on_them_or_on_floats(base, texts, tmp_path, capfd, kind):
    pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")
    out = tmp_path / "q"
    before = load_model(base).state_dict()
    assert teach(base, texts, out, *OWN, "--quantization", kind) == 0
    table = capfd.readouterr().out
    said = json.loads((out / "loop_adapter.json").read_text("utf-8"))
    assert said["teaching"]["quantization"] == kind
    assert f"--quantization {kind}" in (out / "README.md").read_text("utf-8")
    model = load_model(out, quantization=kind)
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["result"]["taught"]["loss"] != results["result"]["naive"]["loss"]
    assert f"--quantization {kind}" in results["command"]
    assert all(torch.equal(before[name], tensor) for name, tensor in load_model(base).state_dict().items())
    ask = ["eval", "perplexity", "--file", texts[1], "--loops", "1,2", "--window", "8", "--out", tmp_path / "p"]
    assert run(*ask, "--model", base, "--adapter", out, "--quantization", kind) == 0
    assert run("eval", "--from", tmp_path / "p.json") == 0
    assert run("merge", out, tmp_path / "merged") == 0
    assert quantization_of(load_model(tmp_path / "merged")) is None
    assert quantization_of(model) == kind
    if kind == "nf4":
        ids = torch.arange(3, 9)[None]
        floats = load_model(base, adapter=out)
        assert not torch.allclose(model(ids).logits, floats(ids).logits, atol=1e-3)
    assert "taught" in table


def test_without_bitsandbytes_teaching_on_packed_weights_is_refused_and_leaves_nothing(
    base, texts, tmp_path, capfd, monkeypatch
):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert teach(base, texts, tmp_path / "out", "--quantization", "nf4") == 2
    assert "pip install -r requirements-bnb.txt" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
