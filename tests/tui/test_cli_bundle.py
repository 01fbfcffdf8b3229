"""cloister bundle and trust: a model from one site to another, by the commands alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import supply_support as supply

from appliance.core.db import transaction
from appliance.core.files import sha256_file, write_json
from appliance.core.home import Home, open_home
from appliance.models import importing, registry
from appliance.models.importing import DEMO_BASE
from appliance.models.registry import Model
from appliance.security.passphrase import Cost
from quantize.convert import convert
from quantize.source import open_checkpoint
from tui.cli.entry import run

_OWN = ("error", "try", "Written: ", "  /")  # lines as long as what a person named
SECRET = "planted-secret-4711"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "demo.gguf"
    convert(open_checkpoint(DEMO_BASE), path, "F16", name="demo")
    return path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    def said(home: Path, *words: object, code: int = 0) -> tuple[dict[str, Any], str]:
        """The JSON object and what people read."""
        assert run([*map(str, words), "--home", str(home), "--json"]) == code, capsys.readouterr()
        out, err = capsys.readouterr()
        assert [line for line in err.splitlines() if len(line) > 80 and not line.startswith(_OWN)] == []
        return json.loads(out), err

    return said


def tuned(home: Home, gguf: Path) -> Model:
    """A GGUF file made from a private adapter, with its proof and report, as the jobs leave them."""
    base = importing.import_base(home, DEMO_BASE, "demo-base", who="test")
    adapter = Model(
        name="lora-0007",
        kind="adapter",
        path=home.models / "lora-0007",
        sha256="a" * 64,
        size=1,
        job="0007",
        parent=base.name,
        dataset="notes@1",
        facts={
            "privacy": {
                "unit": "patient",
                "epsilon": 3.1,
                "delta": 1e-5,
                "accountant": "pld",
                "not_protected": [],
            },
            "secrets": [SECRET],
            "training": {"curves": str(home.path / "curves.json")},
        },
    )
    registry.add(home, adapter, who="test")
    path = home.models / "lora-0007-F16" / "lora-0007-F16.gguf"
    path.parent.mkdir()
    path.write_bytes(gguf.read_bytes())
    write_json(path.with_name("lora-0007-F16.proof.json"), {"format": 1, "proof": {"verdict": "PASS"}})
    report = home.reports / "0009.html"
    write_json(
        report.with_suffix(".json"),
        {
            "format": 1,
            "job": "0009",
            "html": str(report),
            "dataset": {"title": "notes@1"},
            "models": [{"name": "lora-0007-F16", "passed": True, "accuracy": 0.75}, {"name": SECRET}],
            "gates": [],
        },
    )
    made = registry.add(
        home,
        Model(
            name="lora-0007-F16",
            kind="gguf",
            path=path,
            sha256=sha256_file(path),
            size=path.stat().st_size,
            parent="lora-0007",
            facts={"type": "F16", "proof_file": "lora-0007-F16.proof.json"},
        ),
        who="test",
    )
    with transaction(home) as link:
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path)"
            " VALUES (?, 'notes@1', '2026', '9', 1, ?)",
            (made.name, str(report)),
        )
    return made


def test_a_model_goes_from_site_to_edge(
    tmp_path: Path, gguf: Path, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, edge, third = tmp_path / "site", tmp_path / "edge", tmp_path / "third"
    monkeypatch.chdir(tmp_path)
    model = tuned(open_home(site), gguf)
    made, _ = say(site, "trust", "init", "centre", "--role", "release")
    assert (site / "keys" / "identity.json").stat().st_mode & 0o777 == 0o600
    say(site, "trust", "init", "again", code=2)
    say(edge, "trust", "init", "edge-12", "--role", "edge")
    say(third, "trust", "init", "third")
    for home, name in ((site, "centre"), (edge, "edge-12"), (third, "third")):
        say(home, "trust", "card", "--to", tmp_path / f"{name}.card")
    words = say(edge, "trust", "card")[0]["words"]
    by = ("--compared-by", "mira", "--compared-by", "joe")
    say(site, "trust", "add", "edge-12.card", "--words", made["words"], *by, code=12)
    say(site, "trust", "add", "edge-12.card", "--words", words, "--compared-by", "mira", code=12)
    say(site, "trust", "add", "edge-12.card", "--words", words, *by)
    shown, told = say(site, "trust", "show")
    assert [one["name"] for one in shown["signers"]] == ["edge-12"] and words in told

    # What would leave is shown first; one person's site asks nobody else (test_cli_sealed_site.py has two).
    export = ("bundle", "export", model.name, "--to", "edge-12", "--out", "x.clb", "--expires", "30d")
    asked, told = say(site, "bundle", "request", model.name, "--to", "edge-12", "--expires", "30d")
    assert "Not protected:" in told and asked["request"] in told
    assert "eps 3.1 at delta 1e-05 for one patient" in told and not Path("x.clb").exists()
    say(site, "bundle", "request", model.name, "--to", "nobody", code=3)
    sent, _ = say(site, *export)
    assert sent["seq"] == 1 and Path("x.clb").stat().st_size == sent["size"]

    # The receiver does not know the sender yet; anybody else cannot open it.
    refused, _ = say(edge, "bundle", "verify", "x.clb", code=12)
    assert refused["error"]["code"] == "bundle-stranger" and made["words"] in refused["error"]["message"]
    assert say(third, "bundle", "show", "x.clb", code=12)[0]["error"]["code"] == "bundle-other-recipient"
    found, told = say(edge, "bundle", "verify", "x.clb", "--signer", "centre.card")
    assert found["verified"] and found["signer"] == "centre" and "GOOD" in told and made["words"] in told
    say(edge, "trust", "add", "centre.card", "--words", made["words"], *by)
    names = [one["path"] for one in say(edge, "bundle", "show", "x.clb")[0]["files"]]
    assert names == [
        *("lora-0007-F16.gguf", "proof.json", "reports/evaluation.json", "privacy.json", "lineage.json"),
        *(f"licence/{name}" for name in ("CARD.md",)),
    ]
    got, _ = say(edge, "bundle", "import", "x.clb")
    assert got["name"] == "lora-0007-F16" and got["eval"]["gate"] == "PASS"
    home = open_home(edge)
    entry = registry.get(home, "lora-0007-F16")
    assert entry.path.read_bytes() == gguf.read_bytes() and entry.facts["bundle"]["signer"] == "centre"
    assert entry.path.stat().st_nlink == 1, "so that it can be sent on"
    folder = home.bundles / got["digest"]
    inside = b"".join(file.read_bytes() for file in folder.rglob("*.json"))
    assert SECRET.encode() not in inside and str(site).encode() not in inside
    from appliance.serve.chosen import choose

    assert choose(home, "lora-0007-F16", gated=True).name == "lora-0007-F16", (
        "it passed its gate where it was made"
    )
    assert say(edge, "bundle", "import", "x.clb", code=12)[0]["error"]["code"] == "bundle-replayed"

    # Revoked is revoked.
    say(edge, "trust", "revoke", "centre")
    sent, _ = say(site, *export)
    assert say(edge, "bundle", "verify", "x.clb", code=12)[0]["error"]["code"] == "bundle-revoked"


def test_verify_needs_keys_and_no_database(tmp_path: Path, say: Any, home: Home) -> None:
    say(home.path, "trust", "init", "edge-12", "--role", "edge")
    bare = tmp_path / "bare"
    (bare / "keys").mkdir(parents=True)
    (bare / "keys" / "identity.json").write_bytes(home.identity.read_bytes())
    (tmp_path / "x.clb").write_bytes(b"CLOISTER-B9\n")
    refused, _ = say(bare, "bundle", "verify", tmp_path / "x.clb", code=12)
    assert refused["error"]["code"] == "bundle-newer-format"
    assert [one.name for one in bare.iterdir()] == ["keys"], "nothing is made"
    assert (
        say(tmp_path / "none", "bundle", "verify", tmp_path / "x.clb", code=3)[0]["error"]["code"]
        == "not-found"
    )


def test_an_offline_root_vouches_for_signers(
    tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tui.session_root.calibrated", Cost)
    site, edge = tmp_path / "site", tmp_path / "edge"
    say(site, "trust", "init", "centre", "--role", "release")
    say(site, "trust", "card", "--to", tmp_path / "centre.card")
    file = ("--passphrase-file", phrase(tmp_path))
    keys = [say(site, "trust", "root", "key", "--to", f"root{n}.key", *file)[0]["key"] for n in range(3)]
    say(site, "trust", "root", "key", "--to", "root0.key", *file, code=2)
    given = [part for key in keys for part in ("--key", key)]
    draft, _ = say(site, "trust", "root", "draft", "--to", "trust.json", "--card", "centre.card", *given)
    by = ("--words", draft["words"], "--compared-by", "mira", "--compared-by", "joe")
    say(site, "trust", "root", "sign", "trust.json", "--key", "root0.key", *file)
    say(edge, "trust", "root", "accept", "trust.json", *by, code=12)
    say(site, "trust", "root", "sign", "trust.json", "--key", "root2.key", *file)
    say(edge, "trust", "root", "accept", "trust.json", code=12)
    taken, told = say(edge, "trust", "root", "accept", "trust.json", *by)
    assert (taken["version"], taken["signed_by"]) == (1, 2) and "centre (release)" in told
    shown, _ = say(edge, "trust", "show")
    assert shown["signers"][0]["vouched"] == "root, version 1"
    again = ("--after", "trust.json", "--to", "next.json", "--revoke", say(site, "trust", "card")[0]["key"])
    say(site, "trust", "root", "draft", *again)
    for n in (1, 2):
        say(site, "trust", "root", "sign", "next.json", "--key", f"root{n}.key", *file)
    assert say(edge, "trust", "root", "accept", "next.json")[0]["version"] == 2
    assert say(edge, "trust", "show")[0]["signers"] == []


def phrase(folder: Path, words: str = "four quiet words of a root") -> Path:
    """A file with a passphrase, for this account alone."""
    path = folder / "phrase.txt"
    path.write_text(words + "\n")
    path.chmod(0o600)
    return path


def test_a_root_key_is_never_plain(tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tui.session_root.calibrated", Cost)
    site, file = tmp_path / "site", ("--passphrase-file", phrase(tmp_path))
    say(site, "trust", "init", "centre", "--role", "release")
    say(site, "trust", "card", "--to", tmp_path / "centre.card")
    assert say(site, "trust", "root", "key", "--to", "x.key", code=2)[0]["error"]["code"] == "config-wrong"
    assert not Path("x.key").exists(), "nobody gave a passphrase"
    short = tmp_path / "short.txt"
    short.write_text("short\n")
    short.chmod(0o600)
    say(site, "trust", "root", "key", "--to", "x.key", "--passphrase-file", short, code=2)
    keys = [say(site, "trust", "root", "key", "--to", f"{n}.key", *file)[0]["key"] for n in range(3)]
    assert Path("0.key").stat().st_mode & 0o777 == 0o600
    seed = "07" * 32
    Path("plain.key").write_text(seed + "\n")
    given = [part for key in keys for part in ("--key", key)]
    say(site, "trust", "root", "draft", "--to", "t.json", "--card", "centre.card", *given)
    before = Path("t.json").read_bytes()
    sign = ("trust", "root", "sign", "t.json", "--key")
    refused, _ = say(site, *sign, "plain.key", *file, code=2)
    assert "lies there plain" in refused["error"]["message"] and "root seal" in refused["error"]["hint"]
    phrase(tmp_path, "four other words of nobody")
    assert say(site, *sign, "0.key", *file, code=13)[0]["error"]["code"] == "not-allowed"
    altered = json.loads(Path("0.key").read_text())
    altered["public"] = keys[1]
    Path("bad.key").write_text(json.dumps(altered, sort_keys=True, separators=(",", ":")) + "\n")
    phrase(tmp_path)
    say(site, *sign, "bad.key", *file, code=13)
    assert Path("t.json").read_bytes() == before
    say(site, "trust", "root", "seal", "plain.key", *file)
    assert seed not in Path("plain.key").read_text()
    say(site, "trust", "root", "seal", "plain.key", *file, code=2)
    assert say(site, *sign, "0.key", *file)[0]["signed_by"] == 1


def test_root_keys_are_replaced_by_old_and_new(
    tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tui.session_root.calibrated", Cost)
    site, file = tmp_path / "site", ("--passphrase-file", phrase(tmp_path))
    say(site, "trust", "init", "centre", "--role", "release")
    say(site, "trust", "card", "--to", "centre.card")
    keys = [say(site, "trust", "root", "key", "--to", f"{n}.key", *file)[0]["key"] for n in range(5)]
    first = [part for key in keys[:3] for part in ("--key", key)]
    draft, _ = say(site, "trust", "root", "draft", "--to", "t1.json", "--card", "centre.card", *first)
    for n in (0, 1):
        say(site, "trust", "root", "sign", "t1.json", "--key", f"{n}.key", *file)
    by = ("--words", draft["words"], "--compared-by", "mira", "--compared-by", "joe")
    say(site, "trust", "root", "accept", "t1.json", *by)
    new = [part for key in keys[2:] for part in ("--key", key)]
    made, told = say(site, "trust", "rotate", "root", "--after", "t1.json", "--to", "t2.json", *new)
    assert made["version"] == 2 and [one["name"] for one in made["signers"]] == ["centre"]
    assert "2 of the old root keys and 2 of the new ones" in " ".join(told.split())
    for n in (3, 4):
        say(site, "trust", "root", "sign", "t2.json", "--key", f"{n}.key", *file)
    say(site, "trust", "root", "accept", "t2.json", code=12)  # the old ones did not agree
    for n in (0, 1):
        say(site, "trust", "root", "sign", "t2.json", "--key", f"{n}.key", *file)
    assert say(site, "trust", "root", "accept", "t2.json")[0]["roots"] == sorted(keys[2:])


def test_a_span_is_no_date(tmp_path: Path, say: Any) -> None:
    for wrong in ("2030-12-31", "500d", "never"):
        say(
            tmp_path / "h",
            "bundle",
            "request",
            "x",
            "--to",
            "y",
            "--expires",
            wrong,
            code=3 if wrong == "500d" else 2,
        )


def test_a_wheelhouse_goes_from_site_to_edge(
    tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    site, edge, house = tmp_path / "site", tmp_path / "edge", supply.make_wheelhouse(tmp_path / "house")
    words = say(site, "trust", "init", "centre", "--role", "release")[0]["words"]
    theirs = say(edge, "trust", "init", "edge-12", "--role", "edge")[0]["words"]
    say(site, "trust", "card", "--to", "centre.card")
    say(edge, "trust", "card", "--to", "edge.card")
    by = ("--compared-by", "mira", "--compared-by", "joe")
    say(site, "trust", "add", "edge.card", "--words", theirs, *by)
    say(edge, "trust", "add", "centre.card", "--words", words, *by)
    send = ("bundle", "export", "--to", "edge-12", "--wheelhouse", house)
    say(site, "bundle", "export", "--to", "edge-12", code=2)
    say(site, *send, "lora-0007", code=2)
    say(site, "bundle", "request", "--to", "edge-12", "--wheelhouse", tmp_path, code=4)
    sent, told = say(site, *send)
    assert sent["kind"] == "wheelhouse" and "wheels/cloister-0.0.1-py3-none-any.whl"[:40] in told
    assert say(edge, "bundle", "verify", sent["path"])[0]["kind"] == "wheelhouse"
    got, told = say(edge, "bundle", "import", sent["path"])
    assert Path(got["path"], "install.sh").is_file() and "sh install.sh DIR" in told
