"""What a bundle says of itself and of its files: read only after its signature held, and strictly.

Times are Unix seconds (UTC). An epsilon or delta is a decimal string: a signed text has no floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.security import canonical
from appliance.security.bundle.format import FILES_MOST, KINDS, MANIFEST_MOST, SIZE_MOST, VERSION
from appliance.security.bundle.paths import check_names
from appliance.security.bundle.refusals import refused

_HASH = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,20})?(?:e-[0-9]{1,3})?")
_TIME_MOST, _COUNT_MOST = 1 << 40, 1 << 53
NO_PRIVACY = "not trained under differential privacy: the files may hold what was in single records"
UNTRAINED = "nothing of this site was trained into it, as far as its lineage says"
_PRIVACY = {"unit", "eps", "delta", "accountant", "events", "audit"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file: its name in the bundle, what it is in a few words, bytes, SHA-256 in hex."""

    path: str
    what: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a bundle tells beside its files; nothing of it may point at a person or a machine.

    `name` and `form` are of the model ("lora-0007-Q4_K_M", "gguf"). `privacy`: None where nothing was
    trained, else unit, eps, delta, accountant, events (of the ledger, [{noise_multiplier, sample_rate,
    draws, steps}] as strings and integers) and audit (the verdict of the privacy audit, or ""); eps is
    "" where there is no privacy.
    `evaluation`: short figures by name, as strings. `checkpoint` is the signed head of the audit log.
    """

    kind: str
    name: str
    form: str = ""
    parent_digest: str = ""
    base_model_digest: str = ""
    privacy: Mapping[str, Any] | None = None
    evaluation: Mapping[str, str] | None = None
    license: str = ""
    checkpoint: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a bundle's signer has signed."""

    hdr_sha256: str
    line: str
    seq: int
    key_epoch: int
    created: int
    expires: int
    facts: Facts
    files: tuple[Entry, ...]

    @property
    def kind(self) -> str:
        """model, adapter, wheelhouse, round or trust."""
        return self.facts.kind

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def encode(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest that `decode` takes.

    Raises:
        BundleRefused: it is not sound, or too long.
    """
    content = canonical.encode(
        {
            "v": VERSION,
            "hdr_sha256": manifest.hdr_sha256,
            "line": manifest.line,
            "seq": manifest.seq,
            "key_epoch": manifest.key_epoch,
            "created": manifest.created,
            "expires": manifest.expires,
            **facts_json(manifest.facts),
            "files": files_json(manifest.files),
        }
    )
    decode(content)
    return content


def facts_json(facts: Facts) -> dict[str, Any]:
    """The facts as they stand in the manifest."""
    return {
        "kind": facts.kind,
        "name": facts.name,
        "form": facts.form,
        "parent_digest": facts.parent_digest,
        "base_model_digest": facts.base_model_digest,
        "privacy": None if facts.privacy is None else dict(facts.privacy),
        "eval": None if facts.evaluation is None else dict(facts.evaluation),
        "license": facts.license,
        "checkpoint": facts.checkpoint,
    }


def privacy_text(facts: Facts) -> str:
    """The privacy statement in one sentence."""
    told = facts.privacy
    if told is None:
        return UNTRAINED
    if not told["eps"]:
        return NO_PRIVACY
    audit = f"; privacy audit: {told['audit']}" if told["audit"] else "; no privacy audit was made"
    return f"eps {told['eps']} at delta {told['delta']} for one {told['unit']}{audit}"


def files_json(files: Sequence[Entry]) -> list[dict[str, Any]]:
    """The files as they stand in the manifest."""
    return [
        {"path": entry.path, "what": entry.what, "size": entry.size, "sha256": entry.sha256}
        for entry in files
    ]


def decode(content: bytes) -> Manifest:
    """The manifest that `content` spells, all its fields sound and its names safe.

    Raises:
        BundleRefused: `malformed`, `newer-format`, `unsafe-name` or `wrong-file`.
    """
    if len(content) > MANIFEST_MOST:
        raise refused("malformed", why="it is too long")
    try:
        held = canonical.decode(content)
    except ValueError as problem:
        raise refused("malformed", why="it is not spelled canonically") from problem
    if isinstance(held, dict) and type(held.get("v")) is int and held["v"] > VERSION:
        raise refused("newer-format")
    try:
        return _manifest(held)
    except _Wrong as problem:
        raise refused("malformed", why=str(problem)) from None


class _Wrong(Exception):
    """One field is not as asked."""


def _manifest(held: Any) -> Manifest:
    fields = ("v", "hdr_sha256", "line", "seq", "key_epoch", "created", "expires", "files")
    told = ("kind", "name", "form", "parent_digest", "base_model_digest", "privacy", "eval", "license")
    _keys(held, {*fields, *told, "checkpoint"}, "the manifest")
    if _whole(held, "v", VERSION) != VERSION:
        raise _Wrong("v is not 1")
    if held["kind"] not in KINDS:
        raise _Wrong("its kind is unknown")
    if not isinstance(held["files"], list) or not 1 <= len(held["files"]) <= FILES_MOST:
        raise _Wrong("the list of files")
    files = tuple(_entry(one) for one in held["files"])
    if sum(entry.size for entry in files) > SIZE_MOST:
        raise _Wrong("its files are too large")
    check_names(held["kind"], [entry.path for entry in files])
    manifest = Manifest(
        hdr_sha256=_digest(held, "hdr_sha256"),
        line=_line(held["line"]),
        seq=_whole(held, "seq", _COUNT_MOST, least=1),
        key_epoch=_whole(held, "key_epoch", 1 << 31, least=1),
        created=_whole(held, "created", _TIME_MOST),
        expires=_whole(held, "expires", _TIME_MOST),
        facts=_facts(held),
        files=files,
    )
    if manifest.expires <= manifest.created:
        raise _Wrong("it ends before it begins")
    return manifest


def _facts(held: dict[str, Any]) -> Facts:
    privacy, evaluation = held["privacy"], held["eval"]
    if privacy is not None:
        _privacy(privacy)
    if evaluation is not None:
        if not isinstance(evaluation, dict) or len(evaluation) > 64:
            raise _Wrong("eval")
        for name in evaluation:
            _text(evaluation, name, 200)
            _text({"name": name}, "name", 100)
    return Facts(
        kind=held["kind"],
        name=_line(held["name"]),
        form=_text(held, "form", 20),
        parent_digest=_digest(held, "parent_digest", empty=True),
        base_model_digest=_digest(held, "base_model_digest", empty=True),
        privacy=privacy,
        evaluation=evaluation,
        license=_text(held, "license", 200),
        checkpoint=_text(held, "checkpoint", 4096, lines=True),
    )


def _privacy(held: Any) -> None:
    _keys(held, _PRIVACY, "privacy")
    for name, longest in (("unit", 100), ("accountant", 100), ("audit", 100)):
        _text(held, name, longest)
    for name in ("eps", "delta"):
        if not isinstance(held[name], str) or not (held[name] == "" or _NUMBER.fullmatch(held[name])):
            raise _Wrong(f"privacy.{name} is no decimal")
    events = held["events"]
    if not isinstance(events, list) or len(events) > 1000:
        raise _Wrong("privacy.events")
    for event in events:
        _keys(event, {"noise_multiplier", "sample_rate", "draws", "steps"}, "an event")
        for name in ("noise_multiplier", "sample_rate"):
            if not isinstance(event[name], str) or not _NUMBER.fullmatch(event[name]):
                raise _Wrong(f"{name} of an event is no decimal")
        for name in ("draws", "steps"):
            _whole(event, name, _COUNT_MOST)


def _entry(held: Any) -> Entry:
    _keys(held, {"path", "what", "size", "sha256"}, "a file")
    if not isinstance(held["path"], str):
        raise _Wrong("a path is no text")
    return Entry(
        path=held["path"],
        what=_text(held, "what", 100),
        size=_whole(held, "size", SIZE_MOST),
        sha256=_digest(held, "sha256"),
    )


def _keys(held: Any, keys: set[str], where: str) -> None:
    if not isinstance(held, dict) or set(held) != keys:
        raise _Wrong(f"{where} has other fields")


def _whole(held: dict[str, Any], name: str, most: int, *, least: int = 0) -> int:
    value = held[name]
    if type(value) is not int or not least <= value <= most:
        raise _Wrong(f"{name} is no number in its range")
    return value


def _digest(held: dict[str, Any], name: str, *, empty: bool = False) -> str:
    value = held[name]
    if not isinstance(value, str) or not (_HASH.fullmatch(value) or (empty and value == "")):
        raise _Wrong(f"{name} is no SHA-256")
    return value


def _line(value: Any) -> str:
    if not isinstance(value, str) or not _LINE.fullmatch(value):
        raise _Wrong("a name or line has other signs than A-Z a-z 0-9 . _ -")
    return value


def _text(held: dict[str, Any], name: str, longest: int, *, lines: bool = False) -> str:
    """Printable text, as it will be shown on terminals."""
    value = held[name]
    if not isinstance(value, str) or len(value) > longest:
        raise _Wrong(f"{name[:20]!a} is no text of up to {longest} signs")
    parts = value.split("\n") if lines else [value]
    if not all(part == "" or part.isprintable() for part in parts):
        raise _Wrong(f"{name[:20]!a} has signs that cannot be shown")
    return value
