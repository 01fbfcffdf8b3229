"""Takes two steps in a process of its own and prints its peak memory beside the estimate, as JSON.

Arguments: settings as JSON, the base's folder, records in a micro-batch, tokens each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BIG = {  # SmolLM2-135M
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
_LABELLED = 8


def main(settings: dict[str, Any], base: Path, rows: int, width: int) -> None:
    """Measure, print."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from appliance.models.encoding import Encoded
    from appliance.privacy.noise import LATTICE, Keystream, discrete_gaussian
    from appliance.train.adapt import adapt
    from appliance.train.batch import answer_logits, collate
    from appliance.train.clip import clip_to_lattice
    from appliance.train.engine import engine_for
    from appliance.train.losses import full_loss
    from appliance.train.memory import memory, read_shape
    from appliance.train.settings import settings_from

    torch.set_num_threads(1)
    chosen, shape = settings_from(settings), read_shape(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    tuned = adapt(model, chosen, shape.vocabulary)
    lines = np.random.default_rng(0).integers(5, shape.vocabulary, (rows, width + 1)).tolist()
    records = [Encoded(prompt=tuple(ids[:-_LABELLED]), answer=tuple(ids[-_LABELLED:])) for ids in lines]
    trained = [part for part in tuned.parameters() if part.requires_grad]
    size, adam, stream = (
        sum(part.numel() for part in trained),
        torch.optim.AdamW(trained, lr=1e-4),
        Keystream(),
    )
    engine = engine_for(tuned, full_loss, "cpu") if chosen.private else None

    def gradient() -> torch.Tensor:
        if engine is None:
            batch = collate(records, "cpu")
            torch.autograd.backward(full_loss(answer_logits(tuned, batch), batch, records).sum())
            return torch.cat([part.grad.reshape(-1) for part in trained if part.grad is not None])
        total = np.zeros(size, dtype=np.int64)
        rows, _ = engine.unit_gradients([[record] for record in records])
        total += clip_to_lattice(rows, 1.0)[0]
        noise = discrete_gaussian(size, LATTICE, stream)
        return torch.from_numpy((total + noise) * (1.0 / LATTICE / len(records))).float()

    for _ in range(2):
        flat, start = gradient(), 0
        for part in trained:
            part.grad = flat[start : start + part.numel()].view(part.shape)
            start += part.numel()
        adam.step()
        for part in trained:
            part.grad = None
    needs = memory(shape, chosen, rows=rows, width=width, labelled=rows * _LABELLED)
    # not ru_maxrss: it outlives exec, and so begins with what the process that started this one had
    marks = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(marks["VmHWM"].split()[0]) * 1024
    sys.stdout.write(json.dumps({"peak": peak, "estimate": needs.total, **needs.as_dict()}) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
