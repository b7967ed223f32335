"""What cards with descriptor rings of the same form share: rings, life cycle, shared steps."""
