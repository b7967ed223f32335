"""Receive-side scaling: the hash keys, common to all kinds of card."""

from __future__ import annotations

KEY_BYTES = 40
KEYS = {
    # The key of the published verification vectors; the default of most drivers.
    "default": "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
    # With a key that repeats every 16 bits both directions of a connection have the same hash.
    "symmetric": "6d5a" * (KEY_BYTES // 2),
}


def rss_key(text: str) -> bytes:
    """The RSS key, 40 bytes, for `default`, `symmetric` or 80 hexadecimal digits."""
    return bytes.fromhex(KEYS.get(text, text))
