"""Adversaries, each one a node like any other but for one thing it does."""
