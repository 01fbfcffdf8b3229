"""What is wrong with an enrolment or a start is said on the terminal: who or what, why, what to do next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "federated"))
from enrol_support import Hospital, coordinator, hospital
from test_cli_federate import typed
from test_preflight import serving

from appliance.models import registry
from federated import preflight, standing
from tui.cli import app


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    return coordinator(tmp_path, monkeypatch)


def kit_of(hub: Hospital, site: Hospital, name: str = "", *more: str) -> Path:
    """The kit of a site, by the two commands."""
    request, kit = (site.home.path.parent / f"{site.name}.{what}" for what in ("request", "kit"))
    named = ("--site", name) if name else ()
    words = ("request", "north", "--dataset", "visits", *named, *more, "--to", str(request))
    asked = typed(site, *words)
    typed(hub, "approve", str(request), "--words", asked["words"], "--to", str(kit))
    return kit


def said(who: Hospital, *words: str) -> tuple[int, str]:
    """Exit code, and all that a person sees, as one line."""
    done = CliRunner().invoke(app, ["federate", *words, "--home", str(who.home.path)])
    return done.exit_code, " ".join(done.output.split())


def error(who: Hospital, *words: str) -> dict[str, Any]:
    """What a refused command says with --json."""
    done = CliRunner().invoke(app, ["federate", *words, "--json", "--home", str(who.home.path)])
    assert done.exit_code in (2, 3, 12), done.output
    import json

    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["error"]
    return found


def test_a_wrong_base(hub: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = hospital(tmp_path, "st-anna")
    kit = kit_of(hub, site)
    found = registry.intact(site.home, "demo-base")
    other = (found[0].__class__(**{**vars(found[0]), "sha256": "0" * 64}), *found[1:])
    monkeypatch.setattr(registry, "intact", lambda home, name: other)
    code, text = said(site, "join", str(kit), "--words", hub.words)
    assert code == 2 and standing.side(site.place) == "asked"
    assert "WRONG base: demo-base here has SHA-256 0000000000000000" in text
    assert "Import the agreed base, demo-base, or name it with --base." in text
    monkeypatch.undo()
    code, text = said(site, "join", str(kit), "--words", hub.words, "--base", "another")
    assert code == 2 and "WRONG base" in text and "--base demo-base" in text  # it is here, under its name


@pytest.mark.parametrize("package", ["cloister", "flwr"])
def test_mixed_versions(hub: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    site = hospital(tmp_path, "st-anna")
    kit = kit_of(hub, site)
    real = preflight.version
    monkeypatch.setattr(preflight, "version", lambda name: "9.9" if name == package else real(name))
    code, text = said(site, "join", str(kit), "--words", hub.words)
    assert code == 2 and standing.side(site.place) == "asked"
    assert f"WRONG version of {package}: 9.9 is installed here, {real(package)} was agreed on" in text
    assert f"Install {package} {real(package)} here, or agree anew on 9.9." in text
    assert not error(hub, "start", "north")["message"].startswith("sites")  # the coordinator's own too


def test_two_sites_of_one_name(hub: Hospital, tmp_path: Path) -> None:
    kit_of(hub, hospital(tmp_path / "a", "st-anna"))
    twin, request = hospital(tmp_path / "b", "St-Anna"), tmp_path / "r"
    asked = typed(twin, "request", "north", "--dataset", "visits", "--to", str(request))
    refused = error(hub, "approve", str(request), "--words", asked["words"], "--to", str(tmp_path / "k"))
    assert refused["message"] == "A site of north is called st-anna already."
    assert "federate request --again --site OTHER-NAME" in refused["hint"]
    assert [site.name for site in standing.agreed(hub.place).sites] == ["st-anna"]
    kit_of(hub, twin, "st-anna-2", "--again")
    assert len(standing.agreed(hub.place).sites) == 2


def test_a_kit_that_is_used_twice(hub: Hospital, tmp_path: Path) -> None:
    site, other = hospital(tmp_path, "st-anna"), hospital(tmp_path, "clara")
    kit = kit_of(hub, site)
    assert typed(site, "join", str(kit), "--words", hub.words)["joined"]
    again = error(site, "join", str(kit), "--words", hub.words)
    assert again["message"] == "This home has joined north already."
    assert "federate status north" in again["hint"]
    elsewhere = error(other, "join", str(kit), "--words", hub.words)
    assert "has not asked to be in north" in elsewhere["message"]
    assert "Use it where the request was made" in elsewhere["hint"]
    kit_of(hub, other)  # with keys of its own, the kit of another site still opens nothing
    elsewhere = error(other, "join", str(kit), "--words", hub.words)
    assert "made for other keys" in elsewhere["message"] and "newest kit" in elsewhere["hint"]
    assert standing.side(other.place) == "asked"


def test_a_stolen_kit_and_stolen_keys_are_revoked(hub: Hospital, tmp_path: Path) -> None:
    site = hospital(tmp_path, "st-anna")
    kit = kit_of(hub, site)
    typed(site, "join", str(kit), "--words", hub.words)
    code, text = said(hub, "drop", "north", "st-anna", "--revoked")
    assert code == 0 and "st-anna is revoked" in text and "--again --site NAME" in text
    request = site.home.path.parent / "st-anna.request"
    words = site.home.path.parent / "w"
    lost = error(hub, "approve", str(request), "--words", _words(request), "--to", str(words))
    assert "st-anna was approved with this request and is revoked." in lost["message"]
    assert "federate request --again --site OTHER-NAME" in lost["hint"] and not words.exists()
    with serving(hub):  # whoever has the keys is not let in, and is told to call
        code, text = said(site, "check", "north")
    assert code == 2 and "the gateway refuses this site" in text and "Call the coordinator." in text
    assert "revoked" in said(hub, "status", "north")[1]


def test_a_stranger_with_other_words(hub: Hospital, tmp_path: Path) -> None:
    site = hospital(tmp_path, "st-anna")
    kit = kit_of(hub, site)
    none = error(site, "join", str(kit))
    assert (
        "Nobody here has compared the coordinator's words." in none["message"] and "--words" in none["hint"]
    )
    wrong = error(site, "join", str(kit), "--words", site.words)
    assert "not the words of the coordinator of north" in wrong["message"] and "Do not join" in wrong["hint"]


def _words(request: Path) -> str:
    from federated import papers

    return papers.request_words(request.read_bytes())
