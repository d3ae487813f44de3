"""What each customer of an invoice file paid, straight from the file: knows nothing of the system, imports none of it.

    python invoice_totals.py FILE [INVOICES]

prints {"": "12.34", "17850": "5391.21", …} of the file's first INVOICES runs of lines with one number; "" are those
without a customer. A line counts units times price, rounded half up to the penny. Credit notes give back what the same
customer bought before of the same code at the same price, as far as it goes.
"""

import csv
import gzip
import json
import sys
from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby, islice

PENNY = Decimal("0.01")


def totals(path: str, invoices: int | None) -> dict[str, Decimal]:
    paid: dict[str, Decimal] = defaultdict(Decimal)
    bought: dict[tuple[str, str, Decimal], int] = defaultdict(int)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for number, rows in islice(groupby(csv.DictReader(file), key=lambda row: row["InvoiceNo"]), invoices):
            for row in rows:
                price, units = Decimal(row["UnitPrice"]), int(row["Quantity"])
                who = row["CustomerID"].removesuffix(".0")
                what = (who, row["StockCode"].strip(), price)
                if price <= 0:
                    continue
                if number.startswith("C"):
                    units = -min(-units, bought[what]) if who else 0
                paid[who] += (units * price).quantize(PENNY, ROUND_HALF_UP)
                bought[what] += units
    return paid


if __name__ == "__main__":
    found = totals(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
    json.dump({who: str(total) for who, total in sorted(found.items())}, sys.stdout)
