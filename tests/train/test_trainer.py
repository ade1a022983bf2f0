"""The training loop: it learns; killed and resumed equals never killed; what is refused."""

from __future__ import annotations

import csv
import os
import signal

import pytest
import torch

from loopviz.train import state as states
from loopviz.train.data_tasks import ArrowsTask, TextTask
from loopviz.train.recipe import RecipeError
from loopviz.train.state import CsvLog, StateError, load_state, save_state
from loopviz.train.text import TextError
from loopviz.train.trainer import STATE, Trainer, TrainingError

from .small import arrows_recipe, story, text_recipe, ttt_recipe


class Killed(BaseException):
    """The process is gone."""


def make(kind, folder, data, say=None, resume=False, **changes):
    folder.mkdir(exist_ok=True)
    recipe = {"text": text_recipe, "ttt": ttt_recipe, "arrows": arrows_recipe}[kind](**changes)
    task = ArrowsTask(recipe) if kind == "arrows" else TextTask(recipe, data, None, folder)
    return Trainer(recipe, task, folder, resume=resume, **({"say": say} if say else {}))


def die_at(step):
    def say(progress, line, keep):
        if progress.step == step and not keep:
            raise Killed

    return say


def table(path, without=("seconds",)):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", ["text", "arrows", "ttt"])
@pytest.mark.parametrize("at", [2, 3, 5])
def test_killed_and_resumed_equals_never_killed(kind, at, tmp_path):
    """Weights, optimisers, logs; the process dies once right after a step, checkpoint or not."""
    data = story(tmp_path / "t.txt")
    whole = make(kind, tmp_path / "whole", data)
    whole.run()
    with pytest.raises(Killed):
        make(kind, tmp_path / "torn", data, say=die_at(at)).run()
    torn = tmp_path / "torn"
    torch.manual_seed(99)  # another process, with another past
    resumed = make(kind, torn, data, resume=(torn / STATE).is_file())
    resumed.run()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    for one, other in zip(whole.optimizers, resumed.optimizers, strict=True):
        for a, b in zip(one.state.values(), other.state.values(), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a if isinstance(a[key], torch.Tensor))
    assert whole.task.state() == resumed.task.state()
    assert whole.progress.tokens == resumed.progress.tokens
    for name in ("train.csv", "evaluation.csv"):
        assert table(tmp_path / "whole" / name) == table(torn / name)
        assert table(torn / name)


def test_it_learns_and_reports_what_it_did(tmp_path):
    trainer = make(
        "text",
        tmp_path / "run",
        story(tmp_path / "t.txt"),
        steps=80,
        dropout=0.0,
        **{"evaluation.every": 40, "batch": 4},
    )
    trainer.run()
    log = table(tmp_path / "run" / "train.csv", without=())
    losses = [float(row["loss"]) for row in log]
    assert sum(losses[-10:]) / 10 < losses[0] - 1.5
    assert {int(row["loops"]) for row in log} > {1, 3}
    assert len({row["lr"] for row in log}) > 10
    assert int(log[-1]["tokens"]) == 80 * 4 * 8 == trainer.progress.tokens
    rows = table(tmp_path / "run" / "evaluation.csv")
    assert {row["step"] for row in rows} == {"40", "80"}
    assert {row["loops"] for row in rows if row["metric"] == "loss"} == {"1", "2", "4"}


def test_a_ttt_model_learns_and_its_inner_models_begin_elsewhere(tmp_path):
    """The inner loop is differentiated too: W_0, the inner learning rate and the token scale move."""
    trainer = make("ttt", tmp_path / "run", story(tmp_path / "t.txt"), steps=60, dropout=0.0, batch=4)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.run()
    losses = [float(row["loss"]) for row in table(tmp_path / "run" / "train.csv")]
    assert sum(losses[-10:]) / 10 < losses[0] - 1.5
    for name, weight in trainer.model.named_parameters():
        assert not torch.equal(weight, before[name]), name


def test_of_a_ttt_model_maps_are_muons_and_only_maps_and_embeddings_decay(tmp_path):
    trainer = make("ttt", tmp_path / "run", story(tmp_path / "t.txt"))
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    adamw, muon = trainer.optimizers
    (matrices,) = ([names[id(weight)] for weight in group["params"]] for group in muon.param_groups)
    assert len(matrices) == 2 * 7, "q, v, o, g and the three of the SwiGLU, by layer"
    assert all(name.endswith("_proj.weight") for name in matrices)
    decayed, plain = ([names[id(weight)] for weight in group["params"]] for group in adamw.param_groups)
    scales = [f"model.layers.{i}.seq_modeling_block.learnable_token_idx" for i in range(2)]
    assert sorted(decayed) == ["lm_head.weight", "model.embed_tokens.weight", *scales]
    assert adamw.param_groups[1]["weight_decay"] == 0
    assert {"W1", "learnable_ttt_lr_weight", "ttt_norm_weight"} <= {name.rpartition(".")[2] for name in plain}
    assert len(matrices) + len(decayed) + len(plain) == len(names)


def test_a_token_scale_that_fell_to_zero_comes_back(tmp_path):
    """Below the clamp it has no gradient: of stories-ttt's first layer the last place's stayed there, and no group was kept."""
    trainer = make("ttt", tmp_path / "run", story(tmp_path / "t.txt"))
    layer = trainer.model.model.layers[0].seq_modeling_block
    scale = layer.learnable_token_idx
    edge = -1 / scale.numel()
    with torch.no_grad():
        scale.zero_()
        scale[-1] = 1.1 * edge
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.01
    for _ in range(200):
        for weight in trainer.model.parameters():
            weight.grad = torch.zeros_like(weight)
        for optimizer in trainer.optimizers:
            optimizer.step()
    assert scale[-1] > edge


def test_a_run_of_before_there_were_kinds_of_models_goes_on(tmp_path):
    data, folder = story(tmp_path / "t.txt"), tmp_path / "run"
    with pytest.raises(Killed):
        make("text", folder, data, say=die_at(4)).run()
    state = load_state(folder / STATE)
    del state["recipe"]["model_type"], state["recipe"]["evaluation"]["positions"]
    save_state(folder / STATE, {name: value for name, value in state.items() if name != "version"})
    assert make("text", folder, data, resume=True).progress.step == 3
    with pytest.raises(RecipeError, match=r"model={.*: the run in this folder has model="):
        make("ttt", folder, data, resume=True, name="small", **{"evaluation.positions": []})


def test_the_curriculum_goes_deeper_once_a_hop(tmp_path):
    trainer = make("arrows", tmp_path / "run", None, **{"arrows.promote_at": 0.001})
    kept = []
    trainer.say = lambda progress, line, keep: kept.append(line) if keep else None
    trainer.run()
    assert trainer.task.depth == 4
    assert [line[:6] for line in kept] == ["1 hops", "2 hops", "3 hops"]
    measured = table(tmp_path / "run" / "evaluation.csv")
    assert [max(int(row["hops"]) for row in measured if row["step"] == step) for step in "246"] == [2, 3, 4]
    stuck = make("arrows", tmp_path / "other", None, steps=4, **{"arrows.promote_at": 1.0})
    stuck.run()
    assert stuck.task.depth == 1


def test_training_samples_loops_truncates_and_clips(tmp_path):
    trainer = make("text", tmp_path / "run", story(tmp_path / "t.txt"), **{"optimizer.clip": 1e-3, "dropout": 0.0})
    seen = []
    handle = trainer.model.register_loop_hook(lambda event: seen.append((event.step, event.state.requires_grad)))
    for _ in range(4):
        seen.clear()
        batch = trainer.task.batch(trainer.progress.step)
        _, loops, _, norm = trainer._step()
        assert loops == batch.loops == len(seen)
        assert [tracked for _, tracked in seen[-2:]] == [True] * min(2, loops)
        assert not any(tracked for step, tracked in seen if step <= loops - 2)
        assert norm > 1e-3
    handle.remove()


def test_dropout_acts_in_training_only_and_changes_with_the_step(tmp_path):
    trainer = make("text", tmp_path / "run", story(tmp_path / "t.txt"), dropout=0.5)
    ids, said = trainer.task.batch(0).ids, []
    for training, step in ((True, 0), (True, 1), (True, 0), (False, 0), (False, 1)):
        trainer.model.train(training)
        trainer.dropout.draw(step)
        said.append(trainer.model(ids).logits)
    assert torch.equal(said[0], said[2])
    assert not torch.equal(said[0], said[1])
    assert torch.equal(said[3], said[4])
    assert not torch.equal(said[0], said[3])


def test_dropout_keeps_the_mean_and_one_mask_for_all_loop_steps(tmp_path):
    trainer = make("text", tmp_path / "run", story(tmp_path / "t.txt"), **{"dropout": 0.25, "batch": 32})
    trainer.dropout.draw(0)
    kept = torch.stack(trainer.dropout.masks)  # [modules, B, T, H]
    assert len(kept) == 1 + 2 * trainer.model.config.num_hidden_layers
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(kept.mean() - 1) < 0.02
    seen = []
    layer = trainer.model.model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda module, arguments, output: seen.append(output == 0))
    trainer.model.train()
    trainer.model.set_loop(loop_count=3)
    trainer.model(trainer.task.batch(0).ids)
    assert len(seen) == 3
    assert seen[0].any()
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_begin_as_large_as_asked_and_logits_with_them(tmp_path, tied):
    changes = {"embedding_rms": 1.0, "model.hidden_size": 64, "model.tie_word_embeddings": tied}
    trainer = make("text", tmp_path / "run", story(tmp_path / "t.txt"), **changes)
    weight = trainer.model.model.embed_tokens.weight
    assert weight.pow(2).mean().sqrt().item() == pytest.approx(1, abs=0.02)
    if tied:
        trainer.model.eval()
        logits = trainer.model(trainer.task.batch(0).ids).logits
        others = logits.masked_fill(torch.nn.functional.one_hot(trainer.task.batch(0).ids, logits.shape[-1]) > 0, 0)
        assert others.std().item() == pytest.approx(1, abs=0.2)


def test_embeddings_keep_their_size_when_they_do_not_decay(tmp_path):
    sizes = {}
    for decays in (True, False):
        trainer = make(
            "text", tmp_path / str(decays), story(tmp_path / "t.txt"), **{"optimizer.decay_embeddings": decays}
        )
        (groups, *_) = [optimizer.param_groups for optimizer in trainer.optimizers]
        decayed = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        sizes[decays] = decayed[id(trainer.model.model.embed_tokens.weight)]
    assert sizes == {True: text_recipe().optimizer.weight_decay, False: 0.0}


def test_bfloat16_products_keep_weights_and_logs_in_float32(tmp_path):
    data, losses = story(tmp_path / "t.txt"), {}
    for precision in ("float32", "bfloat16"):
        trainer = make("text", tmp_path / precision, data, precision=precision)
        trainer.run()
        assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
        losses[precision] = [float(row["loss"]) for row in table(tmp_path / precision / "train.csv")]
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.05)


def test_an_interrupt_finishes_the_step_and_can_be_resumed(tmp_path):
    data, before = story(tmp_path / "t.txt"), signal.getsignal(signal.SIGINT)

    def say(progress, line, keep):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    trainer = make("text", tmp_path / "run", data, say=say)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) is before
    assert load_state(tmp_path / "run" / STATE)["progress"]["step"] == 4
    assert make("text", tmp_path / "run", data, resume=True).run().step == 9


def test_a_second_interrupt_is_obeyed_at_once_and_leaves_the_last_checkpoint(tmp_path):
    def say(progress, line, keep):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make("text", tmp_path / "run", story(tmp_path / "t.txt"), say=say).run()
    assert load_state(tmp_path / "run" / STATE)["progress"]["step"] == 3


def test_an_inner_loss_that_is_no_number_says_at_which_step_and_where(tmp_path):
    trainer = make("ttt", tmp_path / "run", story(tmp_path / "t.txt"))
    with torch.no_grad():
        trainer.model.model.ttt_layers[1].W1[0, 0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"^step 1: inner loss = nan at layer 1, head 0, row 0, token 0 "):
        trainer.run()


def test_a_run_that_diverges_says_so(tmp_path):
    trainer = make("text", tmp_path / "run", story(tmp_path / "t.txt"))
    with torch.no_grad():
        trainer.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 1: loss=nan.*lower optimizer.lr=0.01"):
        trainer.run()


def test_what_cannot_be_resumed_is_refused_by_name(tmp_path):
    data = story(tmp_path / "t.txt")
    with pytest.raises(StateError, match="no run to resume"):
        make("text", tmp_path / "none", data, resume=True)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        make("text", folder, data, say=die_at(4)).run()
    with pytest.raises(StateError, match="a run is in this folder already"):
        make("text", folder, data)
    with pytest.raises(RecipeError, match=r"optimizer=.*the run in this folder has optimizer="):
        make("text", folder, data, resume=True, **{"optimizer.lr": 0.02})
    with pytest.raises(TextError, match="train: not the text this run was started with"):
        make("text", folder, story(tmp_path / "other.txt", seed=1), resume=True)
    make("text", folder, data, resume=True, checkpoint_every=1)  # changes nothing of what is computed
    (folder / STATE).write_bytes(b"PK nothing")
    with pytest.raises(StateError, match="not a checkpoint"):
        make("text", folder, data, resume=True)


def test_a_trapezoid_may_grow_before_it_falls(tmp_path):
    """9 steps fall from step 5 on: at 3 it does not matter yet how long the run will be, at 6 it does."""
    data = story(tmp_path / "t.txt")
    longer = make("text", tmp_path / "whole", data, steps=12)
    longer.run()
    for dies, works in ((4, True), (7, False)):
        folder = tmp_path / f"run{dies}"
        with pytest.raises(Killed):
            make("text", folder, data, say=die_at(dies)).run()
        if not works:
            with pytest.raises(RecipeError, match="steps=12: the run in this folder has steps=9"):
                make("text", folder, data, resume=True, steps=12)
            continue
        grown = make("text", folder, data, resume=True, steps=12)
        grown.run()
        for name, weight in longer.model.state_dict().items():
            assert torch.equal(weight, grown.model.state_dict()[name])


def test_later_loops_begin_at_their_step_and_may_be_decided_until_then(tmp_path):
    data = story(tmp_path / "t.txt")
    later = {"loops.later_from": 5, "loops.later_mean": 12, "loops.later_max": 13}
    whole = make("text", tmp_path / "whole", data, **later)
    whole.run()
    loops = [int(row["loops"]) for row in table(tmp_path / "whole" / "train.csv", without=())]
    assert max(loops[:5]) <= 6 < min(loops[5:])
    for dies, works in ((4, True), (7, False)):
        folder = tmp_path / f"run{dies}"
        with pytest.raises(Killed):
            make("text", folder, data, say=die_at(dies)).run()
        if not works:
            with pytest.raises(RecipeError, match="loops="):
                make("text", folder, data, resume=True, **later)
            continue
        resumed = make("text", folder, data, resume=True, **later)
        resumed.run()
        for name, weight in whole.model.state_dict().items():
            assert torch.equal(weight, resumed.model.state_dict()[name])


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / STATE
    save_state(path, {"x": torch.ones(3)})

    def half(value, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(states.torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_state(path, {"x": torch.zeros(3)})
    assert torch.equal(load_state(path)["x"], torch.ones(3))


def test_a_foreign_version_is_refused(tmp_path):
    torch.save({"version": 99}, tmp_path / STATE)
    with pytest.raises(StateError, match="version=99"):
        load_state(tmp_path / STATE)


def test_the_log_drops_what_came_after_the_checkpoint_and_half_rows(tmp_path):
    path = tmp_path / "l.csv"
    CsvLog(path, ("step", "x"), None).add([(1, "a"), (2, "b"), (3, "c")])
    with path.open("a") as file:
        file.write("2")
    CsvLog(path, ("step", "x"), 2).add([(3, "d")])
    assert [row["x"] for row in table(path)] == ["a", "b", "d"]
    CsvLog(path, ("step", "x"), None)
    assert table(path) == []


def test_compiled_layers_train_alike(tmp_path, monkeypatch):
    """With the compiler's front end alone, which every machine has: every layer goes through it, results stay."""
    compiled, own = [], torch.nn.Module.compile

    def traced(module, *arguments, **options):
        compiled.append(module)
        own(module, *arguments, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    data, models = story(tmp_path / "t.txt"), []
    for wanted in (False, True):
        trainer = make("text", tmp_path / str(wanted), data, compile=wanted, **{"dropout": 0.0})
        trainer.run()
        models.append(trainer.model)
    assert compiled == list(models[1].model.layers)
    for name, weight in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], weight)
