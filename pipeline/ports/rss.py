"""Receive side scaling: what a card hashes with is the same for every kind of card."""

from __future__ import annotations

KEY_BYTES = 40
KEYS = {
    # The key of the published verification vectors; most drivers come up with it.
    "default": "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
    # Both directions of a connection hash alike when the key repeats every 16 bits.
    "symmetric": "6d5a" * (KEY_BYTES // 2),
}


def rss_key(text: str) -> bytes:
    """The Toeplitz key, 40 bytes, that `default`, `symmetric` or 80 hexadecimal digits mean."""
    return bytes.fromhex(KEYS.get(text, text))
