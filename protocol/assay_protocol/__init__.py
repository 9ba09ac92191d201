"""The language of the network: messages, tickets, receipts, signatures. Pure; no I/O."""
