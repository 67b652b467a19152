"""A proxy between a client and a real server that does to chosen answers what networks and broken servers do."""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

ALWAYS = range(sys.maxsize)
_PER_CONNECTION = {"connection", "transfer-encoding", "keep-alive"}


class Request(NamedTuple):
    """What a client asked for, and the fault that it met."""

    method: str
    path: str
    range: str | None
    fault: str | None
    if_match: str | None


@dataclass
class Answer:
    """What the server answered, and how it is sent on; faults change it.

    Args:
        start: offset in the object of the body's first byte: not 0 in the answer to a range.
        stopped: is set when the proxy ends, so that nothing waits longer.
        ending: what happens after the last byte that is sent: `keep` the connection, `cut`, `reset` or `stall` it.
        sent: bytes of the body that are sent before the ending; None for all.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    start: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    ending: str = "keep"
    sent: int | None = None


Fault = Callable[[Answer], None]


def cut(after: int) -> Fault:
    """The connection is closed after so many bytes of the body."""
    return lambda answer: _end(answer, "cut", after)


def reset(after: int = -1) -> Fault:
    """The connection is reset after so many bytes of the body; by default before the first byte of the answer."""
    return lambda answer: _end(answer, "reset", after)


def stall(after: int = -1) -> Fault:
    """After so many bytes of the body nothing comes any more, and the connection stays open."""
    return lambda answer: _end(answer, "stall", after)


def slow(seconds: float) -> Fault:
    """The first byte comes late."""

    def wait(answer: Answer) -> None:
        answer.stopped.wait(seconds)

    return wait


def status(code: int = 503, body: bytes = b"", **headers: str) -> Fault:
    """Another answer instead of the server's."""

    def answer_so(answer: Answer) -> None:
        answer.status, answer.headers, answer.body = code, headers, body

    return answer_so


def etag(value: str) -> Fault:
    """The answer's ETag is another."""

    def call_it_so(answer: Answer) -> None:
        kept = {name: text for name, text in answer.headers.items() if name.lower() != "etag"}
        answer.headers = kept | {"ETag": value}

    return call_it_so


def flip(at: int | None = None) -> Fault:
    """One bit is another in the byte at this offset of the object, if the body has it; by default in any byte."""

    def flip_there(answer: Answer) -> None:
        where = random.randrange(max(1, len(answer.body))) if at is None else at - answer.start
        if 0 <= where < len(answer.body):
            answer.body = answer.body[:where] + bytes([answer.body[where] ^ 1]) + answer.body[where + 1 :]

    return flip_there


def truncate(at: int) -> Fault:
    """The body ends where this offset of the object is, and Content-Length agrees."""

    def end_there(answer: Answer) -> None:
        answer.body = answer.body[: max(0, at - answer.start)]

    return end_there


def empty() -> Fault:
    """A good answer without a body."""
    return truncate(0)


def _end(answer: Answer, ending: str, sent: int) -> None:
    answer.ending, answer.sent = ending, sent


@dataclass
class _Rule:
    name: str
    fault: Fault
    method: str
    path: re.Pattern[str]
    nth: Container[int]
    met: int = 0


class FaultProxy:
    """Forwards HTTP requests as they are, so that signatures hold, and injects faults into the answers.

    Args:
        host: `name:port` of the server.

    Attributes:
        requests: all that clients asked for, in the order of arrival.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.requests: list[Request] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def inject(self, fault: Fault, path: str = "", method: str = "GET", nth: Container[int] = (0,)) -> None:
        """Does this to some of the requests that match.

        Args:
            fault: what is done.
            path: a regular expression that is found in the path with its query.
            method: of the request; `.*` for any.
            nth: which of the matching requests, counted from 0 at this call; `ALWAYS` for all.
        """
        name = getattr(fault, "__qualname__", "fault").split(".")[0]
        with self._lock:
            self._rules.append(_Rule(name, fault, method, re.compile(path), nth))

    def clear(self) -> None:
        """Forgets the rules and the requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def count(self, method: str = "GET", path: str = "") -> int:
        """How many requests came."""
        with self._lock:
            return sum(one.method == method and re.search(path, one.path) is not None for one in self.requests)

    def _faults_of(self, method: str, path: str, headers: dict[str, str]) -> list[Fault]:
        found = []
        with self._lock:
            for rule in self._rules:
                if re.fullmatch(rule.method, method) and rule.path.search(path):
                    if rule.met in rule.nth:
                        found.append(rule)
                    rule.met += 1
            names = "+".join(rule.name for rule in found) or None
            small = {name.lower(): value for name, value in headers.items()}
            self.requests.append(Request(method, path, small.get("range"), names, small.get("if-match")))
        return [rule.fault for rule in found]

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """The server's answer with the faults of this request. Raises OSError if the server does not answer."""
        faults = self._faults_of(method, path, headers)
        upstream = http.client.HTTPConnection(self.host, timeout=60)
        try:
            upstream.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():  # the Host too: the signature is made for the proxy's
                if name.lower() not in _PER_CONNECTION:
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            response = upstream.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _PER_CONNECTION}
            start = re.match(r"bytes (\d+)-", response.getheader("Content-Range") or "")
            found = Answer(response.status, kept, response.read(), int(start[1]) if start else 0, stopped=self.stopped)
        finally:
            upstream.close()
        for fault in faults:
            fault(found)
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a stalled client is not waited for
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer = self.proxy.answer(self.command, self.path, dict(self.headers), body)
        except (OSError, http.client.HTTPException):
            self._break("reset")  # the server is gone: so would be the connection to it
            return
        if answer.sent is None or answer.sent >= 0:
            self._send(answer)
        if answer.ending != "keep":
            self._break(answer.ending)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the base class calls these

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        if self.command != "HEAD":
            kept = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
            answer.headers = kept | {"Content-Length": str(len(answer.body))}
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: answer.sent])
        self.wfile.flush()

    def _break(self, ending: str) -> None:
        self.close_connection = True
        if ending == "stall":
            self.proxy.stopped.wait()
        if ending == "reset":  # closed with a linger of 0 seconds, a connection is reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.wfile.close()
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """`FaultProxy.requests` has it."""
