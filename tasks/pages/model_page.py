"""The page `model`: what the model is fed and why, how it is read, and the checks that this passed; early in the night."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tasks.night.contract_facts import FeedFact, ModelFacts, model_facts
from tasks.pages.figures.page_figures import feeds_figure, text_figure
from tasks.pages.page import Page, escape

__all__ = ["model_page"]

NO_FEED = "no feed was measured"
NOT_MEASURED = "-"


def model_page(contract: Mapping[str, Any]) -> Page:
    """The sentence for people, warnings, the feeds that were measured, and every fact. contract: as the store records it."""
    facts = model_facts(contract) or ModelFacts("", (), (), (), ())
    page = Page("model", "Look for an input range that explains the labels better than the chosen one.")
    page.heading(_title(facts))
    if facts.summary:
        page.text(f"The model is fed {escape(facts.summary)}.")
    page.table([{"warning": warning} for warning in facts.warnings])
    if facts.feeds:
        draw = partial(feeds_figure, facts.feeds)
        page.figure(draw, "Accuracy and log-likelihood of the labels by input range", thumbnail=True)
    else:
        page.figure(partial(text_figure, NO_FEED), NO_FEED, thumbnail=True)
    page.table([_feed(feed) for feed in facts.feeds])
    page.table([{"what": name, "value": text} for name, text in facts.lines])
    page.table(
        [{"check": c.name, "what came": c.text, "passed": "yes" if c.passed else "NO"} for c in facts.checks],
    )
    page.text(
        "Images, baselines and attributions are in 0 to 1, black is 0; what the network sees is made from them in front of "
        "it. The log-likelihood is the mean natural logarithm of the probability that the label gets: the nearer to 0, the "
        "better the input range explains the labels."
    )
    return page


def _title(facts: ModelFacts) -> str:
    chosen = [feed for feed in facts.feeds if feed.is_chosen]
    if chosen and chosen[0].accuracy is not None:
        return f"The model is fed {chosen[0].name}: accuracy {chosen[0].accuracy:.4f} on labelled images"
    return "How the model is fed and read"


def _feed(feed: FeedFact) -> dict[str, object]:
    return {
        "input range": f"{feed.name} (chosen)" if feed.is_chosen else feed.name,
        "accuracy": NOT_MEASURED if feed.accuracy is None else f"{feed.accuracy:.4f}",
        "log-likelihood": NOT_MEASURED if feed.log_likelihood is None else f"{feed.log_likelihood:.3f}",
        "images": NOT_MEASURED if feed.n_images is None else feed.n_images,
        "note": feed.note,
    }
