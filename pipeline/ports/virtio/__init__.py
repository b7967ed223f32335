"""The driver for virtio-net on PCI."""
