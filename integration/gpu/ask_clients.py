"""Questions about clients: what a gate and limits are for them, and what they survive."""

import os
import re
import signal

from kit import ask, brief, one, question, said, timed
from sim_kit import Lines, send
from harness import OPTIONS, processes

PERCENTAGES = (1, 2, 3, 5, 7.5, 10, 15, 20, 25, 33, 50, 66, 75, 90, 99, 100)
ENVIRONMENTS = (
    ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", ("0", "-5", "abc", "150", "12.5", "25%")),
    ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", ("0=1G", "0=512M", "0=512", "0=1Gi", "0=zz", "1G")),
)
MOST_CLIENTS = 72


@question("Does the gate carry a client through to real work?")
def gate_carries(facts):
    supervisor = facts.gated()
    probe = facts.through_share(supervisor)
    first = said(probe)
    facts.note("cuInit", brief(first))
    facts.note("cuInit took", f"{first.get('cuInitMicroseconds', 0) / 1000:.1f} ms")
    facts.note("its context", first.get("cuCtxCreate"))
    facts.note("a kernel of 5 ms", brief(ask(probe, "launch 5")))
    facts.note("256 MiB", brief(ask(probe, "alloc 256")))
    facts.note("servers that MPS lists", supervisor.ask_daemon("get_server_list").split())
    facts.note("it is listed", probe.pid in {c["pid"] for c in supervisor.get("/v1/clients")})


@question("Does a client keep its connection to the gate once its server has it?")
def gate_connection(facts):
    supervisor = facts.gated()
    probe = facts.through_share(supervisor)
    facts.note("cuInit", brief(said(probe)))
    facts.note("connections at the share", supervisor.at_the_share())
    facts.note("descriptors of the gate", len(os.listdir(f"/proc/{supervisor.gate_pid()}/fd")))


@question("What happens to clients when the gate dies, and to newcomers?")
def gate_dies(facts):
    supervisor = facts.gated()
    probe = facts.through_share(supervisor)
    said(probe)
    send(supervisor.gate_pid())
    facts.note("a kernel of the client afterwards", brief(ask(probe, "launch 5")))
    newcomer = facts.through_share(supervisor)
    facts.note("a newcomer's cuInit", brief(said(newcomer)))
    facts.note("a kernel of the newcomer", brief(ask(newcomer, "launch 5")))
    facts.note("a kernel of the client, once more", brief(ask(probe, "launch 5")))


@question("What happens to clients when the supervisor dies, and to newcomers?")
def supervisor_dies(facts):
    supervisor = facts.gated()
    probe = facts.through_share(supervisor)
    said(probe)
    supervisor.kill9()
    facts.note("a kernel of the client meanwhile", brief(ask(probe, "launch 5")))
    newcomer = facts.through_share(supervisor)
    facts.note("a newcomer meanwhile", brief(said(newcomer, 2.0)))
    supervisor.start(wait_ready=["gpu0.shared"])
    facts.note("the newcomer afterwards", brief(said(newcomer)))
    facts.note("a kernel of the client afterwards", brief(ask(probe, "launch 5")))


def changed_between(facts, what, before, after, read):
    """A client whose server's limit changes after its cuInit and before its context."""
    node = facts.node()
    first = node.client()  # so that a server is there
    server = node.server()
    one(node, before.format(server=server))
    probe = node.program("mps-probe", "--commands", "--context-on-input")
    said(probe)
    one(node, after.format(server=server))
    facts.note(f"{what}: changed between cuInit and the context", read(ask(probe, "go")))
    late = node.client()
    facts.note(f"{what}: one that came after the change", read(late.first))
    facts.note(f"{what}: one that was there before", read(first.first))


@question("When do a server's limits become a client's: at its connection, or with its context?")
def limits_moment(facts):
    changed_between(
        facts,
        "percentage, from 50 to 25",
        "set_active_thread_percentage {server} 50",
        "set_active_thread_percentage {server} 25",
        lambda found: f"{found.get('smCount')} SMs",
    )
    changed_between(
        facts,
        "memory, from 8192M to 4096M",
        "set_device_pinned_mem_limit {server} 0 8192M",
        "set_device_pinned_mem_limit {server} 0 4096M",
        lambda found: f"{found.get('memLimit', 0) >> 20} MiB",
    )


@question("How many SMs does a percentage give?")
def sm_counts(facts):
    node = facts.node()
    node.client()
    server = node.server()
    for percentage in PERCENTAGES:
        one(node, f"set_active_thread_percentage {server} {percentage}")
        probe = node.client()
        facts.note(f"{percentage} %", probe.first["smCount"])
        probe.leave()


@question("What do values in a client's environment do, odd ones too?")
def environments(facts):
    node = facts.node()
    facts.note("none", seen_by(node))
    for name, values in ENVIRONMENTS:
        for value in values:
            facts.note(f"{name}={value}", seen_by(node, **{name: value}))
    one(node, f"set_active_thread_percentage {node.server()} 50")
    one(node, f"set_device_pinned_mem_limit {node.server()} 0 4096M")
    facts.note("none, where the server has 50 % and 4096M", seen_by(node))
    for percentage, memory in (("25", "0=1G"), ("100", "0=8G")):
        values = (percentage, memory)
        asked = dict(zip((name for name, _ in ENVIRONMENTS), values, strict=True))
        facts.note(f"{percentage} and {memory} there", seen_by(node, **asked))


def seen_by(node, **environment):
    probe = Lines(
        [OPTIONS.build / "bin/mps-probe", "--commands"], {**node.environment, **environment}
    )
    node.helpers.append(probe)
    found = said(probe)
    probe.leave()
    if found.get("cuInit") != 0:
        return f"cuInit {brief(found)}"
    return f"{found['smCount']} SMs, {found['memLimit'] >> 20} MiB"


@question("Does a client work from namespaces of its own, and with a /dev/shm of its own?")
def namespaces(facts):
    node = facts.node()
    node.client()
    for flags in (["--ipc"], ["--pid", "--fork"], ["--mount"], ["--user", "--map-root-user"]):
        probe = prefixed(node, "unshare", *flags)
        found = said(probe)
        facts.note(" ".join(flags), brief(found))
        facts.note(f"{' '.join(flags)}: a kernel", brief(ask(probe, "launch 1")))
    shell = 'mount -t tmpfs none /dev/shm && exec "$@"'
    probe = prefixed(node, "unshare", "--mount", "sh", "-c", shell, "sh")
    facts.note("a /dev/shm of its own", brief(said(probe)))
    facts.note("a /dev/shm of its own: a kernel", brief(ask(probe, "launch 1")))
    facts.note("pids in the daemon's log", re.findall(r"NEW CLIENT (\d+)", node.log_text()))


def prefixed(node, *prefix):
    probe = Lines([*prefix, OPTIONS.build / "bin/mps-probe", "--commands"], node.environment)
    node.helpers.append(probe)
    return probe


@question("How many clients does a server take, and what does the next one get?")
def client_slots(facts):
    node = facts.node()
    for count in range(MOST_CLIENTS):
        probe = node.probe()
        found = said(probe)
        if (found.get("cuInit"), found.get("cuCtxCreate")) != (0, 0):
            facts.note("clients that were in", count)
            facts.note("the next one", f"cuInit {brief(found)}, context {found.get('cuCtxCreate')}")
            return
    facts.note("clients that were in, and no end of it", MOST_CLIENTS)


@question("What does SIGKILL of a busy client do to its neighbour?")
def busy_client_killed(facts):
    node = facts.node()
    busy, neighbour = node.client(), node.client()
    busy.tell("hang")
    said(busy)
    send(busy.pid)
    facts.note("a kernel of the neighbour", brief(ask(neighbour, "launch 5")))
    gone = timed(lambda: str(busy.pid) not in listed(node), "it is listed no more")
    facts.note("MPS lists the killed one no more after", gone)
    facts.note("status of the server", one(node, f"get_server_status {node.server()}"))
    facts.note("a newcomer's cuInit", brief(said(node.probe())))


def listed(node):
    return one(node, f"get_client_list {node.server()}").split()


@question("What does an ended client (terminate_client) see, and how long does it take?")
def terminated(facts):
    node = facts.node()
    idle, busy = node.client(), node.client()
    busy.tell("hang")
    said(busy)
    for name, probe in (("idle", idle), ("busy", busy)):
        answers = []
        line = f"terminate_client {node.server()} {probe.pid}"
        took = timed(lambda line=line: answers.append(one(node, line)) or True, "answered")
        facts.note(f"{name}: answered {answers}, after", took)
        facts.note(f"{name}: it is listed still", str(probe.pid) in listed(node))
        facts.note(f"{name}: in ps", str(probe.pid) in one(node, "ps"))
    facts.note("idle: its next call", brief(ask(idle, "launch 1")))
    facts.note("busy: its kernel's end", brief(said(busy)))


@question("Does a stopped client hold up MPS?")
def client_stopped(facts):
    node = facts.node()
    stopped, other = node.client(), node.client()
    send(stopped.pid, signal.SIGSTOP)
    facts.note("a kernel of another", brief(ask(other, "launch 5")))
    facts.note("a newcomer's cuInit", brief(said(node.probe())))
    facts.note("terminate_client", one(node, f"terminate_client {node.server()} {stopped.pid}"))
    send(stopped.pid, signal.SIGCONT)
    facts.note("processes left of it", sum(pid == stopped.pid for pid, *_ in processes()))
