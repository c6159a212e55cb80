"""What of a night is to be looked at: each threshold from both sides, and which earlier night it is compared with."""

import json
from pathlib import Path

import pandas as pd
import pytest

from storage import Catalog
from tasks.config import AlertConfig
from tasks.night.alert import EarlierNight, earlier_night, find_warnings
from tasks.night.result import NightWarning

IMAGES = {"dataset_sha256": "ab12", "dataset_split": "test"}
TONIGHT = "20261125T020000Z-000000"


def found(alert: AlertConfig = AlertConfig(), **changed) -> dict[str, float | None]:  # noqa: B008 (frozen)
    """Kind and value of the warnings of ten rows, all converged, two maps empty, as accurate as the night before."""
    table = pd.DataFrame({"converged": [True] * 10, "cam_max": [0.0] * 2 + [1.0] * 8, "hires_max": [1.0] * 10})
    night = {
        "accuracy": 0.9,
        "earlier": EarlierNight(night_id="before", accuracy=0.9),
        "audit": "passed",
        "remarks": (),
    }
    columns = {name: changed.pop(name) for name in ("converged", "cam_max", "hires_max") if name in changed}
    warnings = find_warnings(table.assign(**columns), **(night | changed), alert=alert)
    return {warning.kind: warning.value for warning in warnings}


def test_a_night_in_which_nothing_is_odd_has_no_warning() -> None:
    assert found() == {}


@pytest.mark.parametrize(
    ("changed", "alert", "expected"),
    [
        ({"converged": [False] + [True] * 9}, {}, {"unconverged": 0.1}),
        ({"converged": [False] + [True] * 9}, {"unconverged": 0.1}, {}),
        ({"cam_max": [0.0] * 3 + [1.0] * 7}, {}, {"zero-maps": 0.3}),
        ({"cam_max": [0.0] * 3 + [1.0] * 7}, {"zero_maps": 0.3}, {}),
        ({"cam_max": [0.0] * 10}, {"zero_maps": 1}, {}),
        ({"hires_max": [0.0] * 4 + [1.0] * 6}, {}, {"zero-maps": 0.4}),
        ({"accuracy": 0.879}, {}, {"accuracy-drop": 0.021}),
        ({"accuracy": 0.88}, {}, {}),
        ({"accuracy": 0.95}, {"accuracy_drop": 0}, {}),
        ({"accuracy": 0.5, "earlier": None}, {}, {}),
        ({"audit": "not audited: switched off"}, {}, {"not-audited": None}),
        ({"remarks": (NightWarning(kind="dataset", message="a class is rare"),)}, {}, {"dataset": None}),
    ],
    ids=[
        *("one-open", "as-many-open-as-allowed", "empty-maps", "as-many-empty-as-allowed", "never", "another-map"),
        *("drop", "drop-allowed", "better", "nothing-before", "not-audited", "remark"),
    ],
)
def test_thresholds(changed: dict, alert: dict, expected: dict) -> None:
    assert found(AlertConfig(**alert), **changed) == pytest.approx(expected)


def promoted(root: Path, night: str, **record: object) -> None:
    folder = Catalog(root).night_dir(night)
    folder.mkdir(parents=True)
    (folder / "attributions.h5").touch()
    (folder / "night.json").write_text(json.dumps({"night_id": night, "accuracy": 0.5, **IMAGES, **record}))


@pytest.mark.usefixtures("no_run_logger")
def test_the_night_before_is_the_last_on_the_same_images(tmp_path: Path) -> None:
    for record in (
        {"night": "20261120T020000Z-000000", "accuracy": 0.1},
        {"night": "20261121T020000Z-000000", "accuracy": 0.2},
        {"night": "20261122T020000Z-000000", "dataset_sha256": "cd34"},
        {"night": "20261123T020000Z-000000", "dataset_split": "validation"},
        {"night": "20261124T020000Z-000000", "moves_latest": False},
        {"night": TONIGHT, "accuracy": 0.9},
        {"night": "20261126T020000Z-000000", "accuracy": 0.3},
    ):
        promoted(tmp_path, **record)
    earlier = earlier_night(Catalog(tmp_path), TONIGHT, **IMAGES)
    assert earlier == EarlierNight(night_id="20261121T020000Z-000000", accuracy=0.2, **IMAGES)


@pytest.mark.usefixtures("no_run_logger")
@pytest.mark.parametrize("text", ["{", "[]", '"text"', '{"dataset_sha256": "ab12", "dataset_split": "test"}', ""])
def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path, text: str) -> None:
    promoted(tmp_path, "20261120T020000Z-000000")
    promoted(tmp_path, "20261121T020000Z-000000")
    (tmp_path / "nights" / "20261121T020000Z-000000" / "night.json").write_text(text)
    earlier = earlier_night(Catalog(tmp_path), TONIGHT, **IMAGES)
    assert earlier is not None
    assert earlier.night_id == "20261120T020000Z-000000"


def test_a_night_that_was_sealed_and_not_promoted_is_not_compared_with(tmp_path: Path) -> None:
    promoted(tmp_path, "20261120T020000Z-000000")
    (tmp_path / "nights" / "20261120T020000Z-000000" / "night.json").unlink()
    assert earlier_night(Catalog(tmp_path), TONIGHT, **IMAGES) is None
