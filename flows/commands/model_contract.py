"""What `nightlens doctor --model` prints: how a model would be fed and read on a dataset, as the page `model` shows it."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.parameters import read_parameters
from flows.terminal.progress_bars import ProgressDisplay
from tasks.night.progress import Progress

__all__ = ["examine_model"]


def examine_model(model: str, *, root: Path, options: dict[str, Any], config: Path | None) -> None:
    """Prints the contract of a model on a dataset; computes nothing else and leaves the prepared dataset under the root.

    model: a name that `nightlens models` lists, or a path. options: of `read_parameters`. config: a YAML file as of `run`.
    Raises ValueError (ModelError, DatasetError, BadParameters) for what a night would refuse.
    """
    import tasks.process.start_tensorflow  # noqa: F401  before what imports TensorFlow
    from tasks.contract import establish
    from tasks.datasets import prepare
    from tasks.models.registry import existing_model, load_model, read_record
    from tasks.numerics.network.scores import image_shape

    given = read_parameters(config, options | {"--model": model})
    settings = given["model"]
    record = read_record(existing_model(settings.source, root / "models"), settings.code)
    network = load_model(record.path, record.code)
    with ProgressDisplay(Console(stderr=True, highlight=False)) as display:

        def show(what: str, done: int, total: int, seconds: float) -> None:
            display(Progress(stage="ingest", done=done, total=total, unit="images", seconds=seconds, note=what))

        dataset = prepare(given["dataset"], root, image_shape(network), show)
    settings_of = {
        "score": given["explanation"].score,
        "layer": given["grad_cam"].layer,
        "baseline": given["integrated_gradients"].baseline,
    }
    _print(record.name, establish(network, record, dataset, settings.input, **settings_of).as_json())


def _print(name: str, contract: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    fed = contract["input"]
    console.print(Text(f"model {name}", style="bold"))
    facts = {
        "is fed": f"{fed['text']} ({fed['chosen']})",
        "outputs": contract["output"]["text"],
        "logits": contract["output"]["logits"] or "out of reach",
        "classes": contract["classes"]["text"],
        "Grad-CAM": f"{contract['grad_cam']['layer'] or 'none'}: {contract['grad_cam']['text']}",
    }
    for what, value in facts.items():
        console.print(Text.assemble(f"  {what:<10}", value))
    table = Table("feed", "accuracy", "ln p(label)", "images", "note", box=None, padding=(0, 2, 0, 2))
    for trial in fed["feeds"]:
        numbers = (f"{trial['accuracy']:.4f}", f"{trial['log_likelihood']:.3f}", str(trial["n_images"]))
        table.add_row(Text(trial["name"]), *numbers, Text(trial["note"], overflow="fold"))
    console.print(table)
    for check in contract["checks"]:
        mark = ("✓", "green") if check["passed"] else ("✗", "bold red")
        console.print(Text.assemble("  ", mark, f" {check['name']}: {check['text']}"))
    for warning in contract["warnings"]:
        console.print(Text.assemble("  ", ("!", "bold yellow"), f" {warning}"))
