"""Bundles spoilt in every way that a stick, a thief or a partner could spoil them.

Raw: 11 ways to change the bytes of a sound bundle. Structural: a manifest changed, then signed and sealed
anew with the right keys, so that only the reader's rules stand in its way.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import bundle_support as b

from appliance.core.errors import BundleRefused
from appliance.security import canonical
from appliance.security.bundle.format import SUITES
from appliance.security.bundle.reading import Opened, verify

RAW = (
    *("bit", "cut", "append", "swap", "repeat", "delete chunk", "splice chunk", "splice header"),
    *("random run", "delete run", "splice payload"),
)
_SAFE = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/){0,3}[A-Za-z0-9_-][A-Za-z0-9._-]*\.(gguf|json|md|txt)")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 1 << 53, 1 << 63, "", "x", "0" * 64, "../x", "a/b", "\x1b[2J", "é"),
    *([], {}, [[]], {"a": 1}, "x" * 5000, "model.gguf\n", "Model.gguf", ".x", 10**19),
)


def raw(chance: random.Random, kind: str, content: bytes, other: bytes) -> bytes:
    """One mutant of `content`; `other` is another sound bundle of the same signer for the same receiver."""
    spans, begin = b.chunk_spans(content), b.front(content)
    chunks = [content[first:last] for first, last in spans]
    far = [other[first:last] for first, last in b.chunk_spans(other)]
    at, place = chance.randrange(len(content)), chance.randrange(len(chunks))
    match kind:
        case "bit":
            return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        case "cut":
            return content[:at]
        case "append":
            return content + chance.randbytes(chance.choice((1, 16, 17, 1000)))
        case "swap":
            second = (place + 1 + chance.randrange(len(chunks) - 1)) % len(chunks)
            chunks[place], chunks[second] = chunks[second], chunks[place]
        case "repeat":
            chunks.insert(chance.randrange(len(chunks) + 1), chunks[place])
        case "delete chunk":
            del chunks[place]
        case "splice chunk":
            chunks[place] = far[min(place, len(far) - 1)]
        case "splice header":
            return other[: b.front(other)] + content[begin:]
        case "splice payload":
            return content[:begin] + other[b.front(other) :]
        case "random run":
            run = chance.randrange(1, 200)
            return content[:at] + chance.randbytes(run) + content[at + run :]
        case "delete run":
            return content[:at] + content[at + chance.randrange(1, 200) :]
    return content[:begin] + b"".join(chunks)


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: (what holds it, key or index)."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        found += [(value, key), *_holders(held)]
    return found


def structural(chance: random.Random, out: Path) -> tuple[Path, str]:
    """One bundle whose manifest, envelope or payload breaks a rule although all keys are right."""
    kind = chance.choice(("value", "drop", "add", "spell", "bytes", "files", "payload", "length"))

    def spoil(manifest: dict[str, Any]) -> Any:
        holder, key = chance.choice(_holders(manifest))
        if kind == "value":
            holder[key] = chance.choice(_VALUES)
        elif kind == "drop":
            del holder[key]
        elif kind == "add" and isinstance(holder, dict):
            holder[chance.choice(("more", "v2", "", "path"))] = chance.choice(_VALUES)
        elif kind == "add":
            holder.append(chance.choice(_VALUES))
        elif kind == "files":
            one = manifest["files"][0]
            manifest["files"] = [one] * chance.choice((0, 2, 3)) or []
            if manifest["files"] and chance.random() < 0.5:
                manifest["files"] = [{**one, "path": name} for name in ("a.json", "A.json")]
        return manifest

    def spell(content: bytes) -> bytes:
        if kind == "spell":
            return chance.choice(
                (
                    content + b" ",
                    b" " + content,
                    content.replace(b":", b": ", 1),
                    content.replace(b"seq", b"\\u0073eq", 1),
                    content.replace(b'"seq":1', b'"seq":1e0'),
                    content.replace(b'"seq":1', b'"seq":1,"seq":1'),
                    content.replace(b"}", b"", 1),
                )
            )
        if kind == "bytes":
            at = chance.randrange(len(content))
            return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        return content

    def payload(content: bytes) -> bytes:
        if kind == "payload":
            at = len(content) - 1 - chance.randrange(13)
            return chance.choice(
                (content[:at], content + b"x", content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            )
        if kind == "length":
            return content[:96] + chance.randrange(1 << 32).to_bytes(4, "big") + content[100:]
        return content

    return b.forged(out, spoil=spoil, raw=spell, payload=payload), kind


def sound(found: Opened) -> bool:
    """Whether what was let in is what a signer may say: the file is whole and its manifest canonical."""
    content = found.signed[100:]
    manifest = canonical.decode(content)
    return (
        b.manifests.encode(found.manifest) == content
        and manifest["hdr_sha256"] == found.manifest.hdr_sha256
        and all(_SAFE.fullmatch(one["path"]) for one in manifest["files"])
        and found.key == b.CENTRE.key
    )


def run(folder: Path, count: int, seed: int, *, resigned: bool) -> Counter[str]:
    """What became of `count` mutants: by reason of refusal; "accepted" and "uncaught" must not be there.

    A change of a manifest that a signer might as well have written (another licence) is "harmless".
    """
    chance, tally = random.Random(seed), Counter[str]()
    bases = []
    for number, suite in enumerate(SUITES):
        pair = [
            b.bundle(
                folder / f"{number}{which}.clb",
                b.contents(
                    chance.randbytes((1 << 20) + chance.randrange(1 << 20)) if number < 2 else b"GGUF", b"{}"
                ),
                suite=suite,
                seq=which + 1,
                line=f"l{number}",
            ).path.read_bytes()
            for which in range(2)
        ]
        bases.append(pair)
    memory = os.memfd_create("mutant")  # a file that no disk slows down
    out, judge = Path(f"/proc/self/fd/{memory}"), b.trust()
    for number in range(count):
        if resigned:
            _, kind = structural(chance, out)
        else:
            kind = RAW[number % len(RAW)]
            # Large bundles have chunks to move; most mutants are of small ones, which are quick.
            large = kind in ("swap", "repeat", "delete chunk", "splice chunk") or number % 97 == 0
            content, other = chance.choice(bases[:2] if large else bases[2:])
            mutant = raw(chance, kind, content, other)
            if mutant == content:
                continue
            out.write_bytes(mutant)
        try:
            found = verify(out, b.EDGE, judge)
        except BundleRefused as problem:
            tally[problem.reason] += 1
        except Exception as problem:
            tally["uncaught"] += 1
            tally[f"uncaught {kind}: {problem!r:.200}"] += 1
        else:
            tally["harmless" if resigned and sound(found) else "accepted"] += 1
            if not (resigned and sound(found)):
                tally[f"accepted {kind}"] += 1
    os.close(memory)
    return tally
