"""Rounds across sites. Nothing is here yet; the other three packages work without it."""
