"""Network interfaces, one folder per kind of card, behind one small interface."""
