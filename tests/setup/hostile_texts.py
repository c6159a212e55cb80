"""Names that nobody should give a class, and what a browser shows of them."""

import re

NASTY = {
    "pipe": "a | b",
    "script": "<script>alert(1)</script>",
    "image": "![x](http://evil.example/x.png)",
    "link": "[x](javascript:alert(1))",
    "code": "`code` and ```fence```",
    "lines": "one\ntwo\r\n\n# three",
    "emphasis": "*a* _b_ ~c~ __init__",
    "entity": "&lt;b&gt;",
    "table": "|---|",
    "long": "x" * 300,
    "unicode": "naïve 猫 🙂",
    "control": "a\0b\x1bc",
    "backslash": "a\\|b",
    "heading": "# title",
    "quote": "> said",
    "list": "- item",
    "rule": "---",
    "number": "1. first",
    "direction": "txt\u202egnp.exe",
    "undecodable": "caf\udce9",
}


def unescape(text: str) -> str:
    """What a browser shows of backslash escapes."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
