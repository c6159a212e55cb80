"""The `nightlens` command: options in, one clear line out where something is wrong.

Every command imports what it needs when it runs: help must come at once, and `show` needs neither TensorFlow nor
Prefect. Exit codes: 0 done, 1 a night failed, is not recorded, or something is broken (`doctor`, `verify`, a full disk),
2 bad input, 130 and 143 interrupted.
"""

import os
import sys
from typing import NoReturn

import typer

from flows.commands.alerts_command import alerts
from flows.commands.night_commands import models, nights, pin, prune, unpin
from flows.commands.running.floor_command import floor
from flows.commands.running.run_command import run
from flows.commands.service_commands import down, status, ui, up
from flows.commands.setup_commands import doctor, fetch
from flows.commands.stores.browse_command import browse
from flows.commands.stores.compare_command import compare
from flows.commands.stores.export_command import export
from flows.commands.stores.pack_command import pack, unpack
from flows.commands.stores.publish_command import publish
from flows.commands.stores.store_commands import report, show, verify
from flows.parameters import BadParameters
from flows.service.stopping import Terminated, raise_on_sigterm
from flows.terminal.complaints import (
    bad_input,
    complain,
    exit_code,
    failed_night,
    message,
    refused_by_server,
    refused_entry,
)

__all__ = ["app", "main"]

INTERRUPTED, TERMINATED = 130, 143
OUR_PACKAGES = ("flows", "tasks", "storage")
# typer's own name for what its parser raises is private.
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def nightlens() -> None:
    """Explains every image of a test split, and says how far each explanation can be trusted.

    `nightlens run` needs nothing else: it prepares a dataset of handwritten digits, trains a network, explains the
    whole test split by Integrated Gradients and Grad-CAM, and seals all of it in one HDF5 file, with pictures.

    `nightlens doctor` says what is missing where that fails.
    """


COMMANDS = (
    run,
    ui,
    doctor,
    fetch,
    browse,
    show,
    report,
    verify,
    compare,
    floor,
    export,
    pack,
    unpack,
    publish,
    nights,
    pin,
    unpin,
    prune,
    models,
    up,
    down,
    status,
    alerts,
)
for command in COMMANDS:
    app.command()(command)


def main() -> NoReturn:
    """The entry point: runs a command and turns bad input into one line and exit code 2."""
    # Prefect reports its first import to its makers otherwise.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    raise_on_sigterm()
    try:
        code = typer.main.get_command(app).main(prog_name="nightlens", standalone_mode=False)
    except USAGE_ERROR as error:
        complain(f"{error.format_message()} (see `nightlens --help`)")  # type: ignore[attr-defined]
        code = 2
    except BadParameters as error:
        for line in error.lines:
            complain(line)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Terminated:
        code = TERMINATED
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in OUR_PACKAGES:
            raise
        complain(f"this command needs {package}, which is not installed; install nightlens with the extra 'pipeline'")
        code = 2
    except refused_by_server() as error:
        if not (refusal := refused_entry(error)):
            raise
        complain(refusal)
        code = 2
    except (*failed_night(), *bad_input()) as error:
        complain(message(error))
        code = exit_code(error)
    # typer turns a Ctrl-C into an exit code by itself.
    if code in (INTERRUPTED, TERMINATED):
        kept = "; the parts that are done are kept, the same command continues" if "run" in sys.argv[1:2] else ""
        complain(f"interrupted{kept}")
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
