"""Proposals, votes, and what they decided, as programs read and make them."""
