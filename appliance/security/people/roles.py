"""Who may do what: one table of every action of the product, and the roles that may do it.

An action of two people needs two distinct ones of the roles that may do it, one of them the privacy officer;
whoever asks may be one of the two. A security admin is in no row that takes models or records out, so cannot
approve that either. Printed by `cloister people rights`.
"""

from __future__ import annotations

from dataclasses import dataclass

OPERATOR, OFFICER, AUDITOR, SECURITY = "operator", "privacy-officer", "auditor", "security-admin"
ROLES = (OPERATOR, OFFICER, AUDITOR, SECURITY)


@dataclass(frozen=True, kw_only=True)
class Right:
    """One row: `words` say what is done, `may` who does it, `two` whether two people must agree."""

    action: str
    words: str
    may: frozenset[str]
    two: bool = False


def _row(action: str, words: str, *may: str, two: bool = False) -> Right:
    return Right(action=action, words=words, may=frozenset(may), two=two)


_ALL = ROLES
_WORK = (OPERATOR, OFFICER)
_KEEP = (SECURITY, OFFICER)

_TABLE = (
    # Looking. The words of people are for those who work with them; an auditor verifies without them.
    _row("site.read", "see lists, figures and model cards", *_ALL),
    _row("report.read", "read reports and privacy audits", *_ALL),
    _row("audit.read", "read the audit log", *_ALL),
    _row("audit.verify", "verify the audit log", *_ALL),
    _row("record.read", "read records, documents and feedback", *_WORK),
    _row("audit.export", "write the audit log out", AUDITOR, OFFICER, SECURITY),
    _row("audit.find", "find who sent a prompt that one holds", AUDITOR, OFFICER, SECURITY),
    _row("audit.repair", "begin a damaged audit log anew", *_KEEP, two=True),
    _row("evidence.write", "write the evidence report", AUDITOR, OFFICER, SECURITY),
    _row("airgap.check", "test that nothing gets out", *_ALL),
    _row("supply.check", "check what is installed", *_ALL),
    _row("bundle.verify", "verify a bundle", *_ALL),
    # Import, train, deploy.
    _row("data.import", "import records", OPERATOR),
    _row("model.import", "import a base or a GGUF file", OPERATOR),
    _row("train.start", "train or search under privacy", OPERATOR),
    _row("quantize.start", "convert and quantise", OPERATOR),
    _row("evaluate.start", "measure models", *_WORK),
    _row("privacy.audit", "run the privacy audit", OFFICER),
    _row("serve.start", "bring up the endpoint", OPERATOR),
    _row("docs.change", "index and remove documents", OPERATOR),
    _row("route.change", "make, change and end routes", OPERATOR),
    _row("feedback.review", "accept and reject feedback", *_WORK),
    _row("bundle.import", "take a bundle in", OPERATOR),
    _row("federate.coordinate", "make a federation and run its rounds", OPERATOR),
    _row("federate.take-part", "take part in federated rounds", OPERATOR),
    _row("federate.carry", "carry federated rounds by stick", OPERATOR),
    _row("federate.veto", "refuse a federated round or its model", *_WORK),
    _row("job.stop-own", "stop a job of one's own", *_WORK),
    _row("job.stop", "stop another's job", OPERATOR, OFFICER, SECURITY),
    _row("job.resume", "go on with a job that one may start", *_WORK),
    # Privacy.
    _row("budget.lower", "lower a privacy budget", OFFICER),
    _row("budget.raise", "raise a privacy budget", *_WORK, two=True),
    _row("train.open", "train without privacy", *_WORK, two=True),
    _row("data.public", "declare records public", *_WORK, two=True),
    _row("data.delete", "delete records", *_WORK, two=True),
    _row("model.remove", "remove a model", *_WORK, two=True),
    # What leaves the building.
    _row("bundle.export", "export a model", *_WORK, two=True),
    _row("feedback.export", "write feedback out as records", *_WORK, two=True),
    _row("report.export", "write the page of a report out", OPERATOR, OFFICER, AUDITOR),
    # People and keys.
    _row("key.new", "make an API key", SECURITY),
    _row("key.revoke", "revoke an API key", SECURITY),
    _row("key.own", "a key of this terminal, for a day", *_WORK),
    _row("person.add", "add a person", *_KEEP, two=True),
    _row("person.role", "give a person another role", *_KEEP, two=True),
    _row("person.remove", "remove a person", *_KEEP, two=True),
    _row("person.reset", "give a person a new key", *_KEEP, two=True),
    _row("person.passphrase", "change one's own passphrase", *_ALL),
    _row("trust.add", "trust another site's key", *_KEEP, two=True),
    _row("trust.revoke", "end the trust in a key", *_KEEP),
    _row("federate.enrol", "take a site into a federation", *_KEEP, two=True),
    _row("federate.drop", "drop a site from a federation", *_KEEP),
    _row("trust.rotate", "give this site new keys", *_KEEP, two=True),
    _row("supply.record", "accept what is installed now", SECURITY),
    _row("vault.unlock", "open what is sealed", *_ALL),
    _row("vault.lock", "seal it again", *_ALL),
    _row("vault.slots", "give or take ways to unlock", *_KEEP, two=True),
    _row("vault.rotate", "seal everything under new keys", SECURITY),
    _row("airgap.off", "let a guard against the network down", *_KEEP, two=True),
    _row("clock.repair", "accept a clock that jumped", *_KEEP, two=True),
    _row("emergency.start", "act once as operator in an emergency", *_ALL),
    _row("emergency.review", "review what was done in an emergency", OFFICER),
)

LOOKING = frozenset(
    ("site.read", "report.read", "audit.read", "audit.verify", "record.read", "supply.check", "bundle.verify")
)
"""All that screens which were opened to look only may do: nothing of it changes anything."""

TABLE: dict[str, Right] = {right.action: right for right in _TABLE}


def right(action: str) -> Right:
    """The row of an action.

    Raises:
        KeyError: it is not in the table, so nobody may do it: a mistake of the program.
    """
    return TABLE[action]


def needed(action: str) -> str:
    """Who must agree to an action of two people, in words."""
    row = right(action)
    others = [role for role in ROLES if role in row.may and role != OFFICER]
    return f"a {OFFICER} and {' or '.join([*others, 'another ' + OFFICER])}"
