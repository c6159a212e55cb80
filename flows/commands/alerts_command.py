"""`nightlens alerts`: where the Prefect server of a root sends messages of nights that warned or failed."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from flows.terminal.options import DEFAULT_ROOT, RootOption

if TYPE_CHECKING:
    from flows.service.alerts import Place

__all__ = ["alerts"]

STDIN = "-"


def _let_arguments_in(context: typer.Context, value: bool) -> bool:
    """The parser would print an argument that it does not expect, which may be a secret address."""
    context.allow_extra_args = True
    return value


def alerts(
    context: typer.Context,
    root: RootOption = DEFAULT_ROOT,
    slack: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A channel's incoming webhook; - reads it from stdin.", show_default=False),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An address that gets JSON with text, night and verdict; - reads it from stdin.",
            show_default=False,
        ),
    ] = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="A mailbox.", show_default=False)] = None,
    smtp: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="By which server mail goes: smtp://USER:PASSWORD@HOST (STARTTLS), smtps://... or smtp+insecure://...; - reads "
            "it from stdin. [default: smtp+insecure://localhost, on the machine of the Prefect server]",
            show_default=False,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Only print what would be written, without secrets.")] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Take away all that this command wrote.", callback=_let_arguments_in),
    ] = False,
) -> None:
    """Has the Prefect server of a root post one message for each night that warned or failed.

    It goes to one HTTP address, Slack's or another, and to one mailbox; given again, the new place replaces the old one. Without
    an option it says where messages go. The server keeps the addresses as secrets. It has to run: `nightlens up`, or `ui`;
    with a Prefect API configured, that one is meant.

    Examples:

    - `nightlens alerts --slack - < slack-url.txt`

    - `nightlens alerts --email night@example.org --smtp - < smtp-url.txt`

    - `nightlens alerts --webhook https://example.org/hook --show`

    - `nightlens alerts --remove`
    """
    if context.args:
        from flows.service.alerts import in_a_message

        raise ValueError(
            f"expected --slack, --webhook or --email before an address, got {in_a_message(context.args[0])}; "
            "better give - and the address on stdin"
        )
    places = _places(slack, webhook, email, smtp)
    if remove and (places or show):
        raise ValueError("--remove: takes everything away and goes with no other option but --root")
    if show:
        if not places:
            raise ValueError("--show: expected --slack, --webhook or --email, whose automation is to be shown")
        _show(places)
        return
    from prefect.client.orchestration import get_client

    from flows.service.alerts import put_in_place, read_places, take_away

    with _server(root.expanduser().resolve(), root), _refusals_in_a_line(), get_client(sync_client=True) as client:
        for new in places:
            put_in_place(client, new)
        found = take_away(client) if remove else read_places(client)
    for place in found:
        print(f"{'no more' if remove else 'messages'} {place}")
    if not (found or remove):
        print("no messages go anywhere: give --slack, --webhook or --email")


def _places(slack: str | None, webhook: str | None, email: str | None, smtp: str | None) -> "list[Place]":
    from flows.service import alerts as service

    if slack is not None and webhook is not None:
        raise ValueError(
            "--slack and --webhook: of webhooks that are called at the same time Prefect loses some; give one of them"
        )
    if smtp is not None and email is None:
        raise ValueError("--smtp: by which server mail goes; give --email, too")
    if [slack, webhook, smtp].count(STDIN) > 1:
        raise ValueError("-: only one option can be read from stdin")
    found = []
    if slack is not None:
        found.append(service.slack(_secret(slack)))
    if webhook is not None:
        found.append(service.webhook(_secret(webhook)))
    if email is not None:
        found.append(service.email(email, service.LOCAL_MAIL if smtp is None else _secret(smtp)))
    return found


def _secret(given: str) -> str:
    """A secret that should not stand on a command line, which everybody on the machine can read."""
    return sys.stdin.readline().strip() if given == STDIN else given


def _show(places: "list[Place]") -> None:
    import yaml

    for place in places:
        automation = place.made(UUID(int=0)).model_dump(
            mode="json", include={"name", "description", "trigger", "actions"}
        )
        automation["trigger"]["expect"].sort()
        print(f"# {place.shown}; the block with the address gets its id when it is written")
        print(yaml.safe_dump(automation, sort_keys=False, width=1000), end="")


@contextlib.contextmanager
def _refusals_in_a_line() -> Iterator[None]:
    """Raises ServerError for what the Prefect server refuses, without its answer: that may repeat a secret address."""
    import httpx
    import prefect
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    from flows.server.api import ServerError

    try:
        yield
    except (httpx.HTTPError, ObjectAlreadyExists, ObjectNotFound, ValueError) as error:
        raise ServerError(
            f"expected the Prefect server to do what it was asked, got {_answer(error)}; check its address (PREFECT_API_URL), "
            f"its credentials (PREFECT_API_AUTH_STRING, PREFECT_API_KEY) and that it is Prefect {prefect.__version__}"
        ) from None


def _answer(error: Exception) -> str:
    """What a server did instead: status and path, nothing of what was sent or received."""
    import httpx

    cause = getattr(error, "http_exc", error)
    if isinstance(cause, httpx.HTTPStatusError):
        return f"status {cause.response.status_code} for {cause.request.url.path}"
    return type(cause).__name__ if isinstance(cause, httpx.HTTPError) else "an answer that is not of Prefect's JSON"


def _server(root: Path, given: Path) -> contextlib.AbstractContextManager[None]:
    """This process's Prefect talks to the configured API, or to the server of the root.

    Raises ValueError if none runs, ServerError if one does not answer.
    """
    from flows.server.api import ServerError, answers, api_environment, configured_api, refuse_unreachable
    from flows.server.server import running_server

    if api := configured_api():
        refuse_unreachable(api)
        return contextlib.nullcontext()
    home = root / "prefect"
    if (found := running_server(home)) is None:
        raise ValueError(
            f"{given}: no Prefect server runs, which would send the messages; `nightlens up --root {given}` starts one that "
            "stays"
        )
    if not answers(found["url"]):
        raise ServerError(f"{found['url']} does not answer; its log is {home / 'server.log'}")
    return api_environment(home, found["url"])
