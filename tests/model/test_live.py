"""A live model: views on shared weights, settings changed between passes, reports, registered names."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from loopviz.model import LoopCache, LoopLlamaConfig, register_criterion, register_merge
from loopviz.model.criteria import CRITERIA
from loopviz.model.merges import MERGES

from .tiny import DYNAMIC, LOOP, TWO, WIDE, build, close, ids, record, reference

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_views_share_weights_and_nothing_else():
    model = build(LOOP)
    view = model.with_loop(loop_count=5, loop_layers=(0, 1))
    assert view is not model
    assert type(view) is type(model)
    ours, theirs = dict(model.named_parameters()), dict(view.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)
    assert (model.config.loop_count, model.config.loop_layers) == (3, (1, 2))
    assert (view.config.loop_count, view.config.loop_layers) == (5, (0, 1))
    events, _ = record(model)
    seen, _ = record(view)
    view(ids(4))
    assert (len(events), len(seen)) == (0, 5)
    assert model.last_pass.steps == []
    model(ids(4))
    assert (len(events), len(seen)) == (3, 5)
    assert [int(n) for n in model.last_pass.steps] == [3]
    assert [int(n) for n in view.last_pass.steps] == [5]
    view.set_loop(loop_count=4)
    assert model.config.loop_count == 3
    model.set_loop(loop_count=2)
    assert view.config.loop_count == 4
    torch.manual_seed(0)
    same = build({"loop_layers": (0, 1), "loop_count": 4})
    assert torch.equal(view(ids(4)).logits, same(ids(4)).logits)
    assert torch.equal(view.generate(ids(4), max_new_tokens=4), same.generate(ids(4), max_new_tokens=4))


def test_a_view_of_a_view_and_a_plain_view():
    model = build(LOOP)
    plain = model.with_loop(loop_layers=None)
    assert torch.equal(plain(ids(4)).logits, build()(ids(4)).logits)
    again = plain.with_loop(loop_layers=(1, 2))
    assert torch.equal(again(ids(4)).logits, model(ids(4)).logits)
    assert plain.with_loop().config.loop_blocks() == []
    assert model.last_pass.steps
    assert model.with_loop().last_pass.steps == [], "a new view reports a pass it never ran"


def test_views_run_side_by_side_in_threads():
    """Two users, one set of weights: each gets what it gets alone, and hooks hear only their own."""
    model = build(LOOP)
    views = [model.with_loop(loop_layers=(i % 3, 3), loop_count=2 + i) for i in range(4)]
    heard = [record(view)[0] for view in views]

    def decode(view):
        with torch.no_grad():
            return view.generate(ids(4), max_new_tokens=12, do_sample=False)

    alone = [decode(view) for view in views]
    counts = [len(events) for events in heard]
    with ThreadPoolExecutor(len(views)) as pool:
        together = list(pool.map(decode, views))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert [len(events) for events in heard] == [2 * n for n in counts]
    assert len({tuple(one[0].tolist()) for one in alone}) > 1, "all views say the same: the test would prove nothing"


def test_a_deep_copy_stands_on_its_own():
    model = build({**DYNAMIC, "convergence_criterion": "kl", "kl_threshold": 0.05})
    model(ids(4))
    steps = int(model.last_pass.steps[0])
    twin = copy.deepcopy(model)
    twin.lm_head.weight.zero_()  # every distribution is now the same: KL is 0 at once
    twin(ids(4))
    assert int(twin.last_pass.steps[0]) == 2 < steps
    model(ids(4))
    assert int(model.last_pass.steps[0]) == steps


def test_views_kl_reads_its_own_head():
    """The convergence lens of a view must be the view's: its config and weights, not the parent's."""
    model = build({**DYNAMIC, "convergence_criterion": "kl", "kl_threshold": 0.05})
    view = model.with_loop(kl_threshold=1e-9)
    model(ids(4))
    view(ids(4))
    assert int(view.last_pass.steps[0]) == 10
    assert int(model.last_pass.steps[0]) < 10


def test_set_loop_applies_from_the_next_pass_and_never_touches_weights():
    model = build(LOOP)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.set_loop(loop_count=5, virtual_attention_mode="serial", loop_damping=0.5)
    loop = {**LOOP, "loop_count": 5, "virtual_attention_mode": "serial", "loop_damping": 0.5}
    close(model(ids(4)).logits[0], reference(model, loop)(ids(4)[0].tolist()).logits, WIDE)
    assert [int(n) for n in model.last_pass.steps] == [5]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"loop_count": 0}, "loop_count"),
        ({"loop_count": 11}, "loop_count"),
        ({"loop_layers": (2, 4)}, "loop_layers"),
        ({"loop_count": 5, "cosine_threshold": float("nan")}, "cosine_threshold"),
        ({"loop_cuont": 5}, "loop_cuont"),
        ({"hidden_size": 64}, "hidden_size"),
        ({"loop_injection": "linear"}, "loop_injection"),
        ({"loop_norm": True}, "loop_norm"),
        ({"loop_strategy": "dynamic_stop", "min_loop_count": 2}, "virtual_layer_count"),
        ({"convergence_criterion": "nobody"}, "convergence_criterion"),
    ],
    ids=str,
)
def test_set_loop_refuses_by_name_and_changes_nothing(fields, name):
    model = build(LOOP)
    before, logits = model.config.to_dict(), model(ids(4)).logits
    for change in (model.set_loop, model.with_loop):
        with pytest.raises(ValueError, match=name):
            change(**fields)
        assert model.config.to_dict() == before
    assert torch.equal(model(ids(4)).logits, logits)


def test_set_loop_keeps_the_default_floor_a_default():
    model = build({**LOOP, "kv_cache_mode": "merge_strategy"})
    model.set_loop(loop_strategy="dynamic_stop")
    assert model.config.loop_blocks()[0].floor == 1
    model.set_loop(min_loop_count=5)
    assert model.config.loop_blocks()[0].floor == 5


def test_last_pass_reports_every_block_and_row():
    model = build({**TWO, "loop_strategy": ["fixed_count", "dynamic_stop"], "kv_cache_mode": "merge_strategy"})
    model(ids(4, rows=2))
    report = model.last_pass
    assert [steps.shape for steps in report.steps] == [(2,), (2,)]
    assert all(steps.dtype == torch.long for steps in report.steps)
    assert report.steps[0].tolist() == [2, 2]
    assert report.reasons[0] == ["count", "count"]
    assert len(report.reasons[1]) == 2
    model.set_loop(loop_layers=None, loop_strategy="fixed_count", loop_count=3)
    model(ids(4))
    assert (model.last_pass.steps, model.last_pass.reasons) == ([], [])


@pytest.mark.parametrize("loop", [LOOP, DYNAMIC, {**DYNAMIC, "kv_cache_mode": "merge_strategy"}], ids=str)
def test_current_forward_loop_step_as_the_manual_reads_it(loop):
    model = build(loop)
    out = model(input_ids=ids(4), use_cache=True)
    assert isinstance(out.past_key_values.current_forward_loop_step, int)
    assert out.past_key_values.current_forward_loop_step == int(model.last_pass.steps[0])
    assert LoopCache(model.config).current_forward_loop_step == 0


@pytest.fixture
def registries():
    """Registries that forget what a test registered."""
    kept = dict(CRITERIA), dict(MERGES)
    yield
    for registry, before in zip((CRITERIA, MERGES), kept, strict=True):
        registry.clear()
        registry.update(before)


@pytest.mark.usefixtures("registries")
def test_a_registered_criterion_is_used_by_name():
    asked = []

    @register_criterion("small_change")
    def small_change(ctx):
        asked.append(ctx.step)
        ctx.memory.setdefault("steps", []).append(ctx.step)
        assert ctx.memory["steps"] == asked, "memory is not kept over the pass, or kept beyond it"
        log_probs = ctx.log_probs(ctx.state)
        close(log_probs.exp().sum(-1), torch.ones(ctx.state.shape[:2]), 1e-5)
        change = (ctx.state - ctx.previous).norm(dim=-1) / ctx.state.norm(dim=-1)
        return ctx.mean(change) < 10 if ctx.step >= 4 else torch.zeros(len(change), dtype=torch.bool)

    loop = {**DYNAMIC, "convergence_criterion": "small_change"}
    model = build(loop)
    for _ in range(2):
        asked.clear()
        model(ids(4, rows=2))
        assert model.last_pass.steps[0].tolist() == [4, 4]
        assert model.last_pass.reasons[0] == ["small_change"] * 2
        assert asked == [2, 3, 4]


@pytest.mark.usefixtures("registries")
def test_a_criterion_that_sees_every_step_still_stops_at_the_floor_first():
    asked = []

    @register_criterion("always", every_step=True)
    def always(ctx):
        asked.append(ctx.step)
        return torch.ones(len(ctx.state), dtype=torch.bool)

    model = build({**DYNAMIC, "convergence_criterion": "always", "min_loop_count": 4})
    model(ids(4))
    assert asked == [1, 2, 3, 4]
    assert [int(n) for n in model.last_pass.steps] == [4]


@pytest.mark.usefixtures("registries")
def test_criterion_mean_is_over_real_tokens():
    means = []

    @register_criterion("first_token_value")
    def first_token_value(ctx):
        means.append(ctx.mean(torch.arange(8.0).reshape(2, 4)))
        return torch.ones(2, dtype=torch.bool)

    model = build({**DYNAMIC, "convergence_criterion": "first_token_value"})
    model(ids(4, rows=2), attention_mask=torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]))
    assert means[0].tolist() == [1.5, 6.5]


@pytest.mark.usefixtures("registries")
def test_a_registered_merge_is_used_by_name():
    calls = []

    @register_merge("mine_first")
    def first(merged, new, step, alpha):
        calls.append((step, merged is None, alpha))
        return new if merged is None else merged

    loop = {**LOOP, "kv_cache_mode": "merge_strategy"}
    model = build({**loop, "merge_strategy": "mine_first", "merge_ema_alpha": 0.25})
    cache = LoopCache(model.config)
    kept = []
    model.register_loop_hook(lambda event: kept.append(event.kv(1)[0].clone()))
    model(ids(4), past_key_values=cache)
    assert torch.equal(cache.layers[1].keys[:, :, :4, 0], kept[0])
    assert sorted(calls) == sorted([(1, True, 0.25)] * 4 + [(2, False, 0.25)] * 4 + [(3, False, 0.25)] * 4)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("convergence_criterion", ["cosine", "kl", "either", "both", "mine"]),
        ("merge_strategy", ["ema", "average", "last", "mine"]),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(field, known):
    register_criterion("mine")(lambda ctx: None)
    register_merge("mine")(lambda merged, new, step, alpha: new)
    LoopLlamaConfig(**{field: "mine"})
    with pytest.raises(ValueError, match=field) as refused:
        LoopLlamaConfig(loop_layers=(0, 1), kv_cache_mode="merge_strategy", **{field: "nobody"})
    assert all(name in str(refused.value) for name in known)
    for register in (register_criterion, register_merge):
        with pytest.raises(ValueError, match="mine"):
            register("mine")(lambda *_: None)
