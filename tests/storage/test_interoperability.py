"""The store in other people's programs: xarray, h5dump, ncdump and R. Each is compared with what h5py reads."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from command import printed_by, program
from example_store import CLASS_NAMES, seal, write_parts
from storage.file.schema import VARIABLES, groups_of
from storage.file.variable import TEXT

START, STOP = 64, 224
SIZES = {"row": 160, "y": 24, "x": 24, "channel": 3, "class": 3, "cam_y": 4, "cam_x": 5, "predicted_row": 52}


def needs(program: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not shutil.which(program), reason=f"{program} is not installed: apt-get install {package}"
    )


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the rows 64 to 223."""
    folder = tmp_path_factory.mktemp("interoperability")
    seal(folder / "attributions.h5", write_parts(folder, START, STOP))
    return folder / "attributions.h5"


@pytest.mark.parametrize("group", [None, *groups_of(VARIABLES)], ids=lambda group: group or "root")
def test_xarray_opens_every_group(store_path: Path, group: str | None) -> None:
    with xr.open_dataset(store_path, engine="h5netcdf", group=group) as dataset, h5py.File(store_path) as file:
        node = file[group or "/"]
        assert set(dataset.variables) == {name for name, item in node.items() if isinstance(item, h5py.Dataset)}
        for name, variable in dataset.variables.items():
            assert variable.dims == tuple(axis.label or name for axis in node[name].dims)
            expected = CLASS_NAMES if name == "class_name" else node[name][...]
            np.testing.assert_array_equal(variable.values, expected, err_msg=str(name))
        assert set(dataset.coords) == (set() if group else set(SIZES))


def test_xarray_opens_all_groups_at_once(store_path: Path) -> None:
    groups = xr.open_groups(store_path, engine="h5netcdf")
    assert set(groups) == {"/", *(f"/{name}" for name in groups_of(VARIABLES))}
    assert dict(groups["/"].sizes) == SIZES
    attribution = groups["/integrated_gradients"].assign_coords(groups["/"].coords).attribution
    with h5py.File(store_path) as file:
        expected = file["integrated_gradients/attribution"][100 - START]
    np.testing.assert_array_equal(attribution.sel(row=100, drop=True).values, expected, strict=True)


@needs("h5dump", "hdf5-tools")
def test_h5dump_lists_the_whole_file(store_path: Path) -> None:
    listed = printed_by("h5dump", store_path)
    with h5py.File(store_path) as file:
        names: list[str] = []
        file.visit(names.append)
        paths = re.findall(r'^ *(?:DATASET|GROUP) "([^"]+)" \{', listed, re.M)
        assert sorted(paths) == sorted(["/", *(name.rpartition("/")[2] for name in names)])
        shown = (
            printed_by("h5dump", "-y", "-w", "1", "-d", "/prediction", store_path)
            .partition("DATA {")[2]
            .partition("}")[0]
        )
        assert [int(number) for number in re.findall(r"\d+", shown)] == file["prediction"][...].tolist()


def ncdump_reads_texts() -> bool:
    """netCDF before 4.9.1 crashes on any array of fixed-length strings (Unidata/netcdf-c, issue 2159)."""
    usage = program("ncdump").stderr
    version = re.search(r"version (\d+)\.(\d+)\.(\d+)", usage)
    return version is not None and tuple(map(int, version.groups())) >= (4, 9, 1)


def ncdump_path(path: str) -> str:
    """It wants a slash before the names of groups only."""
    return f"/{path}" if "/" in path else path


@needs("ncdump", "netcdf-bin")
def test_ncdump_lists_the_whole_file(store_path: Path) -> None:
    readable = [v.path for v in VARIABLES if v.path != "class_name" or ncdump_reads_texts()]
    listed = printed_by("ncdump", "-v", ",".join(map(ncdump_path, readable)), store_path)
    root = listed.partition("variables:")[0]
    found = dict(re.findall(r"^\t(\w+) = (\d+) ;", root, re.M))
    found |= dict(re.findall(r"^\t(\w+) = UNLIMITED ; // \((\d+) currently\)", root, re.M))
    assert {name: int(size) for name, size in found.items()} == SIZES
    assert "float attribution(row, y, x, channel) ;" in listed and "float map(row, cam_y, cam_x) ;" in listed
    with h5py.File(store_path) as file:
        for path in ("label", "predicted_row"):
            name = path.rpartition("/")[2]
            shown = printed_by("ncdump", "-v", ncdump_path(path), store_path).partition("data:")[2]
            values = re.search(rf"\b{name} = ([\d,\s]+);", shown)
            assert values and [int(number) for number in values[1].split(",")] == file[path][...].tolist()


@needs("ncdump", "netcdf-bin")
def test_ncdump_lists_the_class_names(store_path: Path) -> None:
    if not ncdump_reads_texts():
        pytest.skip("netCDF before 4.9.1 crashes on arrays of fixed-length strings: Unidata/netcdf-c, issue 2159")
    listed = printed_by("ncdump", "-v", "class_name", store_path)
    assert all(f'"{name}"' in listed for name in CLASS_NAMES)


R = """
options(digits = 17)
library(ncdf4)
store <- nc_open(commandArgs(trailingOnly = TRUE))
attribution <- ncvar_get(store, "integrated_gradients/attribution")
cat(dim(attribution), "\n")
cat(apply(attribution, 4, sum), "\n")
cat(ncvar_get(store, "row"), "\n")
"""


@pytest.fixture(scope="module")
def r_has_ncdf4() -> None:
    if not shutil.which("Rscript"):
        pytest.skip("R is not installed: apt-get install r-base-core r-cran-ncdf4")
    if program("Rscript", "-e", "library(ncdf4)").returncode:
        pytest.skip("R has no package ncdf4: apt-get install r-cran-ncdf4")


@pytest.mark.usefixtures("r_has_ncdf4")
def test_r_reads_the_same_sums(store_path: Path) -> None:
    shape, sums, rows = (
        np.array(line.split(), float) for line in printed_by("Rscript", "-e", R, store_path).splitlines()
    )
    with h5py.File(store_path) as file:
        attribution = file["integrated_gradients/attribution"][...].astype(float)
        assert shape.tolist() == [*attribution.shape[::-1]]
        np.testing.assert_allclose(sums, attribution.sum(axis=(1, 2, 3)), rtol=1e-12, atol=1e-10)
        assert rows.tolist() == file["row"][...].tolist()


def test_xarray_opens_it_as_a_tree_with_every_value(store_path: Path) -> None:
    """Since schema 5 no group has a coordinate that hides one of the root."""
    with xr.open_datatree(store_path, engine="h5netcdf") as tree, h5py.File(store_path) as file:
        for variable in VARIABLES:
            there = tree[f"/{variable.path}"]
            assert there.dims == variable.dimensions, variable.path
            if variable.dtype != TEXT:
                np.testing.assert_array_equal(there.values, file[variable.path][...], err_msg=variable.path)
        predicted = tree["/grad_cam/predicted"].to_dataset()
        np.testing.assert_array_equal(predicted["predicted_row"], file["predicted_row"][...])
        wrong = predicted.sel(predicted_row=int(file["predicted_row"][3]))
        np.testing.assert_array_equal(wrong["map"], file["grad_cam/predicted/map"][3])
