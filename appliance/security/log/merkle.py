"""The Merkle tree of RFC 6962 / RFC 9162 section 2.1 over SHA-256: roots, proofs and their checking.

Pure. A tree is known by a `Node`: a function that gives the hash of a complete subtree, the one of
2**level leaves that begins at leaf place * 2**level; level 0 is the leaf hash itself. Leaves count from 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

Node = Callable[[int, int], bytes]
EMPTY = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def peaks(size: int) -> Iterator[tuple[int, int]]:
    """Level and place of the complete subtrees that a tree of `size` leaves consists of, left to right."""
    begin = 0
    while begin < size:
        level = (size - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level


def root(size: int, node: Node) -> bytes:
    """The tree's hash at `size` leaves; asks for its peaks only."""
    found = b""
    for level, place in reversed(list(peaks(size))):
        found = node_hash(node(level, place), found) if found else node(level, place)
    return found or EMPTY


def completed(index: int, leaf: bytes, node: Node) -> list[tuple[int, int, bytes]]:
    """Level, place and hash of each subtree that leaf `index` completes, itself first; two on average."""
    level, place, found = 0, index, [(0, index, leaf)]
    while place & 1:
        leaf = node_hash(node(level, place - 1), leaf)
        level, place = level + 1, place >> 1
        found.append((level, place, leaf))
    return found


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All complete subtrees over `leaves`, level by level, the leaves first."""
    made = [list(leaves)]
    digest = hashlib.sha256
    while len(made[-1]) > 1:
        row = iter(made[-1])
        made.append([digest(b"\1" + a + b).digest() for a, b in zip(row, row, strict=False)])
    return made


def node_of(leaves: Sequence[bytes]) -> Node:
    """The tree over leaf hashes that are all in memory."""
    made = levels(leaves)
    return lambda level, place: made[level][place]


def inclusion(index: int, size: int, node: Node) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves (RFC 9162 section 2.1.3.1).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_between(middle, end, node))
            end = middle
        else:
            path.append(_between(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency(old: int, size: int, node: Node) -> list[bytes]:
    """The proof that the tree of `size` leaves begins with that of `old` (RFC 9162 section 2.1.4.1).

    Empty for `old` 0 and for equal sizes, where there is nothing to prove.

    Raises:
        ValueError: `old` is not in 0..size.
    """
    if not 0 <= old <= size:
        raise ValueError("no such size")
    if old in (0, size):
        return []
    begin, end, whole, path = 0, size, True, []
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(_between(middle, end, node))
            end = middle
        else:
            path.append(_between(begin, middle, node))
            begin, whole = middle, False
    return ([] if whole else [_between(begin, end, node)]) + path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that `leaf` stands at `index` under `root` (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    here, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if here & 1 or here == last:
            found = node_hash(step, found)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            found = node_hash(found, step)
        here, last = here >> 1, last >> 1
    return last == 0 and found == root


def check_consistency(old: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that `root` extends `old_root` (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old <= size:
        return False
    if old == size:
        return not proof and old_root == root
    if old == 0:
        return not proof and old_root == EMPTY
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path or not proof:
        return False
    here, last = old - 1, size - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    before = after = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            after = node_hash(after, step)
        here, last = here >> 1, last >> 1
    return last == 0 and before == old_root and after == root


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _between(begin: int, end: int, node: Node) -> bytes:
    """The hash over leaves begin..end-1, a subtree of RFC 6962's recursion: `begin` is aligned to it."""
    return root(end - begin, lambda level, place: node(level, place + (begin >> level)))
