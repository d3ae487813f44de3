"""The service's settings, each read from POLYMART_<NAME>."""

from pydantic import Field

from chassis.config import Address, PostgresUrl, ServiceConfig


class OrderConfig(ServiceConfig):
    """`postgres_url`: this service's own database, with its own role. `catalog_address`: whom to ask for prices that
    aren't known here. `order_deadline_seconds`: how long stock and payment may take before an order is rejected.
    `order_charges_file`: taxes and shipping (docs/charges.md); none without. `cart_expiry_seconds`: how long a cart is
    kept after its last edit."""

    postgres_url: PostgresUrl
    catalog_address: Address
    order_deadline_seconds: float = Field(default=1800, gt=0)
    order_charges_file: str = ""
    cart_expiry_seconds: float = Field(default=30 * 86_400, gt=0)
