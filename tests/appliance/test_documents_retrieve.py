"""Questions find their passages, by words and by vectors, whatever is written in them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import documents_support as d
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_support import embedding_gguf, gguf

from appliance.core.errors import ApplianceError, ConfigWrong, NotFound
from appliance.core.files import sha256_file
from appliance.core.home import Home
from appliance.models import registry
from appliance.serve.documents import collections
from appliance.serve.documents.embedding import Embedder, local_embedder
from appliance.serve.documents.retrieve import retrieve, search
from appliance.serve.documents.vectors import unit_vectors


@pytest.fixture
def policies(home: Home, tmp_path: Path) -> Home:
    d.add(home, d.policies(tmp_path / "documents"))
    return home


def names(passages: list) -> list[str]:
    return [passage.file for passage in passages]


def test_word_forms_accents_and_headings_count(home: Home, tmp_path: Path) -> None:
    d.add(
        home,
        d.folder(
            tmp_path / "f",
            {
                "a.md": "# Vacation policy\n\nThirty days.",
                "b.txt": "Nurses administered the café rules.",
                "c.txt": "Something else entirely.",
                "e.txt": "And more of it.",
            },
        ),
    )
    assert names(retrieve(home, ["policies"], "vacations?")) == ["a.md"]
    assert names(retrieve(home, ["policies"], "Who administers the CAFE?")) == ["b.txt"]
    assert retrieve(home, ["policies"], "zebra") == []
    assert retrieve(home, ["policies"], "") == [] and retrieve(home, ["policies"], "?!") == []
    assert retrieve(home, [], "vacation") == []


def test_more_of_rarer_words_come_first(home: Home, tmp_path: Path) -> None:
    files = {f"n{n}.txt": f"The ward has rules. Rule {n}." for n in range(20)}
    d.add(home, d.folder(tmp_path / "f", {**files, "x.txt": "The ward has rules on isolation."}))
    found = retrieve(home, ["policies"], "ward rules isolation", limit=4)
    assert names(found)[0] == "x.txt" and len(found) == 4
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)


SYNTAX = [
    '"',
    '""',
    "leave AND",
    "NOT leave",
    "NEAR(leave days)",
    "leave*",
    "heading:leave",
    "^leave",
    "-leave",
    "(leave",
    "leave)",
    "{heading text}: leave",
    'leave" OR "visitors',
    "'; DROP TABLE words;--",
    "a:b:c",
    "\0leave",
    "leave\\",
    "%_",
    "\ud800 leave",
    "+leave",
    ",",
    "words MATCH 'x'",
    "leave " * 5000,
]


def test_syntax_of_the_search_has_no_meaning(policies: Home) -> None:
    for question in SYNTAX:
        found = names(retrieve(policies, ["policies"], question))
        assert "leave" not in question.lower() or found[0] == "leave.txt", question
        assert names(retrieve(policies, ["policies"], "visitors"))[0] == "wards/visits.md"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80))
def test_any_question_is_only_words(policies: Home, question: str) -> None:
    retrieve(policies, ["policies"], question)


def test_collections_are_apart(policies: Home, tmp_path: Path) -> None:
    d.add(policies, d.folder(tmp_path / "g", {"pay.txt": "Leave days are paid in full."}), "pay", job="0002")
    assert {p.collection for p in retrieve(policies, ["pay"], "leave days")} == {"pay"}
    both = retrieve(policies, ["policies", "pay", "pay"], "leave in the portal")
    assert [p.collection for p in both] == ["policies", "pay"]
    with pytest.raises(NotFound):
        retrieve(policies, ["policies", "none"], "leave")


def test_the_same_text_twice_is_given_once(home: Home, tmp_path: Path) -> None:
    d.add(home, d.folder(tmp_path / "f", {"a.txt": d.LEAVE, "copy.txt": d.LEAVE, "c.txt": d.VISITS}))
    assert names(retrieve(home, ["policies"], "leave portal")) == ["a.txt"]


def test_vectors_find_what_words_do_not(home: Home, tmp_path: Path) -> None:
    toy = d.Counting()
    d.add(home, d.policies(tmp_path / "f"), embedder=toy.embedder)
    assert names(retrieve(home, ["policies"], "painkiller")) == []
    found = search(home, ["policies"], "painkiller", embed=toy.embedder)
    assert found.passages[0].file == "dose.pdf" and found.how == {"policies": "keywords and toy"}
    both = search(home, ["policies"], "guests, and leave", embed=toy.embedder)
    assert set(names(both.passages)[:2]) == {"leave.txt", "wards/visits.md"}


def test_another_embedder_falls_back_to_keywords_and_says_so(home: Home, tmp_path: Path) -> None:
    toy, other = d.Counting(), d.Counting("other")
    d.add(home, d.policies(tmp_path / "f"), embedder=toy.embedder)
    found = search(home, ["policies"], "painkiller", embed=other.embedder)
    assert found.passages == [] and other.seen == []
    assert found.how == {"policies": "keywords only (the index was made with toy, not with other)"}
    assert search(home, ["policies"], "leave").how == {
        "policies": "keywords only (the index also has vectors of toy)"
    }
    d.add(home, d.folder(tmp_path / "g", {"x.txt": "Guests park behind the house."}), "more", job="2")
    mixed = search(home, ["policies", "more"], "guests", embed=toy.embedder)
    assert mixed.how["more"] == "keywords only" and "x.txt" in names(mixed.passages)[:2]


def test_new_vectors_are_used_at_once(home: Home, tmp_path: Path) -> None:
    toy = d.Counting()
    place = d.policies(tmp_path / "f")
    d.add(home, place, embedder=toy.embedder)
    assert search(home, ["policies"], "guests", embed=toy.embedder).passages[0].file == "wards/visits.md"
    (place / "wards/visits.md").unlink()
    (place / "new.txt").write_text("Visitors, visitors, children: all hours.")
    d.add(home, place, job="0002", embedder=toy.embedder)
    assert search(home, ["policies"], "guests", embed=toy.embedder).passages[0].file == "new.txt"


def test_fusion_is_by_rank(home: Home, tmp_path: Path) -> None:
    """Reciprocal ranks: first in both lists is 2/61, and that is the most there is."""
    toy = d.Counting()
    d.add(home, d.policies(tmp_path / "f"), embedder=toy.embedder)
    (best,) = retrieve(home, ["policies"], "visitors children hours", embed=toy.embedder, limit=1)
    assert best.score == pytest.approx(2 / 61)


def test_a_damaged_index_is_told(policies: Home) -> None:
    path = collections.index_path(policies, "policies")
    path.write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(ApplianceError, match="cannot be read"):
        retrieve(policies, ["policies"], "leave")


def test_a_gguf_of_the_registry_embeds(home: Home, tmp_path: Path) -> None:
    """The shipped base was not made for it; that its vectors tell texts apart shows the way works."""
    path = embedding_gguf()
    entry = registry.Model(
        name="emb", kind="gguf", path=path, sha256=sha256_file(path), size=path.stat().st_size
    )
    registry.add(home, entry, who="test")
    place = d.policies(tmp_path / "f")
    texts = [d.LEAVE, d.DOSE, d.LEAVE + " Really.", "x " * 3000]
    with local_embedder(home, "emb") as embedder:
        vectors = unit_vectors(embedder, texts)
        d.add(home, place, embedder=embedder)
        found = search(home, ["policies"], "visitors", embed=embedder)
        again = unit_vectors(embedder, [d.LEAVE])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) and len(vectors) == 4
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
    assert np.allclose(again[0], vectors[0], atol=1e-4), "no text leaves a trace in the next one's vector"
    assert found.how == {"policies": "keywords and emb"} and found.passages[0].file == "wards/visits.md"
    with pytest.raises(NotFound), local_embedder(home, "none"):
        pass


def test_a_model_that_writes_text_embeds_no_documents(home: Home) -> None:
    entry = registry.Model(
        name="chat", kind="gguf", path=gguf(False), sha256=sha256_file(gguf(False)), size=1
    )
    registry.add(home, entry, who="test")
    with pytest.raises(ConfigWrong, match="was not made to embed") as caught, local_embedder(home, "chat"):
        pass
    assert "--embed none" in caught.value.hint


def test_only_a_gguf_embeds(home: Home, tmp_path: Path) -> None:
    entry = registry.Model(name="b", kind="base", path=tmp_path, sha256="0", size=1)
    registry.add(home, entry, who="test")
    with pytest.raises(ConfigWrong, match="not a GGUF"), local_embedder(home, "b"):
        pass


def test_vectors_are_checked() -> None:
    for wrong in (np.zeros((1, 3)), np.zeros(2), np.full((2, 3), np.inf)):
        with pytest.raises(ApplianceError, match="one vector for each text"):
            unit_vectors(Embedder(name="x", id="x", embed=lambda texts, wrong=wrong: wrong), ["a", "b"])


@pytest.mark.soak
def test_fifty_thousand_vectors_are_searched_fast(home: Home, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    embedder = Embedder(
        name="r", id="r", embed=lambda texts: chance.standard_normal((len(texts), 384), np.float32)
    )
    text = "\n\n".join(f"# Part {n}\n\nRule {n} of the ward." for n in range(50_000))
    d.add(home, d.folder(tmp_path / "f", {"big.md": text}), embedder=embedder)
    times = []
    for _ in range(20):
        began = time.monotonic()
        assert len(retrieve(home, ["policies"], "ward rule 17", embed=embedder)) == 4
        times.append(time.monotonic() - began)
    assert sorted(times)[10] < 0.5, times


def test_searching_by_keywords_needs_no_numpy() -> None:
    """The edge profile's gateway stays small."""
    code = "import sys, appliance.serve.documents.retrieve, appliance.serve.documents.citations as c;" + (
        "print({'numpy', 'pypdf', 'llama_cpp'} & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
