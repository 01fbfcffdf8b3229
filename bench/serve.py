"""Our endpoint against bare llama-server and against the binding's own server.

All get the same file, the same prompts, streamed by the same client, in turns; medians of rounds.
Bare llama-server gets the slots, threads and context of ours, and reuses prompts as it does by itself.
`--shape SmolLM2-135M` takes a random model (Q8_0) of that shape in place of the shipped base.
`--peer-python FILE` is the Python of an environment that has the same llama-cpp-python with its server:

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install WHEEL fastapi pydantic-settings sse-starlette \
        starlette-context PyYAML uvicorn      # WHEEL: the one that `make install` keeps in the cache

Without it those rows are left out. `--threads N` is for all engines, else each has what ours chooses:
those ask for all cores, and then whatever gateway and client compute stops the engine too.

First tokens are measured with a system message of about 200 tokens that all requests share: the
operator's own where the job takes one (`system`), else sent by the client. The bare server is started
afresh for each of those rounds, so that its slots are cold.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import endpoints
from bench.endpoints import Server
from bench.streams import Crowd, crowd
from bench.table import row, show

_CLIENTS, _SLOTS, _COLD_SLOTS, _CONTEXT = (1, 4, 8), 8, 4, 512
_CPU_TARGET, _RSS_TARGET = 0.3, 80.0  # milliseconds a token, MiB
_WORDS = (
    "the",
    "clinic",
    "opens",
    "early",
    "your",
    "doctor",
    "will",
    "call",
    "back",
    "about",
    "that",
    "visit",
)
# At this temperature neither model ends by itself; the samplers are those of the endpoint.
_DRAWN = {"temperature": 2.0, "top_p": 1.0, "seed": 0}
_SAMPLERS: dict[str, dict[str, Any]] = {
    "bare": {"samplers": ["top_p", "temperature"]},
    "binding": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}
_SYSTEM = "You answer for a clinic. " + "Be brief, be kind and say only what you know. " * 16


def run(options: Any) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as place:
        folder = Path(place)
        case = options.shape or "demo base"
        file = (
            endpoints.random_model(options.shape, folder) if options.shape else endpoints.demo_model(folder)
        )
        rounds = options.rounds or (3 if options.shape else 5)
        length = 48 if options.shape else 200
        rows = _speed(case, file, folder, rounds, length, options.peer_python, options.threads)
        rows += _first_tokens(case, file, folder, max(rounds, 5))
        show(rows, options.json)
        if not options.peer_python and not options.json:
            print("llama_cpp.server left out: give --peer-python (see bench/serve.py)")


def _speed(
    case: str, file: Path, folder: Path, rounds: int, length: int, peer: str | None, threads: int
) -> list[dict[str, Any]]:
    extra = {"threads": threads} if threads else {}
    with contextlib.ExitStack() as stack:
        home = folder / "home"
        servers = {
            "ours": stack.enter_context(
                endpoints.ours(file, home, slots=_SLOTS, context=_CONTEXT, max_tokens=512, **extra)
            )
        }
        flags = servers["ours"].engine.cmdline()
        servers["bare"] = stack.enter_context(endpoints.bare(file, flags, folder / "bare.log"))
        if peer:
            used = int(flags[flags.index("--threads") + 1])
            servers["binding"] = stack.enter_context(
                endpoints.binding(peer, file, _CONTEXT, used, folder / "binding.log")
            )
        found = {count: _in_turns(servers, count, rounds, length) for count in _CLIENTS}
        resident = servers["ours"].process.memory_info().rss / (1 << 20)
    rows = []
    for count, taken in found.items():
        rows += [
            _compared(f"{case}, {count} clients", "tokens/s", name, taken, lambda one: one.rate, "tokens/s")
            for name in taken
            if name == "bare" or (name == "binding" and count > 1)
        ]
        rows.append(
            _compared(
                f"{case}, {count} clients", "first token p50", "bare", taken, lambda one: _p50([one]), "s"
            )
        )
    cpu = [
        one.cpu / one.tokens * 1000 for count, taken in found.items() if count > 1 for one in taken["ours"]
    ]
    rows.append(row("serve", case, "gateway CPU a token/target", statistics.median(cpu), _CPU_TARGET, "ms"))
    rows.append(row("serve", case, "gateway RSS/target", resident, _RSS_TARGET, "MiB"))
    return rows


def _in_turns(servers: dict[str, Server], count: int, rounds: int, length: int) -> dict[str, list[Crowd]]:
    """Rounds of all servers in shuffled order; one request of each goes before, unmeasured."""
    draw = random.Random(count)
    taken: dict[str, list[Crowd]] = {name: [] for name in servers}
    for turn in range(rounds + 1):
        prompts = [[_messages(_talk(draw, 60)) for _ in range(2)] for _ in range(count)]
        for name in draw.sample(list(servers), len(servers)):
            settings = {**_DRAWN, "max_tokens": length, **_SAMPLERS.get(name, {})}
            asked = prompts if turn else [prompts[0][:1]]
            one = crowd(servers[name], asked, settings)
            if turn:
                taken[name].append(one)
    return taken


def _first_tokens(case: str, file: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    draw, taken = random.Random(7), {"ours": [], "bare": []}
    spec = {"slots": _COLD_SLOTS, "context": _CONTEXT, "system": _SYSTEM}
    with endpoints.ours(file, folder / "home", **spec) as server:
        flags = server.engine.cmdline()
        settings = {**_DRAWN, "max_tokens": 8}
        alone = crowd(server, [[_messages("Hello?")]], settings).answers[0].prompt_tokens
        sent = "" if alone > 100 else _SYSTEM  # a job that does not know `system` lets it pass
        for _ in range(rounds):
            questions = [_talk(draw, 8) for _ in range(_COLD_SLOTS)]
            mine = [[_messages(question, sent)] for question in questions]
            theirs = [[_messages(question, _SYSTEM)] for question in questions]
            taken["ours"].append(crowd(server, mine, settings))
            with endpoints.bare(file, flags, folder / "cold.log") as cold:
                taken["bare"].append(crowd(cold, theirs, settings | _SAMPLERS["bare"]))
    what = f"first token p50, {'sent' if sent else 'own'} system message"
    tokens = taken["bare"][0].answers[0].prompt_tokens
    return [
        _compared(
            f"{case}, prompt {tokens} tokens", what, "bare", taken, lambda one: _p50([one]), "s", "cold bare"
        )
    ]


def _p50(crowds: Sequence[Crowd]) -> float:
    return statistics.median(answer.first for one in crowds for answer in one.answers)


def _compared(
    case: str,
    what: str,
    peer: str,
    taken: dict[str, list[Crowd]],
    measure: Callable[[Crowd], float],
    unit: str,
    shown: str = "",
) -> dict[str, Any]:
    first, second = ([measure(one) for one in taken[name]] for name in ("ours", peer))
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    metric = f"{what}, ours/{shown or peer}"
    return row(
        "serve", case, metric, statistics.median(first), statistics.median(second), unit, (high - low) / 2
    )


def _messages(question: str, system: str = "") -> list[dict[str, str]]:
    found = [{"role": "user", "content": question}]
    return [{"role": "system", "content": system}, *found] if system else found


def _talk(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(_WORDS, k=words))
