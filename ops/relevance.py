"""`polymart relevance`: how good search is, by products and queries that people have judged."""

import asyncio
import csv
import random
import re
import shutil
import string
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from polymart.catalog.v1.catalog_service_pb2 import ImportProductsRequest
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ACTIVE, PRODUCT_STATUS_UNSPECIFIED
from polymart.search.v1.search_service_pb2 import GetIndexStatusRequest, SearchProductsRequest

from devstack.stack import Stack
from ops.clients import Clients
from ops.importing import ImportReport, import_products, read_products
from ops.measures import RECALL_DEPTH, Gains, ndcg, summary

SERVICES = ("catalog_svc", "inventory_svc", "search_svc")
_WORDS = {"exact": 1.0, "partial": 0.5, "irrelevant": 0.0}
_IN_FLIGHT = 4
_TIMEOUT = 30.0
_PATIENCE = 600.0
_LONG_WORD = re.compile(r"[^\W\d_]{5,}")


class BadFiles(ValueError):
    """All that is wrong with the queries and the labels, a line each."""

    def __init__(self, faults: Sequence[str]):
        super().__init__("\n".join(faults))


@dataclass(frozen=True, slots=True)
class Judged:
    """Texts and judgements by query id."""

    queries: Mapping[str, str]
    gains: Mapping[str, Gains]


def read_judged(queries: Path, labels: Path) -> Judged:
    """Tables with a header, separated by tabs or commas, UTF-8: query_id and query; query_id, product_id and label,
    each a whole number (its share of the largest is the gain) or Exact, Partial or Irrelevant (1, 0.5, 0). What is
    judged twice counts as the better.

    Raises BadFiles, OSError.
    """
    faults: list[str] = []
    texts: dict[str, str] = {}
    for line, row in _rows(queries, ("query_id", "query"), faults):
        if texts.setdefault(row["query_id"], row["query"]) != row["query"]:
            faults.append(f"{queries.name}, line {line}: query {row['query_id']} has another text above")
    rows = list(_rows(labels, ("query_id", "product_id", "label"), faults))
    numbers = [int(row["label"]) for _, row in rows if row["label"].isdecimal()]
    largest = max(numbers, default=0) or 1
    gains: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for line, row in rows:
        label = row["label"].lower()
        # One file has numbers or words, not both.
        known = {label: int(label) / largest} if numbers and label.isdecimal() else {} if numbers else _WORDS
        if label not in known:
            faults.append(f'{labels.name}, line {line}: no gain is known for the label "{row["label"]}"')
        elif row["query_id"] not in texts:
            faults.append(f"{labels.name}, line {line}: query {row['query_id']} is not in {queries.name}")
        else:
            judged = gains[row["query_id"]]
            judged[row["product_id"]] = max(known[label], judged.get(row["product_id"], 0.0))
    if not rows and not faults:
        faults.append(f"{labels.name}: has no labels")
    if faults:
        raise BadFiles(faults)
    return Judged({query: text for query, text in texts.items() if query in gains}, gains)


def _rows(path: Path, columns: Sequence[str], faults: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        faults.append(f"{path.name}: is not valid UTF-8 at byte {error.start + 1}")
        return
    reader = csv.DictReader(lines, delimiter="\t" if "\t" in (lines or [""])[0] else ",")
    if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
        faults.append(f"{path.name}: lacks the columns {', '.join(missing)}")
        return
    for row in reader:
        values = {column: (row[column] or "").strip() for column in columns}
        if empty := [column for column, value in values.items() if not value]:
            faults.append(f"{path.name}, line {reader.line_num}: has no {' and no '.join(empty)}")
        else:
            yield reader.line_num, values


def misspelt(text: str, chance: random.Random) -> str | None:
    """With one letter of one word of five letters or more inserted, left out, replaced, or swapped with the next; None
    where there is no such word."""
    words = list(_LONG_WORD.finditer(text))
    if not words:
        return None
    found = chance.choice(words)
    word = found.group()
    place = chance.randrange(len(word) - 1)
    letter = chance.choice([each for each in string.ascii_lowercase if each not in word[place : place + 2].lower()])
    swapped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    edited = chance.choice(
        [
            word[:place] + letter + word[place:],
            word[:place] + word[place + 1 :],
            word[:place] + letter + word[place + 1 :],
            swapped if swapped != word else word[:place] + letter + word[place + 1 :],
        ]
    )
    return text[: found.start()] + edited + text[found.end() :]


async def relevance(
    home: Path,
    products: Path,
    judged: Judged,
    *,
    environ: Mapping[str, str],
    typos: int = 0,
    on_progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The measures, on a stack of its own in a new data folder under `home`. With `typos`, also those of the queries
    with one typing error each, so many times, as means.

    Raises EngineError; ValueError where nothing could be imported; TimeoutError.
    """
    folder = home / "relevance"
    if (folder / "stack.json").exists():
        Stack(folder).refuse_if_running()
    shutil.rmtree(folder, ignore_errors=True)
    async with Stack(folder, services=SERVICES, environ=environ, on_progress=on_progress) as stack:
        clients = Clients(stack.address)
        try:
            on_progress(f"importing {products.name}")
            imported = await _filled(clients, products, on_progress)
            on_progress("asking the judged queries")
            result = await measured(clients, judged, typos)
        finally:
            await clients.close()
    shutil.rmtree(folder, ignore_errors=True)
    return {"products": imported.written, "rejected": imported.outcomes["REJECTED"], **result}


async def measured(clients: Clients, judged: Judged, typos: int = 0) -> dict[str, Any]:
    """The measures of the products that are there."""
    clean = await _asked(clients, judged.queries)
    result: dict[str, Any] = summary(clean, judged.gains)
    kept, scores, empty = [], [], []
    for seed in range(1, typos + 1):
        chance = random.Random(seed)
        edited = {query: misspelt(text, chance) for query, text in judged.queries.items()}
        texts = {query: text for query, text in edited.items() if text is not None}
        runs = await _asked(clients, texts)
        scored = {query: gains for query in texts if max((gains := judged.gains[query]).values()) > 0}
        if not scored:
            break
        before = sum(ndcg(clean[query], gains) for query, gains in scored.items())
        after = sum(ndcg(runs[query], gains) for query, gains in scored.items())
        scores.append(after / len(scored))
        kept.append(after / before if before else 1.0)
        empty.append(sum(not run for run in runs.values()) / len(runs))
    if kept:
        names = ("ndcg@10", "ndcg@10_kept", "zero_result_rate")
        result["typos"] = {"seeds": len(kept)} | {
            name: sum(values) / len(values) for name, values in zip(names, (scores, kept, empty), strict=True)
        }
    return result


async def _filled(clients: Clients, products: Path, on_progress: Callable[[str], None]) -> ImportReport:
    """Imports the file, and waits until all that shoppers may see is searchable."""
    report = ImportReport()
    shown: dict[int, str] = {}

    def rows() -> Iterator[ImportProductsRequest]:
        for request in read_products(products, report):
            if request.product.status in (PRODUCT_STATUS_UNSPECIFIED, PRODUCT_STATUS_ACTIVE):
                shown[request.row] = request.product.product_id or str(request.row)
            yield request

    await import_products(clients.catalog, rows(), report)
    if not report.written:
        reasons = "; ".join(f"line {r.row}: {r.reason}" for r in report.rejections[:5])
        raise ValueError(f"{products.name}: nothing was imported; {reasons or 'it has no rows'}")
    rejected = {rejection.row for rejection in report.rejections}
    expected = len({product_id for row, product_id in shown.items() if row not in rejected})
    deadline = monotonic() + _PATIENCE
    while (
        found := (await clients.search.GetIndexStatus(GetIndexStatusRequest(), timeout=_TIMEOUT)).products
    ) < expected:
        if monotonic() > deadline:
            raise TimeoutError(f"only {found:,} of {expected:,} products are searchable after {_PATIENCE:.0f} s")
        on_progress(f"{found:,} of {expected:,} products are searchable")
        await asyncio.sleep(0.5)
    return report


async def _asked(clients: Clients, texts: Mapping[str, str]) -> dict[str, list[str]]:
    turns = asyncio.Semaphore(_IN_FLIGHT)

    async def ask(text: str) -> list[str]:
        request = SearchProductsRequest(text=text, page_size=RECALL_DEPTH, skip_facets=True)
        async with turns:
            response = await clients.search.SearchProducts(request, timeout=_TIMEOUT)
        return [hit.product_id for hit in response.hits]

    return dict(zip(texts, await asyncio.gather(*map(ask, texts.values())), strict=True))
