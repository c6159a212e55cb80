"""A night packed into one file and unpacked elsewhere: all of it is there, and whatever was changed is refused by name."""

import hashlib
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from environment import clean_environment
from example_store import chunk_offset, flip_byte
from packed_night import MODEL, N_ROWS, NIGHT, night_to_hand_over, repacked
from places import REPOSITORY
from storage import Catalog, StoreCorrupt, StoreError, open_store, pruning, read_nights, verify_store
from storage.nights.pack_manifest import DOCUMENTS, is_plain
from storage.nights.packed_files import model_digest
from storage.nights.packing import pack_night
from storage.nights.unpacking import unpack_night
from waiting import wait_until

WAIT_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return night_to_hand_over(tmp_path_factory.mktemp("there") / "root")


@pytest.fixture(scope="module")
def pack(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_night(folder / "attributions.h5", tmp_path_factory.mktemp("mail") / "night.zip").path


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


# Round trips.


@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_a_packed_night_is_a_night_of_another_root_when_the_first_is_gone(tmp_path: Path, layout: str) -> None:
    first = night_to_hand_over(tmp_path / "first", layout=layout)
    kept = {path.name: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    made = pack_night(first / "attributions.h5", tmp_path / "night.zip")
    shutil.rmtree(tmp_path / "first")
    done = unpack_night(made.path, tmp_path / "second")
    assert (done.night, done.sha256, done.is_latest, done.was_there) == (NIGHT, made.sha256, True, False)
    there = {path.name: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()}
    assert kept.keys() - there.keys() == {"pinned", "report.html.0123abcd.tmp"}
    assert there.keys() - kept.keys() == {*DOCUMENTS, "manifest.json"}
    assert {name: there[name] for name in kept.keys() & there.keys()} == {
        n: kept[n] for n in kept.keys() & there.keys()
    }
    assert verify_store(tmp_path / "second") == ()
    with open_store(tmp_path / "second") as store:
        assert len(store) == N_ROWS and store.image[3].any()
    (night,) = read_nights(Catalog(tmp_path / "second"))
    assert (night.state, night.n_rows, night.is_latest, night.is_pinned) == ("sealed", N_ROWS, True, False)
    assert (tmp_path / "second" / "models" / "seed-cnn.keras").read_bytes() == MODEL
    assert done.models[0] == tmp_path / "second" / "models" / "seed-cnn.keras"
    assert not (tmp_path / "second" / ".unpacking").exists()
    assert stat.S_IMODE((done.folder / "attributions.h5").stat().st_mode) == 0o444


def test_the_manifest_has_the_sha256_of_every_entry_and_the_comment_that_of_the_manifest(pack: Path) -> None:
    with zipfile.ZipFile(pack) as archive:
        text = archive.read("manifest.json")
        entries = json.loads(text)["entries"]
        assert set(archive.namelist()) == {*entries, "manifest.json"}
        for name, entry in entries.items():
            data = archive.read(name)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert archive.comment.decode() == f"nightlens pack 1, manifest sha256 {hashlib.sha256(text).hexdigest()}"


def test_its_papers_say_what_to_do_in_two_commands(pack: Path) -> None:
    with zipfile.ZipFile(pack) as archive:
        readme, contract, environment, requirements = (
            archive.read(name).decode()
            for name in ("README.txt", "contract.json", "environment.json", "requirements.txt")
        )
    assert f"    nightlens unpack night.zip\n    nightlens browse nightlens-data/nights/{NIGHT}\n" in readme
    assert f"    nightlens verify nightlens-data/nights/{NIGHT} --recompute 8\n" in readme
    assert json.loads(contract)["summary"] == "images as 0 to 255 (auto)"
    assert json.loads(environment)["device"] == "CPU"
    assert requirements.splitlines()[1:] == ["numpy==1.26.4", "tensorflow==2.21.0"]


def test_a_model_that_is_a_folder_goes_as_one_and_is_known_by_its_digest(tmp_path: Path) -> None:
    saved = tmp_path / "elsewhere" / "saved"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"a graph")
    (saved / "variables" / "variables.index").write_bytes(b"weights")
    (tmp_path / "elsewhere" / "saved.json").write_text("[]")
    folder = night_to_hand_over(tmp_path / "root", model_sha256=model_digest(saved))
    with pytest.raises(StoreError, match="the model seed-cnn with the sha256 .* is neither at .*seed-cnn.keras nor in"):
        pack_night(folder / "attributions.h5", tmp_path / "night.zip")
    pack_night(folder / "attributions.h5", tmp_path / "night.zip", model=saved)
    done = unpack_night(tmp_path / "night.zip", tmp_path / "second")
    assert done.models == (tmp_path / "second" / "models" / "saved",)
    assert model_digest(done.models[0]) == model_digest(saved)


def test_digests_of_models_are_those_of_the_registry(tmp_path: Path) -> None:
    registry = pytest.importorskip("tasks.models.model_digest", reason="the extra `pipeline` is not installed")
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/saved_model.pb", "a/b/c", "x"):
        (tmp_path / name).write_text(name)
    for path in (tmp_path / "a", tmp_path / "x"):
        assert model_digest(path) == registry.digest_file(path)


# What is left out.


def test_without_its_model(folder: Path, tmp_path: Path) -> None:
    made = pack_night(folder / "attributions.h5", tmp_path / "night.zip", without=["model"])
    assert made.without == ("model",) and not [name for name in names(made.path) if name.startswith("models")]
    done = unpack_night(made.path, tmp_path / "second")
    assert done.without == ("model",) and done.models == ()
    assert "--model FILE" in (done.folder / "handover" / "README.txt").read_text()


@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_without_images_no_image_is_in_it_and_everything_else_is(tmp_path: Path, layout: str) -> None:
    folder = night_to_hand_over(tmp_path / "first", layout=layout)
    made = pack_night(folder / "attributions.h5", tmp_path / "night.zip", without=["images"])
    assert not {name for name in names(made.path) if "gallery" in name or "report" in name or "sample" in name}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    done = unpack_night(made.path, tmp_path / "second")
    assert verify_store(done.folder) == ()
    with open_store(folder) as whole, open_store(done.folder) as store:
        assert not store.has_images and store.attributes["left_out"] == "image"
        assert "without its images" in repr(store) and "without its images" in store._repr_html_()
        with pytest.raises(ValueError, match="handed over without its images; ask for attributions and maps"):
            _ = store.image
        for variable in store.all_variables:
            assert (store.column(variable.path) == whole.column(variable.path)).all(), variable.path
        assert {v.path for v in whole.all_variables} - {v.path for v in store.all_variables} == {"image"}
        pixels = whole.image[:].tobytes()
        assert pixels[:64] not in (done.folder / "attributions.h5").read_bytes()
        assert store.upsampled_cam([1]).shape == (1, 24, 24)
        assert len(store.figure(5).axes[0].images) == len(store.methods)
        assert len(store.show([5])._repr_html_()) > 1000
        assert "image" not in store.to_xarray()


def test_a_night_without_images_is_handed_on_as_it_is(tmp_path: Path) -> None:
    folder = night_to_hand_over(tmp_path / "first")
    pack_night(folder / "attributions.h5", tmp_path / "one.zip", without=["images"])
    second = unpack_night(tmp_path / "one.zip", tmp_path / "second").folder
    made = pack_night(second / "attributions.h5", tmp_path / "two.zip", root=tmp_path / "second")
    assert made.without == ("images",)
    third = unpack_night(tmp_path / "two.zip", tmp_path / "third").folder
    assert (third / "attributions.h5").read_bytes() == (second / "attributions.h5").read_bytes()


def test_a_store_that_says_otherwise_of_its_images_is_refused(tmp_path: Path) -> None:
    import h5py

    folder = night_to_hand_over(tmp_path / "first")
    (folder / "attributions.h5").chmod(0o644)
    with h5py.File(folder / "attributions.h5", "a") as file:
        file.attrs["left_out"] = "labels"
    with pytest.raises(StoreError, match="expected left_out = 'image' or no such attribute, got 'labels'"):
        open_store(folder)
    assert any("left_out" in str(finding) for finding in verify_store(folder))


# What is refused when a night is packed.


def test_a_night_that_did_not_finish_is_not_packed(tmp_path: Path) -> None:
    folder = night_to_hand_over(tmp_path / "root")
    (folder / "night.json").unlink()
    with pytest.raises(StoreError, match=r"no night.json in it: the night did not finish"):
        pack_night(folder / "attributions.h5", tmp_path / "night.zip")


@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_a_damaged_store_is_not_handed_over(tmp_path: Path, layout: str) -> None:
    folder = night_to_hand_over(tmp_path / "root", layout=layout)
    damaged = folder / "attributions.h5" if layout == "single" else next((folder / "attributions.parts").iterdir())
    flip_byte(damaged, chunk_offset(damaged, "integrated_gradients/attribution", 0))
    with pytest.raises(StoreCorrupt, match=rf"{damaged.name}: expected the sha256 .*: not what was sealed"):
        pack_night(folder / "attributions.h5", tmp_path / "night.zip")
    assert not [path for path in tmp_path.iterdir() if path.name != "root"]


def test_links_and_existing_files_and_unknown_words_are_refused(tmp_path: Path) -> None:
    folder = night_to_hand_over(tmp_path / "root")
    store, target = folder / "attributions.h5", tmp_path / "night.zip"
    with pytest.raises(ValueError, match="expected model or images to be left out, got 'labels'"):
        pack_night(store, target, without=["labels"])
    (folder / "gallery" / "link.png").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="link.png is a link, and a packed night holds files only"):
        pack_night(store, target)
    (folder / "gallery" / "link.png").unlink()
    (folder / "gallery" / "a:b.png").touch()
    with pytest.raises(ValueError, match="a:b.png: not every system can write a file of this name"):
        pack_night(store, target)
    (folder / "gallery" / "a:b.png").unlink()
    target.touch()
    with pytest.raises(FileExistsError, match="is there already and is never overwritten"):
        pack_night(store, target)


# What is refused when a night is unpacked.


def refused(pack: Path, root: Path, match: str) -> None:
    """In one line that names what it is, and nothing is left behind."""
    with pytest.raises(StoreError, match=match) as error:
        unpack_night(pack, root)
    assert "\n" not in str(error.value)
    assert not root.exists()


def test_a_flipped_byte_is_refused_by_the_name_of_its_entry(pack: Path, tmp_path: Path) -> None:
    for name in names(pack):
        copy = tmp_path / "copy.zip"
        shutil.copyfile(pack, copy)
        with zipfile.ZipFile(copy) as archive:
            info = archive.getinfo(name)
        with copy.open("rb") as file:
            file.seek(info.header_offset + 26)
            start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        flip_byte(copy, start + info.file_size // 2)
        refused(copy, tmp_path / "root", f"{name!r} was changed" if name != "manifest.json" else f"{name} was changed")


def test_an_entry_that_was_changed_by_a_program_for_zips_is_refused_by_name(pack: Path, tmp_path: Path) -> None:
    """Its CRC is right then, and so is its size."""
    for name in ("night/attributions.h5", "models/seed-cnn.keras", "README.txt"):

        def change(entries, name=name):
            return [(info, data[:-1] + b"!" if info.filename == name else data) for info, data in entries]

        bad = repacked(pack, tmp_path / "bad.zip", change)
        refused(bad, tmp_path / "root", f"{name!r} was changed: expected the sha256")


@pytest.mark.parametrize("left", [0, 3, 1000, -1, -40, -2000], ids=str)
def test_a_truncated_file_is_refused(pack: Path, tmp_path: Path, left: int) -> None:
    data = pack.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[:left])
    refused(tmp_path / "cut.zip", tmp_path / "root", "expected a night as `nightlens pack` makes it, got")


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("manifest.json", "{}")
    refused(tmp_path / "other.zip", tmp_path / "root", "expected a night as `nightlens pack` makes it, got another zip")
    (tmp_path / "text.zip").write_text("no zip at all")
    refused(tmp_path / "text.zip", tmp_path / "root", "what is no whole zip")
    refused(tmp_path / "none.zip", tmp_path / "root", "none.zip: no such file")


CLIMBING = [
    "../evil",
    "night/../../evil",
    "/etc/evil",
    "night//evil",
    "night/./evil",
    "night\\..\\evil",
    "C:/evil",
    "night/",
]


@pytest.mark.parametrize("name", CLIMBING)
def test_an_entry_that_leads_elsewhere_is_refused_also_where_the_manifest_has_it(
    pack: Path, tmp_path: Path, name: str
) -> None:
    data = b"evil"
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    bad = repacked(
        pack,
        tmp_path / "bad.zip",
        lambda entries: [*entries, (zipfile.ZipInfo(name), data)],
        manifest=lambda about: about["entries"].update({name: entry}),
    )
    refused(bad, tmp_path / "root", "may not be written anywhere")
    assert below(tmp_path) == {"bad.zip"}
    assert not is_plain(name)


def with_mode(info: zipfile.ZipInfo, mode: int) -> zipfile.ZipInfo:
    info.external_attr = mode << 16
    return info


def test_links_devices_and_compressed_entries_are_refused(pack: Path, tmp_path: Path) -> None:
    for mode, match in ((stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFIFO | 0o644, "is no plain file")):

        def change(entries, mode=mode):
            return [(with_mode(i, mode) if i.filename == "night/report.html" else i, data) for i, data in entries]

        refused(repacked(pack, tmp_path / "bad.zip", change), tmp_path / "root", f"'night/report.html' {match}")

    def compress(entries):
        for info, _ in entries:
            info.compress_type = zipfile.ZIP_DEFLATED if info.filename == "README.txt" else zipfile.ZIP_STORED
        return entries

    refused(repacked(pack, tmp_path / "bad.zip", compress), tmp_path / "root", "'README.txt' is compressed")


def test_missing_additional_and_repeated_entries_are_refused_by_name(pack: Path, tmp_path: Path) -> None:
    def without(entries):
        return [(info, data) for info, data in entries if info.filename != "models/seed-cnn.keras"]

    refused(repacked(pack, tmp_path / "a.zip", without), tmp_path / "root", "'models/seed-cnn.keras' is missing")
    more = repacked(pack, tmp_path / "b.zip", lambda entries: [*entries, (zipfile.ZipInfo("night/more.html"), b"x")])
    refused(more, tmp_path / "root", "'night/more.html' is not in its manifest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        twice = repacked(pack, tmp_path / "c.zip", lambda entries: [*entries, (zipfile.ZipInfo("README.txt"), b"x")])
    refused(twice, tmp_path / "root", "'README.txt' is there twice")
    other = repacked(
        pack, tmp_path / "d.zip", lambda e: [(i, data + b"x" if i.filename == "README.txt" else data) for i, data in e]
    )
    refused(other, tmp_path / "root", "'README.txt' was changed: expected .* bytes, got")


def test_a_manifest_of_another_night_or_of_none_is_refused(pack: Path, tmp_path: Path) -> None:
    for value, match in (
        ("../../evil", "expected the id of a night, got '../../evil'"),
        ("20990101T000000Z-000000", f"expected the store of night 20990101T000000Z-000000, got that of {NIGHT}"),
    ):
        bad = repacked(pack, tmp_path / "bad.zip", lambda e: e, manifest=lambda about, v=value: about.update(night=v))
        refused(bad, tmp_path / "root", match)
    bad = repacked(pack, tmp_path / "bad.zip", lambda e: e, manifest=lambda about: about.pop("entries"))
    refused(bad, tmp_path / "root", "manifest.json is no manifest of a night")


# Roots that have something already.


def test_a_night_that_is_there_is_never_replaced(pack: Path, tmp_path: Path) -> None:
    first = unpack_night(pack, tmp_path / "root").folder
    (first / "mine.txt").write_text("kept")
    there = below(tmp_path)
    with pytest.raises(FileExistsError, match=f"{NIGHT} is there already and is never replaced"):
        unpack_night(pack, tmp_path / "root")
    assert below(tmp_path) == there


@pytest.mark.parametrize("linked", [False, True], ids=["a folder", "a link to one"])
def test_a_root_that_was_there_stays_where_unpacking_fails(pack: Path, tmp_path: Path, linked: bool) -> None:
    own = tmp_path / "own"
    own.mkdir()
    root = tmp_path / "link" if linked else own
    if linked:
        root.symlink_to(own)
    changed = tmp_path / "changed.zip"
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="was changed"):
        unpack_night(changed, root)
    assert own.is_dir() and list(own.iterdir()) == []
    assert root.is_symlink() == linked


def test_a_file_that_comes_while_a_night_is_packed_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"

    def come(*_: object) -> None:
        target.write_text("precious")

    with pytest.raises(FileExistsError, match="never overwritten"):
        pack_night(folder / "attributions.h5", target, progress=come)
    assert target.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [target]


def test_a_model_that_is_there_is_used_and_another_of_its_name_is_kept(pack: Path, tmp_path: Path) -> None:
    models = tmp_path / "same" / "models"
    models.mkdir(parents=True)
    (models / "seed-cnn.keras").write_bytes(MODEL)
    done = unpack_night(pack, tmp_path / "same")
    assert done.models[0] == models / "seed-cnn.keras"
    models = tmp_path / "other" / "models"
    models.mkdir(parents=True)
    (models / "seed-cnn.keras").write_bytes(b"another model")
    done = unpack_night(pack, tmp_path / "other")
    mark = hashlib.sha256(MODEL).hexdigest()[:8]
    assert [path.name for path in done.models] == [f"seed-cnn-{mark}.keras", f"seed-cnn-{mark}.json"]
    assert done.models[0].read_bytes() == MODEL and (models / "seed-cnn.keras").read_bytes() == b"another model"


def test_latest_stays_where_there_is_one(pack: Path, tmp_path: Path) -> None:
    other = tmp_path / "root" / "nights" / "20260101T000000Z-000000"
    other.mkdir(parents=True)
    (other / "attributions.h5").write_bytes(b"some store")
    Catalog(tmp_path / "root").point_latest(other)
    assert not unpack_night(pack, tmp_path / "root").is_latest
    assert Catalog(tmp_path / "root").latest_name() == other.name


# What a crash leaves.


def slow(module: str, call: str) -> str:
    """Code that packs or unpacks, and stops for ever in the middle of it."""
    return f"""
import sys, time
from pathlib import Path
from storage.nights.{module}

def progress(what, done, total):
    if done > total // 2:
        print("halfway", flush=True)
        time.sleep(600)

first, second = map(Path, sys.argv[1:])
{call}
"""


def killed_halfway(code: str, *arguments: object) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        command, env=clean_environment(), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: process.poll() is not None, WAIT_S, "the process ends")


def test_an_unpacking_that_is_killed_leaves_no_night_and_the_next_one_clears_it(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    code = slow("unpacking import unpack_night", "unpack_night(first, second, progress=progress)")
    killed_halfway(code, pack, root)
    assert not (root / "nights").exists() and not (root / "models").exists() and not (root / "latest").is_symlink()
    left = list((root / ".unpacking").rglob("*"))
    assert left, "it was killed in the middle"
    with pruning(Catalog(root), 1) as decided:
        assert (root / ".unpacking" / NIGHT) in [removal.path for removal in decided.removals]
    unpack_night(pack, root)
    assert verify_store(root) == () and not (root / ".unpacking").exists()


def test_a_packing_that_is_killed_leaves_no_pack_and_the_next_one_clears_it(folder: Path, tmp_path: Path) -> None:
    store, target = folder / "attributions.h5", tmp_path / "night.zip"
    killed_halfway(slow("packing import pack_night", "pack_night(first, second, progress=progress)"), store, target)
    assert not target.exists() and below(tmp_path), "half of it is there, under another name"
    pack_night(store, target)
    assert below(tmp_path) == {"night.zip"}


def test_a_disk_that_is_too_full_is_said_beforehand(pack: Path, folder: Path, tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match="No space left on device: .* MB are needed, 0 MB are free"):
        unpack_night(pack, tmp_path / "root")
    with pytest.raises(OSError, match="No space left on device"):
        pack_night(folder / "attributions.h5", tmp_path / "night.zip")
    assert os.listdir(tmp_path) == []
