"""The preflight: each thing that can be wrong is found by its name, with its cause and the next step."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from enrol_support import Hospital, approved, coordinator, hospital

from appliance.core.errors import ConfigWrong
from federated import approve, calling, pki, preflight, rules, standing, words
from federated.description import Federation
from federated.flower import door, gateway
from federated.flower.relay import server_context
from federated.place import Place
from federated.preflight import Check

LATER = datetime.now(UTC) + timedelta(days=4000)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    return coordinator(tmp_path, monkeypatch)


@pytest.fixture
def site(tmp_path: Path, hub: Hospital) -> Hospital:
    made = hospital(tmp_path, "st-anna")
    made.join(approved(hub, made.request()).kit)
    return made


def of(site: Hospital, **changed: Any) -> dict[str, Check]:
    """The checks of a site by name; `changed` are parts of the agreement, or the base."""
    federation = standing.agreed(site.place)
    base, now = changed.pop("base", "demo-base"), changed.pop("now", None)
    federation = federation.model_copy(update=changed)
    found = preflight.of_site(site.home, site.place, federation, rules.kept(site.place), base, now=now)
    assert all(one.good or (one.cause and one.next) for one in found)
    return {one.name: one for one in found}


def part(federation: Federation, name: str, **changed: Any) -> dict[str, Any]:
    """A part of the agreement, changed."""
    return {name: getattr(federation, name).model_copy(update=changed)}


@contextmanager
def serving(hub: Hospital, *, offset: float = 0.0) -> Iterator[None]:
    """The real gateway on the agreed port, whose clock is `offset` seconds ahead; nothing behind it."""
    folder = hub.place.link
    door.make(folder)
    pki, up, over = folder / "pki", threading.Event(), threading.Event()
    port = int(standing.agreed(hub.place).gateway.rpartition(":")[2])

    async def serve() -> None:
        runner = web.AppRunner(gateway.application(folder, 1))
        await runner.setup()
        context = server_context(pki / "server.pem", pki / "server.key", pki / "ca.crt")
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        up.set()
        while not over.is_set():
            await asyncio.sleep(0.01)
        await runner.cleanup()

    held = gateway.time
    shifted = {"time": lambda: time.time() + offset, "monotonic": time.monotonic}
    gateway.time = SimpleNamespace(**shifted)  # type: ignore[assignment]
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(60)
        yield
    finally:
        gateway.time = held
        over.set()
        thread.join(10)


def test_a_site_in_order_with_a_real_gateway(hub: Hospital, site: Hospital) -> None:
    with serving(hub):
        found = of(site)
    assert [one.name for one in found.values() if not one.good] == []
    assert {"agreement", "app", "base", "dataset", "policy", "budget", "disk", "certificate"} <= set(found)
    assert {"gateway", "admission", "clock"} <= set(found)
    preflight.refuse(list(found.values()), "start")
    json.dumps([vars(one) for one in found.values()])  # data, for the screens


@pytest.mark.parametrize(("offset", "good"), [(-10.0, False), (10.0, True), (200.0, True), (400.0, False)])
def test_a_clock_that_flower_would_refuse_without_a_word(
    hub: Hospital, site: Hospital, offset: float, good: bool
) -> None:
    """The site 10 s ahead of the coordinator never activates, 200 s behind does, 400 s behind does not."""
    with serving(hub, offset=offset):
        clock = of(site)["clock"]
    assert clock.good is good
    assert ("behind" if offset > 0 else "ahead of") in (clock.found + clock.cause)


@pytest.mark.parametrize(
    ("offset", "code"), [(-10.0, "clock-ahead"), (10.0, None), (200.0, None), (400.0, "clock-behind")]
)
def test_while_rounds_run_the_link_is_told_of_the_clock_by_a_code(
    hub: Hospital, site: Hospital, offset: float, code: str | None
) -> None:
    with serving(hub, offset=offset):
        assert calling.trouble(site.place.pki, standing.agreed(site.place).gateway) == code
        assert code is None or "not known here" not in words.why(code)[0]


def test_while_rounds_run_the_link_is_told_why_there_is_no_gateway_by_a_code(
    hub: Hospital, site: Hospital
) -> None:
    own, address = site.place.pki, standing.agreed(site.place).gateway
    found = [calling.trouble(own, address)]
    with serving(hub):
        found += [calling.trouble(own, address.replace("127.0.0.1", "localhost"))]
        right = (own / "site.pem").read_bytes()
        (own / "site.pem").write_bytes(expired(own / "site.key", "st-anna"))
        found += [calling.trouble(own, address)]
        (own / "site.pem").write_bytes(right)
        approve.drop(hub.home, "north", "st-anna", state="dropped", who="ana")
        found += [calling.trouble(own, address)]
    server = hub.place.pki / "server.pem"
    server.write_bytes(expired(hub.place.pki / "server.key", None, root=hub.place))
    with serving(hub):
        found += [calling.trouble(own, address)]
    assert found == ["unreachable", "other-gateway", "expired", "not-in", "gateway-expired"]
    assert all("not known here" not in words.why(str(code))[0] for code in found)


def expired(key_file: Path, site: str | None, *, root: Place | None = None) -> bytes:
    """A certificate that ended an hour ago: a site's of any authority, or the gateway's of the real one."""
    key, began = load_pem_private_key(key_file.read_bytes(), None), datetime.now(UTC) - timedelta(hours=25)
    if root is None:
        own = pki.new_key()
        authority = pki.authority(own, "north", now=began, days=1)
        return pki.pem(pki.site_certificate(authority, own, pki.request(key, site), site, now=began, days=1))
    authority = x509.load_pem_x509_certificate((root.pki / "ca.crt").read_bytes())
    own = load_pem_private_key(root.authority_key.read_bytes(), None)
    return pki.pem(pki.server_certificate(authority, own, key.public_key(), ["127.0.0.1"], now=began, days=1))


def test_a_coordinator_that_is_not_there_stops_the_start_and_not_the_joining(site: Hospital) -> None:
    found = list(of(site).values())
    assert [one.name for one in found if not one.good] == ["gateway"]
    preflight.refuse(found, "join")
    with pytest.raises(ConfigWrong) as problem:
        preflight.refuse(found, "start")
    assert "not reachable" in problem.value.message and problem.value.hint


def test_a_dropped_site_is_not_let_in(hub: Hospital, site: Hospital) -> None:
    approve.drop(hub.home, "north", "st-anna", state="dropped", who="ana")
    with serving(hub):
        found = of(site)
    assert found["gateway"].good and not found["admission"].good


def test_a_gateway_with_another_authority_or_name(hub: Hospital, site: Hospital, tmp_path: Path) -> None:
    named = standing.agreed(site.place).gateway.replace("127.0.0.1", "localhost")
    with serving(hub):
        assert "not for localhost" in of(site, gateway=named)["gateway"].cause
        (site.place.pki / "ca.crt").write_bytes((site.place.pki / "loopback-ca.crt").read_bytes())
        found = of(site)
    assert "no certificate of this federation's authority" in found["gateway"].cause
    assert "not of this federation's authority" in found["certificate"].cause


def test_certificates_expire_and_belong_to_one_site(site: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    found = of(site, now=LATER)
    assert "expired on" in found["certificate"].cause
    assert "ended on" in found["agreement"].cause
    assert "look at the clock" in of(site, now=LATER - timedelta(days=8000))["certificate"].cause
    standing.note(site.place, standing.Own(site="other", dataset="visits"))
    assert "not for other" in of(site)["certificate"].cause
    assert "not in the agreement" in of(site)["seat"].cause
    (site.place.pki / "site.pem").unlink()
    assert "not there" in of(site)["certificate"].cause


def test_wrong_base_and_mixed_versions(site: Hospital) -> None:
    federation = standing.agreed(site.place)
    assert "was agreed on" in of(site, **part(federation, "model", sha256="0" * 64))["base"].cause
    missing = of(site, base="llama")["base"]
    assert not missing.good and "--base demo-base" in missing.next
    changed = part(federation, "code", flwr="1.40.0", cloister="9", fab="0" * 64)
    found = of(site, **changed)
    bad = {"version of flwr", "version of cloister", "app", "gateway"}
    assert {name for name, one in found.items() if not one.good} == bad
    assert "1.40.0 was agreed on" in found["version of flwr"].cause


def test_records_and_rules_that_do_not_fit(site: Hospital, tmp_path: Path) -> None:
    federation = standing.agreed(site.place)
    task = part(federation, "task", labels=["a", "c"])
    assert "another task" in of(site, **task)["dataset"].cause
    dear = part(federation, "training", epsilon=9.0)
    assert "more epsilon" in of(site, **dear)["policy"].cause
    loose = part(federation, "training", delta=0.005)
    assert "not below 1/240" in of(site, **loose)["budget"].cause
    assert "another unit" in of(site, **part(federation, "training", unit="record"))["policy"].cause
    fewer = [one.model_copy(update={"units": 10}) for one in federation.sites]
    assert "enrolled with 10 and has 240" in of(site, sites=fewer)["seat"].cause


def test_too_few_patients_are_found_before_the_start(hub: Hospital, tmp_path: Path) -> None:
    small = hospital(tmp_path, "small", records=40)
    small.join(approved(hub, small.request()).kit)
    assert "too few to train" in of(small)["plan"].cause


def test_a_full_disk(site: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10 << 20})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    assert "are needed" in of(site)["disk"].cause


def test_a_coordinator_in_order_and_not(hub: Hospital, site: Hospital) -> None:
    federation = standing.agreed(hub.place)
    port = int(federation.gateway.rpartition(":")[2])

    def found(**changed: Any) -> dict[str, Check]:
        made = preflight.of_coordinator(hub.home, hub.place, federation.model_copy(update=changed), port)
        return {one.name: one for one in made}

    assert [one.name for one in found().values() if not one.good] == ["sites"]
    with serving(hub):
        assert "cannot be had" in found()["port"].cause
    assert "not for other.example" in found(gateway="other.example:1")["certificate"].cause
