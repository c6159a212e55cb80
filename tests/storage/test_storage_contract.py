"""The root attribute `contract`: written as it is given, shown to people, and empty in stores that are older than it."""

import json
from pathlib import Path

import h5py
import pytest

from example_store import seal, write_parts
from places import DATA
from storage import StoreCorrupt, open_store, verify_store

EARLIER = DATA / "schema-3.h5"
CONTRACT = {
    "summary": "pixels times 1 / 255, as\n its own Rescaling expects",
    "input": {"name": "raw", "mean": [0, 0, 0], "scale": [1 / 255] * 3, "bgr": False, "chosen": "auto", "feeds": []},
    "output": {"kind": "probability", "text": "non-negative, and summing to 1"},
    "warnings": ["猫"],
}


def test_it_is_written_and_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "attributions.h5"
    seal(path, write_parts(tmp_path / "parts", 0, 30), contract=CONTRACT)
    with open_store(path) as store:
        assert store.contract == store.attributes["contract"] == CONTRACT
        assert repr(store).endswith(">\nmodel is fed: pixels times 1 / 255, as its own Rescaling expects")
        assert json.loads(store.to_xarray().attrs["contract"]) == CONTRACT
    with h5py.File(path) as file:
        assert json.loads(file.attrs["contract"]) == CONTRACT
        assert "what the model was fed is in /contract" in file["image"].attrs["description"].decode().lower()
        assert "softmax of its logits" in file["probability"].attrs["description"].decode()
    assert verify_store(path) == ()


@pytest.mark.parametrize("contract", [{}, {"input": {}}, {"summary": ""}], ids=["empty", "no summary", "empty summary"])
def test_a_contract_without_a_summary_has_no_line(tmp_path: Path, contract: dict) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 30), contract=contract)
    with open_store(tmp_path) as store:
        assert store.contract == contract
        assert "\n" not in repr(store) and repr(store).endswith("%>")


def test_an_older_store_has_none_and_keeps_its_texts() -> None:
    with open_store(EARLIER) as store:
        assert (store.contract, store.attributes["contract"]) == ({}, {})
        assert "fed" not in repr(store)
    with h5py.File(EARLIER) as file:
        assert file["image"].attrs["description"] == b"The image; the model saw image / 255."
    assert verify_store(EARLIER) == ()


def test_a_contract_that_is_no_json_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "attributions.h5"
    seal(path, write_parts(tmp_path / "parts", 0, 30))
    path.chmod(0o644)
    with h5py.File(path, "a") as file:
        file.attrs.modify("contract", b"{")
    with pytest.raises(StoreCorrupt, match="the root attributes cannot be read"):
        open_store(path)
    assert any(finding.where == "contract" for finding in verify_store(path))
