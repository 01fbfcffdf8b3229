"""GDPR, Regulation (EU) 2016/679."""

from appliance.ops.evidence.shape import Row


def _row(clause: str, title: str, says: str, *probes: str) -> Row:
    return Row(law="gdpr", clause=clause, title=title, says=says, probes=probes)


ROWS = (
    _row(
        "Art. 5(2)",
        "Accountability",
        "a log of who did what that nobody can rewrite unseen.",
        "audit log",
        "witnesses",
    ),
    _row(
        "Art. 17",
        "Erasure",
        "to know which models and files hold which data set, and to remove them with it.",
        "lineage",
        "erasure",
    ),
    _row(
        "Art. 25",
        "Data protection by design",
        "training under differential privacy for a declared unit; sealed files; two people for what leaves.",
        "open runs",
        "units",
        "sealed",
        "two people",
    ),
    _row(
        "Art. 30",
        "Record of processing",
        "what is here, by name and number.",
        "processing",
        "units",
    ),
    _row(
        "Art. 32",
        "Security of processing",
        "encryption, access, integrity, software that is what was installed, no way out.",
        "sealed",
        "disk",
        "roles",
        "audit log",
        "models",
        "data",
        "software",
        "air gap",
    ),
    _row(
        "Art. 32(1)(b)-(c)",
        "Resilience and restoring",
        "Backups and a drill of restoring them are the organisation's.",
    ),
    _row(
        "Art. 35",
        "Impact assessment",
        "inputs: epsilon, what attacks found; what is not protected stands in each model's card. The"
        " organisation assesses.",
        "epsilon",
        "privacy audit",
    ),
)
