"""Settings of email_svc, read from the environment."""

from email.errors import HeaderParseError
from email.headerregistry import Address as MailAddress
from email.utils import parseaddr

from pydantic import field_validator

from chassis.config import Address, ServiceConfig


class EmailConfig(ServiceConfig):
    """Those of every service; where to ask for customers and to hand over mail (host:port each); whom it is from.

    `merchant_mail` is where the merchant is written to about stock that runs low; without one they aren't.
    """

    customer_address: Address
    smtp_address: Address
    mail_from: str = "Polymart <shop@polymart.example>"
    merchant_mail: str = ""

    @field_validator("mail_from", "merchant_mail")
    @classmethod
    def _has_an_address(cls, value: str) -> str:
        if value:
            mail_address(value)
        return value


def mail_address(text: str) -> MailAddress:
    """`Name <user@domain>` or `user@domain`. Raises ValueError."""
    name, address = parseaddr(text)
    try:
        sender = MailAddress(name, addr_spec=address)
    except (HeaderParseError, ValueError, IndexError) as error:
        raise ValueError("must be an address such as Shop <shop@example.org>") from error
    if not (text.isprintable() and sender.username and sender.domain and sender.addr_spec.isascii()):
        raise ValueError("must be an address such as Shop <shop@example.org>")
    return sender
