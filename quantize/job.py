"""The job `quantize`: {"model", "types", ...} -> {"files": [...]}."""

from __future__ import annotations

from typing import Any

from appliance.core.job import Job
from quantize.adapter_only import adapter_file
from quantize.pipeline import quantize_model


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Make proven GGUF files of `spec["model"]`.

    spec: model (registry name), types (list), and optionally texts (strings whose token ids must
    agree too), limits ({"Q4_K_M": {"kld_mean": 0.1}}), tensor_types ([["ffn_down", "Q6_K"]]),
    output_type and embedding_type, imatrix (use one from the start), and calibration (path of a
    text that the operator declares public; implies imatrix); or adapter_only, which makes the adapter's
    own file and no other.
    """
    if spec.get("adapter_only"):
        return {"files": [adapter_file(job, spec["model"], spec.get("limits"))]}
    files = quantize_model(
        job,
        spec["model"],
        spec.get("types") or ["F16", "Q8_0", "Q4_K_M"],
        texts=spec.get("texts") or (),
        limits=spec.get("limits"),
        spec=spec,
    )
    return {"files": files}
