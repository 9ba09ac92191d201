"""Scenarios that run the whole network on one machine."""
