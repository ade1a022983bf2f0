"""`loopviz anatomy`: what it prints, what it needs first, and what it refuses in one line."""

from __future__ import annotations

import pytest
import torch

from loopviz.anatomy import families, llama, parity
from loopviz.cli import main
from tests.anatomy.test_parity import SMALL


def run(*arguments: object) -> int:
    return main.main(["anatomy", *map(str, arguments)])


@pytest.fixture
def small_article(monkeypatch: pytest.MonkeyPatch) -> None:
    """The article's configuration needs 3.4 GB."""
    article = parity.article
    monkeypatch.setattr(parity, "article", lambda: article(**SMALL))


@pytest.mark.usefixtures("small_article")
def test_a_check_prints_both_configurations_in_every_dtype(llama_folder, capfd):
    folder = str(llama_folder())
    assert run("check", "--model", folder, "--dtype", "float32,float64") == 0
    out, err = capfd.readouterr()
    rows = [line.split() for line in out.splitlines() if " eager " in line or " sdpa " in line]
    tables = [row for row in rows if row[-1] in ("yes", "no")]
    assert [row[-7:-5] for row in tables] == 2 * [
        ["float32", "eager"], ["float32", "sdpa"], ["float64", "eager"], ["float64", "sdpa"]
    ]  # fmt: skip
    assert "max |Δlogit|" in out
    assert "RoPE: score of a distance, anywhere" in out
    told = [line for line in err.splitlines() if "needs" in line]
    assert len(told) == 4
    assert all("GB of memory" in line and "parameters" in line and line.endswith(" s") for line in told)


def test_why_a_bit_differs_is_said_below_the_table(llama_folder, capfd):
    assert run("check", "--only", "model", "--model", llama_folder(), "--dtype", "float64") == 0
    out = capfd.readouterr().out
    assert "float64, eager: rounding: eager attention takes its softmax in float32 even here" in out


def test_a_prompt_is_read_instead_of_random_tokens(llama_folder, capfd):
    assert run("check", "--only", "model", "--model", llama_folder(), "--prompt", "Once upon a time") == 0
    assert ", prompt" in capfd.readouterr().out


def test_a_loop_that_is_not_run_is_told(capfd):
    assert run("check", "--only", "model", "--model", "glassbox") == 0
    assert "note: glassbox: its loop is not run; each layer runs once" in capfd.readouterr().err


def test_another_computation_ends_with_exit_code_1(llama_folder, capfd, monkeypatch):
    monkeypatch.setattr(llama, "repeat_kv", lambda x, times: x.repeat(1, times, 1, 1))
    assert run("check", "--only", "model", "--model", llama_folder(initializer_range=0.5)) == 1
    assert "the two do not compute the same" in capfd.readouterr().out


def test_memory_that_lacks_is_refused_before_any_model_is_loaded(capfd, monkeypatch):
    monkeypatch.setattr(parity, "available_memory", lambda: 10**9)
    assert run("check", "--model", "no such model", "--dtype", "bfloat16,float64") == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("loopviz: article, bfloat16: needs ")
    assert "1 GB are free" in err
    assert err.count("\n") == 1


def test_memory_that_lacks_in_a_later_dtype_is_refused_before_anything_is_computed(llama_folder, capfd, monkeypatch):
    folder = llama_folder()
    need = parity.memory

    def memory(subject, dtype):
        return 10**15 if dtype == torch.float64 else need(subject, dtype)

    monkeypatch.setattr(parity, "memory", memory)
    monkeypatch.setattr(parity, "compare", lambda *args: pytest.fail("computed"))
    assert run("check", "--only", "model", "--model", folder, "--dtype", "float32,float64") == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "float64: needs 1e+06 GB of memory" in err


def test_what_is_known_is_printed_where_a_later_dtype_fails(llama_folder, capfd, monkeypatch):
    right = parity.compare

    def compare(subject, dtype, device):
        if dtype == torch.float64:
            raise ValueError("no room is left")
        return right(subject, dtype, device)

    monkeypatch.setattr(parity, "compare", compare)
    assert run("check", "--only", "model", "--model", llama_folder(), "--dtype", "float32,float64") == 2
    out, err = capfd.readouterr()
    rows = [line.split() for line in out.splitlines() if " eager " in line or " sdpa " in line]
    assert [row[-7:-5] for row in rows if row[-1] in ("yes", "no")] == [["float32", "eager"], ["float32", "sdpa"]]
    assert err.splitlines()[-1] == "loopviz: no room is left"


@pytest.mark.parametrize(("kinds", "noted"), [("bfloat16,float32", True), ("float32", False)])
def test_that_half_precision_has_no_positions_is_said_in_a_line(kinds, noted, llama_folder, capfd):
    assert run("check", "--only", "model", "--model", llama_folder(), "--dtype", kinds) == 0
    out, err = capfd.readouterr()
    assert err.count("loopviz: note: no positions in bfloat16: only in float32 and float64\n") == noted
    assert "RoPE: score of a distance, anywhere" in out


def test_the_positions_that_are_looked_at_are_in_the_table(llama_folder, capfd):
    assert run("check", "--only", "model", "--model", llama_folder(max_position_embeddings=131_072)) == 0
    out = capfd.readouterr().out
    assert "positions up to" in out
    (line,) = (line for line in out.splitlines() if "RoPE: score of a distance" in line)
    assert " 8,191 " in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "--only", "article", "--prompt", "a"), "--prompt: no effect with --only article"),
        (("check", "--only", "model", "--model", "no such model"), "no such model"),
        (("check", "--only", "article", "--model", "glassbox"), "--model: no effect with --only article"),
        (("check", "--only", "model", "--prompt", ""), "prompt: empty; write at least one character"),
        (("check", "--only", "model", "--prompt", "\ud83d"), "prompt: half a surrogate pair at character 0"),
        (("check", "--only", "model", "--prompt", "a " * 300), "tokens, and the model's context is 256 tokens"),
        (("check", "--only", "model", "--model", "glassbox", "--prompt", "a"), "prompt: 1 token; must be at least 2"),
        (("check", "--threads", "0"), "--threads 0: must be at least 1"),
        (("check", "--device", "abacus"), "device='abacus'"),
        (("families", "--context", "0"), "context=0: must be a whole number"),
        (("families", "--context", str(10**400)), "10^400: must be a whole number from 1 to 1,000,000,000"),
        (("families", "--rank", "0"), "rank=0: must be a whole number"),
        (("families", "--rank", str(10**400)), "10^400: must be a whole number from 1 to 1,000,000"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_in_one_line(arguments, words, capfd):
    assert run(*arguments) == 2
    err = capfd.readouterr().err
    assert words in err
    assert err.splitlines()[-1].startswith("loopviz: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [(), ("look",), ("check", "--dtype", "int8"), ("check", "--only", "x")], ids=str)
def test_options_that_are_none_end_with_usage(arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert "usage: " in capfd.readouterr().err


def test_families_prints_every_size_with_its_source(capfd):
    assert run("families") == 0
    out = capfd.readouterr().out
    for size in families.SIZES.values():
        (line,) = (line for line in out.splitlines() if line.strip().startswith(f"{size.name} "))
        assert f"{families.parameters(size):,}" in line
        assert f"{families.kv_bytes(size):,}" in line
        assert size.source in out
        assert f" {'>= ' if size.name in ('Llama 3 8B', 'Llama 3 70B') else ''}{size.tokens / families.T:g} T " in line


def test_families_count_in_the_dtype_context_and_rank_that_are_given(capfd):
    assert run("families", "--dtype", "float32", "--context", "10", "--rank", "8") == 0
    (line,) = (line for line in capfd.readouterr().out.splitlines() if line.strip().startswith("LLaMA 7B  "))
    assert "1,048,576" in line  # bytes of keys and values a token
    assert f"{families.flops(families.SIZES['LLaMA 7B'], 10) / 1e9:.1f}" in line
    assert "1.28 MB" in line  # of ten places' logits
    assert "8,388,608" in line  # of LoRA
