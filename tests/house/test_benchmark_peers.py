"""Other people's engines in processes of their own: the chain they are given, what is asked and answered, and what they compute.

What captum and xplique compute is compared where they are installed: `make peers`.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import pytest

from places import REPOSITORY, TESTS

sys.path.insert(0, str(TESTS / "benchmarks"))

from chain import UnknownChain, chain_of
from command import program
from contest import Contestant, Timed, take_turns
from peer import PEERS, Peer, open_peers
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.quadrature import Fixed, Tolerances

layers = keras.layers
N_NODES = 50
RULES = {"legendre": "gausslegendre", "trapezoid": "riemann_trapezoid"}
SHAPE = (11, 9, 3)


def test_the_notebooks_network_is_a_chain() -> None:
    chain = chain_of(build_cnn((32, 32, 3), 10))
    block = ["Conv2D", "BatchNormalization"] * 2 + ["MaxPooling2D"]
    assert [layer.kind for layer in chain] == [*block * 3, "Flatten", "Dense", "Dense"]
    assert sum(values.size for layer in chain for values in layer.weights.values()) == 2_397_226
    assert chain[-1].shape == (1024,) and chain[-1].settings == {"activation": "softmax"}


def python_of(name: str) -> Path:
    """The Python of a peer's environment; skips the test where there is none."""
    python = REPOSITORY / PEERS[name]
    if not python.exists():
        pytest.skip(f"{name} is not installed: `make peers`")
    return python


def residual() -> keras.Model:
    images = keras.Input(SHAPE)
    maps = layers.Conv2D(3, 3, padding="same", name="edges")(images)
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Add(name="sum")([maps, images]))))


def skipping() -> keras.Model:
    images = keras.Input(SHAPE)
    layers.Flatten(name="unused")(images)
    maps = layers.Conv2D(3, 3, name="edges")(images)
    return keras.Model(images, [layers.Flatten()(maps), maps])


def sequential(*some: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), *some])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (residual, r"sum does not take what is before it alone"),
        (skipping, r"its output is not its last layer's"),
        (
            lambda: sequential(layers.GlobalAveragePooling2D(name="mean")),
            r"mean is a GlobalAveragePooling2D, .* none of",
        ),
        (lambda: sequential(layers.Conv2D(3, 3, dilation_rate=2)), r"dilation_rate=\(2, 2\), expected \(1, 1\)"),
        (lambda: sequential(layers.MaxPooling2D(padding="same")), r"padding='same', expected 'valid'"),
        (
            lambda: sequential(layers.Conv2D(3, 3, activation="gelu")),
            r"activation='gelu', expected one of linear, relu",
        ),
        (lambda: sequential(layers.BatchNormalization(axis=1)), r"axis=1, expected the last one"),
        (lambda: sequential(layers.Normalization(axis=1, mean=np.ones(11), variance=np.ones(11))), r"scales pixels"),
    ],
    ids=["residual", "two outputs", "layer", "dilation", "padding", "activation", "axis", "scale of rows"],
)
def test_what_is_no_known_chain_is_refused(model, reason: str) -> None:
    with pytest.raises(UnknownChain, match=reason):
        chain_of(model())


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling(2.0, offset=-1.0),
        layers.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 0.5, -0.5]),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.04, 0.0, 0.25]),
        layers.Normalization(axis=None, mean=0.4, variance=0.1),
    ],
    ids=["rescaling", "rescaling by channel", "normalization by channel", "normalization"],
)
def test_scaling_is_affine_in_each_channel(layer: keras.Layer) -> None:
    images = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    (affine,) = chain_of(sequential(layer))
    found = affine.weights["scale"] * images + affine.weights["offset"]
    np.testing.assert_allclose(found, layer(images), rtol=1e-5, atol=1e-6)


TALKATIVE = """
from answering import answer

class Doubling:
    versions, rule, ways = "doubling 1", "midpoint", ("once",)
    def __init__(self, layers):
        self.weight = layers[0]["weights"]["w"]
    def probabilities(self, images):
        print("what a library prints")
        return images * self.weight
    def explain(self, images, targets, n_nodes, way):
        return images * targets * n_nodes

answer(Doubling)
"""


def test_questions_are_answered_in_lines_whatever_a_library_prints(tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"{name}.npy") for name in ("w", "images", "targets", "twice", "explained")}
    np.save(files["w"], np.float32(2))
    np.save(files["images"], np.arange(3.0))
    np.save(files["targets"], np.array([0, 1, 2]))
    questions = [
        {"ask": "load", "layers": [{"weights": {"w": files["w"]}}]},
        {"ask": "predict", "images": files["images"], "into": files["twice"]},
        {"ask": "explain", "images": files["images"], "targets": files["targets"], "into": files["explained"]}
        | {"n_nodes": 3, "way": "once"},
    ]
    done = program(
        sys.executable,
        "-c",
        TALKATIVE,
        input="".join(json.dumps(question) + "\n" for question in questions),
        cwd=TESTS / "benchmarks" / "peers",
    )
    loaded, predicted, explained = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 0 and "what a library prints" in done.stderr
    assert loaded == {"versions": "doubling 1", "rule": "midpoint", "ways": ["once"]} and predicted == {}
    assert 0 <= explained["seconds"] < 60
    assert np.load(files["twice"]).tolist() == [0, 2, 4]
    assert np.load(files["explained"]).tolist() == [0, 3, 12]


def test_a_peer_that_is_not_there_or_ends_is_left_out_with_the_reason(tmp_path: Path) -> None:
    said: list[str] = []
    chain = chain_of(sequential(layers.Flatten(), layers.Dense(2)))
    images, probabilities = np.zeros((1, *SHAPE), np.float32), np.zeros((1, 2), np.float32)
    pythons = {"xplique": tmp_path / "nowhere", "captum": Path(sys.executable)}  # ours has no captum
    with ExitStack() as stack:
        assert open_peers(stack, pythons, chain, images, probabilities, said.append) == []
    assert said == [
        "xplique: not installed (make peers)",
        "captum: left out, its process ended with 1: ModuleNotFoundError: No module named 'captum'",
    ]


def test_the_seconds_of_another_process_are_its_own() -> None:
    there = Contestant("there", lambda images, targets: Timed(images + 1, 1000.0), n_rows=2)
    here = Contestant("here", lambda images, targets: images + 2, n_rows=2)
    take_turns([there, here], np.zeros(2), np.zeros(2), repeats=3, between=lambda: None)
    assert there.seconds == [1000.0] * 3 and there.ms_per_image.median == 500_000
    assert len(here.seconds) == 3 and max(here.seconds) < 100
    assert there.result.tolist() == [1, 1] and here.result.tolist() == [2, 2]


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Every kind of layer that a chain may have, with weights as after training."""
    model = sequential(
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.04, 0.09, 0.25]),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.Conv2D(5, (2, 3), strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(scale=False),
        layers.Activation("relu"),
        layers.Conv2D(6, 2),
        layers.MaxPooling2D(2, strides=1),
        layers.Rescaling(0.5, offset=0.1),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(12, activation="relu"),
        layers.BatchNormalization(),
        layers.Dense(4, activation="softmax"),
    )
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name != "seed_generator_state":
            spread = 0.5 + random.random(variable.shape) if "variance" in variable.name else None
            variable.assign(random.normal(0, 0.4, variable.shape) if spread is None else spread)
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).random((7, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest, network: keras.Model):
    with Peer(request.param, python_of(request.param), chain_of(network)) as peer:
        yield peer


def test_a_peer_computes_the_same_network(peer: Peer, network: keras.Model, images: np.ndarray) -> None:
    np.testing.assert_allclose(peer.probabilities(images), network(images), atol=1e-5)


def test_a_peer_explains_as_our_rule_does(peer: Peer, network: keras.Model, images: np.ndarray) -> None:
    targets = np.array([0, 1, 2, 3, 0, 1, 2])
    rule = Fixed(rule=RULES[peer.rule], n_steps=N_NODES)
    settings = Settings(score="probability", rule=rule, tolerances=Tolerances(), layer="", batch_size=64)
    ours = Explainer(network, settings).integrated_gradients(images, np.zeros_like(images), targets)
    for way in peer.ways:
        theirs = peer.explain(N_NODES, way)(images, targets)
        np.testing.assert_allclose(theirs.result, ours.attribution, atol=1e-3 * np.abs(ours.attribution).max())
        assert theirs.seconds > 0


def test_the_fastest_way_of_a_peer_is_kept(peer: Peer, images: np.ndarray) -> None:
    cost = peer.choose_way(images, np.zeros(7, int), 2)
    assert tuple(cost) == peer.ways and cost[peer.best_way] == min(cost.values())


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_with_other_probabilities_is_left_out(name: str, network: keras.Model, images: np.ndarray) -> None:
    said: list[str] = []
    python, ours = python_of(name), np.array(network(images))
    with ExitStack() as stack:
        opened = open_peers(stack, {name: python}, chain_of(network), images, ours + 2e-4, said.append)
    assert opened == [] and len(said) == 1
    assert said[0].startswith(f"{name}: left out, its probabilities differ from ours by 0.0002")
