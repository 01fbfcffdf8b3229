"""cloister quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.face import Face, command

_ALL = "F16,IQ4_XS,Q4_0,Q4_K_M,Q5_K_M,Q6_K,Q8_0"
_DEFAULT = "Q4_K_M,Q8_0"

Types = Annotated[
    str | None, typer.Option("--to", help=f"Types, separated by commas: {_ALL}. Default: {_DEFAULT}.")
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
    plan: Plan = False,
    device_ram: DeviceRam = None,
    context: Context = None,
) -> None:
    """Merge, convert to GGUF, quantise, and prove that every file is the model it came from.

    F16 is always made: it is what the others are measured against. A file that cannot be proven is
    not entered; a type that is too lossy is stepped up, and the reason is told.
    """
    from quantize.limits import read_limits
    from quantize.recipe import read_tensor_types

    spec: dict[str, Any] = {
        "model": model,
        "types": [part.strip().upper() for part in (to or _DEFAULT).split(",") if part.strip()],
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
    if plan or device_ram is not None:
        if to is None:
            spec["types"] = _ALL.split(",")
        told = face.session.plan_quantising(spec, device=device_ram, context=context)
        say_plan(face, told)
        face.result(told)
        return
    job_id = face.session.start_quantising({key: value for key, value in spec.items() if value})
    result = face.follow(job_id).end["result"]
    say_files(face, result["files"])
    face.result(result | {"job": job_id})


def say_plan(face: Face, told: dict[str, Any]) -> None:
    """The planned files, as a table."""
    device = told["device_memory"]
    columns = ["type", "size", "bits/weight", "memory", "fits here"]
    rows = []
    for file in told["files"]:
        cells = [
            file["type"],
            _bytes(file["size"]),
            f"{file['bits_per_weight']:.2f}",
            f"about {_bytes(file['memory'])}",
            "yes" if file["fits_here"] else "no",
        ]
        rows.append([*cells, "yes" if file["fits_device"] else "no"] if device else cells)
    face.table([*columns, f"fits {_bytes(device)}"] if device else columns, rows, "No types.")
    for file in told["files"]:
        face.say(f"  {file['type']:<7} {_histogram(file['histogram'])}")
    free = told["memory_here"]["available"]
    face.say(
        f"memory: file + {_bytes(told['kv_bytes'])} for {told['slots']} contexts of {told['context']} tokens"
        f" + {_bytes(told['compute_bytes'])} to compute; {_bytes(free)} are free here"
    )
    if device:
        face.say("a fifth of the device's memory is left to its system")
    face.say("Nothing was started.")


def say_files(face: Face, files: list[dict[str, Any]]) -> None:
    """The proof table, then each file's own facts."""
    face.table(
        ("file", "size", "bits", "KL", "same top", "ppl", "memory", "tok/s", ""),
        [_row(file) for file in files],
        "No files.",
    )
    for file in files:
        proof = file["proof"]
        face.say(f"{file['name']}: {_histogram(file['histogram'])}")
        if "logits" in proof:
            tokens, chats = proof["tokens"], proof["template"]
            excused = f" ({tokens['excused']} excused)" if tokens["excused"] else ""
            logits = ", ".join(f"{kind} {part['kl_mean']:.1e}" for kind, part in proof["logits"].items())
            face.say(
                f"  as transformers: token ids of {tokens['equal']} of {tokens['strings']} texts{excused},"
            )
            face.say(f"  {chats['equal']} of {chats['chats']} chats; KL of the logits: {logits}")
        for label, rung in proof.get("stepped_up", {}).items():
            face.say(f"  stepped up from {label}: {'; '.join(rung['missed'])}")
        if proof.get("imatrix"):
            face.say(
                f"  importance matrix of {proof['imatrix']['tokens']} tokens: {proof['imatrix']['dataset']}"
            )
        face.say(f"  proof: {proof['path']}")


def _row(file: dict[str, Any]) -> tuple[str, ...]:
    proof, serving = file["proof"], file.get("serving")
    verdict = f"{proof['verdict']}, limits changed" if proof.get("limits_changed") else proof["verdict"]
    loss = proof.get("loss")
    kl = loss["kld_mean"] if loss else proof["logits"]["F16"]["kl_mean"]
    return (
        file["name"],
        _bytes(file["size"]),
        f"{file['bits_per_weight']:.2f}",
        f"{kl:.4f}" if loss else f"{kl:.0e}",
        f"{loss['same_top_clear']:.1%}" if loss else f"{proof['logits']['F16']['same_top']:.1%}",
        f"x{loss['perplexity_ratio']:.3f}" if loss else "-",
        _bytes(serving["memory"]["total"]) if serving else "-",
        f"{serving['tokens_per_second']['answer']:,.0f}" if serving else "-",
        verdict if file["asked"] == file["type"] else f"{verdict}, not {file['asked']}",
    )


def _histogram(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in counts.items())


def _bytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
