"""Nodes whose devices come from the simulated NVML, which a test has tell of Xids and recovery
actions."""

import contextlib
import functools
import os
import pathlib
import socket
import urllib.error
import urllib.request

import harness
from faults import FaultSuite
from gate_kit import SHARED, Program, for_everybody
from harness import OPTIONS, control_daemons, wait_until

GPUS = [f"GPU-00000000-0000-0000-0000-{n:012d}" for n in range(2)]
OTHER = "gpu1.shared"
TELLS_NO_ACTIONS = "550.163.01"
TELLS_ACTIONS = "570.86.10"
NEEDS_RESET = 46
REFUSED = 805


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class DeviceSuite(FaultSuite):
    def node(
        self,
        driver=TELLS_NO_ACTIONS,
        hardware=None,
        ready=(SHARED, OTHER),
        policies=None,
        **settings,
    ):
        self.port = free_port()
        settings["metricsListen"] = f"127.0.0.1:{self.port}"
        supervisor = self.supervisor(policies or for_everybody(), **settings)
        if settings.get("gate") == "off":
            supervisor.wait_open = functools.partial(harness.Supervisor.wait_open, supervisor)
        supervisor.environment["MPS_SIM_SERVER_READY_MS"] = "5"
        supervisor.settings["devices"] = "auto"
        supervisor.settings["nvmlLibrary"] = str(OPTIONS.build / "sim/lib/libnvidia-ml.so.1")
        supervisor.nvml = supervisor.root / "nvml"
        supervisor.environment["MPS_SIM_NVML"] = str(supervisor.nvml)
        self.hardware(supervisor, driver, hardware or [f"gpu {uuid}" for uuid in GPUS])
        return self.begin(supervisor, ready)

    def hardware(self, supervisor, driver, lines):
        fresh = supervisor.root / "nvml.new"
        fresh.write_text("\n".join([f"driver {driver}", *lines]) + "\n")
        os.rename(fresh, supervisor.nvml)

    def begin(self, supervisor, ready=(SHARED, OTHER)):
        supervisor.start(wait_ready=list(ready))
        board = f"{supervisor.nvml}.events"

        def listens():
            for entry in pathlib.Path(f"/proc/{supervisor.process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(entry) == board:
                        return True
            return False

        wait_until(listens, "it listens to NVML")
        return supervisor

    def again(self, supervisor, ready=(OTHER,)):
        supervisor.kill9()
        return self.begin(supervisor, ready)

    def tell(self, supervisor, line):
        with open(f"{supervisor.nvml}.events", "a") as board:
            board.write(line + "\n")

    def xid(self, supervisor, number, device=GPUS[0]):
        self.tell(supervisor, f"xid {number} {device}")

    def taken_out(self, supervisor, number=NEEDS_RESET, device=GPUS[0]):
        mark = supervisor.events.last_id()
        self.xid(supervisor, number, device)
        return supervisor.events.wait("device_out", mark)

    def out(self, supervisor):
        return supervisor.get("/v1/status")["outOfService"]

    def daemons(self, supervisor, name=SHARED):
        return control_daemons(supervisor.pipe(name))

    def stopped(self, supervisor, mark=0):
        said = supervisor.events.wait("stopped", mark, SHARED)
        self.assertEqual(self.state(supervisor), "stopped")
        self.assertEqual(self.daemons(supervisor), [])
        return said

    def refused(self, supervisor):
        """A newcomer is, with the word; the event."""
        mark = supervisor.events.last_id()
        probe = Program(supervisor)
        self.assertEqual(probe.answer(), REFUSED)
        said = supervisor.events.wait("refused", mark, SHARED)
        self.assertIn(
            f"device_out: {SHARED} takes no new clients: {GPUS[0]} is out of service since ",
            said["message"],
        )
        return said

    def serves(self, supervisor, name=SHARED):
        probe = Program(supervisor, name=name)
        self.assertEqual(probe.answer(), 0)
        probe.end()

    def starts(self, supervisor, mark, name=SHARED):
        return [
            e
            for e in supervisor.events.of("control_started")
            if e["id"] > mark and e["instance"] == name
        ]

    def http(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
