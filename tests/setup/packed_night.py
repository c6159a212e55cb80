"""A night to hand over, in a root of its own and without TensorFlow: the example store with records, report, gallery, model."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from example_store import ATTRIBUTES, CLASS_NAMES, write_parts
from reported_night import CONTRACT
from storage import Catalog, seal_store
from storage.nights.pack_manifest import MANIFEST, comment_of

if TYPE_CHECKING:
    from tasks.night.result import NightResult

NIGHT = str(ATTRIBUTES["run_id"])
MODEL = b"the weights of a network " * 2000
N_ROWS = 150


def night_to_hand_over(root: Path, *, layout: Any = "single", **changed: object) -> Path:
    """The folder of a sealed night in a root; changed: root attributes of its store."""
    catalog = Catalog(root)
    catalog.models.mkdir(parents=True)
    (catalog.models / "seed-cnn.keras").write_bytes(MODEL)
    sha256 = hashlib.sha256(MODEL).hexdigest()
    (catalog.models / "seed-cnn.json").write_text(json.dumps({"name": "seed-cnn", "sha256": sha256}))
    sample = catalog.datasets / ".records" / "5e1f.sample.npz"
    sample.parent.mkdir(parents=True)
    sample.write_bytes(b"a sample of training images")
    resolved = {
        "root": str(root),
        "model_path": str(catalog.models / "seed-cnn.keras"),
        "dataset": {"directory": str(catalog.datasets / "digits"), "sample": str(sample)},
    }
    attributes = ATTRIBUTES | {
        "model_sha256": sha256,
        "configuration": {"resolved": resolved},
        "contract": CONTRACT,
        "software": {
            "python": "3.11.7",
            "numpy": "1.26.4",
            "tensorflow": "2.21.0",
            "nightlens": "0.1.0",
            "odd": "; rm",
        },
    }
    folder = catalog.night_dir(NIGHT)
    parts = write_parts(root / "parts" / "d1935c", 0, N_ROWS)
    seal_store(
        folder / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=attributes | changed, layout=layout
    )
    (folder / "gallery").mkdir()
    (folder / "gallery" / "row-000001-grad-cam.png").write_bytes(b"a picture of an image")
    (folder / "report.html").write_text("<p>pictures of images")
    record = {"n_rows": N_ROWS, "accuracy": 0.66, "verdict": "sealed", "warnings": []}
    (folder / "night.json").write_text(json.dumps(record))
    (folder / "pinned").touch()
    (folder / "report.html.0123abcd.tmp").write_text("half")
    catalog.point_latest(folder)
    return folder


def repacked(
    source: Path,
    target: Path,
    change: Callable[[list[tuple[zipfile.ZipInfo, bytes]]], list[tuple[zipfile.ZipInfo, bytes]]],
    *,
    manifest: Callable[[dict[str, Any]], object] | None = None,
) -> Path:
    """A pack made anew with other entries, as somebody would who means harm. manifest: changes it, and its checksum follows."""
    with zipfile.ZipFile(source) as archive:
        entries, comment = [(info, archive.read(info)) for info in archive.infolist()], archive.comment
    if manifest:
        about = json.loads({info.filename: data for info, data in entries}[MANIFEST])
        manifest(about)
        text = json.dumps(about).encode()
        entries = [(info, text if info.filename == MANIFEST else data) for info, data in entries]
        comment = comment_of(text)
    with zipfile.ZipFile(target, "w") as archive:
        for info, data in change(entries):
            archive.writestr(info, data)
        archive.comment = comment
    return target


def result_of(folder: Path) -> "NightResult":
    """What the flow would return of it."""
    from tasks.night.result import NightResult

    return NightResult(
        night_id=NIGHT,
        verdict="sealed",
        store=folder / "attributions.h5",
        gallery=folder / "gallery",
        store_bytes=1,
        n_rows=150,
        accuracy=0.66,
        converged_share=1,
        worst_gap=0,
        gradients_per_image=1,
        n_zero_maps=0,
        audit="passed",
        stage_seconds={},
        flow_run_id="",
    )
