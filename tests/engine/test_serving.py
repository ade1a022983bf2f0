"""Where models run, as it is written; what a cluster is asked to serve."""

from __future__ import annotations

from typing import Any

import pytest

from loopviz.app.profile import profile_of
from loopviz.checks import FieldError
from loopviz.engine import address
from loopviz.engine.address import RayAddress, engine_address
from loopviz.engine.serving import Serving, serving


@pytest.fixture
def with_ray(monkeypatch: Any) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", None),
        (" ", None),
        ("ray://auto", RayAddress("auto")),
        ("ray://10.0.0.7:6379", RayAddress("10.0.0.7:6379")),
        ("ray://head.example.org:6379/class-7b", RayAddress("head.example.org:6379", "class-7b")),
        ("ray://[fe80::1]:6379", RayAddress("[fe80::1]:6379")),
        ("ray://auto/other", RayAddress("auto", "other")),
    ],
)
def test_an_address_is_read(with_ray: None, written: str, read: RayAddress | None) -> None:
    assert engine_address(written) == read
    assert read is None or engine_address(str(read)) == read


@pytest.mark.parametrize(
    "written", ["ray", "auto", "ray://", "ray://head", "http://a:1", "ray://a:1/b/c", "ray://a b:1", "ray://a:123456"]
)
def test_what_is_no_address_is_refused_by_name(with_ray: None, written: str) -> None:
    with pytest.raises(ValueError, match=r"LOOPVIZ_ENGINE='.*': must be ray://auto or ray://HOST:PORT"):
        profile_of("127.0.0.1", {"LOOPVIZ_ENGINE": written})


def test_without_ray_the_package_is_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"Ray is not installed; pip install -r requirements-ray.txt"):
        profile_of("127.0.0.1", {"LOOPVIZ_ENGINE": "ray://auto"})


def test_a_profile_has_it(with_ray: None) -> None:
    assert profile_of("127.0.0.1", {"LOOPVIZ_ENGINE": "ray://auto"}).engine == "ray://auto/loopviz"
    assert profile_of("127.0.0.1", {}).engine == ""


def test_arguments_are_read_from_a_command_line_and_from_a_file() -> None:
    words = {"models": "stories-loop, ./My Model", "replicas": "6", "cpus": "2", "precision": "half"}
    data = {"models": ["stories-loop", "./My Model"], "replicas": 6, "cpus": 2, "precision": "half"}
    wanted = Serving(("stories-loop", "./My Model"), replicas=6, cpus=2, precision="half")
    assert serving(words) == serving(data) == wanted
    assert wanted.deployments() == {"stories-loop": "stories-loop-0", "./My Model": "my-model-1"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "models: is missing"),
        ({"models": ""}, "models=.*: is missing"),
        ({"models": "a,,b"}, "models='a,,b': is missing"),
        ({"models": "a", "replicas": "many"}, "replicas='many': must be a whole number"),
        ({"models": "a", "replicas": "0"}, "replicas=0: must be a whole number from 1"),
        ({"models": "a", "least": "5"}, "least=5: must be a whole number from 0 to 4"),
        ({"models": "a", "precision": "coarse"}, "precision='coarse': must be one of"),
        ({"models": "a", "gpus": "1"}, "gpus='1': not a field; there are models, replicas, least, cpus, precision"),
    ],
)
def test_arguments_are_refused_by_name(args: dict[str, str], says: str) -> None:
    with pytest.raises(FieldError, match=says):
        serving(args)
