"""What the benchmarks compute themselves: FLOPs by hand, integrals of a closed form, nodes by counting. Nothing here is timed."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from example_store import ATTRIBUTES, write_parts
from places import TESTS
from storage import open_store, seal_store

sys.path.insert(0, str(TESTS / "benchmarks"))

from cifar10_night import chosen_frog, draw_pictures, titles
from exact import Integrals, Ladder, gaps, relative_errors
from flops import gradient_flops
from large import photo_crops
from night import training_as_test
from nights import PART, _part_seconds, _stages
from reference import additive_path, drive
from scheduled import ScheduledNight
from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.network.scores import score_model
from trials import ClenshawCurtis, clenshaw_curtis


def test_flops_of_the_notebooks_network() -> None:
    convolutions = [(32, 32, 3), (32, 32, 32), (16, 64, 32), (16, 64, 64), (8, 128, 64), (8, 128, 128)]
    products = sum(side * side * filters * 9 * channels for side, filters, channels in convolutions)
    products += 4 * 4 * 128 * 1024 + 1024 * 10
    assert gradient_flops(build_cnn((32, 32, 3), 10)) == 2 * 2 * products == 162_963_456


def test_flops_of_strides_groups_depth_and_nested_models() -> None:
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), keras.layers.Conv2D(6, (3, 2), strides=2, groups=2), keras.layers.DepthwiseConv2D(2)]
    )
    model = keras.Sequential([keras.Input((8, 8, 4)), inner, keras.layers.Flatten(), keras.layers.Dense(5)])
    grouped, depthwise, dense = 3 * 4 * 6 * (3 * 2 * 2), 2 * 3 * 6 * (2 * 2), 36 * 5
    assert gradient_flops(model) == 4 * (grouped + depthwise + dense)


def test_flops_of_an_unknown_layer_are_not_guessed() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2DTranspose(2, 3)])
    with pytest.raises(ValueError, match=r"Conv2DTranspose\) are not known"):
        gradient_flops(model)


def test_flops_of_a_network_that_hides_its_layers_are_not_zero() -> None:
    with pytest.raises(ValueError, match=r"expected a model that shows its layers"):
        gradient_flops(score_model(build_cnn((8, 8, 3), 2), "probability"))


@pytest.fixture(scope="module")
def quartic() -> Integrals:
    """F(x) = (w.x)^4, so dF/dx along the path is a cubic in alpha: two Gauss-Legendre nodes are exact, one is not."""
    images = keras.Input((2, 2, 1))
    total = keras.layers.Dense(2, use_bias=False, name="sums")(keras.layers.Flatten()(images))
    model = keras.Model(images, total**4)
    model.get_layer("sums").set_weights([np.array([[0.3, 0], [0.2, 1], [-0.1, 0], [0.4, 0.5]], np.float32)])
    random = np.random.default_rng(0)
    return Integrals(model, random.random((5, 2, 2, 1), dtype=np.float32), np.array([0, 1, 0, 1, 0]), batch_size=4)


def closed_form(integrals: Integrals) -> np.ndarray:
    weights = np.array([[0.3, 0.2, -0.1, 0.4], [0, 1, 0, 0.5]])[integrals.targets]
    flat = integrals.images.reshape(5, 4).astype(np.float64)
    return (weights * flat * (weights * flat).sum(axis=1, keepdims=True) ** 3).reshape(integrals.images.shape)


@pytest.mark.parametrize("n_nodes", [2, 3, 7])
def test_integrals_of_a_quartic(quartic: Integrals, n_nodes: int) -> None:
    found = quartic.legendre(np.arange(5), n_nodes)
    np.testing.assert_allclose(found, closed_form(quartic), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(gaps(found, quartic.differences), 0, atol=1e-6)


@pytest.mark.parametrize(("rule", "nodes"), [("midpoint", (8, 16)), ("trapezoid", (9, 17))])
def test_rules_of_second_order_on_chosen_rows(quartic: Integrals, rule: str, nodes: tuple[int, int]) -> None:
    rows = np.array([3, 1])
    exact = closed_form(quartic)[rows]
    coarse, fine = (relative_errors(getattr(quartic, rule)(rows, n), exact) for n in nodes)
    np.testing.assert_allclose(coarse / fine, 4, rtol=0.05)


def test_ladder_finds_the_least_nodes(quartic: Integrals) -> None:
    rows = np.arange(5)

    def gap(attributions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return gaps(attributions, quartic.differences[rows])

    ladder, hardness = Ladder(quartic, (1, 4, 8)), quartic.differences
    found = ladder.needed("gap", 1e-6, gap, rows, hardness)
    assert (found.n_nodes, found.reached) == (2, True)
    assert not Ladder(quartic, (1,)).needed("gap", 1e-6, gap, rows, hardness).reached
    # The trapezoid's gap on w.x a^3 with n nodes: (w.x)^4 / (n - 1)^2.
    bound = float(quartic.differences.max()) / 10.5**2
    assert Ladder(quartic, (2, 8, 16), "trapezoid").needed("gap", bound, gap, rows, hardness).n_nodes == 12


def test_ladder_bisects_and_lets_the_allowed_rows_exceed() -> None:
    class Counting:
        def legendre(self, rows: np.ndarray, n_nodes: int) -> np.ndarray:
            return (np.array([40.0, 70.0, 100.0])[rows] - n_nodes)[:, None]

    ladder, rows = Ladder(Counting(), (32, 64, 128)), np.arange(3)  # type: ignore[arg-type]

    def figure(attributions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return attributions[:, 0]

    assert 100 <= ladder.needed("all", 0.0, figure, rows, rows).n_nodes <= 108
    assert 70 <= ladder.needed("all but one", 0.0, figure, rows, rows, allowed=1).n_nodes <= 76


def test_relative_errors_where_the_reference_is_zero() -> None:
    ours = np.array([[0.0], [1.0], [3.0]])
    assert relative_errors(ours, np.array([[0.0], [0.0], [2.0]])).tolist() == [0.0, np.inf, 0.5]


def test_seconds_are_read_from_the_log() -> None:
    log = [
        {"message": "stage explain ends after 12.3 s", "seconds": 12.34},
        {"message": "rows 0 to 63: 32.0 images/s, 24.0 gradients an image", "images_per_s": 32.0},
        {"message": "rows 64 to 95: 16.0 images/s, 24.0 gradients an image", "images_per_s": 16.0},
        {"message": "rows 96 to 127: found whole, not computed again"},
        {"message": "stage seal begins"},
    ]
    assert _stages(log) == {"explain": 12.34}
    assert _part_seconds(log) == 2 + 2
    assert not PART.match("all rows from 0 to 95 are explained, 96 of them now: 5.0 images/s")


WORKER_LOG = """
14:49:04.554 | INFO    | Flow run 'cifar10 2026-11-27 14:49' - View at http://127.0.0.1:4200/runs/flow-run/one
14:49:43.202 | INFO    | Flow run 'cifar10 2026-11-27 14:49' - stage ingest ends after 38.5 s
14:49:45.202 | INFO    | Task run 'train-ac7' - model cifar10-cnn-4-epochs-1234: trained in 561 s
14:50:03.407 | INFO    | Flow run 'cifar10 2026-11-27 14:49' - all rows from 0 to 99 are explained, 40 of them now: 16.0 images/s
14:50:43.202 | INFO    | Flow run 'cifar10 2026-11-27 14:49' - stage publish ends after 2.5 s
14:50:44.554 | INFO    | Flow run 'cifar10 2026-11-27 14:49' - Finished in state Completed()
14:51:04.554 | INFO    | Flow run 'cifar10 2026-11-27 14:51' - View at http://127.0.0.1:4200/runs/flow-run/two
14:51:43.202 | INFO    | Flow run 'cifar10 2026-11-27 14:51' - stage ingest ends after 1.5 s
"""


@pytest.fixture
def night_folder(tmp_path: Path) -> Path:
    (tmp_path / "night.json").write_text('{"n_rows": 100, "accuracy": 0.5, "flow_run_id": "one"}')
    return tmp_path


def test_a_scheduled_night_is_read_from_the_log_of_its_worker(night_folder: Path) -> None:
    night = ScheduledNight.read(night_folder, WORKER_LOG)
    assert night.stages == {"ingest": 38.5, "publish": 2.5}
    assert (night.model, night.n_computed, night.result["n_rows"]) == ("trained in 561 s", 40, 100)


@pytest.mark.parametrize("log", ["", WORKER_LOG.replace("flow-run/one", "flow-run/three")])
def test_a_night_that_its_worker_does_not_know_is_refused(night_folder: Path, log: str) -> None:
    with pytest.raises(ValueError, match="expected a night that the root's worker explained"):
        ScheduledNight.read(night_folder, log)


def test_training_split_as_test_split(tmp_path: Path) -> None:
    arrays = {
        "x_train": np.ones((3, 4, 4)),
        "y_train": np.arange(3),
        "x_test": np.zeros((2, 4, 4)),
        "y_test": np.zeros(2),
    }
    np.savez(tmp_path / "some.npz", **arrays)
    with np.load(training_as_test(tmp_path / "some.npz", tmp_path)) as file:
        assert file["x_test"].shape == (3, 4, 4)
        assert file["y_test"].tolist() == [0, 1, 2]
        assert len(file["x_train"]) == len(file["y_train"]) == 2


def test_photo_crops_are_photographs_and_repeat_by_seed() -> None:
    crops, again = (photo_crops(4, 32, np.random.default_rng(1)) for _ in range(2))
    assert crops.shape == (4, 32, 32, 3)
    assert crops.std() > 20
    np.testing.assert_array_equal(crops, again)


@pytest.mark.parametrize("n", [2, 4, 8, 64])
def test_clenshaw_curtis_is_exact_for_polynomials_and_nested(n: int) -> None:
    nodes, weights = clenshaw_curtis(n)
    for degree in range(n + 1):
        assert weights @ nodes**degree == pytest.approx(1 / (degree + 1), abs=1e-10)
    assert set(nodes) <= set(clenshaw_curtis(2 * n)[0])


def test_the_trial_of_clenshaw_curtis_asks_for_new_nodes_only() -> None:
    path = additive_path((np.exp, np.exp))
    driven = drive(ClenshawCurtis(n_max=32), path)
    assert driven.n_nodes == len(set(driven.alphas.tolist())) == 32 and driven.n_rounds == 3
    assert driven.fine == pytest.approx(np.e - 1, abs=1e-6)
    assert driven.coarse == pytest.approx(np.e - 1, abs=1e-6)


def test_the_pictures_of_cifar10_are_the_spotlight_and_the_chosen_frog(tmp_path: Path) -> None:
    about = ATTRIBUTES | {"configuration": {"gallery": {"spotlight": [7, 3, 2864]}}}
    sealed = seal_store(
        tmp_path / "store.h5",
        write_parts(tmp_path, 0, 40),
        class_names=["cat", "dog", "Frog"],
        attributes=about,
        expected_rows=(0, 40),
    )
    with open_store(sealed.path) as store:
        right = [row for row in range(40) if store.labels[row] == store.predictions[row] == 2]
        frog = chosen_frog(store)
        assert frog == max(right, key=lambda row: store.values("relevance_gain", row)[0])
        wrong = int(np.flatnonzero(store.labels != store.predictions)[0])
        assert titles(store, [frog, wrong]) == ["Frog", f"{store.class_names[store.labels[wrong]]}?"]
        drawn = draw_pictures(store, tmp_path / "pictures")
    assert [picture.name for picture in drawn] == ["summary.png", "frog.png"]
    with Image.open(drawn[0]) as summary:
        assert 3 * 145 < summary.width < 4 * 145 + 145
