"""What the suites about gates share: programs that stay, the daemon's log, cgroups of containers.

The programs are real ones. Without a GPU a program that the daemon has heard of gets 805, as one
that is refused does: what tells them apart is the daemon's own log. One that went past MPS gets 100
(no device) here.
"""

import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import threading
import time

import harness
from harness import PYTHON, SOURCE, Suite, Supervisor, wait_until
from proc_table import processes, socket_inodes
from policy_suite import QUICK

SHARED = "gpu0.shared"
REFUSED = 805  # cuInit, also of who is let in, since no server starts
WITHOUT_MPS = 100
OTHER_UID = 1235
DEFAULT = (SOURCE / "policies/default.yaml").read_text()
PEER = pathlib.Path(__file__).with_name("gate_peer.py").read_text()
KINDS = ("*", "docker:*", "unit:*", "user:*")


def for_everybody(**spec):
    """Files with a policy for whoever runs the tests, as whatever they run."""
    return {f"{n}.yaml": harness.policy(kind, **spec) for n, kind in enumerate(KINDS)}


def bound_sockets():
    """(inode, whether it listens, path) of the sockets that have a path."""
    for line in pathlib.Path("/proc/net/unix").read_text().splitlines()[1:]:
        parts = line.split(maxsplit=7)
        if len(parts) == 8:
            yield int(parts[6]), parts[3] == "00010000", parts[7]


class Reader(threading.Thread):
    """Reads along with a file, also when a fresh one takes its place."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = path
        self.lines = []
        self.ended = False
        self.rest = b""
        self.file = None
        self.lock = threading.Lock()
        self.start()

    def run(self):
        while not self.ended:
            self.read()
            time.sleep(0.002)

    def read(self):
        with self.lock:
            if self.file is None and not self.open():
                return
            self.read_on()
            if self.is_replaced():
                self.read_on()
                self.file.close()
                self.rest = b""
                if self.open():
                    self.read_on()

    def open(self):
        try:
            self.file = open(self.path, "rb")
        except FileNotFoundError:
            self.file = None
        return self.file is not None

    def read_on(self):
        *whole, self.rest = (self.rest + self.file.read()).split(b"\n")
        self.lines += [self.made_of(line) for line in whole]

    def is_replaced(self):
        try:
            return os.stat(self.path).st_ino != os.fstat(self.file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def made_of(self, line):
        return line

    def all(self):
        self.read()
        return list(self.lines)


class Admissions(Reader):
    def made_of(self, line):
        return json.loads(line.split(b" ", 1)[1])


class DaemonLog(Reader):
    """The supervisor frees what it has read: lines may be missing where it was much faster."""

    CLIENT = re.compile(rb"NEW CLIENT (\d+) from user (\d+)")

    def clients(self):
        """(pid, uid) of who came, in order."""
        found = (self.CLIENT.search(line) for line in self.all())
        return [(int(match.group(1)), int(match.group(2))) for match in found if match]

    def pids(self):
        return [pid for pid, _ in self.clients()]

    def strangers(self):
        """Connections that the daemon took, of nobody who gives commands as the supervisor does."""
        each = b"\n".join(self.all()).split(b"Accepting connection...")[1:]
        return [lines for lines in each if b"Cmd:end-of-" not in lines]


class Program:
    """A CUDA program that stays after cuInit, until it is ended."""

    def __init__(self, supervisor, prefix=(), **options):
        self.process = supervisor.probe("--hold-until-stdin-closes", prefix=prefix, **options)

    @property
    def pid(self):
        """As this machine sees it, below what was put before it."""

        def find():
            pid = self.process.pid
            while True:
                try:
                    name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                except OSError:
                    return None
                if name == "mps-probe":
                    return pid
                if not children:
                    return None
                pid = int(children[0])

        return wait_until(find, "the program runs")

    def has_answered(self):
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def answer(self):
        """What cuInit returned."""
        if not select.select([self.process.stdout], [], [], harness.DEADLINE)[0]:
            raise AssertionError(f"cuInit of {self.process.pid} does not return")
        return json.loads(self.process.stdout.readline())["cuInit"]

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=harness.DEADLINE)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(timeout=harness.DEADLINE)


class GatedSupervisor(Supervisor):
    def __init__(self, devices=1, settings=None, backend=None):
        fixed = {"gate": "on", "backoff": QUICK["backoff"]}
        super().__init__(devices, {**fixed, **(settings or {})}, backend)
        # Links, which a test can break and mend, or put something slower in the place of.
        self.programs = self.root / "programs"
        self.programs.mkdir()
        self.targets = {}
        for folder in self.backend.programs:
            for path in folder.glob("nvidia-cuda-mps-*"):
                if path.name in self.targets:
                    continue  # the first folder counts, as in a PATH
                self.targets[path.name] = path
                (self.programs / path.name).symlink_to(path)
        self.settings["mpsPath"] = [str(self.programs)]
        self.state.mkdir(mode=0o755)
        self.admissions = Admissions(self.state / "admissions.log")
        self.readers = [self.admissions]
        self.log = self.log_of(SHARED)

    def wait_open(self, name=SHARED):
        wait_until(lambda: self.instance(name)["gate"] == "standing", f"the gate of {name} stands")

    def close(self):
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.kill9()
        for pid in self.gates():
            os.kill(pid, signal.SIGKILL)
        for reader in self.readers:
            reader.ended = True
        super().close()

    def log_of(self, name):
        self.readers.append(DaemonLog(self.run / name / "private/mps.log"))
        return self.readers[-1]

    # -- what stands there --

    def gates(self):
        # The kernel's list is not read at one moment: one that is there may be missing in it.
        lists = [socket for _ in range(3) for socket in bound_sockets()]
        ours = {inode for inode, _, path in lists if path.startswith(f"{self.run}/")}
        return [
            pid
            for pid, name, state, _ in processes()
            if name == "mps-gate" and state != "Z" and socket_inodes(pid) & ours
        ]

    def gate_pid(self):
        return wait_until(lambda: self.gates(), "a gate")[0]

    def daemon_pipe(self, name=SHARED):
        """Private, so it is reached by way of who is in there; or visible all the same."""
        daemons = wait_until(lambda: harness.control_daemons(self.pipe(name)), "a daemon")
        return f"/proc/{daemons[0]}/root{self.pipe(name)}"

    def share(self):
        return str(self.open_pipe() / "control")

    def at_the_share(self):
        """How many have connected to the share's socket, greeted or not."""
        return self.connected_to(self.run / SHARED / "private/open.socket")

    def at_the_daemon(self):
        """Those too that have given up, while it has not looked at them."""
        return self.connected_to(self.pipe() / "control")

    @staticmethod
    def connected_to(path):
        return sum(not listens and str(path) == at for _, listens, at in bound_sockets())

    # -- what was recorded of it --

    def slots(self):
        """The pids that have a slot, by slot; and the most at one time, by subject."""
        subjects, alive, most = {}, {}, {}
        for record in self.admissions.all():
            if "admission" in record:
                subjects[record["admission"]["id"]] = record["admission"]["subject"]
            elif "slot" in record:
                slot = record["slot"]
                alive[slot["id"]] = (slot["pid"], subjects.get(slot["admission"], ""))
            elif "slotEnded" in record:
                alive.pop(record["slotEnded"], None)
            count = {}
            for _, subject in alive.values():
                count[subject] = count.get(subject, 0) + 1
            for subject, number in count.items():
                most[subject] = max(most.get(subject, 0), number)
        return {pid for pid, _ in alive.values()}, most

    def admitted_pids(self):
        return {record["slot"]["pid"] for record in self.admissions.all() if "slot" in record}

    def wait_no_slots(self):
        wait_until(lambda: not self.slots()[0], "all slots have ended")

    def wait_no_admissions(self):
        def ended():
            records = self.admissions.all()
            made = {record["admission"]["id"] for record in records if "admission" in record}
            return made == {r["admissionEnded"] for r in records if "admissionEnded" in r}

        wait_until(ended, "all admissions have ended")

    # -- what a test does to it --

    def break_control(self):
        """No control daemon starts any more."""
        (self.programs / "nvidia-cuda-mps-control").unlink()

    def mend_control(self):
        self.link("nvidia-cuda-mps-control")

    def link(self, name):
        fresh = self.programs / f".{name}"
        fresh.symlink_to(self.targets[name])
        os.rename(fresh, self.programs / name)

    def slow_servers(self):
        """Servers wait for end_slow(): until then clients are inside, and get no answer."""
        (self.root / "slow").touch()
        fresh = self.programs / ".server"
        fresh.write_text(
            f'#!/bin/sh\nwhile [ -e "{self.root}/slow" ]; do sleep 0.02; done\n'
            f'exec "{self.targets["nvidia-cuda-mps-server"]}" "$@"\n'
        )
        fresh.chmod(0o755)
        os.rename(fresh, self.programs / "nvidia-cuda-mps-server")

    def end_slow(self):
        (self.root / "slow").unlink()

    def ask_daemon(self, line):
        return self.answered(line)

    def wait_heard(self, pid, uid=0):
        """The daemon writes its log on a thread of its own, perhaps after it has answered."""
        wait_until(lambda: (pid, uid) in self.log.clients(), f"the daemon has heard of pid {pid}")

    def heard(self):
        """The pids of whom the daemon heard: its log's own lines, and what was made of those that
        the supervisor has freed since."""
        asked = {int(event["data"]["pid"]) for event in self.events.of("client_asked")}
        return set(self.log.pids()) | asked

    def kill_daemon(self):
        pid = self.instance()["control"]["pid"]
        os.kill(pid, signal.SIGKILL)
        return pid

    def peer(self, uid=None, **order):
        """gate_peer.py, started with this order."""
        started = subprocess.Popen(
            [PYTHON, "-c", PEER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=uid,
            group=uid,
            extra_groups=[] if uid is not None else None,
        )
        self.helpers.append(started)
        started.stdin.write(json.dumps({"path": self.share(), **order}) + "\n")
        started.stdin.flush()
        return started


class Cgroups:
    """Real cgroups, named as containers of pods are; see usable()."""

    ROOTS = [f"/sys/fs/cgroup{name}" for name in ("/systemd", "/pids", "", "/unified")]

    def __init__(self):
        self.made = []
        self.count = 0
        self.why = "no cgroup can be made here that would count"
        self.top = next((top for root in self.ROOTS if (top := self.try_in(root))), None)

    def usable(self):
        return self.top is not None

    def try_in(self, root):
        if not os.path.exists(f"{root}/cgroup.procs"):
            return None
        top = pathlib.Path(root) / f"mps-gate-{os.getpid()}"
        try:
            self.make(top)
        except OSError as error:
            self.why = str(error)
            return None
        look = self.inside(top, "cat", "/proc/self/cgroup")
        text = subprocess.run(look, capture_output=True, text=True).stdout
        return top if self.what_counts(text) == f"/{top.name}" else None

    @staticmethod
    def what_counts(text):
        paths = {}
        for line in text.splitlines():
            number, controllers, path = line.split(":", 2)
            for name in controllers.split(","):
                paths[name if number != "0" else "unified"] = path
        in_order = [paths.get(name, "/") for name in ("name=systemd", "pids", "unified")]
        return next((path for path in in_order if path != "/"), "/")

    def make(self, path):
        path.mkdir()
        self.made.append(path)
        return path

    @staticmethod
    def inside(path, *command):
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(path), *command]

    def container(self, known_as=None, identities=None):
        """A container's cgroup; `identities`: where what is known of it is put down."""
        self.count += 1
        pod = f"{os.getpid():08x}-0000-4000-8000-{self.count:012x}"
        name = f"{os.getpid():032x}{self.count:032x}"
        above = self.top / "kubepods"
        if not above.exists():
            self.make(above)
        self.make(above / f"pod{pod}")
        path = self.make(above / f"pod{pod}" / name)
        if known_as:
            identities[name] = {"namespace": known_as, "pod": f"p{self.count}", "container": "main"}
        return path

    def remove(self):
        for path in reversed(self.made):
            wait_until(lambda: self.is_removed(path), f"{path} is empty", 10)
        self.made = []

    @staticmethod
    def is_removed(path):
        try:
            path.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True


class GateSuite(Suite):
    def setUp(self):
        super().setUp()
        self.groups = None

    def supervisor(self, policies=None, **settings):
        """Gated, not started."""
        made = GatedSupervisor(settings=settings)
        files = {"default.yaml": DEFAULT} if policies is None else policies
        for name, text in files.items():
            made.policies.put(name, text)
        self.made.append(made)
        return made

    def cgroups(self):
        """Skips the test, aloud, where there are none to be had."""
        self.groups = Cgroups()
        self.addCleanup(self.groups_end)
        if not self.groups.usable():
            print(f"NOT TESTED HERE: {self.id()}: {self.groups.why}", file=sys.stderr, flush=True)
            self.skipTest(f"needs real cgroups: {self.groups.why}")
        return self.groups

    def groups_end(self):
        for supervisor in self.made:
            for helper in supervisor.helpers:
                helper.kill()
                helper.wait()
        self.groups.remove()

    def identities(self, supervisor, known):
        """What an administrator says about containers."""
        path = supervisor.state / "identities.json"
        path.write_text(json.dumps(known))
        path.chmod(0o600)

    def lets_in(self, supervisor, uid=0, **options):
        """Starts a program that is let in and stays; the daemon has heard of it."""
        program = Program(supervisor, **options)
        pid = program.pid
        self.assertEqual(program.answer(), REFUSED)
        supervisor.wait_heard(pid, uid)
        return program

    def is_refused(self, supervisor, code, **options):
        """Starts a program that is refused, and that the daemon never hears of."""
        mark = supervisor.events.last_id()
        program = Program(supervisor, **options)
        pid = program.pid
        self.assertEqual(program.answer(), REFUSED)
        event = supervisor.events.wait("refused", mark)
        self.assertIn(f" was refused, {code}: ", event["message"])
        # What the daemon heard before this it has heard by now.
        supervisor.ask_daemon("get_default_active_thread_percentage")
        self.assertNotIn(pid, supervisor.log.pids())
        program.end()
        return event

    def is_held(self, supervisor, **options):
        """Starts a program that has come to the share; what it waits for is up to the test."""
        program = Program(supervisor, **options)
        wait_until(lambda: socket_inodes(program.pid), "it has a socket")
        return program

    def check_held(self, supervisor, *programs):
        for program in programs:
            self.assertFalse(program.has_answered())
            self.assertNotIn(program.pid, supervisor.log.pids())

    def check_came_in(self, supervisor, *programs, uid=0):
        for program in programs:
            self.assertEqual(program.answer(), REFUSED)
            supervisor.wait_heard(program.pid, uid)
            self.assertIn(program.pid, supervisor.admitted_pids())
