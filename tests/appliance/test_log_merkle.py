"""The Merkle tree: Certificate Transparency's published vectors, and all of it against a naive recursion.

The vectors are those of RFC 6962 implementations (leaves, roots, inclusion and consistency proofs of the
Certificate Transparency reference log).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.security.log import merkle

ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (2, 8): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
LEAVES = [merkle.leaf_hash(bytes.fromhex(entry)) for entry in ENTRIES]


def slow_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1 as it is written."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + slow_root(leaves[:half]) + slow_root(leaves[half:])).digest()


def slow_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    if index < half:
        return [*slow_path(index, leaves[:half]), slow_root(leaves[half:])]
    return [*slow_path(index - half, leaves[half:]), slow_root(leaves[:half])]


def slow_proof(old: int, leaves: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if old == len(leaves):
        return [] if whole else [slow_root(leaves)]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    if old <= half:
        return [*slow_proof(old, leaves[:half], whole), slow_root(leaves[half:])]
    return [*slow_proof(old - half, leaves[half:], False), slow_root(leaves[:half])]


def test_the_published_roots() -> None:
    for size, root in enumerate(ROOTS):
        assert merkle.root(size, merkle.node_of(LEAVES)).hex() == root


@pytest.mark.parametrize(("place", "proof"), INCLUSION.items())
def test_the_published_inclusion_proofs(place: tuple[int, int], proof: list[str]) -> None:
    index, size = place
    made = merkle.inclusion(index, size, merkle.node_of(LEAVES))
    assert [step.hex() for step in made] == proof
    assert merkle.check_inclusion(LEAVES[index], index, size, made, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("place", "proof"), CONSISTENCY.items())
def test_the_published_consistency_proofs(place: tuple[int, int], proof: list[str]) -> None:
    old, size = place
    made = merkle.consistency(old, size, merkle.node_of(LEAVES))
    assert [step.hex() for step in made] == proof
    roots = bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[size])
    assert merkle.check_consistency(old, size, *roots, made)


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_as_the_recursion_says(size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(bytes([number % 251, number // 251])) for number in range(size)]
    node, root = merkle.node_of(leaves), slow_root(leaves)
    assert merkle.root(size, node) == root
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    path, proof = merkle.inclusion(index, size, node), merkle.consistency(old, size, node)
    assert path == slow_path(index, leaves)
    assert proof == slow_proof(old, leaves)
    before = slow_root(leaves[:old])
    assert merkle.check_inclusion(leaves[index], index, size, path, root)
    assert merkle.check_consistency(old, size, before, root, proof)
    kept: dict[tuple[int, int], bytes] = {}
    for number, leaf in enumerate(leaves):
        for level, place, found in merkle.completed(number, leaf, lambda *at: kept[at]):
            kept[(level, place)] = found
    assert all(found == node(*at) for at, found in kept.items())
    assert merkle.root(old, lambda *at: kept[at]) == before


@given(st.integers(2, 100), st.data())
@settings(max_examples=80, deadline=None)
def test_nothing_else_is_believed(size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(size)]
    node, root = merkle.node_of(leaves), slow_root(leaves)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    path, proof = merkle.inclusion(index, size, node), merkle.consistency(old, size, node)
    before, junk = slow_root(leaves[:old]), hashlib.sha256(b"junk").digest()
    assert not merkle.check_inclusion(junk, index, size, path, root)
    assert not merkle.check_inclusion(leaves[index], index, size, path, junk)
    assert not merkle.check_consistency(old, size, junk, root, proof)
    assert not merkle.check_consistency(old, size, before, junk, proof)
    for spoilt in spoil(path, junk):
        assert not merkle.check_inclusion(leaves[index], index, size, spoilt, root)
    for spoilt in spoil(proof, junk):
        assert not merkle.check_consistency(old, size, before, root, spoilt)
    other = data.draw(st.integers(-1, size + 1).filter(lambda other: other != index))
    assert not merkle.check_inclusion(leaves[index], other, size, path, root)
    other = data.draw(st.integers(-1, size + 1).filter(lambda other: other != old))
    assert not merkle.check_consistency(other, size, before, root, proof)


def spoil(proof: list[bytes], junk: bytes) -> list[list[bytes]]:
    changed = [[*proof[:place], junk, *proof[place + 1 :]] for place in range(len(proof))]
    return [*changed, [*proof, junk], [junk, *proof], *([proof[:-1], proof[1:]] if proof else [])]


def test_edges() -> None:
    node, root = merkle.node_of(LEAVES), bytes.fromhex(ROOTS[8])
    assert merkle.check_consistency(0, 8, merkle.EMPTY, root, [])
    assert not merkle.check_consistency(0, 8, root, root, [])
    assert not merkle.check_consistency(8, 8, root, LEAVES[0], [])
    assert not merkle.check_consistency(8, 8, root, root, [root])
    assert not merkle.check_consistency(4, 8, bytes.fromhex(ROOTS[4]), root, [])
    for wrong in (-1, 8):
        with pytest.raises(ValueError, match="leaf"):
            merkle.inclusion(wrong, 8, node)
    with pytest.raises(ValueError, match="size"):
        merkle.consistency(9, 8, node)
