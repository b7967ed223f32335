"""The driver process: its packet loop (the lane), settlement, balances."""
