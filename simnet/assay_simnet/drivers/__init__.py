"""How a scenario is carried out. `real`: separate OS processes on loopback, real models."""
