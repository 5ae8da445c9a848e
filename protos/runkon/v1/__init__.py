"""Version 1 of the contract; additive changes only."""
