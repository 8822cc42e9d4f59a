"""A server between a client and a real one: it cuts connections after so many bytes, speaks TLS, is far
away, or holds its tongue."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable


class Relay:
    """Passes bytes on; after so many of the server's, or of the client's, it calls `then` and ends that connection.

    Each piece of the server's waits for `delay` seconds, and for `gate`; `seen` counts a word of the client's.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None = None, delay: float = 0, word: bytes = b""):
        self._to, self._context, self._delay, self._word = port, context, delay, word
        self.gate, self.seen, self.connections = threading.Event(), 0, 0
        self.gate.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._left = {"client": None, "server": None}
        self._then: Callable[[], None] = lambda: None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, whose: str, after: int, then: Callable[[], None] = lambda: None) -> None:
        with self._lock:
            self._left[whose], self._then = after, then

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._context:
                client = self._context.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            client.close()
            return
        with self._lock:
            self._open += [client, server]
        threading.Thread(target=self._pass, args=(client, server, "client"), daemon=True).start()
        self._pass(server, client, "server")

    def _pass(self, source: socket.socket, target: socket.socket, whose: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(1 << 16):
                if whose == "server":
                    time.sleep(self._delay)
                    self.gate.wait()
                elif self._word:
                    self.seen += data.count(self._word)
                with self._lock:
                    left = self._left[whose]
                    if left is not None:
                        data = data[:left]
                        self._left[whose] = left - len(data)
                    is_over = self._left[whose] == 0
                target.sendall(data)
                if is_over:
                    with self._lock:
                        self._left[whose], then = None, self._then
                    then()
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Ends all connections, but not those that are made meanwhile."""
        with self._lock:
            ending, self._open = self._open, []
        for each in ending:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.drop()
