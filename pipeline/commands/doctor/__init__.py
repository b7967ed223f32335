"""`ringline doctor`: what of this machine stops a run on a card, or slows it down."""
