"""What the audit screens ask, as fields, and what is checked before a form ends."""

from __future__ import annotations

from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.security.people.roles import OFFICER, OPERATOR, ROLES
from tui.fields import Field

ENTRIES, CHECKPOINT, WITNESS = "entries", "checkpoint", "bring one back"
_LAWS = ("all", "hipaa", "gdpr", "nist", "ai-act", "other")

EXPORT = (
    Field(
        key="what",
        title="What",
        help="entries: a file with proofs that anybody can check. checkpoint: the log signed as it is now,"
        " to be kept elsewhere. bring one back: hold the log against such a file.",
        kind="choice",
        choices=(ENTRIES, CHECKPOINT, WITNESS),
        default=ENTRIES,
    ),
    Field(
        key="path",
        title="File",
        help="Such as /media/usb/audit.log on a stick. A file to be written must not be there yet.",
        kind="path",
        needed=True,
    ),
    Field(key="first", title="First entry", help="Of entries: the first one.", kind="whole", default="1"),
    Field(
        key="last",
        title="Last entry",
        help="Of entries: the last one; left empty, the newest.",
        kind="whole",
    ),
)
EVIDENCE = (
    Field(
        key="law",
        title="Law",
        help="Which rows are tested: all, or those of one law. It takes a minute or so; no legal opinion.",
        kind="choice",
        choices=_LAWS,
        default="all",
    ),
    Field(
        key="folder",
        title="Folder",
        help="Where the report is written; left empty, `evidence` in the site's own folder.",
        kind="path",
    ),
)
_PASSPHRASES = (
    Field(
        key="passphrase",
        title="Passphrase",
        help="The person types it here; nobody else looks. Several words are better than one.",
        kind="secret",
        needed=True,
    ),
    Field(key="again", title="Once more", help="The same passphrase.", kind="secret", needed=True),
)
ADD = (
    Field(key="name", title="Name", help="Such as mira. A name is never used again.", needed=True),
    Field(
        key="role",
        title="Role",
        help="operator: trains and serves. privacy-officer: budgets, what leaves. auditor: reads and"
        " verifies. security-admin: people and keys.",
        kind="choice",
        choices=ROLES,
        default=OPERATOR,
    ),
    *_PASSPHRASES,
)
ROLE = (
    Field(
        key="role",
        title="Role",
        help="operator, privacy-officer, auditor or security-admin: see cloister people rights.",
        kind="choice",
        choices=ROLES,
        default=OFFICER,
    ),
)
RESET = _PASSPHRASES
PASSPHRASE = (
    Field(key="old", title="Passphrase now", help="The one you signed in with.", kind="secret", needed=True),
    *_PASSPHRASES,
)
EMERGENCY = (
    Field(
        key="reason",
        title="What happened",
        help="Goes into the audit log, for ever: 8 to 300 characters, no patient's name.",
        needed=True,
    ),
    Field(key="minutes", title="Minutes", help="For how long, at most 60.", kind="whole", default="30"),
)


def same_twice(found: dict[str, Any]) -> None:
    """Check a passphrase that was typed two times.

    Raises:
        ConfigWrong: it was typed in two ways.
    """
    if found["passphrase"] != found["again"]:
        raise ConfigWrong("The two passphrases are not the same.", "Type it again.")
