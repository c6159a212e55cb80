"""Digests of settings: what decides a result is hashed, so that results of other settings are never mixed in."""

import hashlib
import json
from typing import Any

__all__ = ["settings_digest"]


def settings_digest(settings: Any) -> str:
    """The sha256 of JSON-like settings, independent of the order of keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
