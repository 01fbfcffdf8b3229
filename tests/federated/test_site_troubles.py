"""What keeps one site out while rounds run, with real processes: it is named on both sides, the others go on,
and when it is mended the site is back by itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import link_support as links
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from test_links import Hub, Site, started

from federated import pki
from tui.cli.federate_lines import event_line

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from moved_clock import Clock

pytestmark = pytest.mark.soak  # minutes; what each code comes from is in test_preflight.py
OTHERS = ("s1", "s2", "s3")


def until(true: Callable[[], object], what: str, seconds: float = 240.0) -> None:
    """Wait for something."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


@contextmanager
def everybody(
    coordinator: Hub, sites: dict[str, Site], fourth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[links.Side, links.Side]]:
    """All of four sites at work, with the environment of the fourth; gives its link and the coordinator's."""
    with ExitStack() as running:
        side = running.enter_context(coordinator.running())
        for name in OTHERS:
            running.enter_context(sites[name].running())
        with monkeypatch.context() as only:
            for name, value in fourth.items():
                only.setenv(name, value)
            own = running.enter_context(sites["s4"].running())
        yield side, own


def in_it(coordinator: Hub) -> None:
    """The fourth site is in a round that begins from now on."""
    after = coordinator.course.last()[0]

    def there() -> bool:
        last = coordinator.course.last()[0]
        return any(
            "s4" in record.updates
            for number in range(after + 1, last + 1)
            if (record := coordinator.record(number))
        )

    until(there, "the fourth is not back")


def others_go_on(coordinator: Hub) -> None:
    """A round is done without the fourth."""
    after = coordinator.course.last()[0]
    until(
        lambda: any(
            record and set(record.updates) == set(OTHERS)
            for record in map(coordinator.record, range(after + 1, coordinator.course.last()[0] + 1))
        ),
        "the others wait",
    )


def said(told: list[dict[str, object]], reason: str) -> str | None:
    """The line in which a side is told of a reason."""
    return next(
        (
            event_line({"event": "federation", **one})
            for one in reversed(told)
            if one["what"] == "refused" and one["reason"] == reason
        ),
        None,
    )


def test_a_clock_and_certificates_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(tmp_path)
    coordinator, sites = started(tmp_path, 4, count=1000, quorum=3, deadline_minutes=0.15)
    fourth = sites["s4"].told
    with everybody(coordinator, sites, clock.environment, monkeypatch) as (side, own):
        in_it(coordinator)

        clock.set(10)  # seconds ahead
        until(lambda: said(fourth, "clock-ahead"), "the site does not say why")
        until(lambda: said(coordinator.told, "clock-ahead"), "the coordinator does not say why")
        assert said(fourth, "clock-ahead") == (
            "refused: the site's clock is ahead of the coordinator's by more than 4 s; set the site's clock"
        )
        assert "refused s4: " in (said(coordinator.told, "clock-ahead") or "")
        others_go_on(coordinator)
        clock.set(0)
        in_it(coordinator)

        with swapped(tmp_path / "s4" / "pki" / "site.pem", expired(tmp_path, "s4")):
            links.kill_part(own, "federated.flower.sidecar")
            until(lambda: said(fourth, "expired"), "the site does not say why")
            others_go_on(coordinator)
        links.kill_part(own, "federated.flower.sidecar")
        in_it(coordinator)

        with swapped(tmp_path / "hub" / "pki" / "server.pem", expired(tmp_path, None)):
            links.kill_part(side, "federated.flower.gateway")
            for site in sites.values():
                until(lambda site=site: said(site.told, "gateway-expired"), f"{site.name} does not say why")
        links.kill_part(side, "federated.flower.gateway")
        in_it(coordinator)
        others = coordinator.course.last()[0]
    for number in range(1, others + 1):  # nothing that was committed is lost
        record = coordinator.record(number)
        assert record is not None and len(record.updates) >= 3


def expired(root: Path, site: str | None) -> bytes:
    """A certificate of the federation's own authority that ended an hour ago: of a site, or the gateway's."""
    authority = x509.load_pem_x509_certificate((root / "hub" / "pki" / "ca.crt").read_bytes())
    own = load_pem_private_key((root / "authority.key").read_bytes(), None)
    folder, name = (root / site, "site") if site else (root / "hub", "server")
    key = load_pem_private_key((folder / "pki" / f"{name}.key").read_bytes(), None)
    began = datetime.now(UTC) - timedelta(days=1, hours=1)
    if site:
        made = pki.site_certificate(authority, own, pki.request(key, site), site, now=began, days=1)
    else:
        made = pki.server_certificate(authority, own, key.public_key(), ["127.0.0.1"], now=began, days=1)
    return pki.pem(made)


@contextmanager
def swapped(path: Path, content: bytes) -> Iterator[None]:
    """A file with another content for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
