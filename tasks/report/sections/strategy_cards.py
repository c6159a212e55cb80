"""The section of the page with the strategies: per predicted class its clusters as cards, as the page `strategies` has them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore
from tasks.numerics.worth.strategies import cells_of
from tasks.report.picture_strips import draw_image, draw_signed
from tasks.worth.assessment import Assessment
from tasks.worth.strategies.shortcuts import find_shortcuts
from tasks.worth.strategies.strategy_pictures import strategy_pictures
from tasks.worth.worth_words import say_strategies

__all__ = ["ClassCards", "StrategyCard", "StrategyImage", "StrategySection", "outline_of", "strategy_section"]

SECTION_BYTES = 600_000  # of the 5 MB that the page of 10,000 rows may have
MARKUP_BYTES = 2_500  # of a card beside its pictures


@dataclass(frozen=True)
class StrategyImage:
    """row: that is linked. member: whose region was pasted into it, None where nothing was."""

    row: int
    member: int | None
    source: str

    @property
    def n_bytes(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class StrategyCard:
    """score, control: of the transplant; None where there is no region. outline: of the region, as SVG's path takes it."""

    name: str
    n_rows: int
    share_wrong: float
    region_share: float
    score: float | None
    control: float | None
    is_shortcut: bool
    heat: str
    outline: str
    images: tuple[StrategyImage, ...]

    @property
    def n_bytes(self) -> int:
        """What it costs in the page."""
        return (
            MARKUP_BYTES + len(self.heat) + len(self.outline) * len(self.images) + sum(i.n_bytes for i in self.images)
        )


@dataclass(frozen=True)
class ClassCards:
    """A predicted class and its strategies, the largest first."""

    name: str
    cards: tuple[StrategyCard, ...]


@dataclass(frozen=True)
class StrategySection:
    """classes: that with the highest score first. notes: why a class has none, by its name. size: of the images, x and y.

    n_left_out: strategies that the page has no room for.
    """

    sentences: tuple[str, ...]
    classes: tuple[ClassCards, ...]
    notes: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    n_left_out: int


def strategy_section(store: AttributionStore, found: Assessment, budget: int = SECTION_BYTES) -> StrategySection | None:
    """None where strategies were not looked for. budget: bytes that the cards may take."""
    if found.strategies is None and not store.has_clusters:
        return None
    names, notes = store.class_names, found.strategies.notes if found.strategies else {}
    height, width = store.image_shape[:2]
    classes = tuple(_within(budget, _cards_by_class(store, found.strategies.pasted if found.strategies else {})))
    return StrategySection(
        sentences=tuple(say_strategies(store)),
        classes=classes,
        notes=tuple((names[number], note) for number, note in notes.items() if 0 <= number < len(names)),
        size=(width, height),
        n_left_out=len(store.cluster_names) - sum(len(each.cards) for each in classes),
    )


def _within(budget: int, classes: Iterator[tuple[str, Iterator[StrategyCard]]]) -> Iterator[ClassCards]:
    """The first cards, as many as cost no more than that."""
    for name, cards in classes:
        kept = list[StrategyCard]()
        for card in cards:
            budget -= card.n_bytes
            if budget < 0:
                break
            kept.append(card)
        if kept:
            yield ClassCards(name, tuple(kept))
        if budget < 0:
            return


def _cards_by_class(
    store: AttributionStore, pasted: Mapping[str, Sequence[tuple[int, int]]]
) -> Iterator[tuple[str, Iterator[StrategyCard]]]:
    table, shortcuts = store.clusters(), {each.name for each in find_shortcuts(store)}
    highest = table.groupby("class")["transplant_score"].max().sort_values(ascending=False, kind="stable")
    for number in highest.index:
        lines = table[table["class"] == number].to_dict("index").items()
        cards = (_card(store, int(str(k)), line, pasted, line["name"] in shortcuts) for k, line in lines)
        yield store.class_names[int(number)], cards


def _card(
    store: AttributionStore,
    number: int,
    line: Mapping,
    pasted: Mapping[str, Sequence[tuple[int, int]]],
    is_shortcut: bool,
) -> StrategyCard:
    seen = strategy_pictures(store, number, pasted.get(line["name"], ()))
    has_region = bool(seen.cells.any())
    typical = (
        StrategyImage(row, None, draw_image(image)) for row, image in zip(seen.typical_rows, seen.typical, strict=True)
    )
    changed = (
        StrategyImage(host, member, draw_image(image))
        for (member, host), image in zip(seen.pasted_rows, seen.pasted, strict=True)
    )
    return StrategyCard(
        name=line["name"],
        n_rows=line["n_rows"],
        share_wrong=line["share_wrong"],
        region_share=line["region_share"],
        score=line["transplant_score"] if has_region else None,
        control=line["transplant_control"] if has_region else None,
        is_shortcut=is_shortcut,
        heat=draw_signed(seen.heat),
        outline=outline_of(seen.cells, store.image_shape[:2]),
        images=(*typical, *changed),
    )


def outline_of(cells: NDArray[np.bool_], shape: tuple[int, ...]) -> str:
    """The border of a region as SVG's path takes it, in pixels of an image of that shape (y, x); empty for no cell.

    cells: (cell_y, cell_x).
    """
    y, x = (cells_of(side, n) for side, n in zip(shape, cells.shape, strict=True))
    around = np.pad(cells, 1)
    across = np.argwhere(around[:-1, 1:-1] != around[1:, 1:-1])  # borders between a cell and the one below it
    down = np.argwhere(around[1:-1, :-1] != around[1:-1, 1:])
    lines = [f"M{x[column]} {y[row]}H{x[column + 1]}" for row, column in across]
    lines += [f"M{x[column]} {y[row]}V{y[row + 1]}" for row, column in down]
    return "".join(lines)
