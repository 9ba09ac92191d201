"""Engines: what turns prompts into tokens, and checks others' tokens. Start with interface.py."""
