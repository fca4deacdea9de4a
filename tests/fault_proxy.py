"""An HTTP proxy on loopback that harms what passes, as a script says: the faults that a network to S3 has.

A script is asked for every request, with the number of times that the same request was seen before, and names a fault
of FAULTS or None. What a fault does exactly (which bit, where a body ends) follows from the seed, the request and that
number alone, so a run can be repeated whatever the order of its threads.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qsl, urlsplit

FAULTS = ("503", "reset before", "answer lost", "reset within", "truncated", "hang", "flip", "flip request")
"""
503             refused with SlowDown, not passed on
reset before    connection reset, not passed on
answer lost     passed on and done; connection reset instead of an answer
reset within    passed on; half of the answer, then a reset
truncated       passed on; half of the answer, then an orderly end
hang            neither passed on nor answered
flip            passed on; one bit of the body of a GET of an object changed, headers as they were
flip request    passed on with one bit of its body changed, headers as they were
"""

_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


@dataclass(frozen=True)
class Request:
    """What makes two requests the same: a part that is put again under another upload id is."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    range: str

    @property
    def is_get_of_object(self) -> bool:
        return self.method == "GET" and not self.query and self.path.count("/") > 1


Script = Callable[[Request, int], str | None]


def nothing(request: Request, number: int) -> str | None:
    """Pass everything on."""
    return None


def burst(fault: str, length: int) -> Script:
    """Harm each request the first `length` times."""
    return lambda request, number: fault if number < length else None


def flips(seed: int, rate: float, length: int) -> Script:
    """Flip a bit in that share of the bodies of objects, at most in the first `length` answers to each request."""

    def script(request: Request, number: int) -> str | None:
        chosen = random.Random(f"{seed} {request} {number}").random() < rate
        return "flip" if chosen and number < length and request.is_get_of_object else None

    return script


class FaultProxy:
    """A proxy before `upstream` (an http:// URL). `counts` says how many times each fault was done."""

    def __init__(self, upstream: str, seed: int = 0, hang_s: float = 30.0) -> None:
        self.upstream, self.seed, self.hang_s = urlsplit(upstream), seed, hang_s
        self.counts: Counter[str] = Counter()
        self.closed = threading.Event()
        self._script: Script = nothing
        self._seen: Counter[Request] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.proxy = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def follow(self, script: Script) -> None:
        """Begin a script; every request counts as not seen yet."""
        with self._lock:
            self._script = script
            self._seen.clear()

    def choose(self, request: Request) -> tuple[str | None, random.Random]:
        """The fault of this request, and what its details are drawn from."""
        with self._lock:
            number, self._seen[request] = self._seen[request], self._seen[request] + 1
            fault = self._script(request, number)
            return fault, random.Random(f"{self.seed} {fault} {request} {number}")

    def done(self, fault: str) -> None:
        """Count a fault."""
        with self._lock:
            self.counts[fault] += 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        proxy: FaultProxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = sorted(pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "uploadId")
        request = Request(self.command, parts.path, tuple(query), self.headers.get("Range", ""))
        fault, rng = proxy.choose(request)
        if fault == "hang":
            proxy.done(fault)
            proxy.closed.wait(proxy.hang_s)
            self._reset()
        elif fault == "reset before":
            proxy.done(fault)
            self._reset()
        elif fault == "503":
            proxy.done(fault)
            self._send(_head(503, "Slow Down", [("Content-Type", "application/xml")], len(_SLOW_DOWN)) + _SLOW_DOWN)
        elif fault == "flip request" and body:
            proxy.done(fault)
            self._answer(None, rng, *self._pass_on(proxy, _flipped(body, rng)))
        else:
            self._answer(fault, rng, *self._pass_on(proxy, body))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    def _pass_on(self, proxy: FaultProxy, body: bytes) -> tuple[bytes, bytes]:
        """(head, body) of upstream's answer."""
        upstream = http.client.HTTPConnection(proxy.upstream.hostname or "", proxy.upstream.port, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # Host as the client signed it
                if name.lower() not in _HOP_BY_HOP:
                    upstream.putheader(name, value)
            if "Content-Length" in self.headers:
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            content = answer.read()
            size = int(answer.headers.get("Content-Length", 0)) if self.command == "HEAD" else len(content)
            return _head(answer.status, answer.reason, answer.getheaders(), size), content
        finally:
            upstream.close()

    def _answer(self, fault: str | None, rng: random.Random, head: bytes, body: bytes) -> None:
        proxy: FaultProxy = self.server.proxy  # type: ignore[attr-defined]
        if fault == "flip" and body:
            proxy.done(fault)
            self._send(head + _flipped(body, rng))
        elif fault in ("answer lost", "reset within", "truncated"):
            kept = rng.randrange(len(body)) if body else -rng.randrange(3, len(head))
            whole = head + body
            if fault != "answer lost":
                self._send(whole[: len(head) + kept])
            proxy.done(fault)
            if fault == "truncated":
                self.close_connection = True
            else:
                self._reset()
        else:
            self._send(head + body)

    def _send(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except ConnectionError:  # the client had enough
            self.close_connection = True

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _flipped(body: bytes, rng: random.Random) -> bytes:
    bit = rng.randrange(8 * len(body))
    return body[: bit // 8] + bytes([body[bit // 8] ^ 1 << bit % 8]) + body[bit // 8 + 1 :]


def _head(status: int, reason: str, headers: list[tuple[str, str]], size: int) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _HOP_BY_HOP]
    return "\r\n".join([*lines, f"Content-Length: {size}", "", ""]).encode("latin-1")
