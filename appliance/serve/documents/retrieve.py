"""The passages that answer a question: by keywords, and by vectors where the index has them.

Keywords are ranked by BM25 (FTS5), vectors by cosine; the two lists are joined by reciprocal rank fusion,
score = sum of 1 / (60 + rank): G. V. Cormack, C. L. A. Clarke, S. Buettcher, "Reciprocal rank fusion
outperforms Condorcet and individual rank learning methods", SIGIR 2009. A collection without usable
vectors counts its keyword ranks twice, else those with vectors would always come first.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.core.home import Home
from appliance.serve.documents import index
from appliance.serve.documents.collections import found_index
from appliance.serve.documents.embedding import Embedder
from appliance.serve.documents.passages import Passage
from appliance.serve.documents.words import content_words, search_words

_RANK = 60
_CANDIDATES = 50  # of each list
_LONGEST_QUESTION = 8000

KEYWORDS = "keywords only"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Passages, best first, and how each collection was searched, in words for people."""

    passages: list[Passage]
    how: dict[str, str]


def retrieve(
    home: Home,
    collections: Sequence[str],
    question: str,
    *,
    embed: Embedder | None = None,
    limit: int = 4,
) -> list[Passage]:
    """The best passages of these collections; see `search`."""
    return search(home, collections, question, embed=embed, limit=limit).passages


def search(
    home: Home,
    collections: Sequence[str],
    question: str,
    *,
    embed: Embedder | None = None,
    limit: int = 4,
) -> Found:
    """The `limit` best passages of these collections, at most, and how they were found.

    The caller decides whose collections these may be. A question is only ever words: no operator of FTS5
    in it has a meaning. Vectors are used where the index was made with this very embedder.

    Raises:
        NotFound: there is no such collection. ApplianceError: an index is damaged.
        EngineFailed: the embedder failed.
    """
    question = question[:_LONGEST_QUESTION]
    vector: Any = None
    found: list[Passage] = []
    how: dict[str, str] = {}
    paths = {name: found_index(home, name) for name in dict.fromkeys(collections)}
    for name, path in paths.items():
        with index.looking(path) as link:
            about = index.meta(link)
            how[name], usable = _how(about, embed)
            lists = [_by_keywords(link, question)]
            if usable and embed is not None:
                from appliance.serve.documents import vectors  # numpy, 12 MB, only where vectors are used

                vector = vectors.unit_vectors(embed, [question])[0] if vector is None else vector
                lists.append(vectors.nearest(link, path, about["updated"], vector, _CANDIDATES))
            else:
                lists *= 2
            found += _passages(link, name, _fused(lists))
    asked = content_words(question)

    def order(passage: Passage) -> tuple[float, int, str, int]:
        shared = len(asked & content_words(passage.text)) if len(paths) > 1 else 0
        return -passage.score, -shared, passage.address, passage.start

    best = sorted(found, key=order)
    return Found(passages=_apart(best, limit), how=how)


def _how(about: dict[str, str], embed: Embedder | None) -> tuple[str, bool]:
    made, name = about.get("embedder", ""), about.get("embedder_name", "")
    if not made:
        return KEYWORDS, False
    if embed is None:
        return f"{KEYWORDS} (the index also has vectors of {name})", False
    if embed.id != made:
        return f"{KEYWORDS} (the index was made with {name}, not with {embed.name})", False
    return f"keywords and {name}", True


def _by_keywords(link: sqlite3.Connection, question: str) -> list[int]:
    """Passages with any of the words, best first. In quotes, a word is a word to FTS5."""
    words = search_words(question)
    if not words:
        return []
    query = " OR ".join(f'"{word}"' for word in words)
    rows = link.execute(
        "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank, rowid LIMIT ?", (query, _CANDIDATES)
    )
    return [row[0] for row in rows]


def _fused(lists: list[list[int]]) -> dict[int, float]:
    """Reciprocal rank fusion."""
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, number in enumerate(ranked, start=1):
            scores[number] = scores.get(number, 0.0) + 1 / (_RANK + rank)
    return scores


def _passages(link: sqlite3.Connection, name: str, scores: dict[int, float]) -> list[Passage]:
    rows = link.execute(
        "SELECT chunks.id, path, sha256, page, start, end, heading, text FROM chunks"
        " JOIN files ON files.id = file JOIN words ON words.rowid = chunks.id"
        " WHERE chunks.id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(scores)),),
    ).fetchall()
    return [
        Passage(
            collection=name,
            file=row["path"],
            page=row["page"],
            start=row["start"],
            end=row["end"],
            heading=row["heading"],
            text=row["text"],
            score=scores[row["id"]],
            sha256=row["sha256"],
        )
        for row in rows
    ]


def _apart(passages: list[Passage], limit: int) -> list[Passage]:
    """The first `limit` that do not say the same words again, as copies of a file would."""
    kept: dict[str, Passage] = {}
    for passage in passages:
        kept.setdefault(passage.text, passage)
        if len(kept) >= limit:
            break
    return list(kept.values())[: max(limit, 0)]
