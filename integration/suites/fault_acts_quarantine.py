"""Scenarios about who is kept out: by policy or by hand, a workload or its namespace, over
restarts, until it is lifted or its time is over; and nobody on a mere suspicion."""

import time

from fault_kit import PATIENCE, faults
from fault_table import quarantine, scenario
from harness import wait_until

NAMESPACE = "user:root"  # whoever plays this, outside of all containers
OTHER_WORKLOAD = ("--device", "0")  # another command line


def is_kept_out(s, arguments=()):
    """A supervisor that is killed may have refused it and not said so: then it comes again."""
    mark = s.supervisor.events.last_id()

    def refused():
        assert s.answer(s.begin(arguments=arguments)) == 805
        time.sleep(0.05)
        new = (e for e in s.supervisor.events.of("refused") if e["id"] > mark)
        return any(", quarantined: " in event["message"] for event in new)

    wait_until(refused, "it is said that it is kept out")


def entries(s, count):
    """Their ids, once there are as many."""

    def ids():
        found = [entry["id"] for entry in s.get("/v1/quarantine")]
        return [found] if len(found) == count else None

    return wait_until(ids, f"{count} are kept out")[0]


def lift(s, entry):
    status, _, error = s.ctl("quarantine", "remove", entry)
    assert status == 0, error
    s.supervisor.events.wait("quarantine_lifted", deadline=PATIENCE)


def fault_alone(s, arguments=()):
    """A fault of whose doing there is no doubt; over."""
    count = len(s.supervisor.events.of("incident_closed"))
    faults(s.client(arguments=arguments))
    s.event("incident_closed", count + 1)


@scenario(quarantine(2), ci=True, killable=False)
def a_workload_is_kept_out_by_policy(s):
    for _ in range(2):
        fault_alone(s)
    (entry,) = entries(s, 1)
    is_kept_out(s)
    s.leave(s.client(arguments=OTHER_WORKLOAD))
    s.kill_supervisor()
    s.start_supervisor()
    assert entries(s, 1) == [entry]
    is_kept_out(s)
    lift(s, entry)


@scenario(quarantine(2), killable=False)
def a_namespace_is_kept_out_whose_workloads_come_to_as_many(s):
    for arguments in ((), OTHER_WORKLOAD):
        fault_alone(s, arguments)
    (entry,) = entries(s, 1)
    is_kept_out(s)
    is_kept_out(s, OTHER_WORKLOAD)
    is_kept_out(s, ("--device", "0", "--device", "0"))  # one that has never been here
    lift(s, entry)


@scenario(quarantine(2), killable=False)
def a_fault_before_a_restart_counts(s):
    fault_alone(s)
    s.kill_supervisor()
    s.start_supervisor()
    fault_alone(s)
    (entry,) = entries(s, 1)
    lift(s, entry)


@scenario(quarantine(1), ci=True)
def nobody_is_kept_out_on_a_suspicion(s):
    culprit, *_ = s.clients(3)
    s.clock()
    faults(culprit, "trap")  # which MPS puts down to nobody
    s.event("incident_closed")


@scenario(quarantine(1, onSuspicion=True), killable=False, ci=True)
def suspects_are_kept_out_where_the_policy_says_so(s):
    culprit, *_ = s.clients(3)
    faults(culprit, "trap")
    (entry,) = entries(s, 1)
    is_kept_out(s)
    lift(s, entry)


@scenario(ci=True)
def a_namespace_is_kept_out_by_hand(s):
    inside = s.client()
    status, out, error = s.ctl(
        "quarantine", "add", "--namespace", NAMESPACE, "--for", "8h", "--reason", "a test"
    )
    assert status == 0, error
    (entry,) = entries(s, 1)
    s.clock()
    is_kept_out(s)
    assert inside.ask("launch 1")["result"] == 0  # who is in goes on
    lift(s, entry)


@scenario(killable=False)
def a_quarantine_ends_by_itself_also_while_nobody_looks(s):
    for is_killed in (False, True):
        status, _, error = s.ctl(
            "quarantine", "add", "--namespace", NAMESPACE, "--for", "1s", "--reason", "a test"
        )
        assert status == 0, error
        if is_killed:
            s.kill_supervisor()
            s.start_supervisor()
        entries(s, 0)
        s.leave(s.client())
