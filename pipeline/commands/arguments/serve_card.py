"""The arguments of `ringline serve-card`.

They are not in `serve_card`: the command line must not import the simulated card.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError

IDS = ("10f7", "10fb", "154d", "1557")
BROKEN = ("eeprom", "link", "stop")  # as in sim82599.model


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `ringline serve-card`."""
    parser.add_argument(
        "--socket", required=True, metavar="PATH", help="the UNIX socket for the client"
    )
    parser.add_argument(
        "--id",
        dest="device",
        choices=IDS,
        default="10f7",
        help="device ID: 10f7 has a backplane, where Linux brings the link up; 10fb, 154d and 1557 "
        "have a cage for an SFP+ module, which is empty (default: 10f7)",
    )
    parser.add_argument(
        "--wire",
        metavar="WIRE",
        help="where frames go and come from: tap:NAME, or unix:OWN,PEER with one datagram for each "
        "frame (default: no frames arrive, and those that leave are counted)",
    )
    parser.add_argument(
        "--mac",
        type=_mac,
        default="02:00:00:00:00:01",
        metavar="MAC",
        help="address of the card, which is in RAL and RAH after a reset, not in the words of its "
        "EEPROM (default: 02:00:00:00:00:01)",
    )
    parser.add_argument(
        "--broken",
        action="append",
        choices=BROKEN,
        default=[],
        help="a card with a defect, to see what a driver does: eeprom: a wrong checksum; link: it "
        "never comes up; stop: receive queues stay enabled until a reset (may be repeated)",
    )
    parser.add_argument("--record", metavar="FILE", help="write the frames that leave to this pcap")


def _mac(text: str) -> bytes:
    parts = text.split(":")
    try:
        mac = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        mac = b""
    if len(mac) != 6 or len(parts) != 6:
        raise ArgumentTypeError(f"must be an address such as 02:00:00:00:00:01, not {text!r}")
    if mac[0] & 1 or not any(mac):
        raise ArgumentTypeError(f"must be the address of one card, not {text!r}")
    return mac
