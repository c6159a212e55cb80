"""The night in words and figures: its verdict, what to look at, and where everything is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from storage import AttributionStore
from storage.file.catalog import STORE_NAME
from tasks.night.contract_facts import is_independent

if TYPE_CHECKING:
    from tasks.night.evaluation import Evaluation

__all__ = [
    "Fact",
    "Stage",
    "Verdict",
    "began",
    "duration_of",
    "facts_of",
    "figures_of",
    "load_snippet",
    "stages_of",
    "verdict_of",
]

SHORT_DIGEST = 12


@dataclass(frozen=True)
class Verdict:
    """level: how it is drawn. warnings: what to look at, a sentence each."""

    level: Literal["good", "warn", "bad"]
    text: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A line of the table of facts, or a large figure; note: said below the value."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage of the night and how long it took; start, share: of all stages, in 0..1."""

    name: str
    seconds: float
    start: float
    share: float


def verdict_of(night: Mapping[str, Any]) -> Verdict:
    """The verdict of a night's record; of a night without a record, that it was not finished."""
    if not night:
        text = "sealed, but never finished"
        return Verdict("bad", text, ("There is no night.json: the audit did not pass or the night was interrupted.",))
    if "verdict" not in night:
        return Verdict("bad", "sealed, without a verdict", ("Its night.json does not say how the night came out.",))
    text, _, tail = str(night["verdict"]).partition(": ")
    given = night.get("warnings") or [part for part in tail.split("; ") if part]
    warnings = tuple(str(w["message"]) if isinstance(w, Mapping) else str(w) for w in given)
    level: Literal["good", "warn", "bad"] = "good" if text == "sealed" and not warnings else "warn"
    return Verdict(level if text.startswith("sealed") else "bad", text, warnings)


def began(store: AttributionStore) -> str:
    """When the night began, for people."""
    created = datetime.fromisoformat(str(store.attributes["created_utc"])).astimezone(UTC)
    return f"{created.day} {created:%B %Y, %H:%M} UTC"


def figures_of(
    store: AttributionStore, table: pd.DataFrame, night: Mapping[str, Any], evaluation: "Evaluation"
) -> list[Fact]:
    """The large figures at the top of the page."""
    n, right = len(table), int(table["correct"].sum())
    n_open = int((~table["converged"]).sum())
    whole = f"; {100 * evaluation.accuracy:.1f}\u202f% of all {evaluation.n_rows:,}" if evaluation.n_rows > n else ""
    return [
        Fact("accuracy", _share(right, n), f"{right:,} of {n:,} explained rows{whole}{_change(night)}"),
        Fact("converged", _share(n - n_open, n), f"{n_open:,} rows did not" if n_open else "every row"),
        Fact("worst gap", f"{table['gap'].abs().max():#.3g}", f"row {table['gap'].abs().idxmax()}, units of the score"),
        Fact("gradients an image", f"{table['n_gradients'].mean():.1f}", f"at most {table['n_gradients'].max():,}"),
        _maps(store, table),
        Fact("calibration error", f"{evaluation.expected_calibration_error:.3f}", "mean |accuracy − confidence|"),
    ]


def _maps(store: AttributionStore, table: pd.DataFrame) -> Fact:
    empty = {
        method.title: _share(int((table[column.name] == 0).sum()), len(table))
        for method in store.methods
        if method.is_map
        for column in method.columns
    }
    if not empty:
        return Fact("Grad-CAM", "none", "Integrated Gradients alone")
    (first, share), *others = empty.items()
    beside = "".join(f", {other_share} of {title}" for title, other_share in others)
    return Fact("empty maps", share, f"of {first}{beside}: nothing speaks for the class")


def _change(night: Mapping[str, Any]) -> str:
    change = night.get("accuracy_change")
    if not isinstance(change, float):
        return ""
    points = f"{100 * change:+.1f}".replace("-", "−")
    return f"; {points} points since {night.get('compared_with', 'the night before')}"


def _share(count: int, n: int) -> str:
    """A share in per cent that says 100 % or 0 % only where it is exactly that."""
    rounded = np.clip(100 * count / n, 0.1 * (count > 0), 100 - 0.1 * (count < n))
    return f"{rounded:.4g}\u202f%" if rounded in (0, 100) else f"{rounded:.1f}\u202f%"


def facts_of(store: AttributionStore, night: Mapping[str, Any], evaluation: "Evaluation") -> list[Fact]:
    """What was explained, by what, how, and where it is."""
    about, first, last = store.attributes, store.row_range[0], store.row_range[-1]
    configuration: Any = about["configuration"]
    software: Any = about["software"]
    resolved = configuration.get("resolved", {})
    method = configuration.get("integrated_gradients", {})
    explained = configuration.get("explanation", {}).get("score", "score")
    rule = f"{method.get('rule', 'rule unknown')}, {method.get('baseline', 'unknown')} baseline, of the {explained}"
    layer = f"layer {resolved.get('grad_cam_layer', 'unknown')}" if store.has_grad_cam else "none"
    return [
        Fact("night", str(about["run_id"]), f"flow run {about['flow_run_id']}" if about["flow_run_id"] else ""),
        Fact(
            "dataset",
            f"{about['dataset_name']} {about['dataset_version']}, split {about['dataset_split']}",
            f"sha256 {str(about['dataset_sha256'])[:SHORT_DIGEST]}",
        ),
        Fact("model", str(about["model_name"]), f"sha256 {str(about['model_sha256'])[:SHORT_DIGEST]}"),
        Fact("rows", f"{len(store):,}", f"rows {first} to {last} of the split, {len(store.class_names):,} classes"),
        Fact(
            "evaluation",
            f"accuracy {evaluation.accuracy:.4f}, loss {evaluation.loss:.4f}",
            f"on {evaluation.n_rows:,} images of the split{_loss_note(store)}",
        ),
        Fact("Integrated Gradients", rule, f"{about['significant_bits']} significant bits stored"),
        Fact(
            "Grad-CAM", layer, "" if store.has_grad_cam else "the model has no map to explain, or it was switched off"
        ),
        Fact("audit", str(night.get("audit", "unknown")), ""),
        Fact("store", str(store.path), _size(store)),
        Fact("computed on", str(about["device"] or "unknown"), f"in {about['precision']}{_asked(configuration)}"),
        Fact("computed with", _versions(software), f"commit {about['git_commit']}" if about["git_commit"] else ""),
    ]


def _asked(configuration: Mapping[str, Any]) -> str:
    return ", by auto" if configuration.get("explanation", {}).get("precision") == "auto" else ""


def _loss_note(store: AttributionStore) -> str:
    return "; for the loss, probabilities are divided by their sum" if is_independent(store.contract) else ""


def _size(store: AttributionStore) -> str:
    path = Path(store.path)
    return f"{store.n_bytes / 1e6:.1f} MB" if path.name == STORE_NAME and path.is_file() else ""


def _versions(software: Any) -> str:
    named = [f"{name} {software[name]}" for name in ("nightlens", "tensorflow", "keras", "numpy") if software.get(name)]
    return ", ".join(named) or "unknown"


def stages_of(night: Mapping[str, Any]) -> list[Stage]:
    """The stages that were done when the page was written, in order."""
    seconds: Mapping[str, float] = night.get("stage_seconds", {})
    total = sum(seconds.values()) or 1.0
    ends = np.cumsum([0.0, *seconds.values()])
    return [Stage(name, s, float(ends[k]) / total, s / total) for k, (name, s) in enumerate(seconds.items())]


def duration_of(night: Mapping[str, Any]) -> str:
    """How long the night had taken when the page was written, for people; empty if it is not known."""
    seconds = round(sum(night.get("stage_seconds", {}).values()))
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s" if seconds else ""


def load_snippet(store: AttributionStore) -> str:
    """The lines of Python that open this store."""
    return (
        f"import nightlens\n\nwith nightlens.open_store({str(store.path)!r}) as store:\n"
        "    print(store.table())                     # a line per image\n"
        "    wrong = store.rows(correct=False)        # row numbers\n"
        "    values = store.attributions(wrong[:10])  # (row, y, x, channel), signed"
    )
