"""cloister quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ApplianceError, ConfigWrong
from tui.cli.face import Face, command
from tui.cli.files_plan import files_lines, histogram
from tui.cli.train import say_report
from tui.words import bytes_text

TYPES = "F16,IQ4_XS,Q4_0,Q4_K_M,Q5_K_M,Q6_K,Q8_0"
USUAL = "Q4_K_M,Q8_0"
_LEGEND = (
    "KL: mean distance from the odds of F16 (of F16: from transformers; 0 is the same). same_top: how often"
    " the likeliest token is the same. ppl: perplexity over that of F16 (x1.000 is the same)."
)

Types = Annotated[
    str | None, typer.Option("--to", help=f"Types, separated by commas: {TYPES}. Default: {USUAL}.")
]
Limit = Annotated[
    list[str] | None,
    typer.Option("--limit", help="Another bound, e.g. Q4_K_M.kld_mean=0.08; may be repeated."),
]
TensorType = Annotated[
    list[str] | None,
    typer.Option("--tensor-type", help="REGEX=TYPE for tensors whose name matches, e.g. ffn_down=Q6_K."),
]
OutputType = Annotated[str | None, typer.Option("--output-type", help="Type of the output matrix.")]
EmbeddingType = Annotated[
    str | None, typer.Option("--embedding-type", help="Type of the token embeddings; tied ones: both.")
]
Imatrix = Annotated[
    bool, typer.Option("--imatrix", help="Use an importance matrix from the start, not only when needed.")
]
AdapterOnly = Annotated[
    bool,
    typer.Option(
        "--adapter-only", help="Make a small file of the adapter alone, for a base that is installed already."
    ),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        help="Collect it on this text instead of ours. You declare that it is public; this is kept."
    ),
]
Evaluate = Annotated[
    bool | None,
    typer.Option(
        "--evaluate/--no-evaluate",
        help="Measure the files afterwards, as served, against the base: the gate. Default: if trained here.",
    ),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Show types, sizes and memory of all types, and start nothing.")
]
DeviceRam = Annotated[str | None, typer.Option(help="Memory of the device to serve on, e.g. 4GB (--plan).")]
Context = Annotated[int | None, typer.Option(help="Tokens of context to plan for (default: as served).")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app)(quantize)


def quantize(
    face: Face,
    model: Annotated[str, typer.Argument(help="An adapter or a base.")],
    to: Types = None,
    limit: Limit = None,
    tensor_type: TensorType = None,
    output_type: OutputType = None,
    embedding_type: EmbeddingType = None,
    imatrix: Imatrix = False,
    adapter_only: AdapterOnly = False,
    calibration: CalibrationFile = None,
    evaluate: Evaluate = None,
    plan: Plan = False,
    device_ram: DeviceRam = None,
    context: Context = None,
) -> None:
    """Merge, convert to GGUF, quantise, and prove that every file is the model it came from.

    F16 is always made: it is what the others are measured against. A file that cannot be proven is
    not entered; a type that is too lossy is stepped up, and the reason is told. What was trained here
    is then measured: base, F16 and every file on records never seen, and the gate says which may be served.
    """
    from quantize.limits import read_limits
    from quantize.recipe import read_tensor_types

    types = [part.strip().upper() for part in (USUAL if to is None else to).split(",")]
    if not all(types):
        raise ConfigWrong("--to has an empty type.", f"Name types with commas between: {TYPES}.")
    spec: dict[str, Any] = {
        "model": model,
        "types": types,
        "limits": read_limits(limit or ()),
        "tensor_types": [list(pair) for pair in read_tensor_types(tensor_type or ())],
        "output_type": output_type,
        "embedding_type": embedding_type,
        "adapter_only": adapter_only,
        "imatrix": imatrix or calibration is not None,
        "calibration": str(calibration.expanduser().absolute()) if calibration else None,
    }
    if adapter_only and (plan or device_ram is not None or to is not None):
        raise ConfigWrong(
            "--adapter-only makes one file and plans none.", "Leave out --to, --plan and --device-ram."
        )
    if context is not None and not plan and device_ram is None:
        raise ConfigWrong("--context only says what to plan for.", "Add --plan, or leave --context out.")
    if plan or device_ram is not None:
        if to is None:
            spec["types"] = TYPES.split(",")
        told = face.session.plan_quantising(spec, device=device_ram, context=context)
        for line in files_lines(told):
            face.say(line)
        face.say("Nothing was started.")
        face.result(told)
        return
    if evaluate and not face.session.model(model).trained:
        raise ConfigWrong(
            f"{model} was not trained here, so there are no records to measure it on.",
            "Leave --evaluate out; cloister evaluate takes --dataset.",
        )
    job_id = face.session.start_quantising({key: value for key, value in spec.items() if value})
    result = face.follow(job_id).end["result"]
    say_files(face, result["files"])
    report = None
    if evaluate or (evaluate is None and not adapter_only and face.session.model(model).trained):
        report = _measured(face, model, must=bool(evaluate))
    face.result(result | {"job": job_id, "report": report, "next": face.next(model)})


def _measured(face: Face, model: str, *, must: bool) -> dict[str, Any] | None:
    """The report on the files, as they are served; None where there is nothing to measure them on."""
    try:
        asked = face.session.evaluation(model, against=None, dataset=None, split="test", limit=None)
        face.say("Measuring them on records never seen, as they are served.")
        report: dict[str, Any] = face.follow(face.session.start_evaluation(asked)).end["result"]
    except ApplianceError as problem:
        if must or problem.code == "stopped":
            raise
        face.wrap(f"The files are there, but were not measured: {problem.message} {problem.hint}")
        return None
    say_report(face, report)
    return report


def say_files(face: Face, files: list[dict[str, Any]]) -> None:
    """The proof table, then each file's own facts."""
    face.table(
        ("file", "size", "bits", "KL", "same_top", "ppl", "memory", "tok/s"),
        [_row(file) for file in files],
        "No files.",
    )
    if files:
        face.wrap(_LEGEND)
    for file in files:
        proof = file["proof"]
        face.wrap(f"{file['name']}: {_verdict(file)}; {histogram(file['histogram'])}", rest="  ")
        if "logits" in proof:
            tokens, chats = proof["tokens"], proof["template"]
            excused = f" ({tokens['excused']} excused)" if tokens["excused"] else ""
            logits = ", ".join(f"{kind} {part['kl_mean']:.1e}" for kind, part in proof["logits"].items())
            face.say(
                f"  as transformers: token ids of {tokens['equal']} of {tokens['strings']} texts{excused},"
            )
            face.wrap(f"{chats['equal']} of {chats['chats']} chats; KL of the logits: {logits}", "  ", "    ")
        for label, rung in proof.get("stepped_up", {}).items():
            face.wrap(f"stepped up from {label}: {'; '.join(rung['missed'])}", "  ", "    ")
        if proof.get("imatrix"):
            matrix = proof["imatrix"]
            face.wrap(f"importance matrix of {matrix['tokens']} tokens: {matrix['dataset']}", "  ", "    ")
        face.say(f"  proof: {proof['path']}")


def _row(file: dict[str, Any]) -> tuple[str, ...]:
    proof, serving = file["proof"], file.get("serving")
    loss = proof.get("loss")
    kl = loss["kld_mean"] if loss else proof["logits"]["F16"]["kl_mean"]
    return (
        file["name"],
        bytes_text(file["size"]),
        f"{file['bits_per_weight']:.2f}",
        f"{kl:.4f}" if loss else f"{kl:.0e}",
        f"{(loss or proof['logits']['F16'])['same_top']:.1%}",
        f"x{loss['perplexity_ratio']:.3f}" if loss and loss["perplexity_ratio"] is not None else "-",
        bytes_text(serving["memory"]["total"]) if serving else "-",
        f"{serving['tokens_per_second']['answer']:,.0f}" if serving else "-",
    )


def _verdict(file: dict[str, Any]) -> str:
    """What the proof says, and what is not as it was asked for."""
    words = [f"proof {file['proof']['verdict']}"]
    words += ["limits changed"] if file["proof"].get("limits_changed") else []
    words += [] if file["asked"] == file["type"] else [f"{file['type']}, not {file['asked']}"]
    return ", ".join(words)
