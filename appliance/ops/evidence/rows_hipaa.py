"""HIPAA, 45 CFR 164: (R) required, (A) addressable."""

from appliance.ops.evidence.shape import Row


def _row(clause: str, title: str, says: str, *probes: str) -> Row:
    return Row(law="hipaa", clause=clause, title=title, says=says, probes=probes)


ROWS = (
    _row(
        "164.308(a)(1)(ii)(D)",
        "Activity review (R)",
        "a log that can be reviewed, and that somebody looks after.",
        "audit log",
        "log review",
    ),
    _row(
        "164.308(a)(7)",
        "Contingency plan (R)",
        "Back up the home folder, restore it on another machine, keep the minutes of that drill."
        " This program neither makes nor tests backups.",
    ),
    _row(
        "164.310(d)(2)(i)-(ii)",
        "Disposal, media re-use (R)",
        "data at rest that is unreadable without its keys, so that throwing these away erases it.",
        "sealed",
        "erase by key",
    ),
    _row(
        "164.310(d)(2)(iii)-(iv)",
        "Accountability, backup (A)",
        "Keep the list of machines and media, and a copy before equipment is moved.",
    ),
    _row(
        "164.312(a)(1)",
        "Access control",
        "roles, each asked now for every action; two people for what leaves or is set.",
        "roles",
        "two people",
    ),
    _row(
        "164.312(a)(2)(i)",
        "Unique user id (R)",
        "no shared accounts, and a signing key for each person.",
        "unique ids",
    ),
    _row(
        "164.312(a)(2)(ii)",
        "Emergency access (R)",
        "break-glass that is logged and reviewed; recovery shares.",
        "emergency",
        "recovery",
    ),
    _row(
        "164.312(a)(2)(iii)",
        "Automatic logoff (A)",
        "an idle lock, after which what is at rest stays sealed.",
        "idle lock",
    ),
    _row(
        "164.312(a)(2)(iv)",
        "Encryption (A)",
        "sealed files, no plain swap, an encrypted disk beneath.",
        "sealed",
        "swap",
        "disk",
    ),
    _row(
        "164.312(b)",
        "Audit controls (R)",
        "a log of every change and request, its root signed and witnessed by others.",
        "audit log",
        "witnesses",
        "request log",
    ),
    _row(
        "164.312(c)(1)-(2)",
        "Integrity (A)",
        "log, models, data and installed software that are what they were, hashed anew.",
        "audit log",
        "models",
        "data",
        "software",
    ),
    _row(
        "164.312(d)",
        "Person or entity authentication",
        "slow hashes of passphrases, a wait after wrong ones, API keys that end, valid certificates.",
        "passphrase",
        "lockout",
        "api keys",
        "certificate",
    ),
    _row(
        "164.312(e)(1)-(2)",
        "Transmission security (A)",
        "TLS 1.3 beyond this machine, sealed bundles, no other way out.",
        "listeners",
        "bundles",
        "air gap",
    ),
    _row(
        "164.316(b)(2)(i)",
        "Six years of documentation (R)",
        "a log that nothing here shortens.",
        "retention",
    ),
    _row(
        "164.514(b)(1)",
        "Expert determination",
        "figures for the expert: epsilon, delta and the attacks of the privacy audit. The expert decides.",
        "epsilon",
        "privacy audit",
    ),
    _row(
        "164.514(b)(2)",
        "Safe harbor, 18 identifiers",
        "how often each kind of identifier is found, measured on labelled text.",
        "identifiers",
    ),
    _row(
        "164.514(c)",
        "Re-identification codes",
        "This program makes no such codes and keeps units as they were imported: draw codes at random"
        " before, do not derive them from the person.",
    ),
    _row(
        "164.514(e)",
        "Limited data set",
        "A data use agreement and the sixteen direct identifiers left out, before the import.",
    ),
)
