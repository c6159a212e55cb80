"""The database of a Prefect server that has recorded nothing: Prefect takes seconds to make one, so tests copy it."""

import shutil
from pathlib import Path

from command import printed_by_python
from environment import clean_environment
from storage.file.disk.lock import locked

PATIENCE_S = 120.0
MAKE = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


class EmptyRecord:
    """Made by whichever of the processes that share a folder is the first to need it, and copied from then on."""

    def __init__(self, folder: Path) -> None:
        self._home = folder

    def put(self, home: Path) -> None:
        """Gives a server's home, which may not be there yet, its database."""
        with locked(self._home.with_suffix(".lock"), "making a database", patience_s=PATIENCE_S):
            if not self._home.exists():
                made = self._home.with_suffix(".partial")
                printed_by_python(MAKE, environment=clean_environment(PREFECT_HOME=str(made)))
                made.rename(self._home)
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._home / "prefect.db", home)
