"""The automation that finds runs whose machine died: no heartbeat for a while, and the server marks the run Crashed.

A worker marks a flow process that dies as Crashed by itself. Where the worker dies with it, nobody would, and the dead run
would hold its deployment's only slot: every later night would be cancelled in favour of one that does not run any more.
Flow processes send heartbeats as often as PREFECT_FLOWS_HEARTBEAT_FREQUENCY says in the environment of their worker.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["AUTOMATION", "HEARTBEAT_FREQUENCY_S", "WORK_POOL", "ensure_automation", "ensure_heartbeat_automation"]

AUTOMATION = "nightlens: runs whose heartbeats stop have crashed"
HEARTBEAT_FREQUENCY_S = 30  # the most often that Prefect allows
WORK_POOL = "nightlens"
MISSED_HEARTBEATS = 3
# A run that is Pending holds the slot as well, and its process has yet to send a heartbeat.
BEGUN = ("Pending", "heartbeat")
GOING_ON = (
    "Running",
    "heartbeat",
    "Completed",
    "Failed",
    "Cancelling",
    "Cancelled",
    "Crashed",
    "AwaitingRetry",
    "Paused",
)


def ensure_heartbeat_automation(client: "SyncPrefectClient", *, within_s: float) -> bool:
    """Makes the automation on the server, or corrects it where it differs; runs of other work pools are left alone.

    Returns whether it is switched on: one that a person switched off stays so.
    within_s: for how long no heartbeat may come, at least three times HEARTBEAT_FREQUENCY_S.
    Raises ValueError if that is less, which would have runs that are only slow marked as Crashed.
    """
    least = MISSED_HEARTBEATS * HEARTBEAT_FREQUENCY_S
    if not within_s >= least:
        raise ValueError(
            f"within_s must be at least {MISSED_HEARTBEATS} heartbeats of {HEARTBEAT_FREQUENCY_S} s, got {within_s:g} s; "
            f"use {least} or more"
        )
    return ensure_automation(client, _automation(within_s))


def ensure_automation(client: "SyncPrefectClient", wanted: AutomationCore) -> bool:
    """Makes an automation on the server, or corrects the one of its name where it differs; there is one afterwards.

    Returns whether it is switched on. Where `enabled` was not given to `wanted` that is left as it is.
    """
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return wanted.enabled
    first, *others = found
    for other in others:
        client.delete_automation(other.id)
    if AutomationCore(**first.model_dump(exclude={"id"})) != wanted:
        client.update_automation(first.id, wanted)
    return wanted.enabled if "enabled" in wanted.model_fields_set else first.enabled


def _automation(within_s: float) -> AutomationCore:
    return AutomationCore(
        name=AUTOMATION,
        description="A run whose worker died with it is never ended by anybody else, and would hold its slot for ever.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": ["work-pool"], "prefect.resource.name": [WORK_POOL]}
            ),
            for_each={"prefect.resource.id"},
            after={f"prefect.flow-run.{name}" for name in BEGUN},
            expect={f"prefect.flow-run.{name}" for name in GOING_ON},
            threshold=1,
            within=timedelta(seconds=within_s),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No heartbeat for {within_s:g} s: the flow's process and its worker are gone.",
            )
        ],
    )
