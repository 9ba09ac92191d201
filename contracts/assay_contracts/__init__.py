"""Credit on a chain: contracts, the local chain, the outbox and credit verification."""
