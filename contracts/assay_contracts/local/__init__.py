"""The default chain: an EVM in this process, on one SQLite file, its blocks sealed."""
