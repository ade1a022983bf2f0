"""Which limits a server has."""

from __future__ import annotations

import dataclasses

import pytest

from loopviz.app.profile import LOCAL, PROFILES, PUBLIC, profile_of


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


def test_an_unknown_profile_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="profile='open': no such profile; choose one of local, public"):
        profile_of("127.0.0.1", {}, "open")


def test_no_limit_of_a_public_server_is_wider_than_a_local_one_s() -> None:
    assert set(PROFILES) == {"local", "public"}
    for field in dataclasses.fields(LOCAL):
        one, other = getattr(LOCAL, field.name), getattr(PUBLIC, field.name)
        if isinstance(one, bool):
            assert one or not other, field.name
        elif field.name not in ("name", "named_models"):
            assert one is None or (other is not None and other <= one), field.name
