"""The error of a model that cannot be used, and what of a library's message is worth passing on."""

import re

__all__ = ["ModelError", "reason"]

LONGEST = 240  # characters of a library's sentence that still is one for a reader


class ModelError(ValueError):
    """A model that cannot be used: what was expected, what came, what to do."""


def reason(error: BaseException) -> str:
    """The first sentence of an error's message, whole and without its full stop; the error's type where there is none."""
    text = " ".join(str(error).split())
    found = re.match(r"[^\n]*?[^.\s]{2}(?=[.?!](\s|$))", text)
    sentence = found[0] if found else text
    # A library that prints a whole object says nothing to a reader.
    if not sentence or len(sentence) > LONGEST or re.search(r"<.* object at|\{'|\n", sentence):
        return type(error).__name__
    return sentence
