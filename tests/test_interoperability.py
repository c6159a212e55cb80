"""A store read by other programs: xarray, h5dump, ncdump and R. Each test says which program it misses, if it does."""

import re
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from test_storage_example import CLASS_NAMES, seal, write_parts

from storage.schema import GROUPS, VARIABLES


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    seal(folder / "attributions.h5", write_parts(folder / "parts", 100, 250))
    return folder / "attributions.h5"


def run(program: str, *arguments: object, package: str) -> str:
    """What a program prints, without complaint."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: {package})")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_xarray_opens_every_group_with_coordinates(group: str, store: Path) -> None:
    opened = xr.open_dataset(store, engine="h5netcdf", group=group or None)
    with opened, h5py.File(store) as file:
        variables = {v.path.rpartition("/")[2]: v for v in VARIABLES if v.group == group}
        assert set(opened.variables) == set(variables)
        for name, variable in variables.items():
            assert opened[name].dims == variable.dimensions
            assert opened[name].attrs["description"] == variable.description
            np.testing.assert_array_equal(opened[name].values, file[variable.path][...])
        if "row" in variables:
            assert "row" in opened.coords


def test_xarray_opens_all_groups_at_once(store: Path) -> None:
    groups = xr.open_groups(store, engine="h5netcdf")
    assert set(groups) == {"/", *(f"/{group}" for group in GROUPS)}


def test_h5dump_lists_everything(store: Path) -> None:
    listed = run("h5dump", "-H", "-p", store, package="hdf5-tools")
    for variable in VARIABLES:
        assert f'DATASET "{variable.path.rpartition("/")[2]}"' in listed
    assert listed.count("CHECKSUM FLETCHER32") == len(VARIABLES)
    data = run("h5dump", "-d", "/label", "-y", "-w", "0", store, package="hdf5-tools")
    with h5py.File(store) as file:
        label = file["label"][...]
    numbers = re.search(r"DATA \{(.*?)\}", data, re.S)
    assert numbers and np.array_equal(np.fromstring(numbers.group(1), sep=",", dtype=np.int64), label)


def test_ncdump_knows_every_dimension_and_value(store: Path) -> None:
    header = run("ncdump", "-h", store, package="netcdf-bin")
    assert re.search(r"row = UNLIMITED ; // \(150 currently\)", header)
    for dimension, size in {"y": 24, "x": 24, "channel": 3, "class": 3, "cam_y": 4, "cam_x": 5}.items():
        assert re.search(rf"^\t{dimension} = {size} ;", header, re.M)
    assert "float attribution(row, y, x, channel) ;" in header
    with h5py.File(store) as file:
        for name in ("gap", "n_gradients"):
            told = run("ncdump", "-v", f"/integrated_gradients/{name}", "-p", "9,17", store, package="netcdf-bin")
            (values,) = re.findall(rf"^\s*{name} = ([^;]*);", told.partition("data:")[2], re.M)
            numbers = np.array([float(value) for value in values.split(",")])
            np.testing.assert_array_equal(numbers.astype(np.float32), file[f"integrated_gradients/{name}"][...])


R_PROGRAM = """
suppressPackageStartupMessages(library(ncdf4))
store <- nc_open(commandArgs(trailingOnly = TRUE))
attribution <- ncvar_get(store, "integrated_gradients/attribution")
gap <- ncvar_get(store, "integrated_gradients/gap")
cat(dim(attribution), "\\n")
cat(sprintf("%.9g", apply(attribution, 4, sum)), "\\n")
cat(sprintf("%.9g", gap), "\\n")
"""


def test_r_reads_attributions_and_gaps(store: Path, tmp_path: Path) -> None:
    program = tmp_path / "read.R"
    program.write_text(R_PROGRAM)
    if shutil.which("Rscript") and subprocess.run(["Rscript", "-e", "library(ncdf4)"], capture_output=True).returncode:
        pytest.skip("R has no package ncdf4 (Debian: r-cran-ncdf4)")
    shape, sums, gaps = run("Rscript", program, store, package="r-base-core").splitlines()
    assert shape.split() == ["3", "24", "24", "150"], "R counts axes from the fastest"
    with h5py.File(store) as file:
        attribution, gap = (file[f"integrated_gradients/{name}"][...] for name in ("attribution", "gap"))
    np.testing.assert_allclose(np.array(sums.split(), float), attribution.sum((1, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(np.array(gaps.split(), np.float32), gap)


def test_h5dump_shows_names_as_texts(store: Path) -> None:
    listed = run("h5dump", "-d", "/class_name", store, package="hdf5-tools")
    assert "CSET H5T_CSET_UTF8" in listed
    assert all(f'"{name}' in listed for name in CLASS_NAMES[:2])
