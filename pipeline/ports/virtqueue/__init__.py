"""Split virtqueues (Virtio 1.2, section 2.7), for any transport."""
