"""Loopback ports: free when taken, and the same again at the next start if nobody else has them by then."""

import json
import random
import socket
from pathlib import Path

from devstack.errors import EngineError

HOST = "127.0.0.1"
# Below the range that outgoing connections are given: otherwise a client that keeps trying to reach an engine
# which is down can be handed the engine's own port and block its return, or even connect to itself.
CANDIDATES = range(20_000, 32_000)
ATTEMPTS = 200


class Ports:
    """The port of everything in one data folder, remembered by name in a JSON file."""

    def __init__(self, file: Path):
        self._file = file
        self._ports: dict[str, int] = {}
        if file.exists():
            try:
                self._ports = {str(name): int(port) for name, port in json.loads(file.read_text()).items()}
            except (ValueError, AttributeError, TypeError):
                raise EngineError(str(file), "is damaged", "delete it") from None

    def take(self, name: str) -> tuple[int, int | None]:
        """The port for `name`, and the remembered one that is taken by somebody else, if it is."""
        remembered = self._ports.get(name)
        if remembered is not None and is_free(remembered):
            return remembered, None
        return self.another(name), remembered

    def another(self, name: str) -> int:
        """A free port other than the remembered one; it is remembered from now on."""
        known = set(self._ports.values())
        for port in random.sample(CANDIDATES, ATTEMPTS):
            if port not in known and is_free(port):
                self._ports[name] = port
                self._file.write_text(json.dumps(self._ports, indent=2, sort_keys=True))
                return port
        raise EngineError(name, f"no free port among {ATTEMPTS} tried on {HOST}", "stop what listens there")


def is_free(port: int) -> bool:
    """True if a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do, so that a port with connections in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
