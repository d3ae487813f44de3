"""The mail sink keeps what it is sent, whole and findable."""

import asyncio
from email.message import EmailMessage

import aiosmtplib

from devstack.engines import Engines
from devstack.smtp import find, mails


def mail(number: int) -> EmailMessage:
    made = EmailMessage()
    made["From"] = "shop@polymart.test"
    made["To"] = f"buyer{number}@example.org"
    made["Subject"] = f"Заказ {number}"
    made["Message-ID"] = f"<order-{number}@polymart.test>"
    made.set_content("Thank you.\n.\nA line with a dot alone must not end it. £1\n")
    return made


async def test_each_mail_is_a_file_that_its_message_id_finds(engines: Engines) -> None:
    host, _, port = engines.smtp_address.rpartition(":")
    sent = [mail(number) for number in range(20)]
    await asyncio.gather(*(aiosmtplib.send(one, hostname=host, port=int(port)) for one in sent))
    assert len(list(mails(engines.mailbox))) == len(sent)
    assert not list(engines.mailbox.glob("*.draft"))
    for one in sent:
        [found] = find(engines.mailbox, "Message-ID", one["Message-ID"])
        assert found["Subject"] == one["Subject"]
        assert found["X-Envelope-To"] == one["To"]
        assert found.get_content().splitlines() == one.get_content().splitlines()


async def test_a_missing_mail_is_not_found(engines: Engines) -> None:
    assert find(engines.mailbox, "Message-ID", "<none@polymart.test>") == []
