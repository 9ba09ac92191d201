"""The coordinator's decisions: pure, `handle(now, event) -> effects`. Start at coordinator.py."""
