"""The report as a signed file that proves itself, its entry in the audit log, and the check of both.

A file is canonical JSON, {"report", "signature"}: Ed25519 of the site's key over SIGNED and the canonical
report. The report has rows, probes, and `audit`: the log's entry about it (number, text), a checkpoint that
the site signed of the log up to there, and the proof that the entry is in it. The entry has the SHA-256 of
the canonical rows and probes, so neither can be exchanged without the log showing it. docs/evidence.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.core.db import transaction
from appliance.core.errors import ApplianceError, ConfigWrong
from appliance.core.files import replacing
from appliance.core.home import Home
from appliance.ops.evidence.report import totals
from appliance.ops.evidence.shape import OUTCOMES, PEOPLE, together
from appliance.ops.evidence.words import as_text
from appliance.security import audit, canonical
from appliance.security.log import merkle, tree, witness
from appliance.security.log.checkpoint import LogKey, Verifier, read
from appliance.security.people import guard, mode
from appliance.security.trust.words import words_of

FORMAT = "cloister-evidence-1"
SIGNED = b"cloister/evidence/1\0"
WHAT = "evidence.write"
LARGEST = 4 << 20
"""Bytes of a file, at most."""

_REPORT = {"format", "site", "key", "words", "created", "version", "who", "mode", "people"} | {
    *("only", "rows", "probes", "audit")
}
_TEXTS = ("format", "site", "key", "words", "created", "version", "who", "mode", "people", "only")
_ROW = {"law", "clause", "title", "says", "probes", "outcome", "entry"}
_PROBE = {"outcome", "found", "figures", "at"}
_HEX = re.compile("(?:[0-9a-f]{64}){1,2}")  # one spelling: a key or a signature in capitals is another file
_AUDIT = {"entry", "text", "proof", "checkpoint"}


class EvidenceRefused(ApplianceError):
    """A file that is no report as a site signed it."""

    code = "evidence-refused"
    exit_code = 12


def write(
    home: Home,
    folder: Path,
    examined: Mapping[str, Any],
    key: LogKey,
    *,
    only: str = "",
    who: str,
    version: str,
    clock: Callable[[], datetime],
    older: Sequence[Verifier] = (),
) -> tuple[dict[str, Any], Path]:
    """Sign what `examine` gave and write it to a new file in `folder`, as JSON and, beside it, as text.

    What fails leaves neither an entry nor a file; a crash at the last moment leaves an entry alone. `older`:
    the site's keys before, which may have signed the last checkpoint.

    Raises:
        NotAllowed: `who` may not. ConfigWrong: no such folder, or the file is there.
        LogDamaged: the log is not what was signed before.
    """
    moment = clock()
    if not folder.is_dir():
        raise ConfigWrong(f"{folder} is no folder.", "Make it first, or choose another with --out.")
    name = f"evidence-{key.name.partition('/')[2]}-{moment:%Y%m%dT%H%M%SZ}"
    path, beside = folder / f"{name}.json", folder / f"{name}.txt"
    body = {
        "format": FORMAT,
        "site": key.name,
        "key": key.public.hex(),
        "words": words_of(key.public.hex()),
        "created": moment.isoformat(timespec="seconds"),
        "version": version,
        "who": who,
        "mode": mode.mode(home),
        "people": mode.statement(home),
        "only": only,
    }
    try:
        # Named only after the commit: a file whose entry is lost would hold a checkpoint of another log.
        with replacing(path) as draft, replacing(beside) as draft_beside, transaction(home) as link:
            if path.exists() or beside.exists():
                raise ConfigWrong(f"{path} is there already.", "Wait a second, or choose another folder.")
            guard.spend(link, home, who, WHAT, path.name)
            told = {name.replace(" ", "_"): number for name, number in totals(examined["rows"]).items()}
            digest = digest_of(examined["rows"], examined["probes"])
            audit.record(link, who=who, what=WHAT, target=path.name, sha256=digest, rows=told)
            report = {**body, **_with_proof(link, home, key, examined, clock, older)}
            signature = key.sign(SIGNED + canonical.encode(report)).hex()
            draft.write_bytes(canonical.encode({"report": report, "signature": signature}))
            draft_beside.write_bytes(as_text(report).encode())
    except OSError as problem:
        raise ConfigWrong(
            f"The report cannot be written to {folder}: {problem.strerror or problem}.",
            "Choose another folder with --out.",
        ) from problem
    return report, path


def digest_of(rows: Any, probes: Any) -> str:
    """SHA-256 of the canonical rows (without the number of the entry) and probes, in hex."""
    bare = [{name: held for name, held in row.items() if name != "entry"} for row in rows]
    return hashlib.sha256(canonical.encode({"rows": bare, "probes": probes})).hexdigest()


def check(path: Path, public: bytes | None) -> dict[str, Any]:
    """The report in a file, signed by `public` (raw Ed25519) and borne out by the entry that it carries.

    Without `public` nothing but a wrong signature is found out about who signed: compare `words` with the
    site. No database is needed.

    Raises:
        EvidenceRefused: it says what is wrong.
    """
    held = _object(path)
    report: dict[str, Any] = held["report"]
    key = bytes.fromhex(report["key"])
    if public is not None and key != public:
        raise EvidenceRefused(
            f"The report is signed by another key than the one given: by {report['key'][:16]}...",
            "Ask the site for its key, and compare its eight words.",
        )
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(
            bytes.fromhex(held["signature"]), SIGNED + canonical.encode(report)
        )
    except (InvalidSignature, ValueError):
        raise _refused("its signature does not fit: it was altered after it was signed") from None
    if report["words"] != words_of(report["key"]):
        raise _refused("the words in it are not those of its key")
    _check_rows(report)
    _check_entry(report, key)
    return report


def _with_proof(
    link: sqlite3.Connection,
    home: Home,
    key: LogKey,
    examined: Mapping[str, Any],
    clock: Callable[[], datetime],
    older: Sequence[Verifier],
) -> dict[str, Any]:
    """Rows and probes with the entry just written, which is the log's last, and the checkpoint over it."""
    point = witness.make_in(link, home, key, clock=clock, older=older)
    seq, text = link.execute("SELECT seq, entry FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    proof = merkle.inclusion(seq - 1, point.size, tree.node(link))
    return {
        "rows": [{**row, "entry": seq} for row in examined["rows"]],
        "probes": examined["probes"],
        "audit": {
            "entry": seq,
            "text": text,
            "proof": [base64.b64encode(step).decode() for step in proof],
            "checkpoint": point.note.decode(),
        },
    }


def _check_rows(report: Mapping[str, Any]) -> None:
    """A row says what its probes say, and no more."""
    for row in report["rows"]:
        if not set(row["probes"]) <= set(report["probes"]) or row["entry"] != report["audit"]["entry"]:
            raise _refused(f"row {row['clause']} names a probe or an entry that is not in it")
        if row["outcome"] != together([report["probes"][name]["outcome"] for name in row["probes"]]):
            raise _refused(f"row {row['clause']} says something else than its probes")


def _check_entry(report: Mapping[str, Any], key: bytes) -> None:
    told = report["audit"]
    try:
        point = read(told["checkpoint"].encode(), [Verifier(name=report["site"], public=key)])
        proof = [base64.b64decode(step, validate=True) for step in told["proof"]]
        entry = json.loads(told["text"])
        said = (entry["what"], entry["sha256"], entry["who"])
    except ApplianceError as problem:
        raise _refused(f"its checkpoint does not hold: {problem.message}") from None
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise _refused("its audit entry is damaged") from None
    leaf = merkle.leaf_hash(told["text"].encode())
    if point.origin != report["site"] or not merkle.check_inclusion(
        leaf, told["entry"] - 1, point.size, proof, point.root
    ):
        raise _refused(f"audit entry {told['entry']} is not in the log that its checkpoint is of")
    if said != (WHAT, digest_of(report["rows"], report["probes"]), report["who"]):
        raise _refused(f"audit entry {told['entry']} is of other results than these")


def _object(path: Path) -> dict[str, Any]:
    """What the file holds, of the right shape."""
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as problem:
        raise EvidenceRefused(f"{path} cannot be read: {problem.strerror}.", "Check the path.") from problem
    if len(content) > LARGEST:
        raise _refused("it is longer than 4 MiB")
    try:
        held = canonical.decode(content)
    except ValueError as problem:
        raise _refused(f"it is not written as a report is ({problem})") from None
    if not _shaped(held):
        raise _refused("parts are missing, or there are more than a report has")
    if held["report"]["format"] != FORMAT:
        raise _refused("it is of a format that this version does not know")
    found: dict[str, Any] = held
    return found


def _shaped(held: Any) -> bool:
    try:
        report = held["report"]
        audited, probes = report["audit"], report["probes"]
        texts = [report[name] for name in _TEXTS] + [
            audited["text"],
            audited["checkpoint"],
            *audited["proof"],
        ]
        texts += [held["signature"]]
        for row in report["rows"]:
            texts += [row[name] for name in ("law", "clause", "title", "says", "outcome")] + row["probes"]
            if set(row) != _ROW or type(row["entry"]) is not int or row["outcome"] not in OUTCOMES:
                return False
        for one in probes.values():
            texts += [one["outcome"], one["found"], one["at"]]
            if set(one) != _PROBE or one["outcome"] not in OUTCOMES or one["outcome"] == PEOPLE:
                return False
        return (
            _HEX.fullmatch(report["key"]) is not None
            and _HEX.fullmatch(held["signature"]) is not None
            and set(held) == {"report", "signature"}
            and set(report) == _REPORT
            and set(audited) == _AUDIT
            and type(audited["entry"]) is int
            and audited["entry"] > 0
            and all(isinstance(text, str) for text in texts)
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _refused(why: str) -> EvidenceRefused:
    return EvidenceRefused(f"This is no report as it was signed: {why}.", "Ask the site for another copy.")
