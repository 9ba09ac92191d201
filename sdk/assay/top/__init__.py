"""`assay top`: what nodes and the network do, live. core/ computes, reading asks, screen shows."""
