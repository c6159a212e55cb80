"""What is in a report: its data, its elements, its words; and that it asks nothing of any network."""

import json
import re
from html.parser import HTMLParser


def page_data(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1))  # type: ignore[union-attr]


class Elements(HTMLParser):
    """Tags with their attributes, and all text outside of scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data


def words(html: str) -> str:
    return " ".join(Elements(html).text.split())


def assert_asks_nothing(html: str) -> None:
    """Every source and every link is in the page itself, nothing is styled or run in place, and the policy says so."""
    assert not re.search(
        r"(?i)(https?:)?//[a-z0-9-]+\.[a-z]", re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", html)
    )
    for tag, attributes in Elements(html).found:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "#")), (tag, name, value[:60])
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
    policy = next(a["content"] for t, a in Elements(html).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy and "img-src data:;" in policy and "unsafe" not in policy
