"""The signed agreement, and what a coordinator may change of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from world import NOW, agreement, key, public

from appliance.core.errors import ConfigWrong, TrustRefused
from federated.description import PURPOSE, Federation, opened, parsed, successor, written

FEDERATION = agreement(5)
FILE = written(FEDERATION)


def changed(**what: Any) -> Federation:
    """The next version, with these fields."""
    return FEDERATION.model_copy(update={"version": 2} | what)


def test_what_is_written_is_read_again() -> None:
    assert parsed(FILE) == FEDERATION
    assert opened(FILE, key(0).sign(PURPOSE + FILE), public(0)) == FEDERATION


@pytest.mark.parametrize(
    ("content", "signer", "purpose", "asked"),
    [
        (FILE.replace(b"north", b"south"), 0, PURPOSE, 0),
        (FILE, 1, PURPOSE, 0),
        (FILE, 0, b"", 0),
        (FILE, 1, PURPOSE, 1),
    ],
    ids=["altered", "a site's signature", "signed for another purpose", "another coordinator"],
)
def test_who_else_signs_is_refused(content: bytes, signer: int, purpose: bytes, asked: int) -> None:
    signature = key(0).sign(PURPOSE + FILE) if content != FILE else key(signer).sign(purpose + FILE)
    with pytest.raises(TrustRefused):
        opened(content, signature, public(asked))


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        ({"secure": True, "rule": "median"}, "secure aggregation hides single updates"),
        ({"secure": True, "min_cohort": 2}, "at least 3"),
        ({"quorum": 2}, "quorum"),
        ({"rule": "krum", "quorum": 4}, "quorum"),
        ({"products": True, "server": "fedadam"}, "products"),
        ({"clip_bound": 0.0}, "clip_bound"),
        ({"clip_bound": float("inf")}, "clip_bound"),
        ({"trim": 0.5}, "trim"),
    ],
)
def test_settings_that_cannot_be_are_refused(rounds: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        agreement(5, **rounds)


def test_bad_files_are_refused_with_the_field() -> None:
    for content, words in (
        (FILE.replace(b"quorum = 3", b'quorum = "3"'), "rounds.quorum"),
        (FILE.replace(b"quorum = 3", b"quorums = 3"), "rounds.quorum"),
        (FILE.replace(b'name = "s2"', b'name = "S1"'), "two sites have the same name"),
        (FILE.replace(public(2).encode(), public(1).encode()), "two sites have the same key"),
        (b"[", "no federation.toml"),
        (b"\xff", "no federation.toml"),
        (b"a = 1\n" * 300_000, "longer"),
    ):
        assert content != FILE
        with pytest.raises(ConfigWrong, match=words):
            parsed(content)


def test_sites_and_the_end_may_change() -> None:
    left = [FEDERATION.sites[0].model_copy(update={"state": "left", "units": 50}), *FEDERATION.sites[1:]]
    successor(FEDERATION, changed(sites=left, ended=True, gateway="other:1"), NOW)
    successor(FEDERATION, changed(sites=agreement(6).sites), NOW)
    successor(FEDERATION, FEDERATION, NOW)


@pytest.mark.parametrize(
    "field",
    sorted(set(Federation.model_fields) - {"v", "version", "sites", "ended", "expires", "gateway"}),
)
def test_nothing_else_may(field: str) -> None:
    other = {
        "id": "2" * 64,
        "name": "other",
        "coordinator": "other",
        "coordinator_key": public(1),
        "created": NOW + timedelta(days=1),
        "model": FEDERATION.model.model_copy(update={"rank": 8}),
        "task": FEDERATION.task.model_copy(update={"labels": ["a"]}),
        "rounds": FEDERATION.rounds.model_copy(update={"min_cohort": 2}),
        "training": FEDERATION.training.model_copy(update={"epsilon": 9.0}),
        "code": FEDERATION.code.model_copy(update={"fab": "0" * 64}),
    }[field]
    with pytest.raises(TrustRefused, match=field):
        successor(FEDERATION, changed(**{field: other}), NOW)


def test_replays_twins_swapped_keys_and_the_end_are_refused() -> None:
    swapped = [FEDERATION.sites[0].model_copy(update={"x25519": "f" * 64}), *FEDERATION.sites[1:]]
    for new, now, words in (
        (FEDERATION, NOW + timedelta(days=91), "ended"),
        (FEDERATION.model_copy(update={"ended": True}), NOW, "two different versions"),
        (changed(sites=swapped), NOW, "keys of site s1"),
        (changed(sites=FEDERATION.sites[1:]), NOW, "keys of site s1"),
    ):
        with pytest.raises(TrustRefused, match=words):
            successor(FEDERATION, new, now)
    with pytest.raises(TrustRefused, match="older"):
        successor(changed(), FEDERATION, NOW)
