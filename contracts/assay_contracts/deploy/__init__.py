"""From Solidity to contracts on a chain, and back to the proof that they are those."""
