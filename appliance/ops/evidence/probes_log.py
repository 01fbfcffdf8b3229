"""Probes of the audit log: whole, witnessed, looked at, kept; and what is kept of requests."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from appliance.core.db import reading
from appliance.core.migrations import LOG_TRIGGERS
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, supports
from appliance.security.log.entries import entries
from appliance.security.log.request_rows import KEY_DAYS

REVIEW_DAYS = 90
"""How old the last signed, exported or witnessed state of the log may be: our choice."""


def log(look: Look) -> Found:
    """The whole log hashed anew and held against its tree and every checkpoint."""
    found = look.verdict
    figures = {"entries": found.size, "root": found.root.hex(), "intact": found.intact}
    if not found.ok:
        return lacks(
            f"The audit log is damaged: {found.damages[0].text}; intact up to {found.intact}.", **figures
        )
    signed = f"signed by the site up to entry {found.signed}" if found.signed else "not signed before"
    return supports(
        f"{count(found.size, 'entry')}, hashed anew: intact; {signed}. Root {found.root.hex()[:16]}.",
        **figures,
        signed=found.signed,
    )


def witnessed(look: Look) -> Found:
    """Whether anybody outside holds a checkpoint."""
    found = look.verdict
    if not found.ok:
        return lacks("The audit log is damaged, so no witness bears it out.")
    if found.witnessed is None:
        return lacks(
            "No checkpoint of the log has come back from outside: its end could be cut off unseen"
            " (cloister audit checkpoint --to STICK, later cloister audit witness FILE)."
        )
    after = found.size - found.witnessed
    return supports(
        f"Entries up to {found.witnessed} are borne out by a checkpoint from outside;"
        f" {count(after, 'entry')} came after it.",
        witnessed=found.witnessed,
        after=after,
    )


def review(look: Look) -> Found:
    """When the log was last signed, exported, witnessed, or an emergency reviewed."""
    done = entries(look.home, "audit.checkpoint", "audit.export", "audit.witness", "emergency.review")
    times = [datetime.fromisoformat(one).astimezone(UTC) for one in done]
    last = max((one for one in times if one <= look.now + timedelta(days=1)), default=None)
    if last is None or look.now - last > timedelta(days=REVIEW_DAYS):
        when = f"since {last:%Y-%m-%d}" if last else "yet"
        return lacks(
            f"Nobody has signed, exported or witnessed the log {when} (within {REVIEW_DAYS} days counts)."
        )
    return supports(
        f"The log was signed, exported or witnessed, or an emergency reviewed, {len(done)} times, last on"
        f" {last:%Y-%m-%d}. Who reads it, and what they do about it, the organisation shows.",
        times=len(done),
    )


def retention(look: Look) -> Found:
    """Whether anything may delete entries, and how far back they go."""
    with reading(look.home) as link:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        there = {row[0]: row[1] for row in link.execute(query)}
        first = link.execute("SELECT seq, entry FROM audit ORDER BY seq LIMIT 1").fetchone()
    if gone := sorted(name for name, words in LOG_TRIGGERS.items() if there.get(name) != words):
        return lacks(f"What keeps entries from being changed or deleted is not there: {', '.join(gone)}.")
    if first is None:
        return absent("Nothing was done here yet, so there is nothing to keep.")
    if first["seq"] != 1:
        return lacks(f"The log begins with entry {first['seq']}: older ones are gone.")
    since = str(json.loads(first["entry"])["at"])[:10]
    return supports(
        f"Entries go back to {since}, the first one. Nothing in this product deletes entries of the log or of"
        f" the request log, at any age (keys of prompts' HMACs go after {KEY_DAYS} days). To keep the disk"
        " and its backups for six years is the organisation's.",
        since=since,
        deleted_after="never",
    )


def requests(look: Look) -> Found:
    """What the endpoint has logged of requests, held against the log."""
    with reading(look.home) as link:
        asked, answered = (
            link.execute("SELECT COUNT(*) FROM request_log WHERE kind = ?", (kind,)).fetchone()[0]
            for kind in ("asked", "answered")
        )
    if not asked:
        return absent("No request was made to an endpoint of this site.")
    if wrong := [damage for damage in look.verdict.damages if damage.kind == "request"]:
        return lacks(f"The request log is not what was written: {wrong[0].text}.")
    return supports(
        f"{count(asked, 'request')} in the log, {answered:,} with their end: time, key, model, tokens; of the"
        " prompt an HMAC under the key of its day, never its words. The rows are those of the audit log.",
        asked=asked,
        answered=answered,
    )


PROBES = {
    "audit log": log,
    "witnesses": witnessed,
    "log review": review,
    "retention": retention,
    "request log": requests,
}
