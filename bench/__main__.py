"""Runs one benchmark by name, or all that need nothing from outside."""

from __future__ import annotations

import argparse
import importlib
import sys

from appliance.core.offline import stay_offline

BENCHES = {
    "chain": "records to INT4 on a real set, beside linear models (needs --data)",
    "step": "a private training step against an ordinary peft step",
    "memory": "peak memory of a private step against an ordinary peft step",
    "exact": "the clipped sum against a loop over single records",
    "logits": "logits at learnt tokens only against all of them",
    "packing": "padded tokens of packed micro-batches against sampling order",
    "convert": "our converter against llama.cpp's own: CPU time, memory, equal tensors (fetches it)",
    "quantise": "our quantising against llama-quantize, byte for byte, and the time of a whole proof",
    "vocabularies": "real vocabularies converted and read by llama.cpp, against expected ids (fetches them)",
    "engine": "first token on warm slots, cost of the client, memory asleep; beside bare llama-server",
    "edge": "a fresh edge installation: disk, and memory while it serves on one core",
    "serve": "the endpoint against bare llama-server and the binding's server: speed, first token, CPU",
    "auditlog": "verifying a million entries of the audit log; an append beside a plain insert",
    "cache": "time of a cache hit, false hits of its near match, hits on paraphrases",
    "sidechannel": "whether first-token times tell one API key what another has asked",
    "bundles": "export and verify of a bundle against the SHA-256 rate of one core; peak memory",
    "noise": "lattice noise against other generators, and its share of a step",
    "learning": "federated rounds against pooled and single-site training on a real set (needs --data)",
    "simulate": "a simulated round with 10 to 1,000 sites: time, and memory of the coordinator's part",
    "federated": "rounds with real processes: overhead beside training and where it goes, bytes on the wire",
    "screens": "first paint, key to paint, bytes on the wire and memory of the screens at a busy site",
    "secure": "rounds by secure aggregation beside plain ones, with real processes",
    "secagg": "a round of secure aggregation against the plain sum: CPU time and bytes a site",
}
MODULES = {"learning": "federated_learning", "secure": "secure_rounds"}
ALONE = (
    *("step", "memory", "exact", "logits", "packing", "noise", "quantise", "cache", "auditlog"),
    *("engine", "serve", "sidechannel", "edge", "bundles", "secagg", "secure", "simulate", "federated"),
)


def main() -> int:
    """Parse the command line and run."""
    stay_offline()
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        epilog="\n".join(f"{name}: {text}" for name, text in BENCHES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", nargs="?", choices=sorted(BENCHES), help="all that need no data when left out"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line and nothing else")
    parser.add_argument(
        "--data", help="chain: a .jsonl file or folder of sets; vocabularies, convert: folder"
    )
    parser.add_argument(
        "--sets", default="banking15,medsec", help="chain: which sets of --data; others: shapes"
    )
    parser.add_argument("--seeds", type=int, default=3, help="chain: runs to average over")
    parser.add_argument("--rows", type=int, default=0, help="chain: records drawn from a set; 0 takes all")
    parser.add_argument("--rounds", type=int, default=0, help="turns of each kind; 0: the shape's own")
    parser.add_argument(
        "--records", type=int, default=0, help="records in a step, entries of a log, values; 0: its own"
    )
    parser.add_argument("--steps", type=int, default=0, help="chain: training steps; 0 takes the default")
    parser.add_argument("--peer-python", help="serve: the Python of an environment with llama_cpp.server")
    parser.add_argument("--threads", type=int, default=0, help="serve: threads of each engine")
    parser.add_argument("--shape", help="quantise, serve: a shape of bench/shapes.py")
    parser.add_argument("--native", help="quantise: a llama-quantize built from the installed source")
    options = parser.parse_args()
    for name in (options.name,) if options.name else ALONE:
        importlib.import_module(f"bench.{MODULES.get(name, name)}").run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
