"""Why a bundle is refused: one word, one sentence and one thing to do for each reason."""

from __future__ import annotations

from appliance.core.errors import BundleRefused

_AGAIN = "Copy it again from where it was made, or have it exported again."
_ASK = "Ask whoever made it; do not use the file."

_REASONS: dict[str, tuple[str, str]] = {
    "no-bundle": ("This is not a Cloister bundle.", "Point to a .clb file."),
    "no-file": ("This is not an ordinary file.", "Point to a .clb file, not to a folder or a device."),
    "newer-format": (
        "The bundle is of a newer format than this version reads.",
        "Update Cloister on this machine.",
    ),
    "damaged-header": ("The bundle's header is damaged.", _AGAIN),
    "truncated": ("The bundle is cut off: its end is missing.", _AGAIN),
    "altered": ("The bundle was altered or damaged after it was made.", _AGAIN),
    "trailing": ("Something was put behind the end of the bundle.", _AGAIN),
    "other-recipient": (
        "The bundle is for somebody else: none of its keys is this site's.",
        "Have it exported to this site: send `cloister trust card` to whoever makes it.",
    ),
    "stranger": (
        "The bundle is signed by a stranger: {words}",
        "If two people compare these words with the sender's, add its card: cloister trust add CARD",
    ),
    "revoked": ("The bundle is signed with a key that was revoked.", _ASK),
    "trust-expired": (
        "The trust document that names the signer {name} has expired.",
        "Take a newer one: cloister trust root accept FILE",
    ),
    "forged": ("The signature of the bundle is wrong: its signer did not sign this.", _ASK),
    "malformed": ("The bundle's manifest is not as the format asks: {why}.", _ASK),
    "forwarded": (
        "The bundle was forwarded: its signer sealed it for somebody else, who passed it on.",
        "Ask the signer to export it to this site.",
    ),
    "wrong-kind": (
        "{name} may not sign bundles of kind {kind}.",
        "Its card can be added again with the kinds that it may sign.",
    ),
    "other-kind": ("The bundle is of kind {kind}, which is not wanted here.", "Choose another file."),
    "old-epoch": (
        "The bundle is signed under key epoch {epoch} of {name}, which is over.",
        "Have it exported again.",
    ),
    "new-epoch": (
        "The bundle is signed under key epoch {epoch} of {name}, not yet known here.",
        "Take the newest trust document or card of the signer first.",
    ),
    "expired": ("The bundle expired on {when}.", "Have it exported again."),
    "future": (
        "The bundle says that it was made on {when}, too far ahead of this machine's time.",
        "Check the clock of this machine and of the signer's.",
    ),
    "replayed": (
        "The bundle is number {seq} of its line; number {floor} has been taken already.",
        "Bundles are imported in the order they were made. Have this one exported again if it is needed.",
    ),
    "unsafe-name": ("The bundle names a file as no bundle may.", _ASK),
    "wrong-file": ("The bundle carries a file that its kind may not: {path}.", _ASK),
    "changed": (
        "{path} is no longer what was approved.",
        "Start again: the new contents need approvals of their own.",
    ),
    "no-plain-file": (
        "{path} is a link, has a second name, or is no ordinary file.",
        "Copy it to a plain file first.",
    ),
}

REASONS = tuple(_REASONS)


def refused(reason: str, **facts: object) -> BundleRefused:
    """The error of one reason; `facts` fill its sentence."""
    message, hint = _REASONS[reason]
    return BundleRefused(message.format(**facts), hint, reason=reason)
