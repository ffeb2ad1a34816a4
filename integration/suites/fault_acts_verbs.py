"""Scenarios about what else happens meanwhile: verbs, changes, other faults, hung kernels, bad logs."""

import contextlib
import signal

from fault_kit import PATIENCE, faults, meets_error, shared
from fault_table import DEDICATED, FEW_STARTS, SCENARIOS, SOON, TEAM_A, WAIT, scenario
from harness import policy, wait_until
from sim_kit import send


# -- verbs and changes meanwhile --


def undrained(s):
    """However far it is: what is being ended can be undrained only when it has ended."""
    wait_until(
        lambda: s.ctl("undrain", shared())[0] == 0 or s.state() == "ready",
        "it is undrained",
        200,
    )
    s.check()


@scenario(ci=True, end=undrained)
def a_fault_while_it_drains(s):
    culprit, _ = s.clients(2)
    assert s.ctl("drain", shared())[0] == 0
    s.clock()
    faults(culprit)
    s.drained()


@scenario(WAIT, end=undrained)
def a_drain_in_the_fault(s):
    clients = s.clients(2)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    s.ctl("drain", shared())
    s.leave(*clients)
    s.drained()


@scenario(WAIT)
def drained_and_undrained_in_the_fault(s):
    clients = s.clients(2)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    s.ctl("drain", shared())
    s.ctl("undrain", shared())
    s.leave(*clients)
    undrained(s)


@scenario(ci=True)
def a_fault_while_it_starts(s):
    s.kill_supervisor()
    send(s.daemon(), signal.SIGKILL)
    s.start_supervisor()
    culprit = s.client()
    s.clock()
    faults(culprit)


@scenario(killable=False)
def a_fault_while_the_supervisor_is_away(s):
    culprit, _ = s.clients(2)
    s.kill_supervisor()
    faults(culprit)
    s.start_supervisor()
    s.event("fault")


@scenario(WAIT, killable=False)
def a_fault_that_is_over_while_the_supervisor_is_away(s):
    clients = s.clients(2)
    s.kill_supervisor()
    faults(clients[0])
    s.leave(*clients)
    s.start_supervisor()


@scenario(WAIT, killable=False)
def a_supervisor_that_is_ended_as_asked_in_the_fault(s):
    clients = s.clients(2)
    faults(clients[0])
    s.event("fault_clients")
    s.supervisor.terminate()
    s.start_supervisor()
    s.leave(*clients)


@scenario(ci=True)
def limits_that_change_meanwhile(s):
    culprit, _ = s.clients(2)
    s.clock()
    for percentage in (20, 30, 40):
        for number, kind in enumerate(("*", "docker:*", "unit:*", "user:*")):
            s.supervisor.policies.put(f"{number}.yaml", policy(kind, percentage=percentage))
        if percentage == 20:
            faults(culprit)
    wait_until(lambda: limits_of(s) == (40, True), "the last limits", 200)


def limits_of(s):
    shown = s.get(f"/v1/instances/{shared()}")["limits"]
    return shown["activeThreadPercentage"], shown["confirmed"]


@scenario(ci=True, settings={"hardLimits": "on"})
def with_hard_limits(s):
    clients = [s.client() for _ in range(3)]
    s.clock()
    faults(clients[0])
    s.event("fault")
    for probe in s.waiting(3):
        assert s.answer(probe) == 0


@scenario(DEDICATED, ci=True, also=(TEAM_A,))
def in_a_dedicated_instance(s):
    culprit = s.client(TEAM_A, s.inside_of["team-a"])
    other = s.client()
    servers = s.servers()
    s.clock()
    faults(culprit)
    s.event("fault", name=TEAM_A)
    s.wait_state("ready", name=TEAM_A)
    assert other.ask("launch 1")["result"] == 0
    assert s.servers() == servers
    newcomer = s.client(TEAM_A, s.inside_of["team-a"])
    assert newcomer.ask("launch 1")["result"] == 0
    s.leave(newcomer)


def check_shared(s):
    """The dedicated one lets its own namespace in, and nobody else."""
    s.check([shared()])


SCENARIOS[-1].end = check_shared


@scenario(ci=True, settings={"gate": "off"})
def without_a_gate(s):
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    s.event("fault")


@scenario(WAIT)
def a_restart_by_force_in_the_fault(s):
    clients = s.clients(2)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    s.restarted()


@scenario(WAIT)
def a_restart_that_is_refused_in_the_fault(s):
    clients = s.clients(2)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    s.ctl("restart", shared())
    s.leave(*clients)


@scenario(settings=FEW_STARTS, killable=False)
def a_daemon_that_cannot_be_started_again(s):
    culprit, _ = s.clients(2)
    s.supervisor.break_control()
    faults(culprit)
    send(s.daemon(), signal.SIGKILL)
    s.wait_state("failed")
    assert s.get(f"/v1/instances/{shared()}")["lastError"]
    s.supervisor.mend_control()
    assert s.ctl("restart", shared())[0] == 0


# -- more than one --


@scenario(WAIT)
def a_fault_in_a_recovery(s):
    clients = s.clients(3)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    s.order(f"fault {clients[1].pid} trap")
    s.leave(*clients)


@scenario(ci=True)
def ten_faults_in_a_second(s):
    clients = s.clients(10)
    s.clock()
    for client in clients:
        with contextlib.suppress(BrokenPipeError):  # it was asked to go already
            client.tell("fault bad-address")
    for client in clients:
        meets_error(client)
    s.event("fault")


@scenario()
def three_faults_one_after_another(s):
    s.clock()
    for _ in range(3):
        faults(s.client())


@scenario(ci=True, devices=3)
def other_devices_never_notice(s):
    others = [s.client(shared(device)) for device in (1, 2)]
    culprit, _ = s.clients(2)
    s.clock()
    mark = s.supervisor.events.last_id()
    for other in others:
        other.tell("loop 0 1")
    faults(culprit)
    s.event("incident_closed")
    for other in others:
        assert other.is_silent() or other.said()["result"] == 0
        other.tell("memory")
        assert other.said()["result"] == 0
    ours = ("fault", "fault_clients", "fault_over", "server_exited", "control_exited")
    seen = [e for e in s.supervisor.events.seen if e["id"] > mark and e["kind"] in ours]
    assert {e["instance"] for e in seen} == {shared()}, seen


@scenario(devices=3)
def three_devices_at_once(s):
    culprits = [s.clients(3, shared(device))[0] for device in range(3)]
    s.clock()
    for culprit in culprits:
        culprit.tell("fault trap")
    for device in range(3):
        s.event("fault", name=shared(device))


# -- hung kernels, logs --


@scenario(ci=True)
def a_hung_kernel_is_terminated(s):
    hanging, other = s.clients(2)
    assert hanging.ask("hang")["result"] == 0
    s.clock()
    wait_until(lambda: s.ctl("terminate", str(hanging.pid)) and not hanging.is_silent(), "it ends")
    assert hanging.said()["result"] == 810
    assert other.ask("launch 1")["result"] == 0


@scenario()
def a_hung_kernel_in_a_fault(s):
    culprit, hanging, _ = s.clients(3)
    hanging.ask("hang")
    s.clock()
    faults(culprit)
    meets_error(hanging)


@scenario(settings=SOON)
def a_busy_client_that_is_killed_and_hangs_its_server(s):
    busy, _ = s.clients(2)
    s.order("set kill_busy_hangs 1")
    busy.ask("start 60000")
    s.clock()
    send(busy.pid, signal.SIGKILL)
    s.restarted()


@scenario(ci=True)
def a_log_that_is_garbled(s):
    clients = s.clients(3)
    s.truth.may_miss = True  # 535 has no other word of it
    s.order("garble 6")
    s.clock()
    faults(clients[0])
    s.leave(*clients)


@scenario()
def a_log_that_is_garbled_where_the_server_can_be_asked(s):
    if s.supervisor.backend.version == "535":
        return
    culprit, _ = s.clients(2)
    s.order("garble 6")
    s.clock()
    faults(culprit)


@scenario()
def a_client_that_exits_badly(s):
    bad, other = s.clients(2)
    s.clock()
    bad.ask("exit-badly")
    bad.process.wait(timeout=PATIENCE)
    assert other.ask("launch 1")["result"] == 0


@scenario()
def a_fault_of_one_that_ran_out_of_its_turn(s):
    """Ordered of the server, of a client that does nothing."""
    idle, other = s.clients(2)
    s.clock()
    s.order(f"fault {idle.pid}")
    s.event("fault")
    with contextlib.suppress(BrokenPipeError):  # it may have been asked to go
        other.tell("memory")
    meets_error(other, (700, 810))
