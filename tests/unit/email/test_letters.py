from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polymart.notification.v1.notification_pb2 import (
    LowStock,
    Notification,
    NotificationContent,
    NotificationKind,
    NotificationLine,
)

from chassis.clock import ManualClock
from chassis.money import Money
from email_svc.adapters.jinja_letters import JinjaLetters
from email_svc.application.ports import Letter, Recipient, Unsendable
from email_svc.config import mail_address

LETTERS = JinjaLetters(mail_address("Polymart <shop@polymart.example>"), ManualClock(datetime(2026, 2, 3, tzinfo=UTC)))
ADA = Recipient("Ada Lovelace", "ada@example.org")


def order(kind: str, *names: str, failure: str = "", line_count: int | None = None) -> Notification:
    def money(text: str) -> object:
        return Money.parse("GBP", text).to_proto()

    return Notification(
        notification_id="0190a000-0000-7000-8000-000000000001",
        kind=NotificationKind.Value(f"NOTIFICATION_KIND_{kind}"),
        content=NotificationContent(
            order_id="0190a000-0000-7000-8000-00000000000f",
            total=money("1234.565"),
            line_count=len(names) if line_count is None else line_count,
            lines=[NotificationLine(product_name=n, quantity=6, line_total=money("15.3")) for n in names],
            failure=failure,
            refund=money("15.3"),
            carrier=names[0] if names else "",
            tracking_number="T-1",
            low_stock=LowStock(sku=names[0] if names else "MUG", available=2, threshold=5),
        ),
    )


def parsed(letter: Letter) -> tuple[EmailMessage, str, str]:
    message = message_from_bytes(letter.data, policy=SMTP)
    assert isinstance(message, EmailMessage)
    text, html = message.get_body(["plain"]), message.get_body(["html"])
    assert text is not None
    assert html is not None
    return message, text.get_content(), html.get_content()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_confirmation_says_what_comes_and_what_it_costs() -> None:
    notification = order("ORDER_CONFIRMED", "White Hanging Heart", "Lantern", line_count=5)
    message_id = LETTERS.new_message_id(notification.notification_id)
    letter = LETTERS.write(notification, ADA, message_id)
    message, text, html = parsed(letter)
    assert (letter.sender, letter.recipient) == ("shop@polymart.example", "ada@example.org")
    assert message["Subject"] == "Your order 0190a000-0000-7000-8000-00000000000f is confirmed"
    assert message["From"] == "Polymart <shop@polymart.example>"
    assert message["To"] == "Ada Lovelace <ada@example.org>"
    assert message["Message-ID"] == message_id == "<0190a000-0000-7000-8000-000000000001@polymart.example>"
    assert message["X-Polymart-Notification-Id"] == notification.notification_id
    assert message["X-Polymart-Order-Id"] == notification.content.order_id
    assert "  6 x White Hanging Heart: 15.30 GBP\r\n  6 x Lantern: 15.30 GBP\r\n  and 3 more\r\n" in text
    assert "Total: 1,234.57 GBP" in text
    for part in ("Hello Ada Lovelace,", "Lantern", "15.30 GBP", "1,234.57 GBP", "and 3 more"):
        assert part in html


@pytest.mark.parametrize("kind", ["ORDER_REJECTED", "ORDER_CANCELLED"])
def test_what_came_to_nothing_says_why(kind: str) -> None:
    _, text, html = parsed(LETTERS.write(order(kind, failure="sold out: X12"), ADA, "<1@x>"))
    assert ": sold out: X12." in text
    assert ": sold out: X12." in html
    _, text, _ = parsed(LETTERS.write(order(kind), ADA, "<1@x>"))
    assert text.splitlines()[2].endswith(("accepted.", "cancelled."))


def test_a_shipment_says_what_comes_and_how_and_a_delivery_what_came() -> None:
    for kind, done in (("ORDER_SHIPPED", "is on its way"), ("ORDER_DELIVERED", "was delivered")):
        message, text, html = parsed(LETTERS.write(order(kind, "Lantern", "Mug", line_count=5), ADA, "<1@x>"))
        assert message["Subject"] == f"Your order 0190a000-0000-7000-8000-00000000000f {done}"
        assert "  6 x Lantern\r\n  6 x Mug\r\n  and 3 more\r\n" in text
        for part in ("6 ×", "Lantern", "and 3 more"):
            assert part in html
        for part in (text, html):
            assert ("Number: T-1" in part, "Carrier: Lantern" in part) == (kind == "ORDER_SHIPPED",) * 2


def test_a_refund_says_what_comes_back_now_and_in_all() -> None:
    message, *parts = parsed(LETTERS.write(order("ORDER_REFUNDED"), ADA, "<1@x>"))
    assert message["Subject"] == "Money back for your order 0190a000-0000-7000-8000-00000000000f"
    for part in parts:
        assert "15.30 GBP" in part
        assert "1,234.57 GBP together" in part


def test_a_verification_tells_its_code_and_low_stock_its_sku() -> None:
    _, text, html = parsed(LETTERS.write(order("EMAIL_VERIFICATION"), ADA, "<1@x>", "s3cr-t_code"))
    assert "  s3cr-t_code\r\n" in text
    assert ">s3cr-t_code<" in html
    message, text, html = parsed(LETTERS.write(order("LOW_STOCK", "<b>MUG\r\nBcc: x@y.example"), ADA, "<1@x>"))
    assert message["Subject"] == "Stock of <b>MUG Bcc: x@y.example runs low"
    assert message["Bcc"] is None
    assert "there are 2 left to sell; 5 or fewer are few" in text
    assert "<b>&lt;b&gt;MUG" in html


def test_there_is_a_letter_for_every_kind() -> None:
    for number in NotificationKind.values()[1:]:
        notification = order("WELCOME", "x")
        notification.kind = number
        message, text, html = parsed(LETTERS.write(notification, Recipient("", "ada@example.org"), "<1@x>"))
        assert message["Subject"]
        assert text.startswith("Hello,")
        assert "Hello," in html


@settings(max_examples=40)
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_nothing_said_by_others_becomes_markup_or_a_header(name: str, product: str, failure: str) -> None:
    plain = parsed(LETTERS.write(order("ORDER_CONFIRMED", "x"), ADA, "<1@x>"))
    told = ("CONFIRMED", "REJECTED", "CANCELLED", "SHIPPED", "DELIVERED")
    for kind in (*(f"ORDER_{what}" for what in told), "WELCOME", "EMAIL_VERIFICATION"):
        try:
            letter = LETTERS.write(
                order(kind, f"<script>{product}", failure=f"<b>{failure}"), Recipient(f"<i>{name}", ADA.email), "<1@x>"
            )
        except Unsendable:
            continue
        message, _, html = parsed(letter)
        assert message.keys() == plain[0].keys()
        reader = _Tags()
        reader.feed(html)
        assert not {"script", "b", "i"} & {tag for tag, _ in reader.tags}
        assert "<i>" in reader.text
        assert "<script>" in reader.text or "<b>" in reader.text or kind in ("WELCOME", "EMAIL_VERIFICATION")


@pytest.mark.parametrize("email", ["", "nobody", "ada@example.org\r\nBcc: x@example.org", "a@b@c", "ä@example.org"])
def test_an_address_that_cannot_be_written_to_is_unsendable(email: str) -> None:
    with pytest.raises(Unsendable):
        LETTERS.write(order("WELCOME"), Recipient("Ada", email), "<1@x>")


@pytest.mark.parametrize("text", ["", "Shop", "Shop <shop>", "a@b\nc@d"])
def test_a_sender_without_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an address"):
        mail_address(text)
