"""The part of the door (session.py) that writes and checks evidence reports. Plain values in and out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.security.trust.identity import read_card
from tui.session_audit import _needed, key_given
from tui.session_guard import acts, anyone
from tui.site_key import older_keys, site_key, utc_now

if TYPE_CHECKING:
    from tui.session import Session

_LONGEST_CARD = 8192  # bytes

Told = Callable[[int, int, str], None]


@acts("evidence.write")
def write(session: Session, folder: Path | None, law: str | None, told: Told) -> dict[str, Any]:
    """Run the probes of `law` (else all), sign what they found, and write it to `folder` (else the home's).

    The report (appliance/ops/evidence/sign.py) with `path`, `text_path`, `totals` and `lacking`.

    Raises:
        ConfigWrong: no keys yet, no such law, or no such folder. LogDamaged: the log is not what was signed.
    """
    from appliance.ops.evidence import report as reports
    from appliance.ops.evidence import sign
    from appliance.ops.evidence.rows import LAWS
    from appliance.ops.evidence.shape import Look, version
    from appliance.security.log.checkpoint import verifier

    if law is not None and law not in LAWS:
        raise ConfigWrong(f"There is no law called {law[:40]} here.", f"Choose one of: {', '.join(LAWS)}.")
    key = _needed(session.home)
    if folder is None:
        folder = session.home.path / "evidence"
        folder.mkdir(mode=0o700, exist_ok=True)
    elif not folder.is_dir():
        raise ConfigWrong(f"{folder} is no folder.", "Make it first, or choose another with --out.")
    look = Look(session.home, utc_now(), (verifier(key), *older_keys(session.home)))
    examined = reports.examine(look, law, told=told)
    made, path = sign.write(
        session.home,
        folder,
        examined,
        key,
        only=law or "",
        who=session.who,
        version=version(),
        clock=utc_now,
        older=older_keys(session.home),
    )
    return made | _judged(made) | {"path": str(path), "text_path": str(path.with_suffix(".txt"))}


@anyone
def check(home: Home | None, path: Path, public: str | None) -> dict[str, Any]:
    """The report in a file whose signature and log entry hold, with `totals` and `lacking`.

    `public`: the site's card, or its key as `session_audit.verify_file` takes it; else that of `home`.

    Raises:
        EvidenceRefused: it says what is wrong. ConfigWrong: no key to check it with.
    """
    from appliance.ops.evidence import sign

    raw = _key_of(public) if public is not None else None
    if raw is None:
        own = site_key(home) if home is not None else None
        if own is None:
            raise ConfigWrong(
                "There is no key to check this report with.", "Add --key with the site's public key."
            )
        raw = own.public
    found = sign.check(path, raw)
    return found | _judged(found)


def _key_of(text: str) -> bytes:
    """A public key as people give it, or the card of a site."""
    if os.path.isfile(text):  # noqa: PTH113 - any text, also one too long for a path
        with Path(text).open("rb") as stream:
            content = stream.read(_LONGEST_CARD)
        if content.startswith(b"{"):
            return bytes.fromhex(read_card(content).key)
    return key_given(text)


def _judged(report: dict[str, Any]) -> dict[str, Any]:
    from appliance.ops.evidence.report import lacking, totals

    return {"totals": totals(report["rows"]), "lacking": lacking(report["rows"])}
