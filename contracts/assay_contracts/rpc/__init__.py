"""Ethereum's JSON-RPC over the local chain, for wallets, explorers and checks."""
