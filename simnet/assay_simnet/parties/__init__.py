"""Who takes part in a simulated network: each interprets one production core's effects."""
