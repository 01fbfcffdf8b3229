"""Flower at work: the processes that carry bytes between a coordinator and its sites."""
