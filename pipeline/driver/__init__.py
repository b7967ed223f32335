"""The driver process: the packet loop (the lane), settlement, balances."""
