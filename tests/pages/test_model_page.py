"""The page `model`: what of a contract is shown, that foreign names stay text, and that the chosen input range is marked."""

import re
from typing import Any

import pytest

from hostile_texts import NASTY, unescape
from reported_night import CONTRACT, hostile_contract
from storage.draw.figures import render
from tasks.night.contract_facts import FeedFact, is_independent, model_facts
from tasks.pages.figures.page_figures import feeds_figure
from tasks.pages.model_page import model_page
from tasks.pages.page import Page, drawing


def lines_of(page: Page) -> list[str]:
    """What a page says, line by line, without its pictures."""
    return unescape(re.sub(r"\(data:image[^)]*\)", "()", page.markdown())).splitlines()


def test_the_page_tells_the_contract() -> None:
    page = model_page(CONTRACT)
    lines = lines_of(page)
    assert page.key == "model"
    assert lines[0] == "# The model is fed raw: accuracy 0.9512 on labelled images"
    for told in (
        "The model is fed images as 0 to 255 (auto).",
        "| signed nearly as well |",
        "| raw (chosen) | 0.9512 | -0.210 | 512 |  |",
        "| unit | 0.0820 | -2.310 | 64 | the same outputs as x |",
        "| caffe | - | - | - | outputs are not finite |",
        "| why this input | auto: it explains the labels best |",
        "| outputs | probabilities that sum to 1 |",
        "| order of classes | names sorted as strings |",
        "| Grad-CAM layer | backbone/c1 |",
        "| same images twice | largest difference 0 | yes |",
        "| another batch | largest difference 3 | NO |",
    ):
        assert told in lines, told
    assert "![thumbnail](data:image/png" in page.description()


def test_a_model_without_a_layer_says_none_and_why() -> None:
    lines = lines_of(model_page(CONTRACT | {"grad_cam": {"layer": "", "text": "the model has no map"}}))
    assert "| Grad-CAM layer | none |" in lines
    assert "| why no layer | the model has no map |" in lines


def test_a_given_input_is_told_by_its_numbers() -> None:
    fed = {"name": "given", "mean": [0.5, 0.25, 0], "scale": [1, 2, 3], "bgr": True, "chosen": "set by model.input"}
    page = model_page({"input": fed})
    told = "given: (image - [0.5, 0.25, 0]) / [1, 2, 3], image from 0 to 1, channels reversed (blue first)"
    assert f"| input | {told} |" in lines_of(page)
    assert "![no feed was measured]()" in lines_of(page)
    assert lines_of(page)[0] == "# How the model is fed and read"


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())
def test_foreign_names_stay_text_in_their_cells(name: str) -> None:
    feed = {"name": name, "accuracy": 0.5, "log_likelihood": -1, "n_images": 8, "note": name}
    contract = {
        "summary": name,
        "input": {"name": name, "text": name, "chosen": name, "feeds": [feed, feed]},
        "output": {"kind": name, "text": name, "logits": name},
        "classes": {"order": name, "text": name},
        "grad_cam": {"layer": name, "text": name},
        "checks": [{"name": name, "text": name, "passed": True}],
        "warnings": [name],
    }
    with drawing(False):
        markdown = model_page(contract).markdown()
    tables: dict[int, list[str]] = {}
    for number, block in enumerate(markdown.split("\n\n")):
        tables[number] = [line for line in block.splitlines() if line.startswith("|")]
    for lines in tables.values():
        assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) <= 1
    assert "<script" not in markdown.replace("\\<script", "")
    assert not re.search(r"(?<!\\)!\[|(?<!\\)\]\(", markdown)


def test_every_text_of_a_hostile_contract_is_drawn_and_told() -> None:
    page = model_page(hostile_contract())
    assert "<script" not in page.markdown().replace("\\<script", "")
    assert "![thumbnail](data:image/png" in page.description()


def test_the_figure_marks_the_chosen_feed_and_says_what_was_not_measured() -> None:
    facts = model_facts(CONTRACT)
    assert facts is not None
    figure = feeds_figure(facts.feeds)
    accuracy, likelihood = figure.axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["raw (chosen)", "unit", "caffe"]
    assert [bar.get_width() for bar in accuracy.patches] == [0.9512, 0.082, 0]
    assert [bar.get_width() for bar in likelihood.patches] == [-0.21, -2.31, 0]
    assert [text.get_text() for text in accuracy.texts] == ["0.951", "0.082", "not measured"]
    colours = [bar.get_facecolor() for bar in accuracy.patches]
    assert colours[0] != colours[1] == colours[2]
    assert accuracy.get_xlabel() and likelihood.get_xlabel() and accuracy.get_ylabel()
    render(figure)
    within = figure.bbox
    for text in (*accuracy.texts, *likelihood.texts, *accuracy.get_yticklabels()):
        extent = text.get_window_extent()
        assert within.x0 <= extent.x0 and extent.x1 <= within.x1, text.get_text()


@pytest.mark.parametrize(
    ("feed", "name", "widths", "numbers"),
    [
        (FeedFact("a", 0.75, -0.5, 1, "", True), "a (chosen)", (0.75, -0.5), ["0.750", "-0.50"]),
        (FeedFact("b", None, None, None, "", False), "b", (0, 0), ["not measured"] * 2),
    ],
    ids=["chosen", "not measured"],
)
def test_a_figure_of_one_feed_shows_it(feed: FeedFact, name: str, widths: tuple, numbers: list[str]) -> None:
    figure = feeds_figure([feed])
    render(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [name]
    assert tuple(bar.get_width() for ax in figure.axes for bar in ax.patches) == widths
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == numbers


@pytest.mark.parametrize("contract", [{}, {"output": {"kind": "independent"}}, {"output": None}], ids=str)
def test_independent_probabilities_are_known_as_such(contract: dict[str, Any]) -> None:
    assert is_independent(contract) == (contract.get("output") is not None)


def test_of_feeds_of_one_name_the_first_is_the_chosen_one() -> None:
    feeds = [{"name": "raw"}, {"name": "unit"}, {"name": "raw"}]
    facts = model_facts({"input": {"name": "raw", "feeds": feeds}})
    assert facts is not None and [feed.is_chosen for feed in facts.feeds] == [True, False, False]
