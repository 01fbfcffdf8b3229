"""Other standards: no claim is made, only a line on what here belongs to them."""

from appliance.ops.evidence.shape import Row


def _row(clause: str, title: str, says: str, *probes: str) -> Row:
    return Row(law="other", clause=clause, title=title, says=says, probes=probes)


ROWS = (
    _row(
        "IEC 62304, 82304-1",
        "Software of unknown origin",
        "the list of components (SBOM) that a maker needs. No claim.",
        "sbom",
    ),
    _row(
        "ISO 14971",
        "Risk management",
        "No claim. The tables of threats and tests in the documentation are inputs for a maker's file.",
    ),
    _row(
        "OWASP LLM Top 10",
        "LLM01-LLM10 (2025)",
        "for LLM02 (disclosure) a privacy audit, for LLM03 (supply chain) software and models that are what"
        " was entered, for LLM04 (poisoning) data that is what was imported. The others are not measured.",
        "privacy audit",
        "software",
        "models",
        "data",
    ),
    _row(
        "NIST SSDF, SLSA",
        "Protect the software",
        "for PS.2 and PS.3 hashes of every installed file and a list of components.",
        "software",
        "sbom",
    ),
)
