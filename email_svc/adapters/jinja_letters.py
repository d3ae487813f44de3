"""Letters written with the templates of `email_svc/templates`.

A kind has two: `<kind>.txt`, whose first line is the subject, and `<kind>.html`, where everything is escaped.
"""

from decimal import ROUND_HALF_UP, Decimal
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from google.type.money_pb2 import Money as MoneyMessage
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from polymart.notification.v1.notification_pb2 import Notification, NotificationKind

from chassis.clock import Clock
from chassis.money import Money
from email_svc.application.ports import Letter, Recipient, Unsendable

_KIND_PREFIX = "NOTIFICATION_KIND_"


class JinjaLetters:
    """Letters (application.ports)."""

    def __init__(self, sender: Address, clock: Clock):
        self._sender = sender
        self._clock = clock
        self._templates = Environment(
            loader=PackageLoader("email_svc"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(money=_money, one_line=_one_line)

    def new_message_id(self, notification_id: str) -> str:
        return f"<{notification_id}@{self._sender.domain}>"

    def write(self, notification: Notification, to: Recipient, message_id: str, code: str = "") -> Letter:
        recipient = _address(to)
        kind = NotificationKind.Name(notification.kind).removeprefix(_KIND_PREFIX).lower()
        values = {"content": notification.content, "name": _one_line(to.name), "code": code}
        subject, _, text = self._templates.get_template(f"{kind}.txt").render(values).partition("\n")
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = recipient
        message["Subject"] = subject
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = message_id
        message["Auto-Submitted"] = "auto-generated"
        message["X-Polymart-Notification-Id"] = notification.notification_id
        if notification.content.order_id:
            message["X-Polymart-Order-Id"] = notification.content.order_id
        message.set_content(text.strip() + "\n")
        message.add_alternative(self._templates.get_template(f"{kind}.html").render(values), subtype="html")
        return Letter(self._sender.addr_spec, recipient.addr_spec, message.as_bytes(policy=SMTP))


def _address(to: Recipient) -> Address:
    try:
        address = Address(_one_line(to.name), addr_spec=to.email)
        address.addr_spec.encode("ascii")
    except (HeaderParseError, ValueError, IndexError) as error:
        raise Unsendable("the customer's e-mail address can't be written to") from error
    if not (address.username and address.domain):
        raise Unsendable("the customer's e-mail address can't be written to")
    return address


def _money(message: MoneyMessage) -> str:
    money = Money.from_proto(message)
    return f"{money.amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,f} {money.currency}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
