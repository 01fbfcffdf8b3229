"""NIST SP 800-226 (March 2025), what to ask of a claim of differential privacy: a row each, none blank.

The numbers of the rows are ours.
"""

from appliance.ops.evidence.shape import Row


def _row(number: int, title: str, says: str, *probes: str) -> Row:
    return Row(law="nist", clause=f"row {number}", title=title, says=says, probes=probes)


ROWS = (
    _row(1, "Epsilon and delta", "a figure that the ledger bears out, counted anew.", "epsilon"),
    _row(2, "Unit of privacy", "whose presence is hidden, as the data set declares it.", "unit"),
    _row(3, "Definition, neighbours", "the definition, and what differs between neighbours.", "definition"),
    _row(
        4,
        "Trust model",
        "Central: the site sees its records in plain and adds the noise. Nothing protects them from"
        " the site itself but its people and machine.",
    ),
    _row(
        5, "Accountant and version", "the accountant named, and that the installed one is it.", "accountant"
    ),
    _row(6, "Mechanism", "what is clipped, and what noise is added to it.", "mechanism"),
    _row(
        7,
        "Sampling as claimed",
        "batches and noise as claimed, by what each run wrote down step by step.",
        "sampling",
    ),
    _row(8, "Clipping bound", "the norm that one unit or record has at most.", "clipping"),
    _row(
        9,
        "Noise source, floating point",
        "a noise source without a guessable seed, drawn and measured now.",
        "noise",
    ),
    _row(
        10,
        "Side channels",
        "Not measured: how long a training run takes and what memory it touches is not hidden. Let"
        " nobody else use the machine meanwhile.",
    ),
    _row(
        11,
        "Composition over lineage",
        "all runs on a data set counted together, and none beside the count.",
        "composition",
        "lineage",
    ),
    _row(12, "Attacks tried", "a privacy audit of each model that found nothing.", "privacy audit"),
    _row(
        13,
        "Access control",
        "roles and sealed files around the records, which are not noised.",
        "roles",
        "sealed",
    ),
    _row(14, "Data collection", "whose records, and how many.", "units"),
)
