"""The parts of the bundled plugin `router`."""
