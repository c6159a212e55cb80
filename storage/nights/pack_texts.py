"""What a packed night says of itself to the person who receives it: README.txt, the environment, and what to install."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from storage.nights.pack_manifest import Manifest

__all__ = ["documents_of"]

# What `software` of a store names that no package index has.
NO_PACKAGES = ("python", "platform", "nightlens")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]*")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ABOUT = ("run_id", "created_utc", "dataset_name", "dataset_version", "dataset_split", "model_name", "model_sha256")
COMPUTED_IN = ("software", "git_commit", "device", "precision", "batch_size", "significant_bits")


def documents_of(attributes: Mapping[str, Any], manifest: Manifest, code: str, file: str) -> dict[str, bytes]:
    """README.txt, contract.json, environment.json and requirements.txt, by name.

    attributes: the store's, JSON parsed. code: the name of the model's code in the pack, empty where it needs none. file: what
    the pack is called.
    """
    environment = {name: attributes.get(name) for name in COMPUTED_IN}
    return {
        "README.txt": _readme(attributes, manifest, code, file).encode(),
        "contract.json": _json(attributes.get("contract") or {}),
        "environment.json": _json(environment),
        "requirements.txt": _requirements(attributes.get("software") or {}).encode(),
    }


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode()


def _requirements(software: Mapping[str, Any]) -> str:
    lines = [f"# what computed the night, on Python {software.get('python', 'unknown')}; needed for --recompute alone"]
    for name, version in sorted(software.items()):
        if name not in NO_PACKAGES and PACKAGE.fullmatch(str(name)) and VERSION.fullmatch(str(version)):
            lines.append(f"{name}=={version}")
    return "\n".join(lines) + "\n"


def _readme(attributes: Mapping[str, Any], manifest: Manifest, code: str, file: str) -> str:
    night = manifest.night
    facts = [f"    {name:<16} {' '.join(str(attributes.get(name, '')).split())}" for name in ABOUT]
    without = ", ".join(manifest.without)
    left_out = f"Left out by whoever packed it: {without}." if manifest.without else "Nothing was left out."
    return "\n".join(
        [
            f"The night {night}: every image of a test split explained, as nightlens sealed it.",
            "",
            *facts,
            "",
            "Two commands, with nightlens installed (an analyst's install is enough):",
            "",
            f"    nightlens unpack {shlex.quote(file)}",
            f"    nightlens browse nightlens-data/nights/{night}",
            "",
            "The first compares every checksum while it writes, refuses what was changed, and prints the manifest's sha256: it",
            "is the one that `nightlens pack` printed for whoever sent you this. Without a browser on that machine:",
            "",
            f"    nightlens show nightlens-data/nights/{night} --row ROW",
            "",
            *_recomputing(manifest, code),
            left_out,
            "",
            "What is in it:",
            "",
            *_contents(manifest),
            "",
        ]
    )


def _recomputing(manifest: Manifest, code: str) -> Sequence[str]:
    """How rows are computed again, and what that takes beside the pack."""
    needs = [f"--code nightlens-data/models/{code}"] if code else []
    needs += ["--model FILE"] if "model" in manifest.without else []
    needs += ["--root ROOT-WITH-THE-DATASET"] if "images" in manifest.without else []
    command = " ".join([f"nightlens verify nightlens-data/nights/{manifest.night} --recompute 8", *needs])
    return (
        "Eight random rows computed again from the model, which needs nightlens with the extra 'pipeline' (requirements.txt has",
        "the versions that computed the night):",
        "",
        f"    {command}",
        "",
        *(("The model's code is executed by that: read it first.", "") if code else ()),
    )


def _contents(manifest: Manifest) -> list[str]:
    tops: dict[str, list[int]] = {}
    for name, entry in manifest.entries.items():
        top = "/".join(name.split("/")[:2]) if name.startswith("night/") else name.partition("/")[0]
        tops.setdefault(top, []).append(entry.bytes)
    return [f"    {top:<32} {len(sizes):>5} files {sum(sizes) / 1e6:>12,.1f} MB" for top, sizes in sorted(tops.items())]
