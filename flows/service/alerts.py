"""Messages of nights that warned or failed: on the Prefect server an automation for each place that they go to, and its block.

Prefect's open server has no e-mail of its own but Sendgrid's. Its blocks for notifications are made with Apprise, which sends
by any SMTP server: its Slack Webhook hands on every address that Apprise knows, and of those that are called after no service
none can be saved. An HTTP address is called by its Webhook block, which keeps the address secret, also from logs. Its Custom
Webhook would not: it writes the address to the server's log where a call is refused. Of Webhook blocks that are called at the
same time Prefect 3.8.8 loses some, and so there is one HTTP address, be it Slack's or another.
"""

import logging
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.sorting import AutomationSort
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.service.heartbeat import ensure_automation

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = [
    "LOCAL_MAIL",
    "Place",
    "email",
    "in_a_message",
    "put_in_place",
    "read_places",
    "slack",
    "take_away",
    "webhook",
]

LOCAL_MAIL = "smtp+insecure://localhost"
# An SMTP server by its URL, as mail programs write it: Apprise's scheme and mode, and the port.
SMTP: Mapping[str, tuple[str, str, int]] = {
    "smtp": ("mailtos", "starttls", 587),
    "smtps": ("mailtos", "ssl", 465),
    "smtp+insecure": ("mailto", "insecure", 25),
}
MAIL_ADDRESS = re.compile(r"[\w!#$'*+=^`{|}~-]+(\.[\w!#$'*+=^`{|}~-]+)*@[\w-]+(\.[\w-]+)*", re.ASCII)

HTTP_BLOCK, MAIL_BLOCK = ("webhook", "nightlens-webhook"), ("slack-webhook", "nightlens-email")
HTTP_AUTOMATION = "nightlens: what became of a night, to an address"
MAIL_AUTOMATION = "nightlens: what became of a night, by e-mail"
BLOCKS = {HTTP_AUTOMATION: HTTP_BLOCK, MAIL_AUTOMATION: MAIL_BLOCK}

SAID = 'event.resource.name ~ ": " ~ event.payload.verdict'
# Slack takes what begins with < for a link, or for somebody to be called.
FOR_SLACK = f'{{"text": ({SAID}) | replace("&", "&amp;") | replace("<", "&lt;") | replace(">", "&gt;")}}'
FOR_PROGRAMS = f'{{"text": {SAID}, "night": event.resource.name, "verdict": event.resource["nightlens.verdict"]}}'
ONCE_A_NIGHT = EventTrigger(
    posture=Posture.Reactive,
    match=ResourceSpecification({"prefect.resource.id": ["nightlens.night.*"], "nightlens.verdict": ["!sealed"]}),
    expect={"nightlens.night.sealed", "nightlens.night.failed"},
    threshold=1,
    within=timedelta(0),
)


@dataclass(frozen=True)
class Place:
    """Where messages go. shown: in words and without secrets. automation: its name. block, action: made when it is written."""

    shown: str
    automation: str
    block: Callable[[], Block]
    action: Callable[[UUID], ActionTypes]

    def made(self, block_id: UUID) -> AutomationCore:
        """The automation: one message for each night that warned or failed."""
        return AutomationCore(
            name=self.automation,
            description=self.shown,
            # Prefect's client sends only what is given; one that was switched off would stay so.
            enabled=True,
            trigger=ONCE_A_NIGHT,
            actions=[self.action(block_id)],
        )


def slack(url: str) -> Place:
    """A channel, by its incoming webhook or one that understands the same. Raises ValueError, without the URL, if it is none."""
    return _http("--slack", "https://hooks.slack.com/services/...", url, FOR_SLACK, "Slack's")


def webhook(url: str) -> Place:
    """Any address that takes JSON with text, night and verdict. Raises ValueError, without the URL, if it is none."""
    return _http("--webhook", "https://example.org/hook", url, FOR_PROGRAMS, "a webhook")


def email(address: str, smtp: str = LOCAL_MAIL) -> Place:
    """A mailbox, by an SMTP server such as smtp://me%40example.org:PASSWORD@mail.example.org.

    Its sender is the server's user where that is an address, else the mailbox itself.
    Raises ValueError, without user and password, for what is neither, or what Apprise would take for another.
    """
    if not MAIL_ADDRESS.fullmatch(address):
        raise ValueError(f"--email: expected an address such as me@example.org, got {in_a_message(address)}")
    parts = _parts(smtp)
    if parts is None or parts.scheme not in SMTP or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(
            "--smtp: expected smtp://USER:PASSWORD@HOST:PORT, smtps://... or smtp+insecure://..., got something else; "
            "in user and password write @ as %40, / as %2F and : as %3A"
        )
    scheme, mode, port = SMTP[parts.scheme]
    port = parts.port or port
    user, password = urllib.parse.unquote(parts.username or ""), urllib.parse.unquote(parts.password or "")
    who = ":".join(urllib.parse.quote(part, safe="") for part in (user, password) if part)
    sender = user if MAIL_ADDRESS.fullmatch(user) else address
    query = urllib.parse.urlencode({"from": sender, "to": address, "mode": mode, "format": "text"})
    url = f"{scheme}://{who}{'@' if who else ''}{_host(parts)}:{port}?{query}"
    meant = {"host": parts.hostname, "port": port, "user": user, "password": password, "mode": mode, "sender": sender}
    _refuse_misunderstood(url, address, meant)
    return Place(
        shown=f"to {address} by {parts.scheme}://{_host(parts)}:{port}",
        automation=MAIL_AUTOMATION,
        block=lambda: SlackWebhook(url=SecretStr(url)),
        action=lambda block_id: SendNotification(
            block_document_id=block_id,
            subject='nightlens: {{ event.resource.name }} {{ event.resource["nightlens.verdict"] }}',
            body=f"{{{{ {SAID} }}}}",
        ),
    )


def in_a_message(value: str) -> str:
    """A value as an error shows it; one that may be an address with a secret is left out."""
    return "one with : or /" if re.search("[:/]", value) else repr(value)


def put_in_place(client: "SyncPrefectClient", place: Place) -> None:
    """Writes block and automation to the server of this process's Prefect, or corrects them, and switches them on.

    An automation that does the same under another name, as a person gave it, is replaced.
    """
    block_id = cast(UUID, place.block().save(BLOCKS[place.automation][1], overwrite=True))
    ensure_automation(client, place.made(block_id))
    for other in _written(client):
        if other.name not in BLOCKS and block_id in _block_ids(other):
            client.delete_automation(other.id)


def read_places(client: "SyncPrefectClient") -> list[str]:
    """The places that the server sends messages to, in words, and why it does not where that can be seen."""
    return [
        f"{_in_words(automation)}{'' if automation.enabled else ', switched off'}"
        f"{', but its block is gone: give its option again' if _is_block_gone(client, automation) else ''}"
        for automation in _written(client)
    ]


def take_away(client: "SyncPrefectClient") -> list[str]:
    """Removes all that was put in place, automations first; returns the places in words. A person's own stay."""
    written = _written(client)
    for automation in written:
        client.delete_automation(automation.id)
    for block_id in _our_blocks(client):
        client.delete_block_document(block_id)
    return [_in_words(automation) for automation in written]


def _written(client: "SyncPrefectClient") -> list[Automation]:
    """The automations with our names, and those that a person renamed: they do the same with our blocks."""
    ours = _our_blocks(client)
    return [
        each
        for each in _automations(client)
        if each.name in BLOCKS or (each.trigger == ONCE_A_NIGHT and ours & _block_ids(each))
    ]


def _our_blocks(client: "SyncPrefectClient") -> set[UUID]:
    found = set()
    for slug, name in BLOCKS.values():
        with suppress(ObjectNotFound):
            found.add(client.read_block_document_by_name(name, slug, include_secrets=False).id)
    return found


def _automations(client: "SyncPrefectClient") -> list[Automation]:
    """All that the server has; it hands out a page at a time."""
    found: list[Automation] = []
    while page := client.read_automations(sort=AutomationSort.NAME_ASC, offset=len(found)):
        found += page
    return found


def _block_ids(automation: Automation) -> set[UUID]:
    actions = (*automation.actions, *automation.actions_on_trigger, *automation.actions_on_resolve)
    return {action.block_document_id for action in actions if isinstance(action, CallWebhook | SendNotification)}


def _is_block_gone(client: "SyncPrefectClient", automation: Automation) -> bool:
    try:
        for block_id in _block_ids(automation):
            client.read_block_document(block_id, include_secrets=False)
    except ObjectNotFound:
        return True
    return False


def _in_words(automation: Automation) -> str:
    by = "" if automation.name in BLOCKS else f"by the automation {automation.name!r}"
    return " ".join(filter(None, (automation.description, by)))


def _http(option: str, such_as: str, url: str, payload: str, what: str) -> Place:
    parts = _parts(url)
    if parts is None or parts.scheme not in ("http", "https"):
        raise ValueError(f"{option}: expected an address such as {such_as}, got something else")
    return Place(
        shown=f"to {what} address {parts.scheme}://{_host(parts)}{f':{parts.port}' if parts.port else ''}/...",
        automation=HTTP_AUTOMATION,
        block=lambda: Webhook(url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"})),
        action=lambda block_id: CallWebhook(block_document_id=block_id, payload=f"{{{{ {payload} | tojson }}}}"),
    )


def _refuse_misunderstood(url: str, address: str, meant: Mapping[str, object]) -> None:
    """Raises ValueError, without what was given for the server, where Apprise would send mail otherwise than it is meant."""
    with _silent_apprise():
        block: Any = SlackWebhook(url=SecretStr(url))
    mails = list(block._apprise_client)
    mail = mails[0] if len(mails) == 1 else None
    if mail and [target for _, target in mail.targets] != [address]:
        raise ValueError(
            f"--email: expected an address such as me@example.org, got {in_a_message(address)}, which Apprise, which sends "
            "the mail, takes for another; give another mailbox, or an alias of this one"
        )
    understood = mail and {
        "host": mail.smtp_host,
        "port": mail.port,
        "user": mail.user or "",
        "password": mail.password or "",
        "mode": mail.secure_mode,
        "sender": mail.from_addr[1],
    }
    if understood != meant:
        others = [name for name in meant if not understood or understood[name] != meant[name]]
        raise ValueError(
            f"--smtp: expected what Apprise, which sends the mail, understands, got one whose {', '.join(others)} it takes for "
            "another; write the host as a name without _ or as an IPv4 address, and a password after its user"
        )


@contextmanager
def _silent_apprise() -> Iterator[None]:
    """Apprise's log, which goes to the terminal, would name parts of an address that it does not understand."""
    log = logging.getLogger("apprise")
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was_disabled


def _parts(url: str) -> urllib.parse.SplitResult | None:
    """A URL with a host, taken apart; None for anything else."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = bool(parts.hostname and (parts.port is None or parts.port > 0))
    except ValueError:
        return None
    return parts if usable and not re.search(r"[\s\x00-\x1f\x7f]", url) else None


def _host(parts: urllib.parse.SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
