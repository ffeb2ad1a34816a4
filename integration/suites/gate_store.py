"""Gate and supervisor are dead at the same time, and the service manager's store has the sockets.

The store is a small one of ours that does what systemd's does: sd_notify(3), FDSTORE=1.
"""

import json
import os
import pathlib
import re
import select
import signal
import socket
import threading

import gate_chaos
import harness
from gate_kit import SHARED, WITHOUT_MPS, GateSuite, socket_inodes
from harness import PYTHON, wait_until

NAME = f"gate/{SHARED}/open"
# As systemd starts a service: descriptors from 3 on, and the variables that say what they are.
LAUNCH = """
import fcntl, os, sys
names, count = sys.argv[1], int(sys.argv[2])
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 1000) for fd in sys.argv[3 : 3 + count]]
os.closerange(3, 1000)
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=names)
os.execv(sys.argv[3 + count], sys.argv[3 + count :])
"""


class Store(threading.Thread):
    MOST = 1024

    def __init__(self, path):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.lock = threading.Lock()
        self.kept = []  # (name, descriptor)
        self.trouble = []
        self.ended = False
        self.start()

    def run(self):
        while True:
            text, descriptors, flags, _ = socket.recv_fds(self.socket, 4096, 8)
            if self.ended:
                return
            with self.lock:
                self.hear(text.decode().split("\n"), descriptors)

    def hear(self, lines, descriptors):
        name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "stored")
        if len(name) > 255 or not re.fullmatch(r"[ -9;-~]+", name):
            self.trouble.append(f"a bad name: {lines}")
        if "FDSTORE=1" in lines:
            if len(descriptors) != 1 or len(self.kept) >= self.MOST:
                self.trouble.append(f"{len(descriptors)} with {lines}, {len(self.kept)} before")
            self.kept += [(name, descriptor) for descriptor in descriptors]
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if "FDSTOREREMOVE=1" in lines:
            for _, descriptor in [one for one in self.kept if one[0] == name]:
                os.close(descriptor)
            self.kept = [one for one in self.kept if one[0] != name]

    def all(self):
        with self.lock:
            return list(self.kept)

    def inodes(self, name=NAME):
        return [os.fstat(fd).st_ino for known, fd in self.all() if known == name]

    def put(self, name, descriptor):
        with self.lock:
            self.kept.append((name, descriptor))

    def empty(self):
        with self.lock:
            for _, descriptor in self.kept:
                os.close(descriptor)
            self.kept = []

    def close(self):
        self.ended = True
        self.empty()
        wake = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        wake.connect(self.socket.getsockname())
        wake.send(b"")
        self.join(timeout=harness.DEADLINE)
        wake.close()
        self.socket.close()


class Managed:
    """A supervisor as the manager starts it, with what it has stored. Before GateSuite."""

    store = None  # of the one supervisor of the test

    def supervisor(self, policies=None, **settings):
        made = super().supervisor(policies, **settings)
        plain = made.start
        made.start = lambda *args, **options: self.begin(made, plain, *args, **options)
        return made

    def manage(self, supervisor):
        self.store = Store(supervisor.root / "notify")
        self.addCleanup(self.store.close)
        supervisor.environment["NOTIFY_SOCKET"] = str(supervisor.root / "notify")

    def begin(self, supervisor, start, *args, names=None, **options):
        if self.store is None:
            self.manage(supervisor)
        kept = self.store.all()
        descriptors = [descriptor for _, descriptor in kept]
        names = ":".join(name for name, _ in kept) if names is None else names
        launch = (PYTHON, "-c", LAUNCH, names, str(len(kept)), *map(str, descriptors))
        return start(*args, prefix=launch, pass_fds=tuple(descriptors), **options)

    def wait_stored(self, name=NAME):
        return wait_until(lambda: self.store.inodes(name), f"{name} is in the store")[0]


class UnderChaos(Managed, gate_chaos.Chaos):
    """Nobody runs without MPS, not even where neither gate nor supervisor holds the socket."""

    seconds = 15.0

    def supervisor(self, policies=None, **settings):
        made = super().supervisor(policies, **settings)
        made.start()
        self.wait_stored()
        made.kill9()  # the test starts it
        return made

    def check(self, supervisor, killer, programs):
        super().check(supervisor, killer, programs)
        self.assertEqual([one for one in programs if one[1] == WITHOUT_MPS], [])
        self.assertGreater(len(killer.unheld), 0)
        self.assertEqual(len(self.store.inodes()), 1)
        self.assertEqual(self.store.trouble, [])


class BothDead(Managed, GateSuite):
    def kill_both(self, supervisor):
        os.kill(supervisor.process.pid, signal.SIGSTOP)  # it starts no other gate
        gate = supervisor.gate_pid()
        handle = os.pidfd_open(gate)
        os.kill(gate, signal.SIGKILL)
        supervisor.kill9()
        select.select([handle], [], [], harness.DEADLINE)
        os.close(handle)
        self.assertEqual(supervisor.gates(), [])

    def held_at_the_share(self, supervisor, **options):
        program = self.is_held(supervisor, **options)
        wait_until(lambda: supervisor.at_the_share() >= 1, "it is in the backlog")
        self.check_held(supervisor, program)
        return program

    def log_text(self, supervisor):
        return (supervisor.root / "supervisor.log").read_text(errors="replace")

    def test_newcomers_wait(self):
        supervisor = self.supervisor().start()
        stored = self.wait_stored()
        self.lets_in(supervisor).end()
        file = os.stat(supervisor.share()).st_ino
        for _ in range(2):
            self.kill_both(supervisor)
            programs = [self.held_at_the_share(supervisor) for _ in range(2)]
            supervisor.start()
            self.check_came_in(supervisor, *programs)
            for program in programs:
                program.end()
            # The same socket, and stored once.
            self.assertEqual(os.stat(supervisor.share()).st_ino, file)
            self.assertEqual(self.store.inodes(), [stored])
        self.assertEqual(supervisor.events.of("refused"), [])
        self.assertEqual(self.store.trouble, [])

    def test_through_a_share_made_on_demand(self):
        supervisor = self.supervisor().start()
        status, out, err = supervisor.ctl("-o", "json", "shares", "create", "--device", "0")
        self.assertEqual(status, 0, err)
        share = json.loads(out)
        self.wait_stored(f"gate/{SHARED}/{share['id']}")
        self.kill_both(supervisor)
        through = ("env", f"CUDA_MPS_PIPE_DIRECTORY={share['pipeDirectory']}")
        program = self.is_held(supervisor, prefix=through)
        self.check_held(supervisor, program)
        supervisor.start()
        self.check_came_in(supervisor, program)
        self.assertEqual(len(self.store.all()), 2)

    def test_with_a_gate_that_lives(self):
        supervisor = self.supervisor().start()
        stored, gate = self.wait_stored(), supervisor.gate_pid()
        supervisor.kill9()
        supervisor.start()
        self.assertEqual(supervisor.gates(), [gate])
        self.lets_in(supervisor).end()
        self.assertEqual(self.store.inodes(), [stored])

    def test_stored_of_a_gate_that_was_there_before(self):
        supervisor = self.supervisor().start()
        gate = supervisor.gate_pid()
        self.wait_stored()
        supervisor.kill9()
        self.store.empty()  # as before there was one
        supervisor.start()
        self.assertEqual(supervisor.gates(), [gate])
        self.assertIn(self.wait_stored(), socket_inodes(gate))

    def test_one_that_was_taken_away_is_put_back(self):
        supervisor = self.supervisor().start()
        stored = self.wait_stored()
        self.kill_both(supervisor)
        program = self.held_at_the_share(supervisor)
        os.unlink(supervisor.share())
        supervisor.start()
        self.check_came_in(supervisor, program)
        program.end()
        self.lets_in(supervisor)
        self.assertEqual(self.store.inodes(), [stored])

    def test_one_that_another_took_the_place_of(self):
        supervisor = self.supervisor().start()
        stored = self.wait_stored()
        self.kill_both(supervisor)
        keep = supervisor.run / SHARED / "private/open.socket"
        keep.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.bind(str(keep))
        supervisor.start()
        self.lets_in(supervisor)
        wait_until(lambda: self.store.inodes() not in ([], [stored]), "another one is stored")
        self.assertEqual(len(self.store.inodes()), 1)
        self.assertIn(self.wait_stored(), socket_inodes(supervisor.gate_pid()))

    def test_strange_descriptors_do_no_harm(self):
        supervisor = self.supervisor().start()
        stored = self.wait_stored()
        self.kill_both(supervisor)
        program = self.held_at_the_share(supervisor)
        for name in ("stored", f"gate/{SHARED}/s99", NAME):
            self.store.put(name, os.open("/dev/null", os.O_RDONLY))
        supervisor.start()
        self.check_came_in(supervisor, program)
        self.assertEqual(self.store.inodes(), [stored])
        wait_until(lambda: not self.store.inodes(f"gate/{SHARED}/s99"), "it has been removed")
        self.assertIn(
            "LISTEN_FDS: descriptor 4 (stored) is no socket of a share: closed",
            self.log_text(supervisor),
        )
        program.end()
        # With names that are too few nothing is believed, and all goes on as without a store.
        self.kill_both(supervisor)
        supervisor.start(names=NAME)
        self.assertIn(
            "what the service manager passed is left alone: LISTEN_FDNAMES has 1 names for 2 "
            "descriptors",
            self.log_text(supervisor),
        )
        self.lets_in(supervisor)
        wait_until(lambda: self.store.inodes() not in ([], [stored]), "another one is stored")
        self.assertEqual(len(self.store.inodes()), 1)

    def test_nothing_of_it_gets_to_others(self):
        supervisor = self.supervisor().start()
        stored = self.wait_stored()
        self.kill_both(supervisor)
        before = harness.control_daemons(supervisor.pipe())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        supervisor.start()
        daemon = supervisor.instance()["control"]["pid"]
        self.assertNotIn(daemon, before)
        for pid in (daemon, supervisor.gate_pid()):
            text = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            self.assertNotIn(b"LISTEN_", text)
            self.assertNotIn(b"NOTIFY_SOCKET", text)
        self.assertNotIn(stored, socket_inodes(daemon))
        gate = supervisor.gate_pid()
        wait_until(lambda: stored in socket_inodes(gate), "the gate has it")


if __name__ == "__main__":
    harness.main()
