"""LoRA-aware averaging: the mean of the products B A, not the product of the means.

mean(B) mean(A) is not mean(B A) when both are trained. Here the mean product M, of a rank up to sites x r, is
cut back to rank r by its singular values (the nearest of rank r in the Frobenius norm, Eckart and Young
1936). M is never formed and the sites' factors are never held together: M X is the sum of share B (A X), one
site after the other, so memory does not grow with the sites. A few vectors more than r are turned towards the
strongest directions of M by going over the sites again and again (subspace iteration, Halko, Martinsson and
Tropp 2011, algorithm 4.4), until another turn gains less than a billionth of what is kept.

What is cut off is told, as a share of the whole: 0 means that nothing was lost. What lies beyond the vectors
that are turned is estimated from random probes; where sites x r is not more than these, there is nothing
there. Where A is frozen (FFA-LoRA, Sun et al. 2024) the plain mean is exact and needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Pairs = Callable[[], Iterable[tuple[float, Matrix, Matrix]]]

_MORE, _PROBES = 8, 16  # vectors beyond twice the rank; probes of what lies beyond those
_MOST_TURNS, _GAIN = 16, 1e-9
_SEED = 20240229  # fixed: the same updates give the same bytes again after a crash


def mean_product(pairs: Pairs) -> tuple[Matrix, Matrix, float]:
    """(B, A, share lost) of rank r nearest to the sum of share * B A over the pairs.

    `pairs()` goes over (share, B, A) from the first again with each call; each B is (out, r), each A (r, in),
    and the shares are above 0 and sum to 1.

    Raises:
        ValueError: the pairs have different shapes.
    """
    _, b, a = next(iter(pairs()))
    rank, size = b.shape[1], (len(b), a.shape[1])
    draw = np.random.default_rng(_SEED)
    turned = np.linalg.qr(draw.normal(size=(size[1], min(2 * rank + _MORE, *size))))[0]
    probes = draw.choice([-1.0, 1.0], size=(size[1], _PROBES))
    probed, kept = _times(pairs, probes, size[0]), -1.0
    for _ in range(_MOST_TURNS):
        left = np.linalg.qr(_times(pairs, turned, size[0]))[0]
        u, strengths, v = np.linalg.svd(_turned_times(pairs, left, size[1]), full_matrices=False)
        before, kept = kept, float(np.sum(strengths[:rank] ** 2))
        if kept - before <= _GAIN * kept:
            break
        turned = v.T
    beyond = probed - (left @ u * strengths) @ (v @ probes)
    whole = float(np.sum(strengths**2)) + float(np.mean(np.sum(beyond**2, axis=0)))
    root = np.sqrt(strengths[:rank])
    lost = max(0.0, 1.0 - kept / whole) if whole else 0.0
    return (left @ u[:, :rank]) * root, root[:, None] * v[:rank], lost


def _times(pairs: Pairs, some: Matrix, rows: int) -> Matrix:
    """M X, X of few columns."""
    total = np.zeros((rows, some.shape[1]))
    for share, b, a in pairs():
        total += (share * b) @ (a @ some)
    return total


def _turned_times(pairs: Pairs, some: Matrix, columns: int) -> Matrix:
    """Q^T M, Q of few columns."""
    total = np.zeros((some.shape[1], columns))
    for share, b, a in pairs():
        total += (some.T @ (share * b)) @ a
    return total
