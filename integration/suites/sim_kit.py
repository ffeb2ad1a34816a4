"""A control daemon, a living server and CUDA programs in directories of their own, without a
supervisor; what a test orders of a simulated server; what the simulated NVML tells."""

import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import harness
from harness import DEADLINE, OPTIONS, Backend, wait_until
from sim_nvml import write_inventory

DEVICE = "GPU-00000000-0000-4000-8000-000000000000"


def send(pid, number=signal.SIGKILL):
    """A signal, to whoever may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def order(server, line):
    """Tells the simulated server something; its answer, or None where it is gone instead."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(DEADLINE)
    with peer:
        peer.connect(f"\0mps-sim-server-{server}")
        peer.send(line.encode())
        try:
            answer = peer.recv(4096).decode()
        except ConnectionResetError:
            return None
    return answer or None


class Lines:
    """A started program that says lines of JSON."""

    def __init__(self, arguments, env, **options):
        self.process = subprocess.Popen(
            [str(argument) for argument in arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **options,
        )
        self.pid = self.process.pid
        self.unread = b""

    def said(self, deadline=DEADLINE):
        """The next line."""
        end = time.monotonic() + deadline
        while b"\n" not in self.unread:
            ready = self.readable(max(0.0, end - time.monotonic()))
            fresh = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not fresh:
                raise AssertionError(f"{self.process.args}: no line, status {self.process.poll()}")
            self.unread += fresh
        line, _, self.unread = self.unread.partition(b"\n")
        return json.loads(line)

    def is_silent(self):
        """Nothing said that was not read."""
        return not self.unread and not self.readable(0)

    def readable(self, seconds):
        """However many files are open: select() knows no more than 1024."""
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def tell(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, line):
        self.tell(line)
        return self.said()

    def leave(self):
        self.process.stdin.close()
        return self.process.wait(timeout=DEADLINE)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Node:
    def __init__(self, settings=None, backend=None):
        self.backend = Backend(backend or OPTIONS.backend, OPTIONS.build)
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="sim", dir="/tmp"))
        self.root.chmod(0o711)
        self.pipe = self.root / "pipe"
        self.pipe.mkdir()
        self.pipe.chmod(0o711)
        self.log = self.root / "log"
        self.environment = self.backend.environment(self.pipe)
        self.inventory = self.root / "nvml"
        self.write_inventory(f"gpu {DEVICE}")
        self.environment["MPS_SIM_NVML"] = str(self.inventory)
        self.environment["MPS_SIM_SERVER_READY_MS"] = "5"
        for key, value in (settings or {}).items():
            self.environment[f"MPS_SIM_{key.upper()}"] = str(value)
        self.helpers = []
        self.daemon = None

    def write_inventory(self, *lines, driver=None):
        driver = driver or f"{self.backend.version}.1"
        write_inventory(self.inventory, f"driver {driver}", *lines)

    def start(self, *options):
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(
                [str(self.backend.control), "-f", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        wait_until(lambda: (self.pipe / "control").exists() and self.answers(), "the daemon answers")
        return self

    def answers(self):
        return self.commands("get_default_client_priority") == ["0"]

    def commands(self, *lines, deadline=DEADLINE):
        """What the daemon answers, line by line; None where it does not in that time."""
        try:
            done = subprocess.run(
                [str(self.backend.control)],
                input="".join(line + "\n" for line in lines),
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=deadline,
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.splitlines()

    def server(self):
        return int(wait_until(lambda: self.commands("get_server_list"), "a server")[0])

    def order(self, line):
        return order(self.server_in_log(), line)

    def server_in_log(self):
        # It is written by the server's process, which may let its client in before that.
        def started():
            found = re.findall(r"Starting new server (\d+)", self.log_text())
            return int(found[-1]) if found and harness.is_running(int(found[-1])) else None

        return wait_until(started, "a server that runs is in the log")

    def log_text(self):
        return self.log.read_text(errors="replace")

    def server_lines(self):
        """What servers have said, without the prefix."""
        found = re.findall(r"^\[.{23} Other +\d+\] (.*)$", self.log_text(), re.MULTILINE)
        return found

    def wait_log(self, text, count=1):
        wait_until(lambda: self.log_text().count(text) >= count, f"{count} times {text!r}")

    def probe(self, *arguments, **options):
        """A CUDA program that does what it is told; see mps-probe --commands."""
        return self.program("mps-probe", "--commands", *arguments, **options)

    def program(self, name, *arguments, **options):
        started = Lines([OPTIONS.build / "bin" / name, *arguments], self.environment, **options)
        self.helpers.append(started)
        return started

    def watch(self):
        """A reader of NVML's events that has begun to listen."""
        watch = self.program("mps-xid-watch")
        watch.first = watch.said()
        return watch

    def client(self, *arguments, **options):
        """A probe that is in, with a context."""
        probe = self.probe(*arguments, **options)
        probe.first = probe.said()
        if (probe.first["cuInit"], probe.first["cuCtxCreate"]) != (0, 0):
            raise AssertionError(f"not let in: {probe.first}")
        return probe

    def refused(self, **options):
        """What a newcomer's cuInit returns."""
        probe = self.probe(**options)
        said = probe.said()
        probe.leave()
        return said["cuInit"]

    def close(self):
        for helper in self.helpers:
            helper.kill()
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        wanted = f"CUDA_MPS_PIPE_DIRECTORY={self.pipe}".encode()
        for pid, name, _, _ in harness.processes():
            if not name.startswith("nvidia-cuda-mps"):
                continue
            try:
                environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if wanted in environment:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        shutil.rmtree(self.root, ignore_errors=True)
