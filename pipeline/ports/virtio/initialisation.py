"""Bring a virtio-net device up: one function per step, in the order of the specification.

Numbers in brackets are sections of Virtio 1.2. `STEPS`, at the end, is the whole sequence: a
function that is not in it is not a step.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.rss import rss_key
from ringline.pipeline.ports.virtio import registers as r
from ringline.pipeline.ports.virtio.card import Card
from ringline.pipeline.ports.virtqueue.requests import RequestQueue
from ringline.shm.errors import ConfigurationError, EnvironmentLacks, HardwareError

TABLE_ENTRIES = 128  # of the redirection table, as with other cards
HEADER, HEADER_WITH_HASH = 12, 20  # bytes: 5.1.6
SEVERAL_QUEUES = ("MQ", "RSS")
COMMANDED = ("CTRL_RX", "CTRL_VLAN", "CTRL_RX_EXTRA", "CTRL_MAC_ADDR", "HASH_REPORT", "MQ", "RSS")
QUEUES_MAX = 0xFFFF  # a number of a queue has 16 bits


def reset(card: Card) -> None:
    """[3.1.1, 1] Whatever used the device before, it stops now."""
    card.reset()


def acknowledge(card: Card) -> None:
    """[3.1.1, 2 and 3] The driver has found the device, and knows how to drive it."""
    card.DEVICE_STATUS.set("ACKNOWLEDGE")
    card.DEVICE_STATUS.set("DRIVER")


def choose_features(card: Card) -> None:
    """[3.1.1, 4] Accept what the device offers and this driver uses."""
    offered = 0
    for half in range(2):
        card.DEVICE_FEATURE_SELECT.write(half)
        offered |= card.DEVICE_FEATURE.read() << 32 * half
    unwanted = set(SEVERAL_QUEUES if card.config.queues == 1 else ())
    if card.config.vlan_filter is None:
        unwanted.add("CTRL_VLAN")  # with it, a device drops all VLANs that it is not told
    if not offered >> r.FEATURES["CTRL_VQ"] & 1:  # 5.1.3.1: the others need it
        unwanted.update(COMMANDED)
    wanted = sum(1 << bit for name, bit in r.FEATURES.items() if name not in unwanted)
    card.features = offered & wanted
    if not card.has("VERSION_1"):
        raise EnvironmentLacks(
            f"{card.name}: the device does not offer VIRTIO_F_VERSION_1, so it is older than "
            "Virtio 1.0; give it to the guest as a modern one (QEMU: disable-legacy=on)"
        )
    if card.translated and not card.has("ACCESS_PLATFORM"):
        raise EnvironmentLacks(
            f"{card.name}: the device does not offer VIRTIO_F_ACCESS_PLATFORM, so it goes around "
            "the IOMMU and cannot be used with VFIO; give it to the guest with that (QEMU: "
            "iommu_platform=on)"
        )


def check_queues(card: Card) -> None:
    """The device must have as many queues as the port."""
    queues = card.config.queues
    most = max(1, card.network.MAX_VIRTQUEUE_PAIRS.read()) if card.has_several_queues() else 1
    if queues > most:
        raise ConfigurationError(
            f"port.{card.config.name}.queues: the device has {most} pair{'s'[: most > 1]} of "
            f"queues, not {queues}; set queues = {most}, or give the device more (QEMU: "
            f"mq=on and a network with queues={queues})"
        )


def check_filters(card: Card) -> None:
    """What the configuration demands of the filters, by the feature that has it."""
    config = card.config
    for key, needed, feature, remedy in (
        ("promiscuous", not config.promiscuous, "CTRL_RX", "set promiscuous = true"),
        ("mac", config.mac is not None, "CTRL_MAC_ADDR", "remove mac"),
        ("vlan_filter", config.vlan_filter is not None, "CTRL_VLAN", "remove vlan_filter"),
        (
            "vlan_filter",
            config.vlan_filter is not None and config.promiscuous,
            "CTRL_RX_EXTRA",
            "set promiscuous = false, or remove vlan_filter",
        ),
    ):
        if needed and not card.has(feature):
            raise ConfigurationError(
                f"port.{config.name}.{key}: this device cannot do that (it does not offer "
                f"VIRTIO_NET_F_{feature}); {remedy}"
            )


def accept_features(card: Card) -> None:
    """[3.1.1, 4 to 6] Write what was chosen, and see whether the device agrees."""
    for half in range(2):
        card.DRIVER_FEATURE_SELECT.write(half)
        card.DRIVER_FEATURE.write(card.features >> 32 * half & 0xFFFFFFFF)
    card.DEVICE_STATUS.set("FEATURES_OK")
    if not card.DEVICE_STATUS.field("FEATURES_OK"):
        raise HardwareError(
            f"{card.name}: the device refuses the features {card.features:#x}, all of which it "
            "has offered (FEATURES_OK stays 0)"
        )
    card.c.header = HEADER_WITH_HASH if card.has("HASH_REPORT") else HEADER


def allow_dma(card: Card) -> None:
    """Switch PCI bus mastering on. Only after the reset: DMA from before must not resume."""
    card.bus_mastering(True)


def place_queues(card: Card) -> None:
    """[3.1.1, 7] [5.1.2] Receive queues have even numbers, transmit queues odd ones."""
    for queues, memories, odd in ((card.c.rx, card.rx, 0), (card.c.tx, card.tx, 1)):
        for q, memory in enumerate(memories):
            number = 2 * q + odd
            queues[q].number = number
            queues[q].doorbell = card.place(number, ffi.addressof(queues[q], "ring"), memory)
    lib.rl_virtio_post(card.c)


def place_control_queue(card: Card) -> None:
    """[5.1.2] It follows the queues of all pairs that the device has."""
    card.control = None
    if not card.has("CTRL_VQ"):
        return
    pairs = card.network.MAX_VIRTQUEUE_PAIRS.read() if card.has_several_queues() else 1
    number = 2 * pairs
    if not card.config.queues <= pairs <= QUEUES_MAX // 2:
        raise HardwareError(
            f"{card.name}: the device says that it has {pairs} pairs of queues, so the number of "
            f"its control queue would be {number}; that cannot be, so the device is broken"
        )
    ring = ffi.new("struct rl_virtq *")
    memory, place = card.command_memory
    doorbell = card.place(number, ring, memory, least=2)
    text = ffi.cast("uint8_t *", place.address)
    card.control = RequestQueue(ring, text, place.bus, lambda: doorbell.__setitem__(0, number))


def start_device(card: Card) -> None:
    """[3.1.1, 8] The device works from here on. It has no buffers yet, so it receives nothing."""
    card.DEVICE_STATUS.set("DRIVER_OK")


def use_queues(card: Card) -> None:
    """[5.1.6.5.5] How many pairs of queues it uses; it shares packets out as it likes."""
    if (queues := card.config.queues) > 1 and not card.has("RSS"):
        pairs = struct.pack("<H", queues)
        card.command(r.MQ_VQ_PAIRS_SET, pairs, f"use {queues} pairs of queues")


def set_hash(card: Card) -> None:
    """[5.1.6.5.7] The same by RSS if it can, with the table of other cards. [5.1.6.5.6] Else only
    the hash that it reports."""
    if not (card.has("RSS") or card.has("HASH_REPORT")):
        return
    network, queues, key = card.network, card.config.queues, rss_key(card.config.rss_key)
    if (longest := network.RSS_MAX_KEY_SIZE.read()) < len(key):
        raise HardwareError(
            f"{card.name}: the device takes RSS keys of {longest} bytes, not of {len(key)}"
        )
    types = network.SUPPORTED_HASH_TYPES.read() & r.HASH_TYPES
    if not card.has("RSS"):
        card.command(r.MQ_HASH_CONFIG, struct.pack("<I8xB", types, len(key)) + key, "report hashes")
        return
    most = min(TABLE_ENTRIES, network.RSS_MAX_INDIRECTION_TABLE_LENGTH.read())
    table = [entry % queues for entry in range(1 << most.bit_length() >> 1)]
    if len(table) < queues:
        raise HardwareError(
            f"{card.name}: the longest RSS table that the device takes has {len(table)} entries, "
            f"too few for {queues} queues (with RSS it must take {TABLE_ENTRIES})"
        )
    head = struct.pack("<IHH", types, len(table) - 1, 0)  # what has no hash goes to queue 0
    rest = struct.pack(f"<{len(table)}HHB", *table, queues, len(key))
    card.command(r.MQ_RSS_CONFIG, head + rest + key, f"use RSS over {queues} queues")


def set_address(card: Card) -> None:
    """[5.1.6.5.2] The configured MAC address, if there is one, and more: the table of unicast
    addresses, and that of multicast addresses."""
    if card.config.mac is not None:
        card.command(r.MAC_ADDR_SET, as_bytes(card.config.mac), f"receive for {card.config.mac}")
    if card.config.more_macs:
        macs = sorted(map(as_bytes, card.config.more_macs), key=is_group)
        groups = sum(map(is_group, macs))
        single = struct.pack("<I", len(macs) - groups) + b"".join(macs[: len(macs) - groups])
        group = struct.pack("<I", groups) + b"".join(macs[len(macs) - groups :])
        card.command(r.MAC_TABLE_SET, single + group, f"receive for {len(macs)} more addresses")


def set_filters(card: Card) -> None:
    """[5.1.6.5.1] Accept every unicast and multicast frame when promiscuous. The promiscuous mode
    of a device may go around its VLAN filter, so with one the driver accepts all addresses instead.
    [5.1.6.5.3] VLAN 0 passes always: it is a priority and no VLAN (IEEE 802.1Q)."""
    everything, vlans = card.config.promiscuous, card.config.vlan_filter
    modes = [(r.RX_PROMISC, "CTRL_RX", everything and vlans is None)]
    modes += [(r.RX_ALLMULTI, "CTRL_RX", everything), (r.RX_ALLUNI, "CTRL_RX_EXTRA", everything)]
    for command, feature, on in modes:
        if card.has(feature):
            card.command(command, bytes((on,)), "change what it receives")
    for vlan in sorted({0, *vlans}) if vlans is not None else ():
        card.command(r.VLAN_ADD, struct.pack("<H", vlan), f"receive for VLAN {vlan}")


def as_bytes(mac: str) -> bytes:
    """The bytes of a MAC address."""
    return bytes.fromhex(mac.replace(":", ""))


def is_group(mac: bytes) -> bool:
    """Whether it is a multicast address (IEEE 802)."""
    return bool(mac[0] & 1)


def receive(card: Card) -> None:
    """[3.2.1] Offer the buffers. Frames arrive from here on, so this is the last step."""
    lib.rl_virtio_receive(card.c)


# fmt: off
STEPS: tuple[Callable[[Card], None], ...] = (
    # [3.1.1] the device, its features
    reset, acknowledge, choose_features, check_queues, check_filters, accept_features,
    # PCI bus mastering
    allow_dma,
    # [3.1.1] queues
    place_queues, place_control_queue, start_device,
    # [5.1.6.5] commands
    use_queues, set_hash, set_address, set_filters,
    # [3.2.1] buffers
    receive,
)
# fmt: on
