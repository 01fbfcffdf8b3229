"""The part of the door (session.py) for the audit log: proofs of growth, who asked this, the repair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from tui.session_audit import key_given, told_of
from tui.session_guard import acts, anyone
from tui.site_key import older_keys, site_key, utc_now

if TYPE_CHECKING:
    from appliance.security.log.checkpoint import Verifier
    from appliance.security.log.consistency import Proven
    from tui.session import Session

LONGEST_PROMPT = 4 << 20
"""Characters of a prompt that is looked for."""


@acts("audit.export")
def prove_growth(session: Session, path: Path, *, first: int, last: int | None) -> dict[str, Any]:
    """Write the proof that the log of `last` entries (a new checkpoint) extends that of `first`.

    Raises:
        ConfigWrong: no keys yet, or as consistency.prove. LogDamaged: as there.
    """
    from appliance.security.log import consistency

    key = site_key(session.home)
    if key is None:
        raise ConfigWrong("This site has no keys to sign with.", "Make them: cloister trust init NAME")
    made = consistency.prove(
        session.home,
        path,
        key,
        who=session.who,
        clock=utc_now,
        first=first,
        last=last,
        older=older_keys(session.home),
    )
    return {"path": str(path), **_grown(made)}


@anyone
def check_growth(home: Home | None, path: Path, public: str | None, held: Path | None) -> dict[str, Any]:
    """Check such a proof without a database; `public` and `home` as of session_audit.verify_file.

    Raises:
        LogDamaged, DataRejected, ConfigWrong: as consistency.check; ConfigWrong: no key to check it with.
    """
    from appliance.security.log import consistency, witness

    keys: list[Verifier] | bytes
    keys = key_given(public) if public is not None else _known(home) if home is not None else []
    if not keys:
        raise ConfigWrong("There is no key to check this file with.", "Add --key with the site's public key.")
    return _grown(consistency.check(path, keys, held=None if held is None else witness.read_note(held)))


@acts("audit.find")
def find_prompt(session: Session, given: Callable[[int], str]) -> dict[str, Any]:
    """Who sent just this prompt to the endpoint, of the days whose key is still there (30).

    `given(most)` gives the prompt, or the request's `messages` (or texts) as JSON; it is called only for who
    may ask. A text is looked for as it is, without its last line's end, and as the only message of a user.
    Who looks is logged, the prompt is not.

    Raises:
        ConfigWrong: there is none, or it is longer than 4 M characters.
    """
    from appliance.security import audit
    from appliance.security.log.request_rows import find_prompt, forget

    text = given(LONGEST_PROMPT + 1)
    if not text.strip() or len(text) > LONGEST_PROMPT:
        raise ConfigWrong(
            "There is no prompt to look for, or it is too long.", "cloister audit find-prompt < FILE"
        )
    with transaction(session.home) as link:  # an endpoint that does not run forgets nothing
        forget(link, utc_now(), who=session.who)
    found: dict[str, dict[str, Any]] = {}
    for prompt in _spellings(text):
        for row in find_prompt(session.home, prompt):
            found.setdefault(row["request"], row)
    with transaction(session.home) as link:
        audit.record(link, who=session.who, what="audit.find", target="prompt", found=len(found))
    return {"requests": sorted(found.values(), key=lambda row: str(row["at"]))}


@acts("audit.repair")
def repair(session: Session, because: str) -> dict[str, Any]:
    """Sign for setting the damaged log aside and beginning a new one; done when two people have.

    Raises:
        ConfigWrong, NotAllowed: as appliance/security/log/renewal.py.
    """
    from appliance.security.log import renewal

    key = site_key(session.home)
    keys = [] if key is None else _known(session.home)
    return _repair(
        renewal.repair(session.home, who=session.who, signer=session.actor.signer, because=because, keys=keys)
    )


@acts("audit.verify")
def repair_waiting(session: Session) -> dict[str, Any] | None:
    """The repair that waits for its second signature."""
    from appliance.security.log import renewal

    found = renewal.waiting(session.home)
    return None if found is None else _repair(found)


def _spellings(text: str) -> list[Any]:
    try:
        held = json.loads(text)
    except ValueError:
        held = None
    if isinstance(held, dict) and isinstance(held.get("messages"), list):
        return [held["messages"]]
    if isinstance(held, list):
        return [held]
    texts = dict.fromkeys((text, text.removesuffix("\n").removesuffix("\r"), text.strip()))
    return [prompt for one in texts for prompt in (one, [one], [{"role": "user", "content": one}])]


def _known(home: Home) -> list[Verifier]:
    from appliance.security.log.checkpoint import verifier

    key = site_key(home)
    return [] if key is None else [verifier(key), *older_keys(home)]


def _grown(found: Proven) -> dict[str, Any]:
    return {"from": found.first, "from_root": found.root.hex(), "against": found.against} | told_of(
        found.checkpoint
    )


def _repair(found: Any) -> dict[str, Any]:
    from appliance.security.people.roles import needed

    return {
        "done": found.done is not None,
        "agreed": list(found.agreed),
        "needs": needed("audit.repair"),
        "statement": found.statement,
        "renewal": found.done and found.done.to_json(),
    }
