"""A node: serves models to strangers and proves what it did."""
