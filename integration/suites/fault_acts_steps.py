"""The supervisor killed at each step of a recovery: the moment the step's event is seen. The next
one goes on from there."""

import signal

from fault_kit import IGNORING, faults
from fault_table import WAIT, scenario
from sim_kit import send


def killed_at(kind, count=1, policies=None, ci=False, name=None):
    """Puts an act into the table that brings about this event; then the supervisor is killed."""

    def put(act):
        def whole(s):
            act(s)
            s.kill_supervisor_at(kind, count)

        whole.__name__ = name or f"killed_at_{act.__name__}"
        scenario(policies, ci=ci, killable=False)(whole)
        return act

    return put


def of_a_fault(kind, ci=False, prefix=()):
    def act(s):
        faults(s.clients(3, prefix=prefix)[0])

    killed_at(kind, ci=ci, name=f"killed_at_{kind}")(act)


of_a_fault("fault", ci=True)
for step in ("incident_opened", "incident_attributed", "fault_over", "incident_closed"):
    of_a_fault(step)
of_a_fault("fault_clients", prefix=IGNORING)  # else it may be over before MPS has ended them


@killed_at("client_terminated", 3, ci=True)
def the_third_client_of_eight_terminated(s):
    faults(s.clients(8, prefix=IGNORING)[0])  # who goes at once is not terminated


@killed_at("fault_clients_signalled")
def sigterm(s):
    faults(s.clients(2, prefix=IGNORING)[0])


@killed_at("fault_clients_signalled", 2)
def sigkill(s):
    faults(s.clients(2, prefix=IGNORING)[0])


@scenario(WAIT, killable=False)
def killed_at_waiting_for_clients(s):
    clients = s.clients(2)
    faults(clients[0])
    s.kill_supervisor_at("fault_clients")
    newcomers = s.waiting(2)
    s.leave(*clients)
    for probe in newcomers:
        assert s.answer(probe) == 0


@killed_at("fault_shutdown", ci=True)
def the_end_of_the_server(s):
    culprit, _ = s.clients(2)
    s.order("set recovery_fails 1")
    faults(culprit)


@killed_at("server_exited")
def the_servers_exit(s):
    culprit, _ = s.clients(2)
    s.order("set recovery_fails 1")
    faults(culprit)


def silent_in_its_fault(s):
    """Neither the server nor, while it waits for it, the control daemon answers."""
    culprit, _ = s.clients(2, prefix=IGNORING)  # else the fault may be over before
    faults(culprit)
    s.order("stop answering")


@killed_at("fault_restart")
def the_end_of_the_daemon(s):
    silent_in_its_fault(s)
    s.kill_supervisor()  # the next one has never had an answer of it
    s.start_supervisor()


@killed_at("control_exited")
def the_daemons_exit(s):
    silent_in_its_fault(s)


@killed_at("control_started", 2)
def the_next_daemons_start(s):
    silent_in_its_fault(s)


@killed_at("ready", 2)
def the_next_daemons_first_answer(s):
    silent_in_its_fault(s)


@killed_at("control_exited", policies=WAIT)
def a_daemons_death_in_the_fault(s):
    clients = s.clients(2)
    daemon = s.daemon()
    faults(clients[0])
    s.event("fault_clients")
    send(daemon, signal.SIGKILL)
    s.leave(*clients)


@scenario(WAIT, killable=False)
def killed_at_a_drain(s):
    clients = s.clients(2)
    faults(clients[0])
    s.event("fault_clients")
    s.ctl("drain", clients[0].instance)
    s.kill_supervisor_at("draining")  # and the next one does not know of it
    s.leave(*clients)
