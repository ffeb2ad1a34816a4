"""Scenarios about the clients: how many, whose policy says what, and who does not go."""

import signal

from fault_kit import IGNORING, PATIENCE, faults
from fault_table import MIXED, TERMINATE, WAIT, scenario
from sim_kit import send


# -- faults, with so many others --


def simple_fault(kind, others, ci):
    def act(s):
        culprit, *_ = s.clients(others + 1)
        s.clock()
        faults(culprit, kind)
        s.event("fault")

    act.__name__ = f"{kind.replace('-', '_')}_with_{others}_others"
    scenario(ci=ci)(act)


for others in (0, 1, 3, 20):
    simple_fault("bad-address", others, ci=others == 0)
    simple_fault("trap", others, ci=others == 3)


@scenario(killed_in_ci=True)
def twenty_newcomers_wait(s):
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    s.event("fault")
    for probe in s.waiting(20):
        assert s.answer(probe) == 0
        assert probe.ask("launch 1")["result"] == 0


@scenario(WAIT, killed_in_ci=True)
def twenty_newcomers_wait_for_clients_that_take_their_time(s):
    culprit, victim = s.clients(2)
    s.clock()
    faults(culprit)
    s.event("fault_clients")
    newcomers = s.waiting(20)
    assert all(probe.is_silent() for probe in newcomers)
    s.leave(culprit, victim)
    for probe in newcomers:
        assert s.answer(probe) == 0
        assert probe.ask("launch 1")["result"] == 0


@scenario()
def newcomers_that_are_killed_while_they_wait(s):
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    s.event("fault")
    for probe in s.waiting(10):
        send(probe.pid, signal.SIGKILL)


# -- policies --


@scenario(WAIT)
def clients_that_take_their_time(s):
    clients = s.clients(3)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    s.leave(*clients)


@scenario(MIXED, ci=True)
def some_are_ended_and_some_are_waited_for(s):
    culprit = s.client(prefix=s.inside_of["team-a"])
    waited_for = s.client(prefix=s.inside_of["team-b"])
    s.clock()
    faults(culprit)
    s.event("fault_clients")
    culprit.process.wait(timeout=PATIENCE)  # SIGTERM reaches it and nobody else
    assert waited_for.process.poll() is None
    s.leave(waited_for)


@scenario(MIXED)
def a_culprit_that_is_waited_for(s):
    victim = s.client(prefix=s.inside_of["team-a"])
    culprit = s.client(prefix=s.inside_of["team-b"])
    s.clock()
    faults(culprit)
    victim.process.wait(timeout=PATIENCE)
    assert culprit.process.poll() is None
    s.leave(culprit)


@scenario(WAIT)
def a_policy_that_changes_meanwhile(s):
    clients = s.clients(2)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    for name, text in TERMINATE.items():
        s.supervisor.policies.put(name, text)
    s.leave(*clients)  # they were told to take their time


@scenario(WAIT, ci=True)
def who_is_waited_for_is_terminated_by_hand(s):
    clients = s.clients(2)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    for client in clients:
        s.ctl("terminate", str(client.pid))
        send(client.pid, signal.SIGTERM)


# -- clients that do not go --


@scenario(ci=True)
def clients_that_ignore_sigterm(s):
    clients = [s.client(prefix=IGNORING) for _ in range(2)]
    s.clock()
    faults(clients[0])
    for client in clients:
        assert client.process.wait(timeout=PATIENCE) == -signal.SIGKILL


@scenario(ci=True)
def clients_that_are_stopped(s):
    culprit, victim = s.clients(2)
    s.clock()
    send(victim.pid, signal.SIGSTOP)
    faults(culprit)
    send(culprit.pid, signal.SIGSTOP)
    for client in (culprit, victim):
        client.process.wait(timeout=PATIENCE)


@scenario()
def a_culprit_that_is_gone_at_once(s):
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    send(culprit.pid, signal.SIGKILL)
    s.event("fault")


@scenario()
def clients_that_are_all_gone_at_once(s):
    clients = s.clients(4)
    s.clock()
    faults(clients[0])
    for client in clients:
        send(client.pid, signal.SIGKILL)
    s.event("fault")


@scenario()
def terminate_client_that_hangs(s):
    culprit, _ = s.clients(2)
    s.order("set terminate_hangs 1")
    s.clock()
    faults(culprit)
    s.event("fault")
