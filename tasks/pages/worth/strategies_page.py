"""The page `strategies`: by what the model recognises each class, and which region alone makes the class."""

from functools import partial

from storage import AttributionStore
from tasks.pages.figures.page_figures import text_figure
from tasks.pages.figures.strategy_figures import strategies_sheet
from tasks.pages.page import Page, escape
from tasks.worth.assessment import Assessment
from tasks.worth.worth_words import say_strategies

__all__ = ["strategies_page"]

NO_STRATEGIES = "no strategies"


def strategies_page(store: AttributionStore, found: Assessment) -> Page:
    """A sheet for each class that has strategies, those with the highest transplant score first; why others have none."""
    page = Page("strategies", "Look for a small region that makes the class alone.")
    page.heading("Strategies by predicted class")
    page.text(" ".join(escape(sentence) for sentence in say_strategies(store)))
    if store.clusters().empty:
        page.figure(partial(text_figure, NO_STRATEGIES), NO_STRATEGIES, thumbnail=True)
    if found.strategies is None:
        return page
    table = store.clusters()
    by_class = table.groupby("class")["transplant_score"].max().sort_values(ascending=False, kind="stable")
    for number in by_class.index:
        of_class = table[table["class"] == number]
        page.heading(store.class_names[int(number)], level=2)
        names = of_class["name"].tolist()
        draw = partial(strategies_sheet, store, names, found.strategies.pasted)
        page.figure(draw, f"Strategies {', '.join(names)}", thumbnail=True)
        page.table(
            [
                {
                    "strategy": line["name"],
                    "rows": line["n_rows"],
                    "wrong": f"{line['share_wrong']:.1%}",
                    "region": f"{line['region_share']:.1%} of the pixels",
                    "become the class": f"{line['transplant_score']:.0%}",
                    "control": f"{line['transplant_control']:.0%}",
                }
                for line in of_class.to_dict("records")
            ]
        )
    notes = found.strategies.notes.items()
    page.table([{"class": store.class_names[number], "no strategies because": note} for number, note in notes])
    page.text(
        "A strategy is a cluster of the explanations of one predicted class: Integrated Gradients pooled to cells, signed, of "
        "unit norm, clustered by HDBSCAN; where they form no clusters, all rows of the class are one. Its region (outlined) is "
        "where its mean heat is, or exceeds that of the class's other rows most: of those of at most 5 % of the pixels, the "
        "one that makes the class most often. *Become the class*: of 64 images that are called something else, those that are "
        "called the class once the region of a member that relies on it is pasted into them; the control pastes the same "
        "region of the class's other rows. A small region that makes the class alone is a shortcut. Load them: "
        "`store.clusters()`, `store.rows(cluster=NAME)`."
    )
    return page
