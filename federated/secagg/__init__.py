"""Sums of the sites' updates that show nobody a single one (docs/secure-aggregation.md).

Bonawitz et al. 2017 in two messages a round, with keys that the signed federation pins. Bytes and integers go
in, bytes and integers come out; who sends, stores and waits is the round loop.
"""
