"""Rounds by secure aggregation: who sends, stores and waits, for the messages of secagg/.

A round is one or more attempts, each with a number of its own, fresh round keys and fresh masks. An attempt
that is cut short before its survivors are fixed is begun anew; after that it is only ever finished.
"""
