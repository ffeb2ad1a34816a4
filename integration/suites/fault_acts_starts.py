"""Scenarios about servers that do not start, a daemon that is wedged, whoever holds the channel,
words that are lost or come from the driver alone, and users that change."""

import signal

from fault_kit import IGNORING, PATIENCE, faults, shared
from fault_table import DEDICATED, SOON, TEAM_A, WAIT, scenario
from gate_kit import OTHER_UID, socket_inodes
from harness import wait_until
from sim_kit import send

ANOTHER_USER = {"user": OTHER_UID, "group": OTHER_UID, "extra_groups": []}


def only_incident(s):
    """Once it is over."""
    (incident,) = wait_until(lambda: len(s.truth.incidents()) == 1 and s.truth.incidents(), "one")
    return incident


# -- servers that do not start --


def mended(s):
    """One incident, however often it was tried; and it ends with the first server that starts."""
    s.check()
    incident = only_incident(s)
    assert incident["kind"] == "start_failure", incident
    assert incident["end"] == "serving", incident
    assert "no CUDA-capable device is detected" in incident["cause"], incident


@scenario(ci=True, end=mended)
def servers_that_do_not_start(s):
    s.steer("server_fails = 1")
    s.clock()
    for _ in range(3):
        assert s.answer(s.begin()) == 805
    s.event("server_start_failed")
    s.steer("server_fails = 0")


@scenario(WAIT)
def servers_that_do_not_start_after_a_fault(s):
    clients = s.clients(2)
    s.clock()
    faults(clients[0])
    s.event("fault_clients")
    s.steer("server_fails = 1")
    send(s.server(), signal.SIGKILL)
    s.leave(*clients)
    assert s.answer(s.begin()) in (805, 807)
    s.event("server_start_failed")
    s.steer("server_fails = 0")


@scenario()
def servers_that_take_their_time(s):
    culprit, _ = s.clients(2)
    s.steer("server_ready_ms = 1500")
    s.clock()
    faults(culprit)
    send(s.server(), signal.SIGKILL)


# -- the daemon, and who keeps it from answering --


@scenario(settings=SOON, ci=True, killable=False)
def a_wedged_daemon_that_nobody_needs(s):
    """It waits for a server that is silent; nobody is there for whom it would be spared. (The next
    supervisor would find the channel held by the last one's front-end, and spare it for ever.)"""
    s.leave(s.client())
    wait_until(lambda: s.ledger() == [], "nobody is there")
    daemon = s.daemon()
    s.order("stop answering")
    wait_until(lambda: daemon not in s.truth.daemons_of(shared()), "another one", PATIENCE)
    s.wait_state("ready")
    kinds = {one["kind"] for one in s.truth.incidents()}
    assert kinds <= {"wedged", "daemon_died", "server_died"}, kinds


@scenario(settings=SOON)
def a_silent_peer_at_the_daemon_in_the_fault(s):
    culprit, _ = s.clients(2)
    peer = s.supervisor.silent_peer(f"{s.supervisor.daemon_pipe()}/control")
    s.clock()
    faults(culprit)
    s.event("fault")
    peer.stdin.close()
    peer.wait(timeout=PATIENCE)


@scenario(settings={**SOON, "channelHolder": "end"}, ci=True)
def a_silent_peer_that_is_ended_in_the_fault(s):
    culprit, _ = s.clients(2)
    peer = s.supervisor.silent_peer(f"{s.supervisor.daemon_pipe()}/control")
    s.clock()
    faults(culprit)
    peer.wait(timeout=PATIENCE)


# -- words --


@scenario()
def a_fault_without_a_word_in_the_log(s):
    clients = s.clients(3)
    s.truth.may_miss = s.supervisor.backend.version == "535"  # nor can its server be asked
    s.order("lose 20")
    s.clock()
    faults(clients[0])
    if s.truth.may_miss:
        s.leave(*clients)


@scenario()
def a_log_of_which_the_end_is_lost(s):
    clients = s.clients(3)
    s.clock()
    faults(clients[0])
    s.order("lose 3")  # whatever comes next, of who goes
    s.event("fault")
    s.leave(*clients)


def has_xids(*numbers):
    def end(s):
        s.check()

        def listed():
            return {one["xid"] for one in only_incident(s)["xids"]} == set(numbers)

        wait_until(listed, f"Xids {numbers}")  # they may come later than what MPS says

    return end


@scenario(nvml=True, ci=True, killable=False, end=has_xids(13, 43, 45))
def the_driver_speaks_of_it_too(s):
    culprit, *_ = s.clients(3)
    s.clock()
    faults(culprit, "trap")
    s.event("fault")


@scenario(nvml=True, end=has_xids())
def xids_that_are_lost(s):
    culprit, *_ = s.clients(3)
    s.order("drop-xid 100")
    s.clock()
    faults(culprit, "trap")
    s.event("fault")


def unconfirmed(s):
    s.check()
    incident = only_incident(s)
    assert (incident["end"], incident["culprits"]) == ("unconfirmed", []), incident


@scenario(nvml=True, killable=False, end=unconfirmed)
def an_xid_that_is_somebody_elses(s):
    s.clients(2)
    s.order("xid 31")


@scenario(nvml=True)
def an_xid_long_before_the_fault(s):
    culprit, *_ = s.clients(3)
    s.order("xid 45")  # which by itself is nothing
    s.clock()
    faults(culprit)
    s.event("fault")


# -- users, domains, and kernels that do not end --


@scenario(settings={"uidConflict": "wait"}, ci=True)
def another_user_comes_in_the_fault(s):
    culprit, _ = s.clients(2)
    other = s.begin(**ANOTHER_USER)
    wait_until(lambda: socket_inodes(other.pid), "it has come")
    s.clock()
    faults(culprit)
    assert s.answer(other) == 0
    assert other.ask("launch 1")["result"] == 0
    s.leave(other)


@scenario(settings={"uidConflict": "wait"})
def another_users_fault(s):
    culprit = s.begin(**ANOTHER_USER)
    assert s.answer(culprit) == 0
    s.clock()
    faults(culprit, "trap")
    newcomer = s.client()
    assert newcomer.ask("launch 1")["result"] == 0


def check_shared(s):
    s.check([shared()])


@scenario(DEDICATED, also=(TEAM_A,), end=check_shared)
def in_the_shared_instance_beside_a_dedicated_one(s):
    other = s.client(TEAM_A, s.inside_of["team-a"])
    culprit, _ = s.clients(2)
    s.clock()
    faults(culprit)
    s.event("incident_closed")
    assert other.ask("launch 1")["result"] == 0


@scenario()
def a_hung_kernel_of_one_that_does_not_go(s):
    culprit, hanging = s.client(), s.client(prefix=IGNORING)
    assert hanging.ask("hang")["result"] == 0
    s.order("set terminate_hangs 1")
    s.clock()
    faults(culprit)
    assert hanging.process.wait(timeout=PATIENCE) in (0, -signal.SIGKILL)


@scenario()
def clients_that_come_and_go_in_the_fault(s):
    culprit, *others = s.clients(4)
    s.clock()
    faults(culprit)
    for other in others:
        send(other.pid, signal.SIGKILL)
        s.waiting(1)
    for probe in s.programs[-3:]:
        assert s.answer(probe) == 0
