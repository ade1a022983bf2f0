"""benchmarks/startup.py: ratios to what cannot be avoided."""

from __future__ import annotations

import ast
import os

import pytest

from benchmarks import startup


def visit(**values: float) -> dict[str, float]:
    return {"served": 2.0, "sight": 1.0, "drawn": 6.0, "ready": 9.0, "first": 0.6} | values


def test_ratios_are_of_the_medians() -> None:
    visits = [visit(), visit(drawn=8.0), visit(drawn=90.0)]
    alone = [
        {"empty": 4.0, "built": 6.0, "imports": 6.0, "step": 0.2},
        {"empty": 5.0, "built": 10.0, "imports": 7.5, "step": 0.2},
    ]
    found = {figure.name: figure for figure in startup.figures(visits, alone)}
    assert len(found) == len(startup.STEPS) + len(startup.LEAST) + len(startup.RATIOS)
    ratios = {base: found[f"{startup.STEPS[key]} / {startup.LEAST[base]}"] for key, base, _ in startup.RATIOS}
    assert ratios["empty"].value == pytest.approx(8.0 / 4.5)
    assert ratios["built"].value == pytest.approx(1.0)
    assert ratios["imports"].value == pytest.approx(9.0 / 6.75)
    assert ratios["step"].value == pytest.approx(3.0)
    assert found[startup.STEPS["drawn"]].measured == {"least": 6.0, "most": 90.0}


def test_the_engine_reads_the_pages_prompt_and_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1")
    )  # as set as it was when the test is over
    monkeypatch.setattr(startup, "ALONE", 3)
    once = startup.engine_alone(None)
    assert 0 < once() < 600


@pytest.mark.parametrize("code", [startup.EMPTY, startup.IMPORTS])
def test_what_cannot_be_avoided_is_nothing_of_ours(code: str) -> None:
    assert "loopviz" not in ast.unparse(ast.parse(code))
