"""The loop that serves a card: it waits for the client, the wire and the card's own time."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from ringline.pipeline.ports.served.card import ServedCard
from ringline.pipeline.ports.served.protocol import Connection, Garbled
from ringline.pipeline.ports.sim82599.model import Sim82599

STEPS = 16  # of the model between two looks at the client
LONGEST_WAIT = 0.25  # seconds, so that `ended` is asked
RETRY = 0.001  # seconds until the other end of the wire may take frames again


def serve(
    listening: socket.socket,
    card: ServedCard,
    model: Sim82599,
    wire: int,
    ended: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Serve one client after the other until `ended`. `wire` is the descriptor of the live wire, -1
    without one; what happens is said in sentences."""
    while not ended():
        client = _next_client(listening, ended)
        if client is None:
            return
        say("a client has connected")
        try:
            with Connection(client, card) as connection:
                _serve_one(connection, model, wire, ended, say)
            say("the client has gone; the card is reset")
        except Garbled as why:
            say(f"the client was disconnected, because {why}; the card is reset")
        finally:
            card.release()


def _next_client(listening: socket.socket, ended: Callable[[], bool]) -> socket.socket | None:
    while not ended():
        if select.select([listening], [], [], LONGEST_WAIT)[0]:
            return listening.accept()[0]
    return None


def _serve_one(
    connection: Connection,
    model: Sim82599,
    wire: int,
    ended: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    watched = select.poll()
    watched.register(connection, select.POLLIN)
    of_client = connection.fileno()
    listens = False
    while not ended():
        moved = 0
        for _ in range(STEPS):
            last = model.step()
            moved += last
            if not last:
                break
        # A frame that waits for a descriptor keeps the wire readable.
        wanted = wire >= 0 and not model.waits_for_descriptor
        if wanted and not listens:
            watched.register(wire, select.POLLIN)
        elif listens and not wanted:
            watched.unregister(wire)
        listens = wanted
        wait = 0.0 if moved else min(model.idle_seconds(), LONGEST_WAIT)
        if not wanted and wire >= 0:
            wait = min(wait, RETRY)
        for fd, what in watched.poll(wait * 1000):
            if fd == of_client:
                if not connection.serve():
                    return
            elif what & ~select.POLLIN:  # it would wake the loop again and again
                say("--wire: its interface is gone; no frame passes any more")
                watched.unregister(wire)
                wire, listens = -1, False
