"""Examples and units, which `ringline COMMAND --help` shows at its end."""

from __future__ import annotations

import argparse
import textwrap

WIDTH = 80  # characters of a line

# Command -> (a command line, what it does). The first ones belong to `ringline` itself.
EXAMPLES = {
    "": (
        ("ringline new guard", "writes a plugin and its test"),
        ("ringline try ./guard.py:guard in.pcap", "tries the plugin on a capture"),
        ("ringline run ./guard.py:guard", "runs it on a simulated card"),
        ("ringline lab ./guard.py:guard", "joins two hosts through it, for ping and TCP"),
        ("ringline init edge.toml", "writes a configuration, for a card or for more settings"),
        ("ringline run edge.toml", "runs the configuration"),
    ),
    "run": (
        ("ringline run", "forwards synthetic packets through a simulated card"),
        (
            "ringline run ./guard.py:guard --replay in.pcap --record out.pcap",
            "runs a plugin on a capture, and writes what it sends",
        ),
        (
            "ringline run ./nat.py:nat --replay wan=a.pcap --replay lan=b.pcap",
            "gives each of two ports a capture",
        ),
        ("ringline run forward --queues 4 --for 10", "runs four workers for 10 seconds"),
        ("ringline run edge.toml --report report.json", "runs a configuration"),
    ),
    "lab": (
        ("ringline lab", "joins two hosts, and says how to ping from one to the other"),
        (
            "ringline lab ./guard.py:guard --exec 'ping -c 3 $RINGLINE_PEER'",
            "runs a command on the first host, and ends with its exit code",
        ),
        (
            "ringline lab forward --delay 10ms --rate 100mbit --for 60",
            "delays each direction by 10 ms, and ends after a minute",
        ),
    ),
    "check": (
        ("ringline check edge.toml", "reports every mistake with its line"),
        ("ringline check ./guard.py:guard -o limit=9", "checks a plugin and its options"),
    ),
    "init": (("ringline init edge.toml", "writes the configuration of an instance called edge"),),
    "new": (
        ("ringline new guard", "writes guard.py and test_guard.py"),
        ("ringline new guard --tier c", "writes guard.c and test_guard.py"),
    ),
    "status": (
        ("ringline status", "shows the only instance that runs here"),
        ("ringline status edge --json", "prints everything about edge, for a program"),
    ),
    "top": (("ringline top edge", "shows the live table of edge; Ctrl-C ends it"),),
    "cleanup": (
        ("ringline cleanup edge.toml", "frees what a killed run of edge.toml left"),
        ("ringline cleanup ringline", "frees what a killed run without a file left"),
    ),
    "try": (
        ("ringline try ./guard.py:guard in.pcap", "runs a plugin on every packet of a capture"),
        (
            "ringline try ./guard.py:guard in.pcap -w out.pcap -o limit=9",
            "sets an option, and writes the packets that the plugin sends",
        ),
        ("ringline try forward - --ports wan,lan", "reads standard input; there are two ports"),
    ),
    "analyze": (
        ("ringline analyze flow_stats captures/", "finds all flows in a folder of captures"),
        (
            "ringline analyze ./guard.py:guard 'day*.pcap.gz' late.pcap -w results",
            "writes a report, and tables as CSV, into a folder",
        ),
        (
            "ringline analyze flow_stats captures/ -w results --format parquet --resume",
            "goes on from what an interrupted analysis finished there; writes Parquet",
        ),
    ),
    "rss": (
        ("ringline rss in.pcap --queues 8", "spreads a capture over eight queues"),
        ("ringline rss --tuple '10.0.0.1:99 > 10.0.0.2:80/tcp'", "finds the queue of one flow"),
    ),
    "devices": (("ringline devices", "shows each card, its driver, and whether it is usable"),),
    "doctor": (
        ("ringline doctor", "says of each property of this machine: ok, hint or problem"),
        ("ringline doctor --json", "prints the same for a program; exit code 3: a problem"),
    ),
    "bind": (("ringline bind 0000:03:00.0", "makes the card usable as pci:0000:03:00.0"),),
    "unbind": (("ringline unbind 0000:03:00.0", "gives the card back to its kernel driver"),),
    "serve-card": (
        ("ringline serve-card --socket card.sock", "waits for QEMU, or another program"),
        (
            "ringline serve-card --socket card.sock --wire tap:lab0",
            "joins the card to the network interface lab0 of this machine; needs root",
        ),
    ),
    "interfaces": (
        ("ringline interfaces", 'shows which interfaces can be device = "xdp:NAME"'),
        ("ringline interfaces --json", "prints the same for a program"),
    ),
    "bench": (
        ("ringline bench", "measures everything; takes some minutes"),
        ("ringline bench handoff plugin --runs 9", "measures two things, nine times each"),
        ("ringline bench xdp", "measures AF_XDP between two veth pairs; needs root"),
        ("ringline bench compare ../old/.venv", "alternates with the version installed there"),
    ),
    "completion": (
        ('eval "$(ringline completion bash)"', "for bash and zsh, in ~/.bashrc or ~/.zshrc"),
        ("ringline completion fish | source", "for fish, in ~/.config/fish/config.fish"),
    ),
}

TABLE_UNITS = """
Mpps: 10^6 packets a second. Gbit/s: 10^9 bits a second of frames without CRC.
busy: share of the time in which the worker has packets. ns/pkt: nanoseconds a packet inside the
plugin. in/out: packets on the rings to the worker and back to the driver. restarts, errors,
dropped: their numbers since the start.
"""
UNITS = {
    "run": TABLE_UNITS,
    "lab": TABLE_UNITS,
    "status": TABLE_UNITS,
    "top": TABLE_UNITS,
    "bench": """
ns, us, ms, s: times, less is better. Mpps: 10^6 packets a second, more is better. MB: 10^6 bytes.
best fifth: the mean of the best fifth of the windows of 80 ms; spread: how far the highest and the
lowest tenth of them are apart. bare limit: the same work in a bare loop, without ringline; of
limit: the share of it that was reached; 1.00 is all. A goal such as 0.90x is such a share.
disturbed: something disturbed the runs, so a missed goal says little.
""",
    "try": """
Sizes and --state are bytes. Lengths of frames are without CRC. Times in the plugin are nanoseconds
(ns).
""",
}


class Help(argparse.HelpFormatter):
    """Wraps texts of one line; texts of several lines stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def epilog(command: str) -> str | None:
    """The examples and units of a command, in lines of at most WIDTH characters."""
    lines = []
    for line, what in EXAMPLES.get(command, ()):
        lines += [f"  {line}", f"      {what}"]
    if lines:
        lines.insert(0, "examples:")
    if units := UNITS.get(command):
        indent = "  "
        lines += ["", "units:"]
        lines += textwrap.wrap(
            units.strip(), WIDTH - 2, initial_indent=indent, subsequent_indent=indent
        )
    return "\n".join(lines) or None
