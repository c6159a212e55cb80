"""`nightlens alerts` on a real Prefect server: what it writes there, and what arrives at real addresses when nights end."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

import command
from empty_record import EmptyRecord
from environment import clean_environment
from flows.service.alerts import (
    HTTP_AUTOMATION,
    MAIL_AUTOMATION,
    email,
    put_in_place,
    read_places,
    slack,
    take_away,
    webhook,
)
from flows.service.heartbeat import AUTOMATION, ensure_heartbeat_automation
from own_server import server_of
from receivers import Chat, Mailbox, chat, mailbox
from waiting import wait_until

ARRIVES_WITHIN_S = 60.0
SECRET = "T0K3N-of-the-channel"
# Nights as tasks tell of them: names, how each ended, and what is to be looked at.
TELL = """
import json, sys
from prefect.events.worker import EventsWorker
from tasks.night.events import emit_failed, emit_sealed
from tasks.night.result import NightFailure, NightResult, NightWarning
for name, verdict, message in json.loads(sys.argv[1]):
    if verdict == "failed":
        emit_failed(NightFailure(night_id=name, stage="explain", reason=message, latest="none yet", stage_seconds={},
                                 failed_seconds=1, flow_run_id=""))
    else:
        warnings = (NightWarning(kind="dataset", message=message),) if verdict == "warned" else ()
        emit_sealed(NightResult(night_id=name, verdict=message or "sealed", warnings=warnings, store="s", gallery="g",
                                store_bytes=1, n_rows=1, accuracy=1, converged_share=1, worst_gap=0,
                                gradients_per_image=1, n_zero_maps=0, audit="passed", stage_seconds={}, flow_run_id=""))
EventsWorker.drain_all(timeout=30)
"""


class Served:
    """A root with its Prefect server."""

    def __init__(self, root: Path, api: str, home: Path) -> None:
        self.root, self.api, self._home = root, api, home
        self._n_told = 0

    def alerts(self, *options: object, **how: Any) -> subprocess.CompletedProcess[str]:
        environment = clean_environment(PREFECT_HOME=str(self._home))
        return command.nightlens("alerts", "--root", self.root, *options, environment=environment, **how)

    def told(self, *options: object, **how: Any) -> str:
        """What the command prints; it must not complain."""
        done = self.alerts(*options, **how)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def end(self, *nights: tuple[str, str]) -> list[str]:
        """Ends nights, by verdict and message; their names."""
        names = [f"night-{self._n_told + k}" for k in range(len(nights))]
        self._n_told += len(nights)
        told = [(name, *night) for name, night in zip(names, nights, strict=True)]
        configured = clean_environment(PREFECT_HOME=str(self._home), PREFECT_API_URL=self.api)
        command.printed_by_python(TELL, json.dumps(told), environment=configured)
        return names

    def record(self) -> "SyncPrefectClient":
        with temporary_settings({PREFECT_API_URL: self.api}):
            return get_client(sync_client=True)

    def automations(self) -> list[Any]:
        with self.record() as client:
            return client.request("POST", "/automations/filter", json={}).json()

    def events(self, prefix: str) -> list[dict[str, Any]]:
        asked = {"filter": {"event": {"prefix": [prefix]}}, "limit": 50}
        with self.record() as client:
            return client.request("POST", "/events/filter", json=asked).json()["events"]

    def blocks(self) -> list[dict[str, Any]]:
        with self.record() as client:
            return client.request("POST", "/block_documents/filter", json={}).json()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_record: EmptyRecord) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("alerts")
    environment = clean_environment(PREFECT_HOME=str(folder / "nobody"))
    with server_of(folder / "root", empty_record, environment) as api:
        yield Served(folder / "root", api, folder / "nobody")


@pytest.fixture
def client(served: Served) -> Iterator[SyncPrefectClient]:
    """Of this process's Prefect, on a server where nothing is put in place."""
    with temporary_settings({PREFECT_API_URL: served.api}), get_client(sync_client=True) as found:
        take_away(found)
        yield found
        take_away(found)


def change(client: SyncPrefectClient, name: str, /, **changed: Any) -> dict[str, Any]:
    """Writes an automation as the UI does when a person saves it; all of it."""
    (found,) = client.read_automations_by_name(name)
    whole = found.model_dump(mode="json", exclude={"id", "owner_resource"}) | changed
    client.request("PUT", "/automations/{id}", path_params={"id": found.id}, json=whole)
    return whole


@pytest.fixture
def channel() -> Iterator[Chat]:
    with chat(f"/hook/{SECRET}") as got:
        yield got


@pytest.fixture
def mails() -> Iterator[Mailbox]:
    with mailbox() as got:
        yield got


@pytest.mark.slow
def test_a_warned_and_a_failed_night_post_one_message_each_however_often_it_is_written(
    served: Served, channel: Chat
) -> None:
    shown = f"messages to a webhook address {channel.url.partition('/hook')[0]}/...\n"
    assert served.told("--webhook", channel.url) == shown
    first, block = served.automations(), served.blocks()
    assert served.told("--webhook", channel.url) == shown
    assert served.told() == shown
    assert ([each["id"] for each in served.automations()], len(first)) == ([first[0]["id"]], 1)
    assert [each["id"] for each in served.blocks()] == [block[0]["id"]]
    _, warned = served.end(("sealed", ""), ("warned", 'sealed with warnings: "no" image of <猫>\n& more'))
    wait_until(lambda: channel.posted, ARRIVES_WITHIN_S, "the message of the warned night")
    (failed,) = served.end(("failed", "the disk is full"))
    wait_until(lambda: len(channel.posted) > 1, ARRIVES_WITHIN_S, "the message of the failed night")
    text = f'{warned}: sealed with warnings: "no" image of <猫>\n& more'
    assert channel.posted == [
        {"text": text, "night": warned, "verdict": "warned"},
        {"text": f"{failed}: failed in explain: the disk is full", "night": failed, "verdict": "failed"},
    ]
    assert channel.kinds == ["application/json"] * 2


@pytest.mark.slow
def test_the_addresses_are_secrets_of_the_server_also_where_they_refuse_a_message(
    served: Served, channel: Chat
) -> None:
    """Port 9 is nobody's."""
    mail = ("--email", "me@example.org", "--smtp", f"smtp+insecure://me:{SECRET}@127.0.0.1:9")
    said = served.told("--webhook", channel.url, *mail)
    channel.status = 500
    served.end(("failed", "so"))

    def called() -> bool:
        events = served.events("prefect.automation.action.")
        refused = [event for event in events if event["payload"].get("status_code") == 500]
        failed = [event for event in events if event["event"].endswith(".failed")]
        return bool(refused and failed)

    wait_until(called, ARRIVES_WITHIN_S, "the server knows that both were refused")
    known = (served.events("prefect."), served.automations(), served.blocks())
    log = (served.root / "prefect" / "server.log").read_text()
    assert SECRET not in said + log + json.dumps(known)
    assert len(channel.posted) == 1
    served.told("--remove")


@pytest.mark.slow
def test_slack_takes_the_place_of_another_address_and_nobody_is_called_by_a_class_name(served: Served) -> None:
    with chat() as other, chat(f"/services/{SECRET}") as channel:
        served.told("--webhook", other.url)
        said = served.told("--slack", "-", input=f"{channel.url}\n")
        assert said == f"messages to Slack's address {channel.url.partition('/services')[0]}/...\n"
        (name,) = served.end(("warned", "sealed with warnings: 1 of <!channel> & more"))
        wait_until(lambda: channel.posted, ARRIVES_WITHIN_S, "the message")
        assert channel.posted == [{"text": f"{name}: sealed with warnings: 1 of &lt;!channel&gt; &amp; more"}]
        assert other.posted == []


@pytest.mark.slow
def test_a_mailbox_gets_its_message_beside_an_address(served: Served, channel: Chat, mails: Mailbox) -> None:
    served.told("--webhook", channel.url)
    said = served.told("--email", "me@example.org", "--smtp", f"smtp+insecure://{mails.host}")
    assert f"messages to me@example.org by smtp+insecure://{mails.host}\n" in said
    assert len(said.splitlines()) == len(served.automations()) == 2
    (name,) = served.end(("warned", "sealed with warnings: <b>1</b> of 2 rows"))
    wait_until(lambda: mails.mails and channel.posted, ARRIVES_WITHIN_S, "mail and message")
    (mail,) = mails.mails
    assert mail["subject"] == f"nightlens: {name} warned"
    assert ("me@example.org" in mail["to"], "me@example.org" in mail["from"]) == (True, True)
    text = mail.get_body(("plain",))
    assert text and text.get_content().strip() == f"{name}: sealed with warnings: <b>1</b> of 2 rows"
    assert len(channel.posted) == 1


@pytest.mark.slow
def test_what_is_removed_posts_nothing_any_more(served: Served, channel: Chat, mails: Mailbox) -> None:
    places = ("--webhook", channel.url, "--email", "me@example.org", "--smtp", f"smtp+insecure://{mails.host}")
    said = served.told(*places)
    assert served.told("--remove") == said.replace("messages", "no more")
    assert (served.automations(), served.blocks()) == ([], [])
    assert served.told("--remove") == ""
    assert served.told() == "no messages go anywhere: give --slack, --webhook or --email\n"
    served.end(("failed", "unseen"))
    served.told(*places)
    (name,) = served.end(("failed", "seen"))
    wait_until(lambda: mails.mails and channel.posted, ARRIVES_WITHIN_S, "mail and message")
    assert [post["night"] for post in channel.posted] == [name]
    assert len(mails.mails) == 1


@pytest.mark.slow
def test_what_a_person_switched_off_or_edited_is_mended_when_it_is_written_again(client: SyncPrefectClient) -> None:
    place = webhook("http://a.org/x")
    put_in_place(client, place)
    (before,) = client.read_automations_by_name(HTTP_AUTOMATION)
    trigger = before.trigger.model_dump(mode="json") | {"for_each": ["prefect.resource.id"]}
    change(client, HTTP_AUTOMATION, enabled=False, trigger=trigger)
    assert read_places(client) == ["to a webhook address http://a.org/..., switched off"]
    put_in_place(client, place)
    assert read_places(client) == ["to a webhook address http://a.org/..."]
    assert client.read_automations_by_name(HTTP_AUTOMATION) == [before]


@pytest.mark.slow
def test_what_a_person_renamed_is_found_replaced_and_removed(client: SyncPrefectClient) -> None:
    put_in_place(client, webhook("http://a.org/x"))
    renamed = change(client, HTTP_AUTOMATION, name="mine")
    warning = renamed["trigger"] | {"expect": ["nightlens.night.warning"]}
    own = renamed | {"name": "own", "description": "", "trigger": warning}
    client.request("POST", "/automations/", json=own)
    by = "by the automation 'mine'"
    assert read_places(client) == [f"to a webhook address http://a.org/... {by}"]
    put_in_place(client, webhook("http://b.org/x"))
    assert read_places(client) == ["to a webhook address http://b.org/..."]
    change(client, HTTP_AUTOMATION, name="mine")
    assert take_away(client) == [f"to a webhook address http://b.org/... {by}"]
    (left,) = client.read_automations()
    client.delete_automation(left.id)
    assert left.name == "own"


@pytest.mark.slow
def test_a_block_that_a_person_deleted_is_missed(client: SyncPrefectClient) -> None:
    put_in_place(client, email("a@b.org"))
    (automation,) = client.read_automations_by_name(MAIL_AUTOMATION)
    (action,) = automation.actions
    client.delete_block_document(action.block_document_id)  # type: ignore[union-attr, arg-type]
    place = "to a@b.org by smtp+insecure://localhost:25"
    assert read_places(client) == [f"{place}, but its block is gone: give its option again"]
    put_in_place(client, email("a@b.org"))
    assert read_places(client) == [place]


@pytest.mark.slow
def test_the_heartbeat_automation_that_a_person_switched_off_stays_so_and_that_is_said(
    client: SyncPrefectClient,
) -> None:
    assert ensure_heartbeat_automation(client, within_s=120)
    change(client, AUTOMATION, enabled=False)
    assert not ensure_heartbeat_automation(client, within_s=150)
    (found,) = client.read_automations_by_name(AUTOMATION)
    client.delete_automation(found.id)
    assert (found.enabled, found.trigger.within.total_seconds()) == (False, 150)  # type: ignore[union-attr]


@pytest.mark.slow
def test_what_is_shown_is_what_is_written(served: Served, channel: Chat) -> None:
    shown = yaml.safe_load(served.told("--slack", channel.url, "--show"))
    served.told("--remove")
    assert served.automations() == []
    served.told("--slack", channel.url)
    (written,) = served.automations()
    (action,), (shown_action,) = written["actions"], shown["actions"]
    assert shown_action | {"block_document_id": action["block_document_id"]} == action
    ours = {name: sorted(value) if name == "expect" else value for name, value in written["trigger"].items()}
    assert {name: ours[name] for name in shown["trigger"]} == shown["trigger"]
    assert shown["name"] == written["name"]


def test_showing_needs_no_server_and_has_no_secret(tmp_path: Path) -> None:
    done = command.nightlens(
        *("alerts", "--root", tmp_path, "--show", "--slack", f"https://hooks.slack.com/services/{SECRET}"),
        *("--email", "me@example.org", "--smtp", f"smtps://me:{SECRET}@mail.example.org"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    shown = list(yaml.safe_load_all(done.stdout.replace("# to me@", "---\n# to me@")))
    assert [each["actions"][0]["type"] for each in shown] == ["call-webhook", "send-notification"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "{root}: no Prefect server runs, which would send the messages; `nightlens up --root {root}` starts one"),
        (["--webhook", "https://example.org/x"], "{root}: no Prefect server runs"),
        (
            ["--slack", "T0K3N"],
            "--slack: expected an address such as https://hooks.slack.com/services/..., got something",
        ),
        (
            ["--webhook", "ftp://T0K3N/x"],
            "--webhook: expected an address such as https://example.org/hook, got something",
        ),
        (["--webhook", "https://x:T0K3N/"], "--webhook: expected an address"),
        (["--webhook", "http://"], "--webhook: expected an address"),
        (["--webhook", "https://exa mple.org/"], "--webhook: expected an address"),
        (["--email", "nobody"], "--email: expected an address such as me@example.org, got 'nobody'"),
        (["--email", "a@b.org,c@d.org"], "--email: expected an address such as me@example.org, got 'a@b.org,c@d.org'"),
        (["--email", "a@b.org", "--smtp", "http://T0K3N"], "--smtp: expected smtp://USER:PASSWORD@HOST:PORT"),
        (["--email", "a@b.org", "--smtp", "smtp://me:T0K3N/x@h"], "--smtp: expected smtp://USER:PASSWORD@HOST:PORT"),
        (["--smtp", "smtp://h"], "--smtp: by which server mail goes; give --email, too"),
        (["--slack", "https://a.org/x", "--webhook", "https://b.org/x"], "--slack and --webhook: of webhooks that are"),
        (["--slack", "-", "--email", "a@b.org", "--smtp", "-"], "-: only one option can be read from stdin"),
        (["--show"], "--show: expected --slack, --webhook or --email"),
        (["--remove", "--slack", "https://a.org/x"], "--remove: takes everything away"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    environment = clean_environment(PREFECT_HOME=str(tmp_path / "home"))
    done = command.nightlens("alerts", "--root", tmp_path, *options, environment=environment, input="")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"nightlens: {said.format(root=tmp_path)}")
    assert "T0K3N" not in line


@pytest.mark.parametrize(
    ("smtp", "shown", "expected"),
    [
        (
            "smtp+insecure://localhost",
            "localhost:25",
            "mailto://localhost:25?from=a%40b.org&to=a%40b.org&mode=insecure",
        ),
        (
            "smtp://me%40c.org:p%2Fw@mail.c.org",
            "mail.c.org:587",
            "mailtos://me%40c.org:p%2Fw@mail.c.org:587?from=me%40c.org&to=a%40b.org&mode=starttls",
        ),
        (
            "smtps://u:p@mail.c.org:99",
            "mail.c.org:99",
            "mailtos://u:p@mail.c.org:99?from=a%40b.org&to=a%40b.org&mode=ssl",
        ),
        (
            "smtp://u:p@w:x@mail.c.org",
            "mail.c.org:587",
            "mailtos://u:p%40w%3Ax@mail.c.org:587?from=a%40b.org&to=a%40b.org&mode=starttls",
        ),
        (
            "smtp://me@c.org:p%25@mail.c.org",
            "mail.c.org:587",
            "mailtos://me%40c.org:p%25@mail.c.org:587?from=me%40c.org&to=a%40b.org&mode=starttls",
        ),
    ],
    ids=["this machine", "with an account", "another port", "a password with @ and :", "a user with @"],
)
def test_an_smtp_server_is_what_apprise_understands(smtp: str, shown: str, expected: str) -> None:
    place = email("a@b.org", smtp)
    assert place.shown == f"to a@b.org by {smtp.partition(':')[0]}://{shown}"
    block: Any = place.block()
    assert block.url.get_secret_value() == f"{expected}&format=text"
    (client,) = block._apprise_client
    assert [target[1] for target in client.targets] == ["a@b.org"]
    assert f"{client.smtp_host}:{client.port}" == shown


def test_no_secret_is_in_what_is_shown() -> None:
    for place in (slack(f"https://a.org/{SECRET}"), webhook(f"https://u:{SECRET}@[::1]:8/{SECRET}?x={SECRET}")):
        assert SECRET not in repr(place) + place.shown
    assert webhook("https://u@[::1]:8/x").shown == "to a webhook address https://[::1]:8/..."
