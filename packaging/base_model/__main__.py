"""Build the base model: `PYTHONPATH=packaging python -m base_model CORPUS OUT`.

CORPUS is a folder laid out as base_model/sources.py says; OUT receives the model. The tokenizer is
an input of the recipe (`--tokenizer`), not an output: see base_model/tokenizer.py.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from base_model import forms, net, pack, sources
from base_model.export import export, facts
from base_model.pretrain import Settings, pretrain

SHIPPED = Path(__file__).resolve().parents[2] / "appliance" / "models" / "base"


def prepare(data: Path, work: Path, tokenizer: Path, settings: Settings, shape: net.Shape) -> Settings:
    """Write work/tokens.npz and work/corpus.json; the settings with the corpus' fingerprint."""
    corpus = forms.build(data, seed=settings.seed)
    model = Tokenizer.from_file(str(tokenizer))
    ids, weights = pack.join(pack.encode(model, corpus.train))
    held, _ = pack.join(pack.encode(model, corpus.held))
    vectors = pack.embeddings(ids, vocabulary=shape.vocabulary, width=shape.hidden, seed=settings.seed)
    work.mkdir(parents=True, exist_ok=True)
    np.savez(work / "tokens.npz", ids=ids, weights=weights, embeddings=vectors.numpy())
    told = {
        "files sha256": sources.fingerprint(data),
        "documents": len(corpus.train),
        "tokens": len(ids),
        "share with loss": round(float((weights > 0).mean()), 3),
        "held-out documents": len(corpus.held),
        "held-out tokens": len(held),
    }
    (work / "corpus.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told), flush=True)
    return replace(settings, corpus=f"{told['files sha256']} {len(ids)}")


def main() -> None:
    """Corpus, pre-training, export; started again it goes on from the last checkpoint."""
    parser = argparse.ArgumentParser(prog="base_model", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path, help="folder for the checkpoint (default: OUT.work)")
    parser.add_argument("--tokenizer", type=Path, default=SHIPPED / "tokenizer.json")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--workers", type=int, default=Settings.workers)
    parser.add_argument("--stop", type=int, help="end after this step, as an interruption would")
    chosen = parser.parse_args()
    work = chosen.work or chosen.out.with_name(chosen.out.name + ".work")
    shape, settings = net.Shape(), Settings(steps=chosen.steps, workers=chosen.workers)
    settings = prepare(chosen.corpus, work, chosen.tokenizer, settings, shape)
    parameters, log = pretrain(work, settings, shape, stop=chosen.stop)
    if chosen.stop is None or chosen.stop >= settings.steps:
        export(parameters, shape, chosen.tokenizer, chosen.out)
        print(json.dumps({"last": log[-1], **facts(chosen.out, shape)}))


if __name__ == "__main__":
    main()
