"""What models take with them, and what is made of bundles that came in, after a crash too."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundle_support as b
import pytest

from appliance.core.db import reading
from appliance.core.errors import BundleRefused, ConfigWrong, ModelRejected, TrustRefused
from appliance.core.files import sha256_folder
from appliance.core.home import Home
from appliance.models import registry
from appliance.models.registry import Model
from appliance.ops import receiving
from appliance.ops.exporting import gather
from appliance.security.bundle.writing import bytes_source
from appliance.security.trust import store


@pytest.fixture(autouse=True)
def _their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of tests are made at b.NOW; the sites' clocks say the same."""
    monkeypatch.setattr("time.time", lambda: float(b.NOW))
    monkeypatch.setattr("appliance.security.trust.clock.last_entries", lambda *parts: 0)


def checked(path: Path) -> dict[str, Any]:
    """A check that takes whatever begins as GGUF does and does not say BAD."""
    if b"BAD" in path.read_bytes():
        raise ModelRejected("This is no model.", "Ask its maker.")
    return {"type": "Q4_K_M"}


def bring(home: Home, path: Path, **rest: Any) -> str:
    return receiving.receive(home, path, identity=b.EDGE, check_gguf=checked, who="joe", **rest)[1]


def rows(home: Home) -> list[Any]:
    with reading(home) as link:
        return [row["entered"] for row in link.execute("SELECT entered FROM bundles_in ORDER BY seq")]


def test_an_unsound_model_is_not_entered_and_its_bundle_stays(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    bad = b.bundle(tmp_path / "bad.clb", b.contents(b"GGUF BAD", b"{}"))
    for _ in range(2):
        with pytest.raises(ModelRejected):
            bring(home, bad.path)
    assert registry.models(home) == [] and rows(home) == [None]
    twice = [bytes_source(b"GGUF", f"{n}.gguf", "") for n in range(2)]
    with pytest.raises(ModelRejected):
        bring(home, b.bundle(tmp_path / "two.clb", twice, seq=2).path)


def test_a_crash_before_it_is_entered_is_gone_on_from(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the rename into the registry's folder, after the registry's entry, after the unlink."""
    b.pinned(home)
    whole = (receiving.importing.entered, receiving._keep_report, registry.add)
    for seq, place in enumerate(("entered", "report", "add"), 1):
        path = b.bundle(tmp_path / f"{seq}.clb", b.contents(b"GGUF %d" % seq, b"{}"), seq=seq).path

        def die(*parts: Any, **rest: Any) -> None:
            raise KeyboardInterrupt

        spot = {"entered": (receiving.importing, "entered"), "report": (receiving, "_keep_report")}
        monkeypatch.setattr(*spot.get(place, (registry, "add")), die)
        with pytest.raises(KeyboardInterrupt):
            bring(home, path, name=f"m{seq}")
        for (module, name), old in zip((*spot.values(), (registry, "add")), whole, strict=True):
            monkeypatch.setattr(module, name, old)
        assert rows(home)[-1] is None
        assert bring(home, path, name=f"m{seq}") == f"m{seq}" == rows(home)[-1]
        entry = registry.get(home, f"m{seq}")
        assert entry.path.read_bytes() == b"GGUF %d" % seq
        assert sorted(file.name for file in entry.path.parent.iterdir()) == [f"m{seq}.gguf"]
        with pytest.raises(BundleRefused):
            bring(home, path)


def safetensors() -> bytes:
    header = json.dumps({"lora_A": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def adapter(*, code: bool = False, weights: bytes = b"") -> list[Any]:
    config = {"peft_type": "LORA", "auto_mapping": {"base_model_class": "x"} if code else None}
    return [
        bytes_source(weights or safetensors(), "adapter_model.safetensors", "adapter"),
        bytes_source(json.dumps(config).encode(), "adapter_config.json", "adapter"),
    ]


def test_an_adapter_comes_to_its_base_alone(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    facts = b.changed(b.FACTS, kind="adapter", form="adapter", base_model_digest="c" * 64)
    path = b.bundle(tmp_path / "1.clb", adapter(), facts=facts).path
    with pytest.raises(ModelRejected, match="base"):
        bring(home, path)
    base = Model(name="clinic", kind="base", path=tmp_path, sha256="c" * 64, size=1)
    registry.add(home, base, who="test")
    assert bring(home, path) == "lora-0007-Q4_K_M"
    entry = registry.get(home, "lora-0007-Q4_K_M")
    assert (entry.kind, entry.parent) == ("adapter", "clinic")
    assert {file.name for file in entry.path.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    for seq, wrong in enumerate((adapter(code=True), adapter(weights=b"\xff" * 40)), 2):
        with pytest.raises(ModelRejected):
            bring(home, b.bundle(tmp_path / f"{seq}.clb", wrong, facts=facts, seq=seq).path, name=f"a{seq}")


def test_an_adapter_without_a_sound_config_is_refused(home: Home, tmp_path: Path) -> None:
    b.pinned(home)
    registry.add(home, Model(name="clinic", kind="base", path=tmp_path, sha256="c" * 64, size=1), who="test")
    facts = b.changed(b.FACTS, kind="adapter", form="adapter", base_model_digest="c" * 64)
    weights = adapter()[:1]
    for seq, config in enumerate((None, b"{", b"\xff", b"[" * 100_000), 1):
        more = [] if config is None else [bytes_source(config, "adapter_config.json", "adapter")]
        path = b.bundle(tmp_path / f"{seq}.clb", [*weights, *more], facts=facts, seq=seq).path
        with pytest.raises(ModelRejected, match="adapter_config"):
            bring(home, path)
    elsewhere = [bytes_source(safetensors(), "model.safetensors", "adapter"), *adapter()[1:]]
    with pytest.raises(ModelRejected, match="no adapter_model"):
        bring(home, b.bundle(tmp_path / "e.clb", elsewhere, facts=facts, seq=9).path)


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_files_exchanged_after_a_crash_are_not_taken_for_the_signed_ones(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    b.pinned(home)
    registry.add(home, Model(name="clinic", kind="base", path=tmp_path, sha256="c" * 64, size=1), who="test")
    facts = b.changed(b.FACTS, kind=kind, base_model_digest="c" * 64)
    sources = adapter() if kind == "adapter" else b.contents(b"GGUF 1", b"{}")
    bundle = b.bundle(tmp_path / "1.clb", sources, facts=facts)

    def die(*parts: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(receiving, "_model" if kind == "model" else "_adapter", die)
        bring(home, bundle.path)
    file = next((home.bundles / bundle.digest).rglob("*.gguf" if kind == "model" else "*.safetensors"))
    file.write_bytes(b"GGUF 2" if kind == "model" else safetensors()[:-1] + b"\1")
    with pytest.raises(ModelRejected, match="not what was signed"):
        bring(home, bundle.path)
    assert [one.name for one in registry.models(home)] == ["clinic"]


def test_an_adapter_whose_files_were_exchanged_does_not_leave(home: Home, tmp_path: Path) -> None:
    """What it is said to be (its privacy above all) is that of the files that were entered."""
    folder = tmp_path / "lora-1"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(safetensors())
    (folder / "adapter_config.json").write_bytes(b"{}")
    base = Model(name="clinic", kind="base", path=tmp_path, sha256="c" * 64, size=1)
    entry = Model(
        name="lora-1", kind="adapter", path=folder, sha256=sha256_folder(folder), size=1, parent="clinic"
    )
    for model in (base, entry):
        registry.add(home, model, who="test")
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {
        source.entry.path for source in gather(home, "lora-1")[0]
    }
    (folder / "rows.json").write_bytes(b"[]")
    with pytest.raises(ModelRejected, match="not those that were entered"):
        gather(home, "lora-1")
    (folder / "rows.json").unlink()
    (folder / "adapter_config.json").write_bytes(b'{"rows": []}')
    with pytest.raises(ModelRejected, match="not those that were entered"):
        gather(home, "lora-1")


def test_a_bundle_of_trust_still_needs_the_root_keys(home: Home, tmp_path: Path) -> None:
    from test_security_trust import accept, document

    b.pinned(home)
    accept(home, document())
    facts = b.changed(b.FACTS, kind="trust", name="trust", privacy=None)
    for seq, (content, taken) in enumerate(((document(2, signed=(0,)), 1), (document(2), 2)), 1):
        path = b.bundle(
            tmp_path / f"{seq}.clb", [bytes_source(content, "trust.json", "")], facts=facts, seq=seq
        ).path
        if taken == 1:
            with pytest.raises(TrustRefused):
                bring(home, path)
        else:
            assert bring(home, path) == "trust version 2"
        assert store.root(home).version == taken  # type: ignore[union-attr]


def test_a_whole_checkpoint_is_not_gathered(home: Home, tmp_path: Path) -> None:
    registry.add(home, Model(name="clinic", kind="base", path=tmp_path, sha256="c" * 64, size=1), who="test")
    with pytest.raises(ConfigWrong):
        gather(home, "clinic")


def test_what_was_trained_without_privacy_says_so(home: Home, tmp_path: Path) -> None:
    for name, kind, parent in (("base", "base", None), ("lora", "adapter", "base"), ("q4", "gguf", "lora")):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(b"GGUF")
        model = Model(
            name=name, kind=kind, path=path, sha256="d" * 64, size=4, parent=parent, facts={"privacy": None}
        )
        registry.add(home, model, who="test")
    sources, facts = gather(home, "q4")
    assert facts.privacy == {"unit": "", "eps": "", "delta": "", "accountant": "", "events": [], "audit": ""}
    assert [source.entry.path for source in sources] == ["q4.gguf", "lineage.json"]
    assert gather(home, "q4")[0][1].entry == sources[1].entry, "the same again, so that approvals hold"


def test_receiving_starts_without_heavy_libraries() -> None:
    code = "import sys, appliance.ops.receiving, tui.session_bundle; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "flwr", "sklearn", "scipy", "textual"} & set(done.stdout.split())
