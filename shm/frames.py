"""Lengths of frames, and the buffers that hold them. Lengths are in bytes, without the CRC.

A card writes no more than a number of KiB into a buffer (82599 datasheet, SRRCTL.BSIZEPACKET), so
a buffer has room for whole KiB behind its headroom.
"""

from __future__ import annotations

from ringline.shm._shm import lib

ETHERNET_BYTES = 14
TAG_BYTES = 4
CRC_BYTES = 4
MTU = 1500  # without jumbo frames
MTU_MAX = 9216  # what most switches forward; frames of 9234 bytes


def frame_max(mtu: int) -> int:
    """The longest frame with this MTU: with its Ethernet header and a VLAN tag."""
    return mtu + ETHERNET_BYTES + TAG_BYTES


def data_kib(longest: int) -> int:
    """KiB that a card needs for frames of up to `longest` bytes and their CRC; at least 2."""
    return max(2, -(-(longest + CRC_BYTES) // 1024))


def units_for(longest: int) -> int:
    """Units of packet memory in a buffer for frames of up to `longest` bytes."""
    needed: int = lib.RL_BUFFER_HEADROOM + data_kib(longest) * 1024
    return -(-needed // int(lib.RL_BUFFER_STRIDE))
