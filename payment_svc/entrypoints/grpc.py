"""PaymentService: requests checked and mapped to the queries, payments mapped back."""

from collections.abc import Mapping
from datetime import datetime

from polymart.payment.v1 import payment_pb2, payment_service_pb2_grpc
from polymart.payment.v1 import payment_service_pb2 as pb

from chassis.rpc.paging import PageToken, asked_page, fingerprint
from chassis.rpc.validation import Validator
from payment_svc.application.payments import get_payment, list_payments
from payment_svc.application.ports import Payments
from payment_svc.domain.payments import Payment, Status

_STATUS = "PAYMENT_STATUS_"


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


def _place(position: Mapping[str, object]) -> tuple[datetime, str]:
    return datetime.fromisoformat(str(position["at"])), str(position["id"])


def _message(payment: Payment) -> payment_pb2.Payment:
    message = payment_pb2.Payment(
        payment_id=payment.payment_id,
        status=payment_pb2.PaymentStatus.Value(f"{_STATUS}{payment.status}"),
        amount=payment.amount.to_proto() if payment.amount else None,
        failure=payment.failure,
        provider_reference=payment.reference,
    )
    if payment.created_at and payment.updated_at:
        message.create_time.FromDatetime(payment.created_at)
        message.update_time.FromDatetime(payment.updated_at)
    return message
