"""Executing the local chain again, and voting on its blocks."""
