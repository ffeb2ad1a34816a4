"""Scenarios about MPS's own processes: servers, control daemons, and gates that fail in a fault."""

import signal
import time

from fault_kit import IGNORING, PATIENCE, faults
from fault_table import SOON, WAIT, scenario
from sim_kit import send


# -- the server --


@scenario(ci=True)
def a_server_that_dies_before_its_fault_is_noticed(s):
    culprit, _ = s.clients(2)
    server = s.server()
    s.clock()
    faults(culprit)
    send(server, signal.SIGKILL)


@scenario(WAIT, killed_in_ci=True)
def a_server_that_dies_in_its_fault(s):
    clients = s.clients(2)
    server = s.server()
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    send(server, signal.SIGKILL)
    s.wait_state("ready")


@scenario(ci=True)
def a_server_that_dies_without_a_fault(s):
    clients = s.clients(3)
    s.clock()
    s.order("die signal 11")
    for client in clients:
        assert client.ask("launch 1")["result"] == 806


@scenario()
def a_server_that_dies_after_its_fault(s):
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    s.event("incident_closed")
    send(s.server(), signal.SIGKILL)


@scenario()
def a_server_that_does_not_recover(s):
    culprit, _ = s.clients(2)
    s.order("set recovery_fails 1")
    s.clock()
    faults(culprit)
    s.event("fault_shutdown")


@scenario()
def a_server_that_takes_three_seconds_to_recover(s):
    culprit, _ = s.clients(2)
    s.order("set recovery_ms 3000")
    s.clock()
    faults(culprit)
    s.event("fault")


@scenario()
def a_slow_server(s):
    clients = s.clients(4)
    s.order("slow 200")
    s.clock()
    faults(clients[0])
    s.event("fault")


@scenario(settings=SOON)
def a_server_that_stops_answering(s):
    s.clients(2)
    s.clock()
    s.order("stop answering")
    s.restarted()


@scenario(settings=SOON)
def a_server_that_answers_again(s):
    s.clients(2)
    server = s.server()
    s.clock()
    s.order("stop answering")
    time.sleep(s.random.uniform(0, 1))  # as long as it happens to be
    s.order("answer again", server=server)


@scenario(settings=SOON)
def a_server_that_stops_answering_in_its_fault(s):
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    s.order("stop answering")
    s.event("fault")


@scenario(ci=True)
def out_of_memory(s):
    first, second = s.clients(2)
    s.clock()
    s.order("out-of-memory on")
    assert first.ask("alloc 64")["result"] == 2
    newcomer = s.begin()
    s.answer(newcomer)
    s.order("out-of-memory off")
    assert second.ask("launch 1")["result"] == 0


@scenario()
def out_of_memory_in_a_fault(s):
    culprit, _ = s.clients(2)
    s.clock()
    s.order("out-of-memory on")
    faults(culprit)
    s.event("fault")
    s.order("out-of-memory off")


# -- the daemon --


@scenario()
def a_daemon_that_dies_before_the_fault_is_noticed(s):
    culprit, _ = s.clients(2)
    daemon = s.daemon()
    s.clock()
    faults(culprit)
    send(daemon, signal.SIGKILL)


@scenario()
def a_daemon_that_dies_while_clients_are_ended(s):
    clients = s.clients(8, prefix=IGNORING)  # who goes at once is not terminated
    daemon = s.daemon()
    s.clock()
    faults(clients[0])
    s.event("client_terminated", 3)
    send(daemon, signal.SIGKILL)


@scenario(WAIT, killed_in_ci=True)
def a_daemon_that_dies_while_clients_are_waited_for(s):
    clients = s.clients(2)
    daemon = s.daemon()
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    send(daemon, signal.SIGKILL)
    s.event("ready", 2)
    s.leave(*clients)


@scenario()
def a_daemon_that_dies_while_its_server_is_ended(s):
    culprit, _ = s.clients(2)
    daemon = s.daemon()
    s.order("set recovery_fails 1")
    s.clock()
    faults(culprit)
    s.event("fault_shutdown")
    send(daemon, signal.SIGKILL)


@scenario()
def a_daemon_that_dies_after_the_fault(s):
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    s.event("incident_closed")
    send(s.daemon(), signal.SIGKILL)


@scenario(settings=SOON)
def a_daemon_that_is_stopped_before_the_fault(s):
    clients = s.clients(2)
    daemon = s.daemon()
    s.clock()
    send(daemon, signal.SIGSTOP)
    s.truth.may_miss = True  # what the server says of it comes through the daemon, and ends with it
    faults(clients[0])
    s.leave(*clients)


@scenario(WAIT, settings=SOON)
def a_daemon_that_is_stopped_in_the_fault(s):
    clients = s.clients(2)
    daemon = s.daemon()
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    send(daemon, signal.SIGSTOP)
    s.leave(*clients)


@scenario(settings=SOON)
def a_daemon_that_goes_on_in_the_fault(s):
    culprit, _ = s.clients(2)
    daemon = s.daemon()
    s.clock()
    send(daemon, signal.SIGSTOP)
    faults(culprit)
    time.sleep(s.random.uniform(0, 3))  # as long as it happens to be
    send(daemon, signal.SIGCONT)


@scenario()
def a_command_session_that_is_held_in_the_fault(s):
    culprit, _ = s.clients(2)
    session = s.supervisor.hold_session()
    s.clock()
    faults(culprit)
    s.event("fault")
    session.stdin.close()
    session.wait(timeout=PATIENCE)


@scenario(WAIT)
def a_gate_that_dies_in_the_fault(s):
    clients = s.clients(2)
    gate = s.supervisor.gate_pid()
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    send(gate, signal.SIGKILL)
    s.leave(*clients)
