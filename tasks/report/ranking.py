"""Which rows get pictures: the most telling ones of every class first, then a random sample, as far as the page has room."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

__all__ = ["REASONS", "rank_rows"]

SPOTLIGHT, RIGHT, WRONG, OPEN, SAMPLE = (
    "spotlight",
    "most confident right",
    "most confident wrong",
    "least converged",
    "random sample",
)
REASONS = (SPOTLIGHT, RIGHT, WRONG, OPEN, SAMPLE)
ROUNDS = 16  # ranks of each class and reason, before the sample


def rank_rows(table: pd.DataFrame, spotlight: Sequence[int], seed: int) -> Iterator[tuple[int, str]]:
    """Every row once, with why it is drawn, the most telling first. table: as of AttributionStore.table().

    After the spotlight the classes take turns: of each the most confident right, the most confident wrong and the least
    converged row, then the second of each, so that no class crowds out another. The rest is in random order.
    """
    seen: set[int] = set()
    for row, why in _candidates(table, spotlight, seed):
        if row not in seen:
            seen.add(row)
            yield row, why


def _candidates(table: pd.DataFrame, spotlight: Sequence[int], seed: int) -> Iterator[tuple[int, str]]:
    yield from ((row, SPOTLIGHT) for row in spotlight if row in table.index)
    rankings: list[tuple[str, list[int]]] = []
    for _, rows in table.groupby("label"):
        confident = rows.sort_values("confidence", ascending=False, kind="stable")
        least = rows.sort_values(["converged", "quadrature_error"], ascending=[True, False], kind="stable")
        rankings += [
            (RIGHT, confident.index[confident["correct"]][:ROUNDS].tolist()),
            (WRONG, confident.index[~confident["correct"]][:ROUNDS].tolist()),
            (OPEN, least.index[:ROUNDS].tolist()),
        ]
    for rank in range(ROUNDS):
        yield from ((rows[rank], why) for why, rows in rankings if rank < len(rows))
    yield from ((int(row), SAMPLE) for row in np.random.default_rng(seed).permutation(table.index.to_numpy()))
