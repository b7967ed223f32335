"""The HTTP endpoint that Prometheus scrapes, and that load balancers and service managers ask.

`/metrics` has the metrics. `/healthz` has the status 200 and "ok" while all queues are served, else
503 and the reason.

`listen` runs before anything is started, so that an address in use is refused early.
prometheus_client takes 40 ms to import, and is imported by the first scrape.
"""

from __future__ import annotations

import errno
import socket
import traceback
from collections.abc import Callable

from ringline.pipeline.configuration.config import MetricsConfig
from ringline.pipeline.telemetry.flaws import health
from ringline.pipeline.telemetry.server import REQUEST_BYTES, Server
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.version import version

_INDEX = (
    "ringline {version}: instance {name}\n"
    "Metrics for Prometheus are at /metrics; /healthz tells whether all queues are served\n"
)
_REMEDIES = {
    errno.EADDRNOTAVAIL: "; name an address of this machine that is up (in a new network "
    "namespace, ip link set lo up gives it 127.0.0.1), or 0.0.0.0 for all of them",
    errno.EACCES: "; only root may use ports below 1024",
}
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def listen(config: MetricsConfig) -> socket.socket | None:
    """The listening socket of the configured address; None for "off".

    Raises EnvironmentLacks when the address is in use or not an address of this machine.
    """
    if config.host is None:
        return None
    where = shown(config.host, config.port)
    try:
        return _listen(config.host, config.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if config.elsewhere_if_taken:
                return _listen(config.host, 0)
            raise EnvironmentLacks(
                f"metrics.listen: {where} is taken by another program; "
                'choose another port, 0 for any free one, or "off"'
            ) from None
        reason = reason_of(error) + _REMEDIES.get(error.errno or 0, "")
        raise EnvironmentLacks(f"metrics.listen: cannot listen on {where}: {reason}") from None


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def shown(host: str, port: int) -> str:
    """An address as in a URL: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class MetricsServer(Server):
    """Serves the metrics at `url`, on `listener`."""

    def __init__(self, listener: socket.socket, take: Callable[[], Snapshot]) -> None:
        super().__init__(listener, self._respond_to)
        host, port = listener.getsockname()[:2]
        self.url = f"http://{shown(host, port)}/metrics"
        self._take = take

    def _respond_to(self, request: bytes, complete: bool) -> bytes | None:
        # RFC 9112, 2.2: empty lines before a request are ignored.
        head, end, _ = request.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if not end:
            if not complete:
                return None
            return _answer(431 if len(request) == REQUEST_BYTES else 400, "not an HTTP request\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        target, _, protocol = rest.rpartition(" ")
        if not protocol.startswith("HTTP/1."):
            return _answer(400, "not an HTTP/1 request\n")
        if method not in ("GET", "HEAD"):
            return _answer(405, "only GET and HEAD are allowed here\n", "Allow: GET, HEAD\r\n")
        body = self._page(_path(target), _field(fields, "accept"))
        return body if method == "GET" else body[: body.index(b"\r\n\r\n") + 4]

    def _page(self, path: str, accept: str) -> bytes:
        try:
            if path == "/metrics":
                return self._metrics(accept)
            if path == "/healthz":
                wrong = health(self._take())
                return _answer(200, "ok\n") if wrong is None else _answer(503, f"{wrong}\n")
            if path == "/":
                return _answer(200, _INDEX.format(version=version(), name=self._take().name))
        except Exception as error:
            # A mistake in the metrics must not end the run.
            if self.on_failure is not None:
                self.on_failure(error)
            trace = traceback.format_exc(limit=-1).strip()
            return _answer(500, f"this is a bug in ringline: {trace}\n")
        return _answer(404, "there are only /metrics and /healthz here\n")

    def _metrics(self, accept: str) -> bytes:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        from ringline.pipeline.telemetry.metrics import RinglineCollector

        registry = CollectorRegistry()
        registry.register(RinglineCollector(self._take))
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # the client asks for an invalid version
            encode, content_type = choose_encoder("")
        return _answer(200, encode(registry), f"Content-Type: {content_type}\r\n")


def _path(target: str) -> str:
    """The path of a request target, without a query and without a slash at its end.

    The target may be a whole URL, as a proxy gets it (RFC 9112, 3.2.2).
    """
    path = target.partition("?")[0]
    scheme, colon, rest = path.partition("://")
    if colon and scheme.lower() in ("http", "https"):
        path = "/" + rest.partition("/")[2]
    return path.rstrip("/") or "/"


def _field(fields: list[str], name: str) -> str:
    for field in fields:
        key, _, value = field.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _answer(status: int, body: str | bytes, fields: str = "") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    if "Content-Type" not in fields:
        fields += "Content-Type: text/plain; charset=utf-8\r\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{fields}"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content
