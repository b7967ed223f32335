"""Cards on PCI: find one, give it to ringline and back, and reach its registers and memory."""
