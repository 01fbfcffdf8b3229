"""Manifests and names that no reader takes, though the right key signed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_support as b
import pytest

from appliance.core.errors import BundleRefused
from appliance.security.bundle.writing import bytes_source


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "x.clb"


HOSTILE = (
    *(
        "../x.json",
        "/etc/x.json",
        "a/../b.json",
        "a//b.json",
        ".x.json",
        "a/.b/c.json",
        "x.json\n",
        "x\0.json",
    ),
    *(
        "a b.json",
        "ü.json",
        "a\\b.json",
        "a/b/c/d/e.json",
        f"{'x' * 101}.json",
        "",
        "a/",
        "C:x.json",
        "~/x.json",
    ),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_unsafe_names(out: Path, name: str) -> None:
    assert b.reason(b.forged(out, spoil=lambda m: m["files"][0].update(path=name))) == "unsafe-name"


@pytest.mark.parametrize(
    "names",
    [("a.json", "A.json"), ("a.json", "a.json"), ("a.json", "a.json/b.json"), ("X.json/y.json", "x.json")],
)
def test_names_that_are_one_file_somewhere(out: Path, names: tuple[str, str]) -> None:
    def twice(manifest: dict[str, Any]) -> None:
        manifest["files"] = [{**manifest["files"][0], "path": name} for name in names]

    assert b.reason(b.forged(out, spoil=twice)) == "unsafe-name"


@pytest.mark.parametrize(
    "name", ["m.bin", "m.pt", "m.pkl", "m.ckpt", "m.npy", "m.py", "m.so", "m.safetensors", "m.Gguf", "m"]
)
def test_files_that_a_kind_may_not_carry(out: Path, name: str) -> None:
    assert b.reason(b.forged(out, spoil=lambda m: m["files"][0].update(path=name))) == "wrong-file"
    with pytest.raises(BundleRefused):
        b.bundle(out, [bytes_source(b"x", name, "")])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.update(more=1),
        lambda m: m.pop("line"),
        lambda m: m.update(seq=True),
        lambda m: m.update(seq=0),
        lambda m: m.update(v=True),
        lambda m: m.update(created=m["expires"]),
        lambda m: m["files"][0].update(size=-1),
        lambda m: m["files"][0].update(size=1 << 60),
        lambda m: m["files"][0].update(sha256="0" * 63),
        lambda m: m.update(files=[]),
        lambda m: m.update(files=[{**m["files"][0], "path": f"{n}.json"} for n in range(10_001)]),
        lambda m: m.update(kind="pickle"),
        lambda m: m.update(line="a/b"),
        lambda m: m.update(license="\x1b[2J"),
        lambda m: m["privacy"].update(eps=1),
        lambda m: m["privacy"].update(eps="NaN"),
        lambda m: m["privacy"].pop("events"),
        lambda m: m.update(checkpoint="x" * 5000),
        lambda m: [m],
        lambda m: "text",
    ],
)
def test_malformed_manifests(out: Path, spoil: Callable[[dict[str, Any]], Any]) -> None:
    assert b.reason(b.forged(out, spoil=lambda m: _only(spoil(m)))) == "malformed"


def _only(value: Any) -> Any:
    """What a whole other manifest is; what `pop` gives back is none."""
    return value if isinstance(value, list) or value == "text" else None


@pytest.mark.parametrize(
    "raw",
    [
        lambda c: c + b" ",
        lambda c: c.replace(b'"seq":1', b'"seq":1.0'),
        lambda c: c.replace(b'"seq":1', b'"seq":NaN'),
        lambda c: c.replace(b'"seq":1', b'"seq":1,"seq":1'),
        lambda c: c.replace(b'"seq":1', b'"seq":' + b"9" * 5000),
        lambda c: b"[" * 100_000 + b"]" * 100_000,
        lambda c: b"",
        lambda c: b"\xff" + c,
        lambda c: c.replace(b"model.gguf", b"mod\\u0065l.gguf"),
    ],
)
def test_manifests_that_are_not_spelled_canonically(out: Path, raw: Callable[[bytes], bytes]) -> None:
    assert b.reason(b.forged(out, raw=raw)) == "malformed"


def test_a_manifest_longer_than_allowed_is_not_read(out: Path) -> None:
    def longer(content: bytes) -> bytes:
        return content[:96] + (5 << 20).to_bytes(4, "big") + content[100:]

    assert b.reason(b.forged(out, payload=longer)) == "malformed"
