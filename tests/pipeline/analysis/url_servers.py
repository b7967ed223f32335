"""Servers on loopback for tests of URLs: moto's S3, Python's own of HTTP, and one with faults."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MOTO = """
import logging, os, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
os._exit(0)
"""
# Nothing may ask for credentials elsewhere: the address for that is not on loopback.
AWS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """moto's server, in a process of its own; its endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-c", MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | AWS,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


class _Plain(http.server.SimpleHTTPRequestHandler):
    """As Python's own: no ranges."""

    def log_message(self, *words: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, *request: object) -> None:  # a client that has read enough goes away
        pass


@contextlib.contextmanager
def _serving(
    handler: Callable[..., http.server.BaseHTTPRequestHandler], host: str = "127.0.0.1"
) -> Iterator[str]:
    server = _Server((host, 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def plain(folder: Path) -> contextlib.AbstractContextManager[str]:
    """Python's own server of HTTP, which has no ranges; its URL."""
    return _serving(lambda *given: _Plain(*given, directory=str(folder)))


class Content:
    """What `ranges` serves, and what it noted.

    files: their content by path, such as "/a.pcap".
    asked: (method, path, Range) of each request.
    headers: those of the last one.
    before: is called with each request; may change `files`, and may return "cut", which ends the
        connection in the middle of the answer, "silent", which gives none, or a status code.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.headers: dict[str, str] = {}
        self.before: Callable[[str, str, str], str | int | None] = lambda *request: None
        self.closing = threading.Event()


@contextlib.contextmanager
def ranges(content: Content, host: str = "127.0.0.1") -> Iterator[str]:
    """A server that knows ranges and checksums; its URL. It is enough of S3 to read files."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path, wanted = self.path.partition("?")[0], self.headers.get("Range", "")
            content.headers = dict(self.headers)
            content.asked.append((self.command, path, wanted))
            fault = content.before(self.command, path, wanted)
            if fault == "silent":
                content.closing.wait(60)
                self.close_connection = True
                return
            data = content.files.get(path)
            if isinstance(fault, int) or data is None:
                self.send_response(fault if isinstance(fault, int) else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            tag = f'"{hash(data):x}"'
            if self.headers.get("If-Match", tag) != tag:
                self.send_response(412)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            part = data
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                part = data[int(first) : int(last) + 1]
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault == "cut":
                self.close_connection = True
                part = part[: len(part) // 2]
            self.wfile.write(part)

    with _serving(Handler, host) as url:
        try:
            yield url
        finally:
            content.closing.set()
