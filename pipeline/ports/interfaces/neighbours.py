"""Interfaces that belong together: bonds, bridges and VLANs, and what a port gets on one of them.

What no port can take is refused in interface.py; these sentences are about the rest.
"""

from __future__ import annotations

from ringline.pipeline.ports.interfaces.interface import Interface, on_top

BOND = "bond"


def needs_generic(found: Interface) -> bool:
    """Whether native XDP gets no frame here. A bond runs the program at its members, and there the
    kernel gives no frame to a socket of the bond (`xsk_rcv_check` in net/xdp/xsk.c)."""
    return found.kind == BOND


def said_of_xdp(found: Interface, promiscuous: bool) -> list[str]:
    """Sentences about a port that takes the traffic of the interface."""
    name, sentences = found.name, _said_of_bridge(found, promiscuous)
    if needs_generic(found):
        sentences.append(
            f"{name} is a bond, whose frames come by generic XDP only, which is slower"
        )
    above = _above(found)
    if above:
        one = len(above) == 1
        get, its, need = ("gets", "its", "it needs") if one else ("get", "their", "they need")
        sentences.append(
            f"{_receive(above)} through {name}, and {get} no frame that the port takes; leave "
            f"{its} frames out of take, if {need} them"
        )
    return sentences


def said_of_packet(found: Interface, promiscuous: bool) -> list[str]:
    """Sentences about a port that gets a copy of the traffic of the interface."""
    name, sentences = found.name, _said_of_bridge(found, promiscuous)
    if found.kind == "vlan":
        sentences.append(
            f"{name} is a VLAN: its frames come without their tag, and those that are sent get it"
        )
    if found.above in (BOND, "bridge", "team"):
        sentences.append(
            f"{name} belongs to a {found.above}, which gets the same frames, and none of those "
            "that the port sends"
        )
    if above := _above(found):
        sentences.append(f"{_receive(above)} through {name}: the port gets these frames, too")
    return sentences


def _said_of_bridge(found: Interface, promiscuous: bool) -> list[str]:
    """A promiscuous bridge passes to this machine a copy of all that it forwards
    (`br_handle_frame_finish` in net/bridge/br_input.c)."""
    if found.kind != "bridge":
        return []
    others = "and a copy of those" if promiscuous else "and none of those"
    return [
        f"{found.name} is a bridge: the port gets the frames for this machine, {others} that the "
        f"bridge forwards (promiscuous = {str(promiscuous).lower()})"
    ]


def _above(found: Interface) -> list[str]:
    """Which interfaces receive through this one."""
    return [name for name, _ in on_top(found)]


def _receive(names: list[str]) -> str:
    return f"{', '.join(names)} {'receives' if len(names) == 1 else 'receive'}"
