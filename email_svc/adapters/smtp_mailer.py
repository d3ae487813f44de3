"""Letters handed over by SMTP."""

import contextlib
import socket

import structlog
from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from chassis.errors import Unavailable
from email_svc.application.ports import Letter, Refusal

log = structlog.get_logger(__name__)

_TIMEOUT = 6.0
_SERVICE_NOT_AVAILABLE = 421


class SmtpMailer:
    """Mailer (application.ports), and the resource that holds the connections: one for each letter in hand, kept for
    the next. TLS is used where the server offers it."""

    def __init__(self, host: str, port: int):
        self._host = host
        self._port = port
        self._idle: list[SMTP] = []

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        while self._idle:
            await _quit(self._idle.pop())

    async def send(self, letter: Letter) -> Refusal | None:
        """Raises Unavailable where no server answers, or it won't take mail from us at all."""
        connection = await self._connection()
        refusal: Refusal | None = None
        try:
            await connection.sendmail(letter.sender, [letter.recipient], letter.data)
        except SMTPRecipientsRefused as error:
            refusal = await self._refused(error.recipients[0])
        except (SMTPSenderRefused, SMTPHeloError) as error:
            connection.close()
            raise Unavailable(f"the mail server refuses {letter.sender}: {error.code} {error.message}") from error
        except SMTPResponseException as error:
            refusal = await self._refused(error)
        except (SMTPServerDisconnected, SMTPTimeoutError, OSError) as error:
            connection.close()
            await self._still_there()
            return Refusal(f"the mail server fell silent: {error}", temporary=True)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return refusal

    async def _refused(self, error: SMTPResponseException) -> Refusal:
        if error.code == _SERVICE_NOT_AVAILABLE:
            await self._still_there()
        return Refusal(f"{error.code} {error.message}", temporary=error.code < 500)

    async def _connection(self) -> SMTP:
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.rset()
            except (SMTPException, OSError):
                connection.close()
            else:
                return connection
        return await self._connect()

    async def _connect(self) -> SMTP:
        connection = SMTP(hostname=self._host, port=self._port, timeout=_TIMEOUT, local_hostname=socket.gethostname())
        try:
            await connection.connect()
        except (SMTPException, OSError) as error:
            raise Unavailable(f"the mail server {self._host}:{self._port} can't be reached: {error}") from error
        finally:
            if not connection.is_connected:
                connection.close()
        return connection

    async def _still_there(self) -> None:
        """Raises Unavailable if the server is gone: then it wasn't the letter's fault."""
        self._idle.append(await self._connect())


async def _quit(connection: SMTP) -> None:
    with contextlib.suppress(SMTPException, OSError):
        await connection.quit()
    connection.close()
