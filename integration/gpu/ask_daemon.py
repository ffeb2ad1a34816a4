"""Questions about the control daemon and its servers: faults, ends, answers byte for byte."""

import signal
import time

from kit import ask, brief, one, question, said, timed
from harness import wait_until
from sim_kit import send

DEAD = 999_999_999  # no process has this pid
MEMORY = ("512", "512M", "512MB", "1536M", "1.5G", "1Gi", "0M")


@question("What does get_server_status answer, byte for byte?")
def status(facts):
    node = facts.node()
    node.client()
    facts.note("a server with a client", repr(one(node, f"get_server_status {node.server()}")))
    facts.note("a pid that is no process", repr(one(node, f"get_server_status {DEAD}")))


@question("A client's fault: what the log says, what everybody sees, how long it takes")
def fault(facts):
    for kind in ("bad-address", "trap"):
        node = facts.node()
        watch = node.watch()
        facts.note(f"{kind}: NVML has events for", watch.first)
        culprit, victim = node.client(), node.client()
        server = node.server()
        at = len(node.server_lines())
        facts.note(f"{kind}: the culprit", f"{culprit.pid}, {brief(ask(culprit, f'fault {kind}'))}")
        facts.note(f"{kind}: a victim", f"{victim.pid}, {brief(ask(victim, 'launch 1'))}")
        facts.note(f"{kind}: NVML", said(watch, 5.0))
        facts.note(f"{kind}: status", one(node, f"get_server_status {server}"))
        facts.note(f"{kind}: a newcomer's cuInit", brief(said(node.probe(), 5.0)))
        facts.note(f"{kind}: clients", one(node, f"get_client_list {server}"))
        answer = one(node, f"terminate_client {server} {victim.pid}")
        facts.note(f"{kind}: terminate_client of the victim", answer)
        facts.note(f"{kind}: clients afterwards", one(node, f"get_client_list {server}"))
        culprit.kill()
        victim.kill()
        active = timed(
            lambda node=node, server=server: one(node, f"get_server_status {server}") == "ACTIVE",
            "ACTIVE",
        )
        facts.note(f"{kind}: ACTIVE again after their end", active)
        facts.note(f"{kind}: a newcomer's cuInit then", brief(said(node.probe())))
        facts.note(f"{kind}: the log", "\n".join(node.server_lines()[at:]))


@question("A kernel that never ends: what ends it?")
def hang(facts):
    node = facts.node()
    probe = node.client()
    probe.tell("hang")
    said(probe)
    server = node.server()
    facts.note("shutdown_server -f", one(node, f"shutdown_server {server} -f"))
    gone = timed(lambda: str(server) not in one(node, "get_server_list").split(), "it has ended")
    facts.note("the server is listed no more after", gone)
    facts.note("the client", brief(said(probe)))
    facts.note("a newcomer's cuInit", brief(said(node.probe())))


@question("Does a stopped (SIGSTOP) server hold up its control daemon?")
def server_stopped(facts):
    node = facts.node()
    node.client()
    server = node.server()
    send(server, signal.SIGSTOP)
    for line in ("get_server_list", f"get_server_status {server}", f"get_client_list {server}"):
        begun = time.monotonic()
        answer = node.commands(line, deadline=3.0)
        facts.note(line, f"{answer} after {(time.monotonic() - begun) * 1000:.1f} ms")
    newcomer = node.probe()
    facts.note("a newcomer's cuInit meanwhile", brief(said(newcomer, 2.0)))
    send(server, signal.SIGCONT)
    facts.note("the newcomer's cuInit afterwards", brief(said(newcomer)))


@question("A server that is killed: what do its clients see?")
def server_killed(facts):
    node = facts.node()
    probe = node.client()
    server = node.server()
    send(server)
    facts.note("a kernel of its client", brief(ask(probe, "launch 1")))
    facts.note("a newcomer's cuInit", brief(said(node.probe())))
    facts.note("the log", node.log_text().splitlines()[-6:])


@question("SIGTERM and SIGKILL to a control daemon that has a client: what goes on?")
def daemon_ended(facts):
    for number in (signal.SIGTERM, signal.SIGKILL):
        node = facts.node()
        probe = node.client()
        server = node.server()
        send(node.daemon.pid, number)
        facts.note(f"{number.name}: its status", node.daemon.wait())
        facts.note(f"{number.name}: a kernel of the client", brief(ask(probe, "launch 5")))
        probe.leave()
        facts.note(f"{number.name}: the server's end after its client's", ended(server))


def ended(pid):
    def gone():
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            return True

    return timed(gone, "it ends", 5.0)


@question("quit -t 1 with a client that runs a kernel: how long, and with what status?")
def quit_busy(facts):
    node = facts.node()
    probe = node.client()
    probe.tell("hang")
    said(probe)
    facts.note("answer", one(node, "quit -t 1"))
    facts.note("the daemon ended after", timed(lambda: node.daemon.poll() is not None, "ended"))
    facts.note("its status", node.daemon.poll())
    facts.note("the client", brief(said(probe)))


@question("Which forms of a memory limit are taken, also by UUID?")
def memory_forms(facts):
    node = facts.node()
    first = node.client()
    uuid = first.first["uuid"]
    for device in ("0", uuid):
        for value in MEMORY:
            one(node, f"set_default_device_pinned_mem_limit {device} {value}")
            answer = one(node, f"get_default_device_pinned_mem_limit {device}")
            facts.note(f"{device} {value}", repr(answer))
    one(node, "set_default_device_pinned_mem_limit 0 0M")
    one(node, f"set_default_device_pinned_mem_limit {uuid} 2048M")
    first.leave()
    one(node, f"shutdown_server {node.server()}")
    wait_until(lambda: one(node, "get_server_list") == "", "the server has ended")
    limit = node.client().first["memLimit"]
    facts.note("2048M by UUID, in the next server's client", f"{limit >> 20} MiB")
