from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from appliance.core.errors import ModelRejected
from appliance.serve import router as routers
from appliance.serve.hashed import character_pieces, hashed, word_pieces
from appliance.serve.router import Router, features, learn, load, save, stacked

EASY = ("what time do you open", "where can I park", "can I get a refill", "is the lab open today")
HARD = ("explain why my anticoagulant dose interacts with", "compare the risks of both operations for")


def texts(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    draw = np.random.default_rng(seed)
    hard = draw.random(count) < 0.4
    said = [f"{draw.choice(HARD if is_hard else EASY)} number {draw.integers(99)}" for is_hard in hard]
    return said, hard ^ (draw.random(count) < 0.05)


def test_the_weights_are_sklearns() -> None:
    from sklearn.linear_model import LogisticRegression

    said, hard = texts(150)
    rows = stacked(said)
    ours = learn(rows, hard, strength=2.0)
    theirs = LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(rows, hard)
    assert ours.bias == pytest.approx(float(theirs.intercept_[0]), abs=2e-3)
    assert np.abs(ours.weights - theirs.coef_[0]).max() < 2e-3


def test_it_tells_hard_from_easy_on_texts_it_has_not_seen() -> None:
    said, hard = texts(200)
    learnt = learn(stacked(said), hard)
    new, truth = texts(200, seed=1)
    odds = np.array([learnt.odds(text) for text in new])
    assert ((odds > 0.5) == truth).mean() > 0.9
    assert odds == pytest.approx(learnt.odds_of(stacked(new)))


def test_a_saved_router_comes_back_and_another_file_does_not(tmp_path: Path) -> None:
    said, hard = texts(60)
    learnt = learn(stacked(said), hard)
    path = tmp_path / "r.npz"
    sha256 = save(learnt, path)
    again = load(path, sha256)
    assert again.odds(said[0]) == pytest.approx(learnt.odds(said[0]), abs=1e-5)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelRejected):
        load(path, sha256)
    path.unlink()
    with pytest.raises(ModelRejected):
        load(path, sha256)


@pytest.mark.parametrize("kind", ["narrow", "not a number", "no bias", "no archive", "object"])
def test_a_file_that_holds_no_router_is_refused(tmp_path: Path, kind: str) -> None:
    import hashlib

    good, bad = np.zeros(2 * routers.FEATURES + 1, np.float32), np.zeros(3, np.float32)
    stream = io.BytesIO()
    if kind == "narrow":
        np.savez(stream, weights=bad, bias=np.float32(0))
    elif kind == "not a number":
        np.savez(stream, weights=good * np.nan, bias=np.float32(0))
    elif kind == "no bias":
        np.savez(stream, weights=good)
    elif kind == "object":  # numpy would have to unpickle it
        np.savez(stream, weights=np.array([{}], dtype=object), bias=np.float32(0))
    path = tmp_path / "r.npz"
    path.write_bytes(stream.getvalue() or b"PK nothing")
    assert kind in ("no archive",) or zipfile.is_zipfile(path)
    with pytest.raises(ModelRejected):
        load(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_features_are_the_same_everywhere_and_bounded_in_time() -> None:
    """The numbers of one text, written down, so that a saved router means the same on another machine."""
    row = features("Where can I park?")
    assert np.flatnonzero(row)[:6].tolist() == [182, 220, 236, 497, 662, 665]
    assert row[[182, 236]].tolist() == pytest.approx([7**-0.5, -(7**-0.5)])
    assert row @ row == pytest.approx(2.0 + row[-1] ** 2)
    began = time.perf_counter()
    features("word " * 200_000)
    assert time.perf_counter() - began < 1.0
    assert np.isfinite(features("")).all()


def test_pieces_and_hashes() -> None:
    assert list(character_pieces("ab")) == [" ab", "ab ", " ab "]
    assert list(word_pieces("No, NOT now")) == ["w no", "w not", "w now", "p no not", "p not now"]
    assert hashed([], 8).tolist() == [0.0] * 8
    one, other = hashed(["a", "b"], 1 << 16), hashed(["b", "a"], 1 << 16)
    assert one.tolist() == other.tolist() and np.linalg.norm(one) == pytest.approx(1.0)
    assert Router(weights=np.zeros(2 * routers.FEATURES + 1), bias=0.0).odds("x") == 0.5
