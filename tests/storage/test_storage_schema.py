"""The table: what it promises about names, texts, chunks and imports."""

import numpy as np
import pytest

import storage
from command import printed_by_python
from storage.file.schema import (
    BY_PATH,
    CHUNK_BYTES,
    COLUMNS,
    ROOT_ATTRIBUTES,
    STORED,
    VARIABLES,
    chunk_rows,
    copied_raw,
    groups_of,
    variables_of,
)
from storage.file.variable import FLAG, TEXT

ATTRIBUTION = BY_PATH["integrated_gradients/attribution"]
GAP = BY_PATH["integrated_gradients/gap"]
PREDICTED = BY_PATH["integrated_gradients/predicted/attribution"]


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda v: v.path)
def test_every_variable_is_described_and_has_coordinates(variable) -> None:
    assert variable.long_name and variable.description.endswith(".")
    assert variable.units or variable.dtype == TEXT
    assert all(BY_PATH[scale].is_coordinate for scale in variable.scales)
    assert not variable.group or variable.group in groups_of(VARIABLES)


def test_paths_and_attributes_are_unique() -> None:
    assert len(BY_PATH) == len(VARIABLES)
    assert len({attribute.name for attribute in ROOT_ATTRIBUTES}) == len(ROOT_ATTRIBUTES)


def test_predicted_groups_mirror_the_true_ones() -> None:
    for group in ("integrated_gradients", "grad_cam"):
        true = {v.path.removeprefix(group) for v in VARIABLES if v.group == group}
        predicted = {v.path.removeprefix(f"{group}/predicted") for v in VARIABLES if v.group == f"{group}/predicted"}
        assert predicted == true


def test_dimensions_are_scoped_as_in_netcdf() -> None:
    assert PREDICTED.scales == ("predicted_row", "y", "x", "channel")
    assert ATTRIBUTION.scales == ("row", "y", "x", "channel")
    assert PREDICTED.is_ragged and not ATTRIBUTION.is_ragged


def test_every_column_is_one_and_can_be_said() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    for column in COLUMNS:
        if column.name in STORED and column.number_format != FLAG:
            dtype = np.dtype(STORED[column.name].dtype)
            assert column.say(dtype.type(3)) and column.captioned(dtype.type(3)) is not None
        assert not column.choices or len(column.choices) == 2


@pytest.mark.parametrize("schema", [1, 4])
def test_older_schemas_have_a_row_in_each_predicted_group(schema: int) -> None:
    older = {variable.path: variable for variable in variables_of(schema)}
    assert "predicted_row" not in older
    assert older["grad_cam/predicted/row"].is_coordinate
    assert older["grad_cam/predicted/map"].scales == ("grad_cam/predicted/row", "cam_y", "cam_x")
    assert (
        older["grad_cam/predicted/map"].is_ragged and "own row" in groups_of(variables_of(schema))["grad_cam/predicted"]
    )


@pytest.mark.parametrize(
    ("row_shape", "part_rows", "expected"),
    [
        pytest.param((32, 32, 3), 256, 64, id="power of two"),
        pytest.param((32, 32, 3), 100, 50, id="largest divisor"),
        pytest.param((32, 32, 3), 64, 64, id="whole part"),
        pytest.param((32, 32, 3), 251, 1, id="prime"),
        pytest.param((600, 600, 3), 8, 1, id="row above a chunk"),
    ],
)
def test_chunks_copied_raw_tile_a_part(row_shape, part_rows, expected) -> None:
    assert copied_raw(ATTRIBUTION, row_shape, part_rows)
    rows = chunk_rows(ATTRIBUTION, row_shape, part_rows=part_rows, n_rows=part_rows)
    assert rows == expected
    assert part_rows % rows == 0
    assert rows == 1 or rows * np.prod(row_shape) * 4 <= CHUNK_BYTES


@pytest.mark.parametrize(
    ("variable", "row_shape", "n_rows", "expected"),
    [
        pytest.param(GAP, (), 10_000, 10_000, id="small: one chunk"),
        pytest.param(GAP, (), 1_000_000, CHUNK_BYTES // 4, id="long: 1 MiB"),
        pytest.param(PREDICTED, (32, 32, 3), 700, 85, id="ragged"),
        pytest.param(PREDICTED, (32, 32, 3), 0, 1, id="ragged and empty"),
    ],
)
def test_rewritten_variables_have_their_own_large_chunks(variable, row_shape, n_rows, expected) -> None:
    assert not copied_raw(variable, row_shape, 256)
    assert chunk_rows(variable, row_shape, part_rows=256, n_rows=n_rows) == expected


def test_part_rows_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        chunk_rows(GAP, (), part_rows=0, n_rows=1)


def test_promised_names_exist() -> None:
    assert all(hasattr(storage, name) for name in storage.__all__)


def test_import_loads_neither_model_nor_orchestration() -> None:
    foreign = [
        "tensorflow",
        "keras",
        "prefect",
        "pydantic",
        "pandas",
        "matplotlib",
        "xarray",
        "fsspec",
        "tasks",
        "flows",
    ]
    code = f"import sys, storage; print([name for name in {foreign} if name in sys.modules])"
    assert printed_by_python(code) == "[]\n"
