"""The Prefect API that this process talks to: which one it is, and whether it answers."""

import contextlib
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LOOPBACK", "ServerError", "answers", "api_environment", "configured_api", "refuse_unreachable"]

LOOPBACK = "127.0.0.1"


class ServerError(OSError):
    """The Prefect server cannot be started, reached or trusted to have recorded the night."""


def configured_api() -> str | None:
    """The Prefect API that the environment, a prefect.toml or the active profile names; None where there is none."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def refuse_unreachable(url: str) -> None:
    """Raises ServerError, within seconds, if the configured API does not answer."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True, httpx_settings={"timeout": 5.0}) as client:
        error = client.api_healthcheck()
    if error is not None:
        # A password may be in it.
        shown = (
            urllib.parse.urlsplit(url)._replace(netloc=urllib.parse.urlsplit(url).netloc.rpartition("@")[2]).geturl()
        )
        got = f"{type(error).__name__} ({' '.join(str(error).split())})".replace(url, shown)
        raise ServerError(
            f"expected a Prefect API at PREFECT_API_URL {shown}, got {got}; "
            "start it with `prefect server start`, unset PREFECT_API_URL to let nightlens start a server of its own, "
            "or let `nightlens run --offline-ok` go on without"
        )


def api_environment(home: Path, url: str) -> contextlib.AbstractContextManager[None]:
    """As long as it lasts, this process's Prefect talks to the server of a home, whatever profile is active."""
    host = urllib.parse.urlsplit(url).hostname or LOOPBACK
    past_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), host]))
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_PROFILE": None,
        "PREFECT_PROFILES_PATH": None,
        "NO_PROXY": past_proxy,
        "no_proxy": past_proxy,
        "DO_NOT_TRACK": "1",
    }
    return _environment(variables)


@contextlib.contextmanager
def _environment(variables: dict[str, str | None]) -> Iterator[None]:
    """Environment variables that Prefect, imported already, takes notice of."""
    from prefect.context import refresh_global_settings_context

    def apply(values: dict[str, str | None]) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        refresh_global_settings_context()

    before = {name: os.environ.get(name) for name in variables}
    apply(variables)
    try:
        yield
    finally:
        apply(before)


def answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
