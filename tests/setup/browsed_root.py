"""A root to browse: two nights on the same images, and one that is just being sealed; and a browse that serves it."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, example_arrays
from reported_night import CONFIGURATION, NIGHT, seal_assessed, seal_example
from storage import Catalog, part_path, seal_store, write_part
from tasks.browse.browse_app import browse_app
from tasks.browse.browse_server import claimed_port
from tasks.browse.comparisons import Comparisons
from tasks.browse.shown_nights import ShownNights

BEFORE, AFTER, BEGUN = "20261122T020000Z-aaaaaa", "20261123T020000Z-bbbbbb", "20261124T020000Z-cccccc"
RECORD = NIGHT | {"warnings": [{"kind": "accuracy", "message": "accuracy fell"}]}


def make_root(root: Path, names: list[str] | None = None) -> Path:
    """names: of the classes."""
    own = {} if names is None else {"names": names}
    for night_id, seal in ((BEFORE, seal_example), (AFTER, seal_assessed)):
        folder = Catalog(root).night_dir(night_id)
        folder.mkdir(parents=True)
        seal(folder, **own, run_id=night_id)
        (folder / "night.json").write_text(json.dumps(RECORD))
    begun = Catalog(root).night_dir(BEGUN)
    begun.mkdir()
    (begun / "attributions.h5.partial").write_bytes(b"not yet")
    return root


def seal_large(folder: Path, side: int) -> Path:
    """A store of a few rows with images of side x side."""
    part = part_path(folder / "parts", 0, 8)
    write_part(part, 0, 8, example_arrays(0, 8, side=side), digest=DIGEST, part_rows=8)
    path = folder / "attributions.h5"
    seal_store(path, [part], class_names=CLASS_NAMES, attributes=ATTRIBUTES | {"configuration": CONFIGURATION})
    return path


@contextmanager
def browsing(place: Path | str, listening: socket.socket | None = None) -> Iterator[str]:
    """A browse in this process, and its address."""
    listening = listening or claimed_port(0)
    nights = ShownNights(str(place))
    comparisons = Comparisons(nights)
    server = uvicorn.Server(uvicorn.Config(browse_app(nights, comparisons), log_level="warning", lifespan="off"))
    port = listening.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        comparisons.close()
        listening.close()
        assert not thread.is_alive()
