"""PaymentService: requests checked and mapped to the queries, payments mapped back."""

from collections.abc import Mapping
from datetime import datetime

from polymart.payment.v1 import payment_pb2, payment_service_pb2_grpc
from polymart.payment.v1 import payment_service_pb2 as pb

from chassis.money import Money
from chassis.rpc.paging import PageToken, asked_page, fingerprint
from chassis.rpc.validation import Validator
from payment_svc.application.payments import get_payment, list_payments, refund_payment
from payment_svc.application.ports import Payments
from payment_svc.domain.payments import AttemptState, Payment, Refund, Status

_STATUS = "PAYMENT_STATUS_"
_REFUND = {
    AttemptState.WAITING: payment_pb2.REFUND_STATUS_PENDING,
    AttemptState.PENDING: payment_pb2.REFUND_STATUS_PENDING,
    AttemptState.APPROVED: payment_pb2.REFUND_STATUS_DONE,
    AttemptState.REFUSED: payment_pb2.REFUND_STATUS_FAILED,
}


class PaymentServicer(payment_service_pb2_grpc.PaymentServiceServicer):
    def __init__(self, payments: Payments):
        self._payments = payments

    async def GetPayment(self, request: pb.GetPaymentRequest, context: object) -> payment_pb2.Payment:
        Validator(request).done()
        return _message(await get_payment(request.payment_id, payments=self._payments))

    async def ListPayments(self, request: pb.ListPaymentsRequest, context: object) -> pb.ListPaymentsResponse:
        check = Validator(request)
        check.check(request.status in payment_pb2.PaymentStatus.values(), "status", "is unknown")
        size, before = asked_page(request, check, _place)
        check.done()
        name = payment_pb2.PaymentStatus.Name(request.status).removeprefix(_STATUS)
        page, rest = await list_payments(
            size,
            status=Status(name) if request.status else None,
            before=before,
            payments=self._payments,
        )
        token = PageToken.encode({"at": rest[0].isoformat(), "id": rest[1]}, fingerprint(request)) if rest else ""
        return pb.ListPaymentsResponse(payments=map(_message, page), next_page_token=token)

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: object) -> payment_pb2.Payment:
        check = Validator(request)
        try:
            check.check(Money.from_proto(request.amount).nanos > 0, "amount", "must be above 0")
        except ValueError as error:
            check.check(False, "amount", str(error))
        check.done()
        command = Refund(request.payment_id, request.request_id, Money.from_proto(request.amount))
        return _message(await refund_payment(command, payments=self._payments))


def _place(position: Mapping[str, object]) -> tuple[datetime, str]:
    return datetime.fromisoformat(str(position["at"])), str(position["id"])


def _message(payment: Payment) -> payment_pb2.Payment:
    message = payment_pb2.Payment(
        payment_id=payment.payment_id,
        status=payment_pb2.PaymentStatus.Value(f"{_STATUS}{payment.status}"),
        amount=payment.amount.to_proto() if payment.amount else None,
        failure=payment.failure,
        provider_reference=payment.reference,
        captured=payment.money(payment.captured).to_proto() if payment.captured else None,
        refunded=payment.money(payment.refunded).to_proto() if payment.refunded else None,
        refunds=[
            payment_pb2.Refund(
                operation_id=operation_id,
                amount=payment.money(asked.amount).to_proto(),
                status=_REFUND[asked.state],
                failure=asked.reason,
            )
            for operation_id, asked in payment.refunds().items()
        ],
    )
    if payment.created_at and payment.updated_at:
        message.create_time.FromDatetime(payment.created_at)
        message.update_time.FromDatetime(payment.updated_at)
    return message
