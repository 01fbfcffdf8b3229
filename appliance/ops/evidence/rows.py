"""All rows by law, all probes by name."""

from __future__ import annotations

from appliance.ops.evidence import (
    probes_files,
    probes_lineage,
    probes_log,
    probes_network,
    probes_people,
    probes_privacy,
    probes_vault,
    rows_ai_act,
    rows_gdpr,
    rows_hipaa,
    rows_nist,
    rows_other,
)
from appliance.ops.evidence.shape import Probe, Row

LAWS = {
    "hipaa": "HIPAA, 45 CFR 164",
    "gdpr": "GDPR, Regulation (EU) 2016/679",
    "nist": "NIST SP 800-226, differential privacy claims",
    "ai-act": "EU AI Act, Regulation (EU) 2024/1689",
    "other": "Other standards: a mapping, no claim",
}

ROWS: tuple[Row, ...] = (
    *rows_hipaa.ROWS,
    *rows_gdpr.ROWS,
    *rows_nist.ROWS,
    *rows_ai_act.ROWS,
    *rows_other.ROWS,
)

PROBES: dict[str, Probe] = {
    **probes_people.PROBES,
    **probes_vault.PROBES,
    **probes_log.PROBES,
    **probes_files.PROBES,
    **probes_network.PROBES,
    **probes_privacy.PROBES,
    **probes_lineage.PROBES,
}


def chosen(law: str | None) -> tuple[Row, ...]:
    """The rows of one law, or all."""
    return tuple(row for row in ROWS if law in (None, row.law))
