"""Nodes whose devices come from the simulated NVML, which a test has tell of Xids and recovery
actions."""

import functools
import os
import socket
import urllib.error
import urllib.request

import harness
from fault_suite import FaultSuite
from gate_kit import REFUSED, SHARED, Program, for_everybody
from harness import control_daemons
from sim_nvml import SimNvml

GPUS = [f"GPU-00000000-0000-0000-0000-{n:012d}" for n in range(2)]
OTHER = "gpu1.shared"
TELLS_NO_ACTIONS = "550.163.01"
TELLS_ACTIONS = "570.86.10"
NEEDS_RESET = 46


def own_address():
    """A loopback address by the pid: no other suite takes its port before the supervisor does."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16) % 64}.{pid >> 8 & 255}.{pid & 255}"


def free_port(address):
    with socket.socket() as probe:
        probe.bind((address, 0))
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
        self.listens = f"{own_address()}:{free_port(own_address())}"
        settings["metricsListen"] = self.listens
        supervisor = self.supervisor(policies or for_everybody(), **settings)
        if settings.get("gate") == "off":
            supervisor.wait_open = functools.partial(harness.Supervisor.wait_open, supervisor)
        supervisor.environment["MPS_SIM_SERVER_READY_MS"] = "5"
        hardware = hardware or [f"gpu {uuid}" for uuid in GPUS]
        supervisor.nvml = SimNvml(supervisor, f"driver {driver}", *hardware)
        return self.begin(supervisor, ready)

    def begin(self, supervisor, ready=(SHARED, OTHER)):
        supervisor.start(wait_ready=list(ready))
        supervisor.nvml.wait_listener()
        return supervisor

    def again(self, supervisor, ready=(OTHER,)):
        supervisor.kill9()
        return self.begin(supervisor, ready)

    def tell(self, supervisor, line):
        supervisor.nvml.tell(line)

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
            with urllib.request.urlopen(f"http://{self.listens}{path}", timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
