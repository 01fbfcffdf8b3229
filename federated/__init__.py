"""Rounds across sites: what is averaged, who may take part, and how it travels."""
