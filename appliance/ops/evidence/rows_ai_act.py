"""EU AI Act, Regulation (EU) 2024/1689: what a provider or deployer of a high-risk system must show."""

from appliance.ops.evidence.shape import Row


def _row(clause: str, title: str, says: str, *probes: str) -> Row:
    return Row(law="ai-act", clause=clause, title=title, says=says, probes=probes)


ROWS = (
    _row(
        "Art. 10(2)(f)-(g)",
        "Examination for bias",
        "Not measured here: compare the answers for the groups that matter, on records of your own.",
    ),
    _row(
        "Art. 11, Annex IV",
        "Technical documentation",
        "for each trained model its base, data version, settings, claim and report.",
        "documentation",
        "lineage",
    ),
    _row(
        "Art. 12(1)-(2)",
        "Logs of events",
        "changes and requests that are logged by themselves.",
        "audit log",
        "request log",
    ),
    _row(
        "Art. 13",
        "Instructions for use",
        "Model cards say what a model was made of and for; instructions for its users are the"
        " organisation's.",
    ),
    _row(
        "Art. 14",
        "Human oversight",
        "Any endpoint or job can be stopped, and a route rolled back; who watches, and when they"
        " overrule it, the organisation settles.",
    ),
    _row(
        "Art. 15(4)-(5)",
        "Accuracy, robustness, security",
        "a gate passed on held-out records; files and software that are what was entered; no way out.",
        "evaluation",
        "models",
        "software",
        "air gap",
    ),
    _row("Art. 19, 26(6)", "Keeping logs six months", "a log that nothing here shortens.", "retention"),
)
