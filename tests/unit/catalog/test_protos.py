from datetime import UTC, datetime

from hypothesis import given, settings
from polymart.catalog.v1 import events_pb2
from polymart.catalog.v1.product_pb2 import AttributeValue, Product, Variant

from catalog_svc.domain.product import Details, ProductDeleted, create
from catalog_svc.protos import envelope, product_message, read_details
from tests.unit.catalog import strategies as some

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@settings(max_examples=40)
@given(some.details())
def test_a_product_survives_the_way_to_a_message_and_back(details: Details) -> None:
    message = product_message(create(None, "p", details, etag="e", now=NOON).product)
    assert read_details(Product.FromString(message.SerializeToString())) == (details, [])
    assert (message.product_id, message.version, message.etag) == ("p", 1, "e")
    assert message.create_time.ToDatetime(UTC) == NOON


def test_what_cannot_be_read_is_reported_with_its_path() -> None:
    message = Product(name="Mug", variants=[Variant(sku="a"), Variant(sku="b"), Variant(sku="c")])
    message.variants[1].price.units = 1
    message.variants[2].price.currency_code = "GBP"
    message.variants[2].price.units, message.variants[2].price.nanos = 1, -1
    message.attributes["empty"].CopyFrom(AttributeValue())
    assert [fault.field for fault in read_details(message)[1]] == [
        'attributes["empty"]',
        "variants[0].price",
        "variants[1].price",
        "variants[2].price",
    ]


def test_an_event_travels_under_its_product() -> None:
    sent = envelope(ProductDeleted("a/b 1", 3, NOON))
    assert sent.payload == events_pb2.ProductDeleted(product_id="a/b 1", version=3)
    assert sent.aggregate_id == "a/b 1"
    assert sent.subject == "evt.catalog.product.ProductDeleted.a=2Fb=201"
