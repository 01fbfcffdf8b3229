"""The clipped sum against a loop that knows no engine: one record at a time through plain peft.

The loop takes each record's gradient by autograd on peft's own forward pass and the model's own
loss, and clips and adds in float64. Rows, all norms relative to the loop's sum:
`float` is our engine's rows, clipped and added the same way in float64: what the engine's float32
sums in another order differ by. `lattice` is what an update gets: clipped 1e-6 below the bound and
rounded toward zero to steps of C / 2**20, which shortens each coordinate by half a step a record on
average. `largest norm` is the worst record's norm. Where the float64 model fits (small shapes), the
peer column holds the loop's own distance from the same loop in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.shapes import LENGTH, SHAPES, base_model, random_records, twin
from bench.table import row, show

_SHAPES = ("h256x4", "SmolLM2-135M", "Qwen2.5-0.5B")
_IN_DOUBLE = ("h256x4", "SmolLM2-135M")


def run(options: Any) -> None:
    """Compare the sums at the shapes, or at those named in --sets."""
    import torch

    torch.set_num_threads(1)
    asked = [name for name in options.sets.split(",") if name in SHAPES]
    for name in asked or _SHAPES:
        show(_shape(name, options.records), options.json)


def _shape(name: str, records: int) -> list[dict[str, Any]]:
    import torch

    from appliance.privacy.noise import LATTICE
    from appliance.train.clip import clip_to_lattice
    from appliance.train.losses import full_loss
    from appliance.train.slots import SlotEngine

    base, batch = base_model(SHAPES[name]), random_records(SHAPES[name], LENGTH, records)
    wanted = _loop(base, batch)
    engine = SlotEngine(twin(base), full_loss, "cpu")
    rows, _ = engine.unit_gradients([[record] for record in batch])
    bound = float(wanted.norm(dim=1).median())  # half of the records are clipped
    summed, _ = clip_to_lattice(rows, bound)
    lattice = torch.from_numpy(summed).double() * (bound / LATTICE)
    truth = _loop(base.double(), batch) if name in _IN_DOUBLE else None

    def apart(found: Any, other: Any) -> float:
        return float((found - other).norm() / other.norm())

    mine, theirs = _clipped_sum(rows.double(), bound), _clipped_sum(wanted, bound)
    norms = (rows.double().norm(dim=1) / wanted.norm(dim=1) - 1).abs().max()
    case, metric = f"{name} x{len(batch)}, all labelled", "clipped sum/loop, "
    found = [
        row("exact", case, metric + "float", apart(mine, theirs), None, "relative difference"),
        row("exact", case, metric + "lattice", apart(lattice, theirs), None, "relative difference"),
        row("exact", case, "largest norm/loop", float(norms), None, "relative difference"),
    ]
    if truth is not None:
        exact = _clipped_sum(truth, bound)
        pair = apart(mine, exact), apart(theirs, exact)
        found.append(row("exact", case, "ours, loop / float64 loop", *pair, "relative difference"))
    return found


def _loop(model: Any, records: Sequence[Any]) -> Any:
    """Gradients [records, parameters] in float64, one record at a time."""
    import torch

    parts = [part for part in model.parameters() if part.requires_grad]
    rows = []
    for record in records:
        tokens = torch.tensor([record.tokens])
        targets = tokens.clone()
        targets[:, : len(record.prompt)] = -100
        found = torch.autograd.grad(model(input_ids=tokens, labels=targets).loss, parts)
        rows.append(torch.cat([part.double().flatten() for part in found]))
    return torch.stack(rows)


def _clipped_sum(rows: Any, bound: float) -> Any:
    factors = (bound / rows.norm(dim=1)).clamp(max=1.0)
    return (rows * factors[:, None]).sum(dim=0)
