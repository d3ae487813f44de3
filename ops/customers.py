"""`polymart customer`: export all that is known of a customer, and erase one."""

from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from polymart.customer.v1 import customer_service_pb2 as pb

from ops.clients import asynchronous, clients, console, print_data
from ops.orders import TIMEOUT

app = typer.Typer(no_args_is_help=True, help="Export what is known of a customer, and erase one.")

_PATIENCE = 300.0


@app.command()
@asynchronous
async def export(customer_id: str) -> None:
    """Print everything that is known of a customer, over all services, as one JSON document."""
    document: dict[str, list[object]] = {"customer": [], "order": [], "notification": []}
    async with clients() as c:
        request = pb.ExportCustomerRequest(customer_id=customer_id)
        async for part in c.customers.ExportCustomer(request, timeout=_PATIENCE):
            for kind, value in MessageToDict(part, preserving_proto_field_name=True).items():
                document[kind].append(value)
    print_data(
        {
            "customer": document["customer"][0],
            "orders": document["order"],
            "notifications": document["notification"],
        }
    )


@app.command()
@asynchronous
async def erase(
    customer_id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Forget a customer for good. Their orders and payments stay, under an id that is nobody's."""
    if not yes:
        typer.confirm(f"Erase customer {customer_id}? Nothing brings them back.", abort=True)
    async with clients() as c:
        await c.customers.EraseCustomer(pb.EraseCustomerRequest(customer_id=customer_id), timeout=TIMEOUT)
    console.print(f"{customer_id} is erased", markup=False)
