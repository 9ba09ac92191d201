"""What an account checks and claims; the base install runs all but the claim."""
