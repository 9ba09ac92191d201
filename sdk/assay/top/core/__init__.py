"""What is shown, computed from what was read. Pure: no clock, no I/O."""
