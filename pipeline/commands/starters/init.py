"""`ringline init`: write a configuration to begin with, which explains every key."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ringline.pipeline.commands.starters.new import write_new
from ringline.pipeline.configuration.forms import check_name
from ringline.shm.errors import UsageError

FILE = "ringline.toml"

# A line `# KEY = VALUE` shows the default; without the `# ` the file means the same. A line
# `#? KEY = VALUE` shows another value.
TEXT = """\
# A configuration of ringline. Lines that begin with `# ` show defaults; remove the `# ` to change
# one. Lines that begin with `#? ` show an example. Check the file:  ringline check FILE
# Run it:  ringline run FILE

name = "NAME"                     # two instances with the same name cannot run at once

[memory]
# buffers = "auto"                # packet buffers of 2240 bytes: enough for all rings; or a number
# hugepages = "auto"              # auto | require | off

[port.wan]                        # a port; its name is yours; add [port.lan] for another one
device = "sim:82599"              # simulated; a real card: "pci:0000:03:00.0" (ringline devices);
                                  # or a network interface: "xdp:eth0" (ip link);
                                  # or a copy of its traffic: "packet:eth0";
                                  # or a new one to the kernel of this machine: "tap:tap0"
# queues = 1                      # pairs of an RX and a TX queue, one worker each: 1 to 16
# dma = "auto"                    # auto, the same as offset: through VFIO | physical: without IOMMU
# unproved = false                # true: also a card that ringline was never tried on
# rx_descriptors = 512            # per queue: a power of two, 64 to 4096
# tx_descriptors = 512
# promiscuous = true              # receive frames for every MAC address
#? mac = "02:00:00:00:00:01"      # default: the address of the card
# more_macs = []                  # more addresses to receive for, with promiscuous = false
# vlan_strip = false              # true: the card removes VLAN tags
#? vlan_filter = [100, 200]       # receive frames of these VLANs and untagged ones; default: all
# mtu = 1500                      # up to 9216: jumbo frames, in larger buffers
# rss_key = "default"             # default | symmetric | 80 hexadecimal digits
# process = false                 # true: the simulated card runs in its own process

# A port on a network interface that keeps its kernel driver has these keys, and no wire:
#   [port.lan]
#   device = "xdp:eth0"
#   take = [{ protocol = "udp" }] # frames for ringline, the others stay with the kernel; or "all"
#   mode = "copy"                 # copy | zero-copy | auto
#   attach = "auto"               # auto | native | generic
#   hash = "none"                 # none | software
#   busy_poll_us = 0              # microseconds, up to 1000; 0: interrupts
#   channels = "check"            # set: give the interface as many channels as the port has queues
#   fix_checksums = false         # true: write TCP and UDP checksums, which a veth may lack
#   force = false                 # true: take an interface although this cuts off the machine

# A port with a copy of the traffic of an interface has these keys, and no wire:
#   [port.probe]
#   device = "packet:eth0"
#   outgoing = true               # false: only frames that arrive, for forwarding
#   qdisc_bypass = false          # true: send past the queueing discipline
#   block_timeout_ms = 1          # how long the kernel may keep a frame, up to 100

# A port on a TAP, which ringline makes unless it is there, has these keys, and no wire:
#   [port.host]
#   device = "tap:tap0"
#   addresses = []                # of the kernel, as in ["192.0.2.1/24"]
#   mtu = 1500                    # bytes, 68 to 9216
#   up = true                     # bring the interface up when the workers are ready

[port.wan.wire]                   # of a simulated card: what arrives; remove it for a real card
# rate_mpps = 0.0                 # 10^6 packets a second; 0: as fast as the card has room
#? replay = "capture.pcap"        # these packets arrive, instead of flows
#? repeat = 1                     # how often to replay; 0: without end
#? pace = "rate"                  # or "captured": the gaps of the capture, without rate_mpps
#? speed = 1.0                    # only with pace = "captured": 2.0 plays it in half the time
#? cut = "refuse"                 # "play": use a capture that is cut short up to the cut
#? record = "out.pcap"            # write the packets that the card sends to this file

[port.wan.wire.flows]             # synthetic packets; remove this line for a replay
# count = 256                     # flows
# sizes = 64                      # bytes of a frame with CRC: a number, a list, or "imix"
# ip = "ipv4"                     # ipv4 | ipv6 | mixed
# protocol = "udp"                # udp | tcp | mixed
# packets = 0                     # how many arrive; 0: without end

[worker]                          # all workers; [worker.1] is for the worker of queue 1 only
plugin = "forward"                # or yours: "./file.py:object", from `ringline new`
# cpus = []                       # pin the workers to these CPUs in turn; []: ringline chooses
# state = 4194304                 # bytes for the named state, counters and tables of the plugin
# blanks = 0                      # empty buffers for packets that the plugin creates; switch and
                                  # router have as many as they need
# debug = false                   # true: bounds checks in compiled plugins
# silence = 1.0                   # seconds in one batch or tick; then the worker is replaced

[worker.restart]
# intensity = 5                   # after more deaths than this
# period = 30.0                   # in so many seconds, the queue is given up

[worker.options]                  # options of the plugin; those of forward:
#? map = { wan = "wan" }          # input port = output port

[driver]
#? cpu = 0                        # default: ringline chooses
# idle = "adaptive"               # adaptive | busy: without traffic, sleep or spin
# deep_sleep_us = 900             # microseconds: longest sleep after 0.1 s without traffic; 0: none

[metrics]
# listen = "127.0.0.1:9464"       # serve http://127.0.0.1:9464/metrics; or "off"
"""


def init(path: str) -> str:
    """Write a configuration to the new file `path`; returns what to do next.

    The instance is called like the file. Raises UsageError when the file exists or does not end
    with `.toml`, EnvironmentLacks when it cannot be written.
    """
    if not path.endswith(".toml"):
        raise UsageError(f"the name of a configuration must end with .toml, not {path!r}")
    if not path.isprintable():
        raise UsageError(f"the name of a configuration must be printable, not {path!r}")
    name = Path(path).stem
    if check_name(name):
        name = "ringline"
    write_new({path: TEXT.replace("NAME", name)})
    shown = shlex.quote(path if os.path.dirname(path) else f"./{path}")
    return f"wrote {path}; next:\n  ringline check {shown}\n  ringline run {shown}"
