"""Any chain behind one interface, and what is sent to it exactly once."""
