"""Token economics of a million nodes, an epoch at a time: what level "epochs" is made of."""
