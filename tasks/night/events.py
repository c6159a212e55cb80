"""Events: how a night ended, for the server's automations to act on.

    nightlens.night.sealed     once a sealed night; labels nightlens.verdict: sealed or warned, nightlens.warnings: how many
    nightlens.night.failed     once a failed night; labels nightlens.verdict: failed, nightlens.stage: where
    nightlens.night.warning    once a warning of a sealed night or a failed audit; label nightlens.warning: its kind

The first two say in their payload's `verdict` all that is to be read, so that one message a night is enough: of several
webhooks that Prefect 3.8.8 calls at the same time some are lost (they share a pool of connections, and the first to end
closes it).

The resource is nightlens.night.<id>, the flow run is related to it, and Prefect adds the deployment. An automation can
match labels; the payload has the numbers. Delivery is Prefect's: in the background, and never in the way of the night.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prefect.events import Event, emit_event

from tasks.night.result import NightFailure, NightResult

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["emit_failed", "emit_sealed", "send_failed"]


def emit_sealed(result: NightResult) -> None:
    """Emits the event of a sealed night, and of each of its warnings."""
    payload = result.model_dump(mode="json", exclude={"warnings"}) | {"seconds": round(result.seconds, 1)}
    verdict = "warned" if result.warnings else "sealed"
    labels = {"nightlens.verdict": verdict, "nightlens.warnings": str(len(result.warnings))}
    emit_event(**_event("sealed", result, labels, payload))
    _emit_warnings(result)


def emit_failed(failure: NightFailure) -> None:
    """Emits the event of a failed night, and of a failed audit as a warning, too."""
    emit_event(**_failed(failure))
    _emit_warnings(failure)


def send_failed(client: "SyncPrefectClient", failure: NightFailure) -> None:
    """Sends the event of a night that cannot any more, at once; nothing of the run that sends it is in it."""
    event = Event(occurred=datetime.now(UTC), id=uuid4(), **_failed(failure))
    client.request("POST", "/events", json=[event.model_dump(mode="json")])


def _failed(failure: NightFailure) -> dict[str, Any]:
    payload = failure.model_dump(mode="json", exclude={"warnings"})
    payload["verdict"] = f"failed in {failure.stage}: {failure.reason}"
    return _event("failed", failure, {"nightlens.verdict": "failed", "nightlens.stage": failure.stage}, payload)


def _emit_warnings(night: NightResult | NightFailure) -> None:
    for warning in night.warnings:
        payload = {"night_id": night.night_id, **warning.model_dump(mode="json")}
        emit_event(**_event("warning", night, {"nightlens.warning": warning.kind}, payload))


def _event(
    what: str, night: NightResult | NightFailure, labels: dict[str, str], payload: dict[str, Any]
) -> dict[str, Any]:
    """What `emit_event` takes."""
    resource = {
        "prefect.resource.id": f"nightlens.night.{night.night_id}",
        "prefect.resource.name": night.night_id,
        **labels,
    }
    flow_run = {"prefect.resource.id": f"prefect.flow-run.{night.flow_run_id}", "prefect.resource.role": "flow-run"}
    return {
        "event": f"nightlens.night.{what}",
        "resource": resource,
        "related": [flow_run] if night.flow_run_id else [],
        "payload": payload,
    }
