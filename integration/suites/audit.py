"""What no gate can see: who came past it, has too much memory, or goes around MPS."""

import os
import signal
import subprocess

import harness
from gate_kit import SHARED, GateSuite, Program, for_everybody
from harness import OPTIONS, wait_until
from sim_nvml import SimNvml

DEVICE = "GPU-00000000-0000-0000-0000-000000000000"
HARDWARE = f"gpu {DEVICE} mode=exclusive-process"
KINDS = ("client_without_slot", "client_over_memory", "outside_mps")
# The kernel's number of the first one; in others NVML's pids may be strangers.
NODE_PIDS = os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"


class Audit(GateSuite):
    def with_nvml(self, policies, **settings):
        """Gated and started; NVML is the simulated one, and lists whom hardware() was told."""
        supervisor = self.supervisor(policies, audit={"interval": "1s"}, **settings)
        supervisor.nvml = SimNvml(supervisor, HARDWARE)
        return supervisor.start(wait_ready=[SHARED])

    def hardware(self, supervisor, *processes):
        lines = (f"process {DEVICE} {pid} {more}" for pid, more in processes)
        supervisor.nvml.lists(HARDWARE, *lines)

    def past_the_gate(self, supervisor):
        """As only root of the node can: in the mount namespace of the daemon's own directory."""
        daemon = supervisor.instance()["control"]["pid"]
        inside = ("nsenter", "--target", str(daemon), "--mount")
        program = Program(
            supervisor, prefix=(*inside, "env", f"CUDA_MPS_PIPE_DIRECTORY={supervisor.pipe()}")
        )
        program.answer()
        return program

    def of_mps(self, supervisor):
        """What NVML lists besides: the server, where one lives."""
        if supervisor.backend.real:
            return []
        server = wait_until(lambda: supervisor.instance()["server"], "a server")["pid"]
        return [(server, "memory=30")]

    def test_is_found_and_said_once_and_its_end(self):
        if not NODE_PIDS and OPTIONS.backend.startswith("real"):
            self.skipTest("without a server NVML is believed in the node's pid namespace only")
        supervisor = self.with_nvml(for_everybody(memory="2Gi"))
        within, over = Program(supervisor), Program(supervisor)
        within.answer()
        over.answer()
        past = self.past_the_gate(supervisor)
        outside = subprocess.Popen(["sleep", "1000"])
        supervisor.helpers.append(outside)
        usual = [*self.of_mps(supervisor), (within.pid, "memory=2100 mps=on")]
        self.hardware(
            supervisor,
            *usual,
            (over.pid, "memory=5000 mps=on"),
            (past.pid, "memory=100 mps=on"),
            (outside.pid, "memory=400"),
        )
        found = {kind: supervisor.events.wait(kind, instance=SHARED) for kind in KINDS}
        pids = (past.pid, over.pid, outside.pid)
        self.check_messages(found, *pids)
        # With a server the exclusive mode keeps everybody else out; without one they are found.
        bypass = "audited" if supervisor.backend.real else "closed"
        self.assertEqual(supervisor.instance()["bypass"], bypass)

        past.end()
        outside.kill()
        outside.wait()
        self.hardware(supervisor, *usual, (over.pid, "memory=2100 mps=on"))
        supervisor.events.wait("violation_over", count=3)
        ended = {event["message"] for event in supervisor.events.of("violation_over")}
        for pid, kind in zip(pids, KINDS):
            self.assertTrue(
                any(f"process {pid} (" in line and f"no longer {kind}" in line for line in ended),
                (pid, kind, ended),
            )
        for kind in KINDS:
            self.assertEqual(len(supervisor.events.of(kind)), 1, kind)

    def check_messages(self, found, past, over, outside):
        uid = os.geteuid()
        message = found["client_without_slot"]["message"]
        self.assertIn(f"process {past} (mps-probe) of uid {uid}", message)
        self.assertIn(f" is a client of {SHARED} that no gate has let in", message)
        message = found["client_over_memory"]["message"]
        self.assertIn(f"process {over} (mps-probe) of uid {uid}, ", message)
        self.assertIn(" has 5000Mi of the device's memory, and may have 2048Mi", message)
        message = found["outside_mps"]["message"]
        self.assertIn(f"process {outside} (sleep) of uid {uid}", message)
        self.assertIn(f" uses the device of {SHARED} without MPS, and without limits", message)

    def test_is_ended_through_mps_where_the_policy_says_so(self):
        if OPTIONS.backend.startswith("real"):
            self.skipTest("without a GPU no server lives that could end a client")
        supervisor = self.with_nvml(for_everybody(onViolation="terminate"))
        within = Program(supervisor)
        within.answer()
        past = self.past_the_gate(supervisor)
        found = supervisor.events.wait("client_without_slot", instance=SHARED)
        self.assertIn(f"process {past.pid} ", found["message"])
        ended = supervisor.events.wait("client_terminated", found["id"], SHARED)
        self.assertEqual(ended["data"]["pid"], str(past.pid))
        self.assertEqual(len(supervisor.events.of("client_terminated")), 1)

    def test_who_was_let_in_is_never_found(self):
        supervisor = self.with_nvml(None)
        inside = [Program(supervisor) for _ in range(3)]
        for program in inside:
            program.answer()
        supervisor.kill9()
        mark = supervisor.events.last_id()
        supervisor.start(wait_ready=[SHARED])
        os.kill(supervisor.gate_pid(), signal.SIGKILL)
        supervisor.events.wait("gate_lost", mark)
        supervisor.wait_open()
        past = self.past_the_gate(supervisor)
        found = supervisor.events.wait("client_without_slot", instance=SHARED)
        self.assertIn(f"process {past.pid} ", found["message"])
        self.assertEqual(len(supervisor.events.of("client_without_slot")), 1)

    def test_nvml_that_knows_nothing_is_said_and_accuses_nobody(self):
        supervisor = self.with_nvml(None)
        outside = subprocess.Popen(["sleep", "1000"])
        supervisor.helpers.append(outside)
        self.hardware(supervisor, (0, "memory=400"), (outside.pid, "memory=400"))
        blind = supervisor.events.wait("audit_blind", instance=SHARED)
        self.assertIn("NVML does not tell pids", blind["message"])
        self.assertEqual(supervisor.instance()["bypass"], "open")
        self.assertEqual(supervisor.events.of("outside_mps"), [])


if __name__ == "__main__":
    harness.main()
