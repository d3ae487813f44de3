"""A local SMTP sink: takes every mail and delivers none, but writes each as a file that tests and people can read.

python -m devstack.smtp HOST PORT MAILBOX
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from uuid import uuid4

import aiosmtplib

from devstack.engine import Engine, loopback
from devstack.errors import EngineError
from devstack.home import Home, python_environment
from devstack.ports import HOST


class SmtpSink(Engine):
    """The sink; its `url` is smtp://host:port, its mails are in `mailbox`."""

    name = "smtp"
    title = "SMTP sink"
    variable = "POLYMART_SMTP_ADDRESS"
    schemes = ("smtp",)
    example = "host:25"

    def __init__(self, home: Home):
        super().__init__(home)
        if self.external:
            self.external = f"smtp://{self.external}"

    @property
    def mailbox(self) -> Path:
        """The folder of received mails, one `*.eml` each; empty for ever when the sink runs elsewhere."""
        return self.folder / "mailbox"

    @property
    def address(self) -> str:
        return self.url.removeprefix("smtp://")

    def local_url(self, port: int) -> str:
        return f"smtp://{loopback(port)}"

    async def check(self, url: str) -> None:
        host, _, port = url.removeprefix("smtp://").rpartition(":")
        async with aiosmtplib.SMTP(hostname=host, port=int(port), timeout=2, start_tls=False) as client:
            await client.noop()

    async def prepare(self) -> None:
        self.mailbox.mkdir(parents=True, exist_ok=True)

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "devstack.smtp", HOST, str(self.port), self.mailbox]

    def environ(self) -> dict[str, str]:
        return python_environment(self.home.environ)

    def _validate(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
            cause = f"{self.variable}={url!r} is not an address"
            raise EngineError(self.title, cause, f"write it like {self.example}")


def mails(mailbox: Path) -> Iterator[tuple[Path, EmailMessage]]:
    """Every mail received so far with its file, oldest first."""
    for path in sorted(mailbox.glob("*.eml")):
        yield path, message_from_bytes(path.read_bytes(), policy=policy.default)


def find(mailbox: Path, header: str, value: str) -> list[EmailMessage]:
    """The mails whose `header` ("Message-ID", "To", …) is `value`, oldest first."""
    return [mail for _, mail in mails(mailbox) if mail[header] is not None and str(mail[header]).strip() == value]


def store(mailbox: Path, content: bytes) -> Path:
    """Write one mail so that nobody ever sees half of it; file names sort by arrival."""
    path = mailbox / f"{time.time_ns()}-{uuid4().hex}.eml"
    draft = path.with_suffix(".draft")
    with draft.open("wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    return draft.rename(path)


async def serve(host: str, port: int, mailbox: Path) -> None:
    """Serve until SIGTERM."""
    from aiosmtpd.smtp import SMTP, Envelope, Session

    class Sink:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            recipients = ", ".join(envelope.rcpt_tos)
            content = envelope.content if isinstance(envelope.content, bytes) else b""
            trace = f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {recipients}\r\n"
            await asyncio.to_thread(store, mailbox, trace.encode() + content)
            return "250 OK"

    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(lambda: SMTP(Sink(), enable_SMTPUTF8=True, loop=loop), host, port)
    async with server:
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
