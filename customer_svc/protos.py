"""Customers as polymart.customer.v1 writes them."""

from collections.abc import Mapping
from typing import Any

from polymart.customer.v1 import customer_pb2
from polymart.notification.v1.notification_pb2 import NotificationChannel, NotificationKind

from customer_svc.domain.address import Address
from customer_svc.domain.customer import Customer, Muted

_CHANNEL, _KIND = "NOTIFICATION_CHANNEL_", "NOTIFICATION_KIND_"
# A field of the proto, and what it is called among the details.
DETAILS = {
    "display_name": "display_name",
    "email": "email",
    "country": "country",
    "addresses": "addresses",
    "muted_notifications": "muted",
}
# Asked for by the customer, or not for them.
_NEVER_MUTED = {NotificationKind.NOTIFICATION_KIND_EMAIL_VERIFICATION, NotificationKind.NOTIFICATION_KIND_LOW_STOCK}
MUTABLE_KINDS = frozenset(NotificationKind.values()[1:]) - _NEVER_MUTED
CHANNELS = frozenset(NotificationChannel.values()[1:])


def to_proto(customer: Customer) -> customer_pb2.Customer:
    details = customer.details
    message = customer_pb2.Customer(
        customer_id=customer.customer_id,
        display_name=details.display_name,
        email=details.email,
        country=details.country,
        addresses=map(_address_to_proto, details.addresses),
        muted_notifications=[
            customer_pb2.MutedNotification(
                channel=NotificationChannel.Value(_CHANNEL + muted.channel),
                kind=NotificationKind.Value(_KIND + muted.kind),
            )
            for muted in sorted(details.muted, key=lambda muted: (muted.channel, muted.kind))
        ],
        email_verified=customer.email_verified,
        etag=customer.etag,
        version=customer.version,
    )
    message.create_time.FromDatetime(customer.create_time)
    message.update_time.FromDatetime(customer.update_time)
    return message


def details_from_proto(message: customer_pb2.Customer) -> Mapping[str, Any]:
    """All details by their names; muted kinds and channels that nobody knows are left out."""
    return {
        "display_name": message.display_name,
        "email": message.email,
        "country": message.country,
        "addresses": tuple(map(_address_from_proto, message.addresses)),
        "muted": frozenset(
            Muted(
                NotificationChannel.Name(muted.channel).removeprefix(_CHANNEL),
                NotificationKind.Name(muted.kind).removeprefix(_KIND),
            )
            for muted in message.muted_notifications
            if muted.channel in CHANNELS and muted.kind in MUTABLE_KINDS
        ),
    }


def _address_to_proto(address: Address) -> customer_pb2.Address:
    return customer_pb2.Address(
        label=address.label,
        recipient=address.recipient,
        lines=address.lines,
        postal_code=address.postal_code,
        locality=address.locality,
        region=address.region,
        country_code=address.country_code,
    )


def _address_from_proto(message: customer_pb2.Address) -> Address:
    return Address(
        label=message.label,
        lines=tuple(message.lines),
        locality=message.locality,
        country_code=message.country_code,
        recipient=message.recipient,
        postal_code=message.postal_code,
        region=message.region,
    )
