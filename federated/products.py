"""LoRA-aware averaging: the mean of the products B A, not the product of the means.

mean(B) mean(A) is not mean(B A) when both are trained. Here each pair's mean product, of rank sites x r, is
cut back to rank r by its singular values (the nearest of rank r in the Frobenius norm, Eckart and Young
1936). It is found from thin QR factors of the stacked B and A, without the full matrix. What is cut off is
told, as a share of the whole: 0 means that nothing was lost. Where A is frozen (FFA-LoRA, Sun et al. 2024)
the plain mean is exact and needs none of this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def mean_product(
    pairs: Sequence[tuple[Matrix, Matrix]], shares: Sequence[float]
) -> tuple[Matrix, Matrix, float]:
    """(B, A, share lost) of rank r nearest to the sum of shares[i] * B_i A_i.

    Each B_i is (out, r), each A_i is (r, in); `shares` are above 0 and sum to 1.

    Raises:
        ValueError: the pairs have different shapes.
    """
    rank = pairs[0][0].shape[1]
    left = np.concatenate([share * b for share, (b, _) in zip(shares, pairs, strict=True)], axis=1)
    right = np.concatenate([a for _, a in pairs], axis=0)
    left_q, left_r = np.linalg.qr(left)
    right_q, right_r = np.linalg.qr(right.T)
    u, strengths, v = np.linalg.svd(left_r @ right_r.T)
    root = np.sqrt(strengths[:rank])
    b, a = (left_q @ u[:, :rank]) * root, root[:, None] * (v[:rank] @ right_q.T)
    whole = float(np.sum(strengths**2))
    lost = float(np.sum(strengths[rank:] ** 2)) / whole if whole else 0.0
    return b, a, lost
