"""A cable between a party and its broker that a test can cut: connections end at once, and new ones are let through."""

import socket
import threading


class Cable:
    """Passes bytes between whoever connects to `endpoint` and a broker."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self._broker = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self) -> None:
        """Ends every connection; what was under way is lost."""
        with self._lock:
            for end in self._ends:
                _shut_down(end)
            self._ends.clear()

    def __enter__(self) -> "Cable":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets nobody through any more, and waits until all is closed."""
        _shut_down(self._listening)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]  # it is callable
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listening:
            while True:
                try:
                    near, _ = self._listening.accept()
                except OSError:
                    return  # The test is over.
                far = socket.create_connection(self._broker)
                with self._lock:
                    self._ends += [near, far]
                self._start(self._join, near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """Both directions of one connection, until either has ended."""
        with near, far:
            back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
            back.start()
            _pass_on(near, far)
            back.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    try:
        while content := source.recv(65536):
            sink.sendall(content)
    except OSError:
        pass  # It was cut, as it should be.
    _shut_down(source)
    _shut_down(sink)


def _shut_down(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The other side was faster.
