"""Commands as they come in."""

import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money as MoneyMessage
from polymart.payment.v1.commands_pb2 import AuthorizePayment, CapturePayment, RefundPayment, VoidPayment

from chassis.errors import InvalidArgument
from chassis.messaging.envelope import Envelope
from payment_svc.entrypoints.messages import reactions

BELOW_ZERO = MoneyMessage(currency_code="GBP", units=-1)


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (AuthorizePayment(), ["payment_id", "amount"]),
        (AuthorizePayment(payment_id="p", amount=BELOW_ZERO), ["amount"]),
        (CapturePayment(), ["payment_id"]),
        (RefundPayment(), ["payment_id", "amount", "operation_id"]),
        (RefundPayment(payment_id="p", operation_id="x" * 65, amount=BELOW_ZERO), ["amount", "operation_id"]),
        (VoidPayment(), ["payment_id"]),
    ],
)
async def test_every_fault_of_a_command_is_named(command: Message, fields: list[str]) -> None:
    message = Envelope.new(command, aggregate_id="p", source="order_svc")
    with pytest.raises(InvalidArgument) as failure:
        await reactions(None)[type(command)]([message], tx=None)
    assert [violation.field for violation in failure.value.violations] == fields
