"""What the suites share: a supervisor in directories of its own, its events, and the backends.

Nothing here sleeps for a fixed time: everything waits for an event or a condition, with a generous
deadline. A backend that is not there ends the suite with status 125, which ctest shows as skipped.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from backends import SOURCE, Backend  # noqa: F401: for the suites
from proc_table import (  # noqa: F401
    HangingFrontEnd,
    control_daemons,
    front_ends,
    is_running,
    processes,
    socket_inodes,
)

SKIPPED = 125
DEADLINE = 60.0  # seconds; far beyond anything seen, so that a busy machine fails nothing

# An interpreter that other uids may execute too; the one that runs this may be somebody's own.
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable

OPTIONS = argparse.Namespace(build=None, backend=None, seed=1, full=False)


def policy(namespace="*", percentage=None, memory=None, **spec):
    """A policy's text. Its namespace is in line 4; spec.client.<limit> in the lines from 7 on."""
    client = {"activeThreadPercentage": percentage, "pinnedDeviceMemory": memory}
    lines = [
        "apiVersion: mps-supervisor.dev/v1",
        "kind: MpsPolicy",
        "metadata:",
        f"  namespace: {json.dumps(namespace)}",
        "spec:",
        "  client:" + ("" if any(client.values()) else " {}"),
    ]
    lines += [f"    {key}: {json.dumps(value)}" for key, value in client.items() if value]
    lines += [f"  {key}: {json.dumps(value)}" for key, value in spec.items()]
    return "\n".join(lines) + "\n"


class PolicyDirectory:
    """Policy files, changed in the ways in which people and Kubernetes change files."""

    def __init__(self, path):
        self.path = path
        self.versions = 0
        self.swapped_at = 0.0  # on the monotonic clock
        path.mkdir()

    def put(self, name, text):
        """Whole, by a rename."""
        fresh = self.path / f".{name}.new"
        fresh.write_text(text)
        os.rename(fresh, self.path / name)

    def write_in_place(self, name, text):
        (self.path / name).write_text(text)

    def remove(self, name):
        (self.path / name).unlink()

    def swap_config_map(self, files):
        """A ConfigMap's next version, step by step as the kubelet makes it."""
        self.versions += 1
        version = f"..2026_01_01_00_00_00.{self.versions:09d}"
        (self.path / version).mkdir()
        for name, text in files.items():
            (self.path / version / name).write_text(text)
        data = self.path / "..data"
        old = os.readlink(data) if data.is_symlink() else None
        os.symlink(version, self.path / "..data_tmp")
        self.swapped_at = time.monotonic()
        os.rename(self.path / "..data_tmp", data)
        for name in files:
            if not (self.path / name).is_symlink():
                os.symlink(f"..data/{name}", self.path / name)
        for entry in self.path.iterdir():
            if entry.is_symlink() and entry.name not in {"..data", *files}:
                entry.unlink()
        if old:
            shutil.rmtree(self.path / old)


def wait_until(condition, what, deadline=DEADLINE):
    """Polls a condition that no event tells of; returns its first true value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(0.002)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=DEADLINE):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Events(threading.Thread):
    """Follows the event stream; survives the supervisor's death and takes the stream up again."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = path
        self.seen = []
        self.changed = threading.Condition()
        self.ended = False
        self.start()

    def run(self):
        while not self.ended:
            try:
                self.follow()
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.002)

    def follow(self):
        since = self.seen[-1]["id"] if self.seen else 0
        connection = UnixConnection(self.path)
        connection.request("GET", f"/v1/events?follow=1&since={since}")
        response = connection.getresponse()
        for line in response:
            now = time.monotonic()
            if self.ended:
                return
            event = json.loads(line) if line.strip() else {}
            if "id" in event:  # the stream also says what it had to leave out
                self.take(event, now)

    def take(self, event, _now):
        with self.changed:
            self.seen.append(event)
            self.changed.notify_all()

    def last_id(self):
        with self.changed:
            return self.seen[-1]["id"] if self.seen else 0

    def wait(self, kind, after=0, instance=None, count=1, deadline=DEADLINE, where=None):
        """The first event of that kind behind the id `after` (the count-th, if given)."""

        def found():
            matches = [
                e
                for e in self.seen
                if e["id"] > after
                and e["kind"] == kind
                and (instance is None or e["instance"] == instance)
                and (where is None or where(e))
            ]
            return matches[count - 1] if len(matches) >= count else None

        end = time.monotonic() + deadline
        with self.changed:
            while True:
                event = found()
                if event:
                    return event
                left = end - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    tail = "\n".join(json.dumps(e) for e in self.seen[-15:])
                    raise AssertionError(f"no event {kind} after {after}; the last:\n{tail}")

    def wait_holder(self, kind, pid, after=0):
        """Somebody who holds the channel: on a busy machine it is seen at once, named a little later."""
        return self.wait(kind, after, where=lambda e: e["data"].get("holder") == str(pid))

    def about(self, instance, kinds):
        with self.changed:
            return [e for e in self.seen if e["instance"] == instance and e["kind"] in kinds]

    def about_since(self, mark, instance):
        with self.changed:
            return [e for e in self.seen if e["instance"] == instance and e["id"] > mark]

    def of(self, kind):
        with self.changed:
            return [e for e in self.seen if e["kind"] == kind]


class Supervisor:
    def __init__(self, devices=1, settings=None, backend=None):
        self.backend = backend or Backend(OPTIONS.backend, OPTIONS.build)
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="mps-", dir="/tmp"))
        os.chmod(self.root, 0o755)
        self.run = self.root / "run"
        self.state = self.root / "state"
        self.policies = PolicyDirectory(self.root / "policies")
        self.settings = {
            "gate": "off",  # the suites of gates have them on
            "runDir": str(self.run),
            "stateDir": str(self.state),
            "policyDir": str(self.policies.path),
            "cdiDir": str(self.root / "cdi"),
            "devices": [
                {
                    "uuid": f"GPU-00000000-0000-0000-0000-{n:012d}",
                    "index": n,
                    "memory": "141Gi",
                    "smCount": 132,
                }
                for n in range(devices)
            ],
            "mpsPath": [str(p) for p in self.backend.programs],
            "libraryPath": [str(p) for p in self.backend.libraries],
            "metricsListen": "",
            "limits": {"activeThreadPercentage": 50, "pinnedDeviceMemory": "10Gi"},
        }
        if self.backend.gpu:
            self.settings.update(devices="auto", libraryPath=[])
        self.settings.update(settings or {})
        self.program = OPTIONS.build / "bin/mps-supervisor"
        self.environment = {}  # on top of ours
        self.process = None
        self.output = open(self.root / "supervisor.log", "ab")
        self.events = None
        self.helpers = []
        self.keep = False

    # -- the supervisor's life --

    def start(self, wait_ready=True, flags=(), prefix=(), pass_fds=()):
        config = self.root / "supervisor.yaml"
        config.write_text(json.dumps(self.settings))  # JSON is YAML
        env = {**os.environ, "MPS_SIM_VERSION": self.backend.version, **self.environment}
        if self.backend.real:
            env.pop("MPS_SIM_VERSION")
        after = self.events.last_id() if self.events else 0
        self.process = subprocess.Popen(
            [*prefix, str(self.program), "--config", str(config), *flags],
            stdout=self.output,
            stderr=self.output,
            stdin=subprocess.DEVNULL,
            env=env,
            pass_fds=pass_fds,
        )
        if self.events is None:
            self.events = Events(self.run / "supervisor.sock")
        if wait_ready:
            names = [f"gpu{n}.shared" for n in range(len(self.settings["devices"]))]
            for name in names if wait_ready is True else wait_ready:
                self.events.wait("ready", after, name)
                self.wait_open(name)
        return self

    def wait_open(self, name="gpu0.shared"):
        """Until the share's socket is the daemon's own: an instant after `ready`."""
        ours, theirs = self.open_pipe(name) / "control", self.pipe(name) / "control"

        def same():
            try:
                return os.stat(ours).st_ino == os.stat(theirs).st_ino
            except FileNotFoundError:
                return False

        wait_until(same, f"the door of {name} is open")

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def terminate(self):
        self.process.terminate()
        return self.process.wait(timeout=DEADLINE)

    def close(self):
        if self.events:
            self.events.ended = True
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        prefix = f"CUDA_MPS_PIPE_DIRECTORY={self.run}/".encode()
        for pid, name, _, _ in processes():
            if not name.startswith("nvidia-cuda-mps"):
                continue
            try:
                if prefix in pathlib.Path(f"/proc/{pid}/environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self.output.close()
        if self.keep:
            print(f"left for inspection: {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    # -- the API --

    def get(self, path):
        connection = UnixConnection(self.run / "supervisor.sock")
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        if response.status != 200:
            raise AssertionError(f"GET {path}: {response.status} {body}")
        return body

    def post(self, path):
        connection = UnixConnection(self.run / "supervisor.sock")
        connection.request("POST", path, body="", headers={"Content-Length": "0"})
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        return response.status, body

    def ctl(self, *arguments, socket_path=None):
        """mps-ctl; (status, stdout, stderr)."""
        path = socket_path or self.run / "supervisor.sock"
        done = subprocess.run(
            [str(OPTIONS.build / "bin/mps-ctl"), "--socket", str(path), *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout, done.stderr

    def instance(self, name="gpu0.shared"):
        return self.get(f"/v1/instances/{name}")

    def instance_ids(self):
        return [instance["id"] for instance in self.get("/v1/instances")]

    # -- paths and programs --

    def pipe(self, name="gpu0.shared"):
        return self.run / name / "pipe"

    def daemon_pipe(self, name="gpu0.shared"):
        """The same directory, as it can be reached from here."""
        return self.pipe(name)

    def open_pipe(self, name="gpu0.shared"):
        return self.run / name / "open/pipe"

    def commands(self, *lines, pipe=None, uid=None):
        """Runs commands through a front-end; (status, output)."""
        done = subprocess.run(
            [str(self.backend.control)],
            input="".join(line + "\n" for line in lines),
            env=self.backend.environment(pipe or self.daemon_pipe()),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            user=uid,
            group=uid,
            extra_groups=[] if uid is not None else None,
        )
        return done.returncode, done.stdout

    def answered(self, *lines, pipe=None, uid=None):
        """What the daemon answers; asked again while another, such as the supervisor, has the one
        command session: an answer ends with the complaint about what is no command."""
        mark = 'Unknown command "no-command"'

        def answer():
            _, output = self.commands(*lines, "no-command", pipe=pipe, uid=uid)
            return [output[: output.index(mark)]] if mark in output else None

        return wait_until(answer, f"an answer to {lines}")[0]

    def probe(self, *arguments, name="gpu0.shared", prefix=(), **options):
        """A CUDA program in the open share, started and not waited for."""
        started = subprocess.Popen(
            [*prefix, str(OPTIONS.build / "bin/mps-probe"), *arguments],
            env=self.backend.environment(self.open_pipe(name)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            **options,
        )
        self.helpers.append(started)
        return started

    def silent_peer(self, path, uid=None):
        """Another process that connects to a control socket, takes the greeting and says nothing."""
        code = (
            "import socket,sys;s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET);"
            "s.connect(sys.argv[1]);s.recv(64);print('connected',flush=True);sys.stdin.read()"
        )
        peer = subprocess.Popen(
            [PYTHON, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=uid,
        )
        self.helpers.append(peer)
        assert peer.stdout.readline() == "connected\n"
        return peer

    def held_session(self, pipe=None):
        """Another process that opens the command session and keeps it open."""
        session = subprocess.Popen(
            [str(self.backend.control)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=self.backend.environment(pipe or self.daemon_pipe()),
            text=True,
        )
        self.helpers.append(session)
        session.stdin.write("get_default_client_priority\n")
        session.stdin.flush()
        return session

    def hold_session(self):
        """A process that has the one command session, for sure: one that comes to it while somebody
        else has it ends, and the daemon may take another's command before it takes this one."""
        for _ in range(100):
            session = self.held_session()
            wait_until(lambda: session.poll() is not None or socket_inodes(session.pid), "a socket")
            # This one is always answered, unless somebody else has the session.
            answers = [self.commands("get_default_client_priority")[1] for _ in range(5)]
            if session.poll() is None and not any(answers[2:]):
                return session
            session.kill()
            session.wait()
        raise AssertionError("the command session is never free")


class Suite(unittest.TestCase):
    """One supervisor a test, made by self.supervisor(); its folder is kept when the test fails."""

    def setUp(self):
        self.random = random.Random(OPTIONS.seed)
        self.made = []

    def supervisor(self, *args, **kwargs):
        made = Supervisor(*args, **kwargs)
        self.made.append(made)
        return made

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        outcome = super().run(result)
        failed = result and len(result.failures) + len(result.errors) > before
        for supervisor in getattr(self, "made", []):
            supervisor.keep = bool(failed)
            if failed:
                supervisor.output.flush()
                text = (supervisor.root / "supervisor.log").read_text(errors="replace")
                print("\n".join(text.splitlines()[-40:]), file=sys.stderr)
            supervisor.close()
        return outcome


def skip_unless(condition, reason):
    return unittest.skipUnless(condition, reason)


def main(choose=list):
    """`choose` may look at the arguments that are the tests' names, and leave others."""
    os.umask(0o022)  # programs of other users get to what is made here
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--backend", required=True, help="real-, sim- or mixed-535 or -550, or gpu")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("MPS_SEED", "1")))
    parser.add_argument("--full", action="store_true", help="the long durations")
    options, rest = parser.parse_known_args()
    OPTIONS.__dict__.update(vars(options))
    OPTIONS.build = options.build.resolve()
    reason = Backend(options.backend, OPTIONS.build).missing()
    if reason is None and os.geteuid() != 0:
        reason = "needs root: other uids, namespaces"
    if reason:
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    unittest.main(argv=[sys.argv[0], *choose(rest)], verbosity=2, warnings="ignore")
