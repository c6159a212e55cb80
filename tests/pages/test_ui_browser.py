"""What an operator sees: real nights on a real server, their pages in both UIs in a real browser, and what automations get.

The dataset's classes are called what nobody should call a class. Skipped where there is no chromium or no playwright.
"""

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import nightlens, printed_by_python
from empty_record import EmptyRecord
from environment import clean_environment
from own_server import server_of
from receivers import Chat, chat
from small_night import small_night
from waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.slow

HOSTILE = [
    "<img src=x onerror=window.hostile=1>",
    "<svg onload=window.hostile=1> | pipe",
    "[x](javascript:alert(1)) `code` **bold** 'quoted' \"twice\"",
    "# ![x](x) <b>" + "x" * 230,
]
SIDE, IMAGES = 32, 6
PAGES = {
    *(
        "night",
        "dataset",
        "training",
        "model",
        "evaluation",
        "confusion",
        "audit",
        "class-means",
        "worth",
        "strategies",
    ),
    *("gallery-integrated-gradients", "gallery-grad-cam", "gallery-misclassified"),
}

NIGHTS = """
import json, sys
from pathlib import Path
from flows.nightly import nightly
from storage import Catalog
parameters = json.loads(sys.argv[1])
first = nightly(**parameters)
record = first.store.parent / "night.json"
record.write_text(json.dumps(json.loads(record.read_text()) | {"accuracy": 1.0}))
second = nightly(**parameters)
parameters["grad_cam"] = {"layer": "<b>no such layer</b>"}
failed = nightly(**parameters, return_state=True)
latest = Catalog(Path(parameters["run"]["root"])).latest().name
print(json.dumps({"nights": [first.model_dump(mode="json"), second.model_dump(mode="json")],
                  "failure": failed.message, "failed_run": str(failed.state_details.flow_run_id), "latest": latest}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No Prefect of the developer's."""
    return clean_environment(PREFECT_HOME=str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def server_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def api(server_root: Path, environment: dict[str, str], empty_record: EmptyRecord) -> Iterator[str]:
    """The API of a server with both UIs, as `nightlens ui` starts it."""
    with server_of(server_root, empty_record, environment) as api:
        yield api


def ask(api: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{api}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def posted() -> Iterator[Chat]:
    """A chat's webhook, and what was posted there."""
    with chat() as got:
        yield got


@pytest.fixture(scope="module")
def alerted(api: str, server_root: Path, environment: dict[str, str], posted: Chat) -> str:
    """The API of the server, which is told twice where messages of nights go."""
    for _ in range(2):
        made = nightlens("alerts", "--root", server_root, "--webhook", posted.url, environment=environment)
        assert (made.returncode, made.stderr) == (0, "")
    return api


@pytest.fixture(scope="module")
def nights(
    alerted: str,
    environment: dict[str, str],
    small_network: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """A sealed night, one whose accuracy fell (the first's record is forged), and one that failed."""
    folder = tmp_path_factory.mktemp("nights")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in HOSTILE:
            members = folder / "photos" / split / name
            members.mkdir(parents=True)
            for k in range(IMAGES):
                Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(members / f"{k}.png")
    small_network(n_classes=len(HOSTILE)).save(folder / "theirs.keras")
    parameters = small_night(
        folder / "data",
        folder / "theirs.keras",
        folder / "photos",
        gallery={"draw": True, "spotlight": [1, 7, 20]},
        worth={"level": "rows"},
        run={"rows": None},
    )
    configured = environment | {"PREFECT_API_URL": alerted}
    printed = printed_by_python(NIGHTS, json.dumps(parameters), environment=configured, timeout_s=600)
    return json.loads(printed.splitlines()[-1])


def artifacts(api: str, flow_run_id: str) -> dict[str, dict[str, Any]]:
    run = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}, "limit": 100}
    return {artifact["key"]: artifact for artifact in ask(api, "/artifacts/filter", run)}


def test_a_night_leaves_every_page(api: str, nights: dict[str, Any]) -> None:
    made = artifacts(api, nights["nights"][1]["flow_run_id"])
    assert set(made) == PAGES | {"explanations"}
    for key in PAGES:
        text, description = str(made[key]["data"]), str(made[key]["description"])
        assert len(text.encode()) + len(description.encode()) < 500_000, key
        assert "![thumbnail](data:image/png" in description, key
        assert "Look" in description, key


def test_a_fall_of_accuracy_is_in_the_night(api: str, nights: dict[str, Any]) -> None:
    first, second = nights["nights"]
    assert second["compared_with"] == first["night_id"]
    drop = next(warning for warning in second["warnings"] if warning["kind"] == "accuracy-drop")
    assert drop["value"] == pytest.approx(1 - second["accuracy"])
    page = str(artifacts(api, second["flow_run_id"])["night"]["data"])
    assert page.splitlines()[0] == "# Sealed with warnings"
    assert "| accuracy-drop | accuracy fell by" in page


def test_a_failed_night_leaves_a_page_that_says_why(api: str, nights: dict[str, Any]) -> None:
    page = artifacts(api, nights["failed_run"])["night"]
    first_line = str(page["data"]).splitlines()[0]
    assert first_line.startswith("# Failed in contract: ModelError: model ")
    assert nights["latest"] == nights["nights"][1]["night_id"] in str(page["data"])
    assert f"latest is {nights['latest']}" in str(page["description"])


# In the browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH; `apt-get install chromium` brings it")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra 'dev')")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A tab in which no dialog may open and no hostile name may run."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield page
    assert page.evaluate("window.hostile") is None
    assert dialogs == []
    page.close()


def shown_pictures(tab: Any, n_expected: int) -> list[dict[str, Any]]:
    """Every picture of ours in the tab, once as many are there as expected and have loaded or failed to."""
    look = f"""() => {{
        const ours = [...document.images].filter(image => image.src.startsWith("data:image/png"));
        const done = ours.length >= {n_expected} && ours.every(
            image => image.complete && (image.width > 0 || image.naturalWidth === 0));
        return done && ours.map(image => ({{alt: image.alt, width: image.naturalWidth, shown: image.width}}));
    }}"""
    return tab.wait_for_function(look, timeout=90_000).json_value()


def shown_text(tab: Any, text: str) -> None:
    """Waits until the text is on the page; a page draws its pictures and its tables when it likes."""
    tab.wait_for_function("text => document.body.innerText.includes(text)", arg=text, timeout=90_000)


@pytest.mark.parametrize("ui", ["v2/", ""], ids=["V2", "V1"])
def test_every_picture_of_every_page_is_shown(api: str, nights: dict[str, Any], tab: Any, ui: str) -> None:
    made = artifacts(api, nights["nights"][1]["flow_run_id"])
    made["failure"] = artifacts(api, nights["failed_run"])["night"]
    for key in (*sorted(PAGES), "failure"):
        artifact = made[key]
        n_pictures = (str(artifact["data"]) + str(artifact["description"])).count("](data:image/png")
        assert n_pictures >= 2, key
        tab.goto(f"{api.removesuffix('api')}{ui}artifacts/artifact/{artifact['id']}")
        pictures = shown_pictures(tab, n_pictures)
        assert len(pictures) == n_pictures, key
        assert all(picture["width"] > 0 and picture["shown"] > 0 for picture in pictures), (key, pictures)
        assert all(picture["alt"] for picture in pictures), key
        assert tab.evaluate("window.hostile") is None, key
        if key == "confusion":
            shown_text(tab, HOSTILE[0])  # the name is shown as it is
            assert tab.locator("svg[onload], img[onerror]").count() == 0


@pytest.mark.parametrize("ui", ["v2/", ""], ids=["V2", "V1"])
def test_the_timeline_of_nights_begins_with_the_last_verdict(
    api: str, nights: dict[str, Any], tab: Any, ui: str
) -> None:
    tab.goto(f"{api.removesuffix('api')}{ui}artifacts/key/night")
    (thumbnail,) = shown_pictures(tab, 1)
    assert thumbnail["width"] > 0
    shown_text(tab, f"Failed in contract; latest is {nights['latest']}")
    tab.get_by_text("photos 20").nth(2).wait_for()  # each night names its run


# For automations.


def test_events_arrive_with_numbers_and_the_flow_run(api: str, nights: dict[str, Any]) -> None:
    def events() -> list[dict[str, Any]]:
        asked = {"filter": {"event": {"prefix": ["nightlens.night."]}}, "limit": 50}
        found = ask(api, "/events/filter", asked)["events"]
        return found if any(event["event"].endswith("failed") for event in found) else []

    found = wait_until(events, 30, "the event of the failed night")
    second = nights["nights"][1]
    its = [event for event in found if event["resource"]["prefect.resource.id"].endswith(second["night_id"])]
    kinds = sorted(event["resource"]["nightlens.warning"] for event in its if event["event"].endswith("warning"))
    assert kinds == sorted(warning["kind"] for warning in second["warnings"])
    drop = next(event for event in its if event["resource"].get("nightlens.warning") == "accuracy-drop")
    assert drop["payload"]["value"] == pytest.approx(1 - second["accuracy"])
    assert drop["payload"]["threshold"] == 0.02
    assert f"prefect.flow-run.{second['flow_run_id']}" in [r["prefect.resource.id"] for r in drop["related"]]
    (failed,) = (event for event in found if event["event"] == "nightlens.night.failed")
    assert failed["resource"]["nightlens.stage"] == "contract"
    assert failed["payload"]["latest"] == second["night_id"]
    assert sum(event["event"] == "nightlens.night.sealed" for event in found) == 2


def test_one_message_says_what_became_of_each_night(nights: dict[str, Any], posted: Chat) -> None:
    wait_until(lambda: len(posted.posted) >= 3, 120, "a post for each night")
    posts = {post["night"]: post for post in posted.posted}
    failed = posts.keys() - {night["night_id"] for night in nights["nights"]}
    for night in nights["nights"]:
        assert night["warnings"]
        assert posts[night["night_id"]]["verdict"] == "warned"
        for warning in night["warnings"]:
            assert warning["message"] in posts[night["night_id"]]["text"]
    (post,) = (posts[night_id] for night_id in failed)
    assert post["text"].startswith(f"{post['night']}: failed in contract: ")
    assert "Grad-CAM layer '<b>no such layer</b>'" in post["text"]
    assert len(posted.posted) == 3
