"""How good rankings are, by graded judgements of products for queries. Unjudged products count as bad."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

DEPTH = 10
RECALL_DEPTH = 100

Gains = Mapping[str, float]
"""The gain of each product judged for a query, from 0 to 1; 1 is the top grade."""


def ndcg(ranked: Sequence[str], gains: Gains) -> float:
    """Of the first ten, discounted by log2 of the place, as a share of the best ten there could be."""
    return _dcg(gains.get(product, 0.0) for product in ranked[:DEPTH]) / _ideal(gains)


def condensed_ndcg(ranked: Sequence[str], gains: Gains) -> float:
    """NDCG of the ranking without its unjudged products: what another engine found isn't held against it."""
    return _dcg([gains[product] for product in ranked if product in gains][:DEPTH]) / _ideal(gains)


def recall(ranked: Sequence[str], gains: Gains, least: float = 1.0) -> float | None:
    """The share of products of at least this gain (above 0 for 0) that are among the first hundred; None if there are
    none."""
    wanted = _wanted(gains, least)
    return len(wanted.intersection(ranked[:RECALL_DEPTH])) / len(wanted) if wanted else None


def reciprocal_rank(ranked: Sequence[str], gains: Gains, least: float = 1.0) -> float | None:
    """One by the place of the first product of at least this gain, 0 if it isn't there; None if there is none."""
    wanted = _wanted(gains, least)
    if not wanted:
        return None
    return next((1 / place for place, product in enumerate(ranked, 1) if product in wanted), 0.0)


def summary(runs: Mapping[str, Sequence[str]], judged: Mapping[str, Gains]) -> dict[str, float | int | None]:
    """Means over the queries with a product of any gain; a query without a run scores 0. Recall and MRR at the top
    grade are means over the queries that have such a product, `…_any` take any gain for relevant."""
    scored = {query: gains for query, gains in judged.items() if max(gains.values(), default=0.0) > 0}

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def over(measure: Callable[..., float | None], *least: float) -> float | None:
        return mean(measure(runs.get(query, ()), gains, *least) for query, gains in scored.items())

    return {
        "queries": len(judged),
        "scored": len(scored),
        "ndcg@10": over(ndcg),
        "condensed_ndcg@10": over(condensed_ndcg),
        "recall@100": over(recall),
        "recall@100_any": over(recall, 0.0),
        "mrr": over(reciprocal_rank),
        "mrr_any": over(reciprocal_rank, 0.0),
        "zero_result_rate": mean(float(not runs.get(query)) for query in judged),
    }


def _wanted(gains: Gains, least: float) -> set[str]:
    return {product for product, gain in gains.items() if gain > 0 and gain >= least}


def _dcg(gains: Iterable[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))


def _ideal(gains: Gains) -> float:
    return _dcg(sorted(gains.values(), reverse=True)[:DEPTH])
