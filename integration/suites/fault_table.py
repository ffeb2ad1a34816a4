"""The table of fault_scenarios.py: what a scenario is, and the policies that they have.

An act calls clock() when its clients are in: from then on the supervisor may be killed. What it does
after that must not need one that lives. (A new one may find a fault over, and say
`ready` and `incident_closed` where the last one would have said `fault_over`.)
"""

import dataclasses
import typing

from fault_kit import WAITS, Stage
from gate_kit import for_everybody
from harness import policy

TERMINATE = for_everybody()
WAIT = for_everybody(**WAITS)
MIXED = {
    **TERMINATE,
    "team-a.yaml": policy("team-a"),
    "team-b.yaml": policy("team-b", **WAITS),
}
DEDICATED = {**TERMINATE, "team-a.yaml": policy("team-a", 50, "4Gi", isolation="dedicated")}
TEAM_A = "gpu0.ns-team-a"
SOON = {"probe": {"interval": "200ms", "timeout": "500ms", "failures": 3}}
FEW_STARTS = {
    "backoff": {
        "initial": "10ms",
        "max": "50ms",
        "budget": {"failures": 2, "within": "10m"},
    }
}

SCENARIOS = []


@dataclasses.dataclass
class Scenario:
    name: str
    policies: dict
    act: typing.Callable
    end: typing.Callable = Stage.check
    devices: int = 1
    ci: bool = False  # besides being played with --full
    killable: bool = True  # it makes sense with a supervisor that is killed
    killed_in_ci: bool = False
    also: tuple = ()  # instances that are there besides the devices' shared ones
    nvml: bool = False  # the driver's word is there, too
    settings: dict = dataclasses.field(default_factory=dict)


def scenario(policies=None, settings=None, **others):
    """Puts an act into the table."""

    def put(act):
        made = Scenario(act.__name__, policies or TERMINATE, act, settings=settings or {}, **others)
        SCENARIOS.append(made)
        return act

    return put


def quarantine(after, **more):
    """Policies that keep out who faults that often."""
    return for_everybody(
        onFault={"quarantine": {"after": after, "within": "10m", "for": "15m", **more}}
    )


def needs_groups(one):
    return one.policies in (MIXED, DEDICATED)
