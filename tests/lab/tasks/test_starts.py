"""Path independence: starts are what they say, distances are the formulas, and a known loop shows known behaviour."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from loopviz.lab import TASKS, Experiment
from loopviz.lab.reading.exit_replay import max_loop_view
from loopviz.lab.tasks.starts import Start, StartsParams, compare, plot, states_from
from tests.lab.subject import TEXT, subject

TASK = TASKS["starts"]
LOOP = {"loop_layers": (1, 2), "loop_damping": 0.5, "loop_injection": "add", "virtual_attention_mode": "serial"}
PARAMS = {"text": TEXT, "limit_tokens": 14, "window": 8, "loop": LOOP, "loops": 3}


def test_starts_have_the_stated_size() -> None:
    own = torch.randn(2, 5, 4096) * torch.tensor([0.1, 1, 10, 100, 3])[:, None]
    rms = own.square().mean(-1).sqrt()
    generator = torch.Generator().manual_seed(0)
    noise = Start("noise", 0.25, 0).state(own, generator) - own
    torch.testing.assert_close(noise.square().mean(-1).sqrt(), 0.25 * rms, rtol=0.05, atol=0)
    random = Start("random", None, 0).state(own, generator)
    torch.testing.assert_close(random.square().mean(-1).sqrt(), rms, rtol=0.05, atol=0)
    assert F.cosine_similarity(random, own, dim=-1).abs().max() < 0.1
    assert Start("zeros", None, 0).state(own, generator).abs().max() == 0


def test_rows_are_the_formulas_on_two_runs() -> None:
    tiny = subject()
    params = StartsParams(**PARAMS, noise=(0.5,), random=False, draws=1, seed=4)
    frame = Experiment(TASK, tiny, params).run().frame
    assert len(frame) == TASK.cells(tiny, params) == 2 * 4
    view = max_loop_view(tiny.view(LOOP), {}, 3)
    ids = torch.tensor(tiny.tokenizer(TEXT)["input_ids"][:14])
    windows = [ids[None, :8], ids[None, 8:]]
    zero = frame[frame["start"] == "zeros"].set_index("loops")
    gaps, kls, same = [], [], []
    for rows in windows:
        own = states_from(view, rows)
        other = states_from(view, rows, lambda block, entry: torch.zeros_like(entry))
        gaps.append(((other[2] - own[2]).norm(dim=-1) / own[2].norm(dim=-1)).flatten())
        with torch.no_grad():
            p, q = (view.exit_lens(s[2][None])[0].log_softmax(-1) for s in (own, other))
        kls.append((p.exp() * (p - q)).sum(-1).flatten())
        same.append((p.argmax(-1) == q.argmax(-1)).flatten())
    row = zero.loc[2]
    assert row["distance"] == pytest.approx(torch.cat(gaps).mean().item(), rel=1e-4)
    assert row["worst"] == pytest.approx(torch.cat(gaps).max().item(), rel=1e-4)
    assert row["kl"] == pytest.approx(torch.cat(kls).mean().item(), abs=1e-4)
    assert row["same"] == pytest.approx(torch.cat(same).float().mean().item())
    assert zero.loc[0, "distance"] == 1
    assert zero["angle"].isna().tolist() == [True, False, False, False]


def test_a_run_from_its_own_start_is_at_no_distance() -> None:
    tiny = subject()
    frame = Experiment(TASK, tiny, StartsParams(**PARAMS, noise=(0.0,), random=False, zeros=False)).run().frame
    assert frame["distance"].max() == 0
    assert frame["kl"].max() == pytest.approx(0, abs=1e-6)
    assert frame["same"].min() == 1


def test_a_random_start_is_held_against_other_seeds_of_its_own() -> None:
    tiny = subject(loop_layers=(1, 2), loop_injection="add", loop_init="random", loop_init_std=0.5, loop_init_seed=7)
    params = StartsParams(**{**PARAMS, "loop": {}}, seeds=2, noise=(), random=False, zeros=False)
    frame = Experiment(TASK, tiny, params).run().frame
    assert len(frame) == TASK.cells(tiny, params) == 2 * 4
    assert set(zip(frame["start"], frame["draw"], strict=True)) == {("seed", 1), ("seed", 2)}
    ids = torch.tensor(tiny.tokenizer(TEXT)["input_ids"][:14])
    gaps = []
    for rows in (ids[None, :8], ids[None, 8:]):
        own, other = (states_from(max_loop_view(tiny.view({"loop_init_seed": seed}), {}, 3), rows) for seed in (7, 9))
        gaps.append(((other - own).norm(dim=-1) / own.norm(dim=-1)).flatten(1))
    expected = torch.cat(gaps, dim=1).mean(1).tolist()
    assert frame[frame["draw"] == 2]["distance"].to_list() == pytest.approx(expected, rel=1e-4)
    assert expected[0] > 1, "at first they have nothing in common"
    words = plot(frame, "en")
    assert [trace.name for trace in words.data] == ["its own start, seed + 1", "its own start, seed + 2"]


def test_noise_is_added_to_the_start_that_the_loop_has_itself() -> None:
    """It had been added to what enters the loop, which a loop that starts at random does not start from."""
    tiny = subject(loop_layers=(1, 2), loop_injection="add", loop_init="random", loop_init_std=0.5, loop_init_seed=7)
    params = StartsParams(**{**PARAMS, "loop": {}}, seeds=0, noise=(0.0, 0.25), draws=1, random=False, zeros=False)
    frame = Experiment(TASK, tiny, params).run().frame
    assert frame[frame["size"] == 0]["distance"].max() == 0
    assert frame[(frame["size"] == 0.25) & (frame["loops"] == 0)]["distance"].item() == pytest.approx(0.25, rel=0.2)


def test_a_loop_that_starts_at_zeros_is_held_against_other_starts_than_its_own() -> None:
    """Noise in units of an s_0 of zeros was none, so that all starts ended in one place."""
    tiny = subject(loop_layers=(1, 2), loop_injection="add", loop_init="zeros")
    params = StartsParams(**{**PARAMS, "loop": {}}, noise=(0.5,), draws=1)
    frame = Experiment(TASK, tiny, params).run().frame
    assert set(frame["start"]) == {"noise", "random"}
    assert frame[frame["loops"] == 1]["distance"].min() > 0
    with pytest.raises(ValueError, match="nothing to start from"):
        TASK.cells(tiny, StartsParams(**{**PARAMS, "loop": {}}, noise=(), random=False))


def test_other_seeds_alone_need_a_loop_that_starts_at_random() -> None:
    params = StartsParams(**PARAMS, noise=(), random=False, zeros=False)
    with pytest.raises(ValueError, match="nothing to start from"):
        TASK.cells(subject(), params)
    assert TASK.cells(subject(), StartsParams(**PARAMS, noise=(), random=False)) == 4, "zeros, and no seeds"


def test_draws_differ_and_the_seed_repeats_them() -> None:
    params = StartsParams(**PARAMS, noise=(0.1, 0.4), random=False, zeros=False)
    one, again = (Experiment(TASK, subject(), params).run().frame for _ in range(2))
    assert one.equals(again)
    at_0 = one[one["loops"] == 0]
    assert at_0["distance"].nunique() == 4
    small, large = (at_0[at_0["size"] == size]["distance"].to_numpy() for size in (0.1, 0.4))
    assert large == pytest.approx(4 * small, rel=1e-5), "the sizes share their draws"


def test_a_loop_without_injection_keeps_zeros_and_one_with_it_leaves_them() -> None:
    for injection, stays in (("none", True), ("add", False)):
        view = max_loop_view(subject().view({**LOOP, "loop_injection": injection}), {}, 2)
        ids = torch.tensor([[5, 6, 7]])
        states = states_from(view, ids, lambda block, entry: torch.zeros_like(entry))
        assert (states[2].abs().max() == 0) == stays
        assert view.model.loop_start is None


def test_compare_is_per_token() -> None:
    tiny = subject()
    view = max_loop_view(tiny.view(LOOP), {}, 1)
    own = torch.randn(2, 1, 3, 32)
    other = own.clone()
    other[1, 0, 2] *= 2
    found = compare(view, own, other)
    assert found["distance"].tolist() == [[0, 0, 0], [0, 0, pytest.approx(1)]]
    assert found["kl"].shape == (2, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise": (-1.0,)}, "noise=-1"),
        ({"loops": 0}, "loops=0"),
        ({"draws": 0}, "draws=0"),
        ({"seeds": -1}, "seeds=-1"),
        ({"noise": (), "zeros": False, "random": False, "seeds": 0}, "nothing to start from"),
    ],
)
def test_wrong_parameters_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StartsParams(**{**PARAMS, **wrong})


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_has_a_line_a_start_and_draw(lang: str) -> None:
    params = StartsParams(**{**PARAMS, "loops": 1}, noise=(0.5,))
    table = Experiment(TASK, subject(), params).run().frame
    figure = plot(table, lang)
    assert len(figure.data) == 5
    assert len({trace.name for trace in figure.data}) == 5
    assert list(figure.data[-1].y) == table[table["start"] == "zeros"]["distance"].to_list()
    assert not plot(table.iloc[:0], lang).data


def test_a_model_without_a_loop_is_refused_in_words_of_this_measurement():
    with pytest.raises(ValueError, match="0 looped blocks, and starts can be compared for exactly one") as refused:
        TASK.cells(subject(), StartsParams(text=TEXT))
    assert "exit" not in str(refused.value)
