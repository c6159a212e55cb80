"""Folders of images as people have them: every file is read for what it is, or named in one line with what to do."""

import io
import logging
import random
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from dataset_sources import assert_refused, everything, prepare_source, write_images
from tasks.datasets.formats import decoding
from tasks.datasets.formats import folder as folder_format
from tasks.datasets.formats.image_file import UnreadableImage, decode_image, read_header

TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))


def exif_of(*entries, values=b""):
    """A little-endian EXIF of one directory; an entry is (tag, type, count, 4 bytes), VALUES_AT where `values` lie."""
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries) + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + body + values


VALUES_AT = struct.pack("<I", 8 + 2 + 2 * 12 + 4)
# Of each: the EXIF, and whether its orientation can be read. All but the last two stopped a night with a traceback.
BROKEN_EXIF = {
    "a rational below zero": (exif_of(TURNED, (0x011A, 10, 1, VALUES_AT), values=struct.pack("<ii", -1, 0)), True),
    "text for a number": (exif_of(TURNED, (0x011A, 2, 4, b"abc\0")), True),
    "bytes for a number": (exif_of(TURNED, (0x011A, 7, 4, b"\0\1\2\3")), True),
    "text for a directory": (exif_of(TURNED, (0x8769, 2, 4, b"abc\0")), True),
    "text for GPS": (exif_of(TURNED, (0x8825, 2, 4, b"abc\0")), True),
    "a directory behind the end": (exif_of(TURNED, (0x8769, 4, 1, struct.pack("<I", 9999))), True),
    "text for the orientation": (exif_of((0x0112, 2, 4, b"abc\0")), False),
}


def picture(y=12, x=10, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (y, x, 3), np.uint8))


def pets(folder, content, name="odd.jpg"):
    """A folder of two classes whose last test image is `content`; its row is 6."""
    write_images(folder)
    (folder / "test" / "dog" / name).write_bytes(content)
    return folder


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


class TestExif:
    @pytest.mark.parametrize(("exif", "readable"), BROKEN_EXIF.values(), ids=BROKEN_EXIF)
    def test_a_broken_one_is_no_reason_to_stop(self, tmp_path, exif, readable):
        content = saved(picture(10, 12) if readable else picture(), "JPEG", exif=exif)
        dataset = prepare_source(pets(tmp_path / "pets", content), tmp_path, transform="none")
        with Image.open(io.BytesIO(content)) as stored:
            upright = stored.transpose(Image.Transpose.ROTATE_270) if readable else stored.copy()
        np.testing.assert_array_equal(everything(dataset, "test")[0][6], np.asarray(upright))
        said = "the EXIF of 1 images cannot be read, and they were not turned, such as test/dog/odd.jpg"
        assert dataset.warnings == (() if readable else (said,))

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_each_format_is_turned_once(self, form):
        exif = Image.Exif()
        exif[0x0112] = 6
        content = saved(picture(10, 12), form, exif=exif)
        header = read_header(content)
        assert (header.y, header.x) == (12, 10)
        with Image.open(io.BytesIO(saved(picture(10, 12), form))) as upright:
            expected = np.asarray(upright.convert("RGB").transpose(Image.Transpose.ROTATE_270))
        np.testing.assert_array_equal(decode_image(content, header, grey=False), expected)

    def test_whatever_bytes_it_holds_the_image_is_read(self):
        """500 random directories: known and unknown tags, types and counts."""
        generator = random.Random(0)
        expected = decode_image(saved(picture(12, 12), "JPEG"), read_header(saved(picture(12, 12), "JPEG")), grey=False)
        for _ in range(500):
            entries = [
                (
                    generator.choice(
                        [0x0112, 0x011A, 0x011B, 0x0128, 0x8769, 0x8825, 0xA005, generator.randrange(65536)]
                    ),
                    generator.choice([*range(14), generator.randrange(65536)]),
                    generator.choice([0, 1, 2, 4, 1000, 2**32 - 1]),
                    generator.choice([generator.randbytes(4), struct.pack("<I", generator.randrange(200))]),
                )
                for _ in range(generator.randrange(12))
            ]
            content = saved(picture(12, 12), "JPEG", exif=exif_of(*entries, values=generator.randbytes(40)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = read_header(content)
                found = decode_image(content, header._replace(orientation=1), grey=False)
            np.testing.assert_array_equal(found, expected)


def damaged_files():
    """Valid files of several formats with a few bytes changed or the end cut off."""
    generator = random.Random(1)
    whole = [
        saved(picture(), "JPEG"),
        saved(picture(), "PNG"),
        saved(picture().convert("P"), "GIF"),
        saved(picture(), "WEBP"),
        saved(picture(), "BMP"),
        saved(picture(), "PPM"),
        saved(picture(), "TIFF"),
        saved(picture(), "JPEG2000"),
        saved(picture(), "MPO", save_all=True, append_images=[picture(5, 5)]),
    ]
    for _ in range(1500):
        content = bytearray(generator.choice(whole))
        for _ in range(generator.choice([1, 2, 8])):
            content[generator.randrange(min(len(content), generator.choice([64, 4096])))] = generator.randrange(256)
        yield bytes(content[: generator.choice([len(content), len(content), generator.randrange(len(content))])])


def test_a_damaged_file_is_an_image_or_an_unreadable_one():
    """Pillow raises a dozen kinds of errors on such files; here they are one."""
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in damaged_files():
            try:
                header = read_header(content)
                if header.y * header.x < 10**6:
                    decode_image(content, header, grey=False)
                outcomes.append("image")
            except UnreadableImage as error:
                assert "\n" not in str(error)
                outcomes.append("unreadable")
    assert outcomes.count("image") > 300
    assert outcomes.count("unreadable") > 300


def bomb():
    """A PNG of a few bytes that claims to be 30,000 by 30,000."""
    content = bytearray(saved(Image.new("1", (1, 1)), "PNG"))
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", __import__("zlib").crc32(content[12:29]))
    return bytes(content)


UNUSABLE = {
    "truncated.jpg": (lambda: saved(picture(90, 90), "JPEG")[:1500], "damaged: image file is truncated"),
    "empty.jpg": (lambda: b"", "empty, 0 bytes"),
    "page.jpg": (lambda: b"\n<!DOCTYPE html><html>404</html>", "a web page instead of an image"),
    "pointer.png": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; fetch the file"),
    "notes.png": (lambda: b"hello", "not a known image format"),
    "document.png": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "not a known image format",
    ),
    "bomb.png": (bomb, r"damaged: Image size \(900000000 pixels\) exceeds limit"),
    "phone.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, AVIF or JPEG XL.*convert it to JPEG or PNG"),
    "new.avif": (lambda: b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "HEIC, AVIF or JPEG XL.*convert it to JPEG or PNG"),
    "stack.tif": (lambda: saved(picture(), "TIFF", save_all=True, append_images=[picture()]), "2 pages; save the one"),
    "moving.gif": (
        lambda: saved(picture(), "GIF", save_all=True, append_images=[picture(seed=1), picture(seed=2)]),
        "3 frames; save the one that counts",
    ),
    "moving.webp": (
        lambda: saved(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)]),
        "2 frames; save the one that counts",
    ),
    "floats.tif": (lambda: saved(Image.new("F", (10, 12)), "TIFF"), "floating-point pixels; convert it to 8 bits"),
}


class TestFiles:
    @pytest.mark.parametrize("name", UNUSABLE)
    def test_one_that_cannot_be_used_is_named_and_nothing_is_left_behind(self, tmp_path, name):
        make, reason = UNUSABLE[name]
        folder = pets(tmp_path / "pets", make(), name)
        assert_refused(folder, tmp_path, rf"1 of 13 files cannot be used as images: test/dog/{name} \({reason}")
        assert not list(tmp_path.glob("datasets/pets/sha256_*/*"))

    def test_the_first_frame_of_a_phones_jpeg_counts(self, tmp_path):
        content = saved(picture(), "MPO", save_all=True, append_images=[picture(6, 5)])
        dataset = prepare_source(pets(tmp_path / "pets", content), tmp_path, transform="none")
        np.testing.assert_array_equal(everything(dataset, "test")[0][6], np.asarray(Image.open(io.BytesIO(content))))

    @pytest.mark.parametrize(("largest", "expected"), [(65_535, 255), (40_000, 156), (200, 200)])
    def test_sixteen_bits_are_brought_to_eight_by_their_range(self, tmp_path, largest, expected):
        write_images(tmp_path / "scans", mode="L")
        values = np.zeros((12, 10), np.uint16)
        values[0, :2] = largest, largest // 2
        Image.fromarray(values).save(tmp_path / "scans" / "test" / "dog" / "3.png")
        dataset = prepare_source(tmp_path / "scans", tmp_path, transform="none")
        by = 257 if largest > 255 else 1
        np.testing.assert_array_equal(
            everything(dataset, "test")[0][6, 0, :3, 0], [expected, round(largest // 2 / by), 0]
        )
        assert "1 of 13 images of more than 8 bits" in dataset.transform
        assert ("divided by 257, rounded" in dataset.transform) == (by == 257)

    def test_twelve_bits_in_sixteen_are_refused_with_what_to_do(self, tmp_path):
        write_images(tmp_path / "scans", mode="L")
        Image.fromarray(np.full((12, 10), 4000, np.uint16)).save(tmp_path / "scans" / "test" / "dog" / "3.png")
        assert_refused(tmp_path / "scans", tmp_path, r"largest value is 4000, neither 8 bits .* by 255 / 4095")

    def test_files_are_read_in_order_however_many_threads_there_are(self, tmp_path):
        written = write_images(tmp_path / "pets", n_images=150)
        dataset = prepare_source(tmp_path / "pets", tmp_path, transform="none")
        names = sorted(f"{index}.png" for index in range(150))
        for split in ("train", "test"):
            expected = [written[split, pet][int(name[:-4])] for pet in ("cat", "dog") for name in names]
            np.testing.assert_array_equal(everything(dataset, split)[0], expected)

    def test_each_file_is_decoded_once(self, tmp_path, monkeypatch):
        write_images(tmp_path / "pets")
        decoded = []
        original = decode_image
        monkeypatch.setattr(decoding, "decode_image", lambda *a, **k: decoded.append(1) or original(*a, **k))
        prepare_source(tmp_path / "pets", tmp_path)
        assert len(decoded) == 12


class TestLayout:
    def test_classes_are_in_the_order_of_keras(self, tmp_path):
        import keras

        write_images(tmp_path / "n", classes=("10", "9", "0", "B", "a"), n_images=1)
        dataset = prepare_source(tmp_path / "n", tmp_path, transform="none")
        theirs = keras.utils.image_dataset_from_directory(
            tmp_path / "n" / "test", image_size=(12, 10), shuffle=False, batch_size=None, verbose=False
        )
        assert dataset.class_names == tuple(theirs.class_names) == ("0", "10", "9", "B", "a")
        assert dataset.class_order == "names sorted as strings, as image_dataset_from_directory of Keras sorts them"
        images, labels = everything(dataset, "test")
        for row, (image, label) in enumerate(theirs.as_numpy_iterator()):
            np.testing.assert_array_equal(images[row], image)
            assert labels[row] == label

    def test_what_systems_leave_behind_is_passed_over(self, tmp_path):
        folder = tmp_path / "pets"
        write_images(folder)
        for place in (folder, folder / "train", folder / "train" / "cat"):
            for name in ("__MACOSX", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN"):
                (place / name / "cat").mkdir(parents=True)
                (place / name / "cat" / "._0.png").write_bytes(b"Mac OS X")
            for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
                (place / name).write_bytes(b"x")
        dataset = prepare_source(folder, tmp_path)
        assert (dataset.n_train, dataset.n_test, dataset.class_names) == (6, 6, ("cat", "dog"))
        assert dataset.warnings == ()

    def test_a_test_folder_without_classes(self, tmp_path):
        write_images(tmp_path / "kaggle", splits=("train",), n_images=10)
        (tmp_path / "kaggle" / "test").mkdir()
        picture().save(tmp_path / "kaggle" / "test" / "1.png")
        message = r"split 'test' has no class folders: test \(1 images\).*dataset.test_split: train\[stratified 80%:\]"
        assert_refused(tmp_path / "kaggle", tmp_path, message)
        dataset = prepare_source(
            tmp_path / "kaggle", tmp_path, train_split="train[stratified :80%]", test_split="train[stratified 80%:]"
        )
        assert dataset.test_counts == (2, 2)

    def test_class_folders_without_splits_are_one_split(self, tmp_path):
        written = write_images(tmp_path / "all", splits=("everything",), n_images=10)
        folder = tmp_path / "all" / "everything"
        assert_refused(
            folder, tmp_path, r"no split 'test', the splits are: train \(20 images\).*train\[stratified :80%\]"
        )
        dataset = prepare_source(
            folder,
            tmp_path,
            train_split="train[stratified :80%]",
            test_split="train[stratified 80%:]",
            transform="none",
        )
        np.testing.assert_array_equal(
            everything(dataset, "test")[0], [*written["everything", "cat"][8:], *written["everything", "dog"][8:]]
        )

    def test_splits_without_any_class(self, tmp_path):
        for split in ("train", "test"):
            (tmp_path / "flat" / split).mkdir(parents=True)
            picture().save(tmp_path / "flat" / split / "1.png")
        assert_refused(tmp_path / "flat", tmp_path, "test and train hold images without class folders")

    @pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("na\u00efve", "nai\u0308ve")], ids=["case", "accents"])
    def test_two_spellings_of_a_class(self, tmp_path, one, other):
        write_images(tmp_path / "pets", splits=("train",), classes=(one, "dog"))
        write_images(tmp_path / "pets", splits=("test",), classes=(other, "dog"))
        assert_refused(tmp_path / "pets", tmp_path, f"test/{other} and train/{one} are two spellings of one class")

    def test_a_conversion_by_number_is_not_taken_for_one_by_string(self, tmp_path, monkeypatch, caplog):
        """Version 1 sorted names that are numbers by value; what it converted stays where it is, unused."""
        write_images(tmp_path / "n", classes=("10", "9"), n_images=1)
        monkeypatch.setattr(folder_format, "RECIPE", b"")
        before = prepare_source(tmp_path / "n", tmp_path)
        monkeypatch.undo()
        with caplog.at_level(logging.INFO, "nightlens"):
            assert prepare_source(tmp_path / "n", tmp_path).directory != before.directory
        assert "converting n to a TFDS dataset" in caplog.text
