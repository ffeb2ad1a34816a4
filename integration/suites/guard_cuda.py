"""What mps-run --guard is there for: CUDA is ended in order before a signal ends the program. With
the real control daemon and simulated servers, so that there are clients."""

import json
import signal
import subprocess

import harness
from gate_kit import for_everybody
from harness import PYTHON, wait_until
from run_kit import RunSuite


class Cuda(RunSuite):
    def client(self, supervisor, *words, **options):
        started = self.launch(
            supervisor, *words, "--", *self.probe("--hold-until-stdin-closes", "--look-at-end"),
            stdin=subprocess.PIPE, **options,
        )
        found = json.loads(self.line(started))
        self.assertEqual((found["cuInit"], found["cuCtxCreate"]), (0, 0))
        wait_until(lambda: found["pid"] in self.connected(supervisor), "it is connected")
        return started, found["pid"]

    def connected(self, supervisor):
        return {c["pid"] for c in supervisor.get("/v1/clients") if c["connected"]}

    def test_it_is_ended_before_the_program(self):
        supervisor = self.supervisor(for_everybody()).start()
        started, pid = self.client(supervisor, "--guard")
        neighbour, other = self.client(supervisor)
        self.assertNotEqual(started.pid, pid)
        mark = supervisor.events.last_id()
        started.send_signal(signal.SIGTERM)
        self.assertEqual(started.wait(timeout=harness.DEADLINE), -signal.SIGTERM)
        ended = supervisor.events.wait("client_terminated", mark)
        self.assertEqual(ended["data"]["pid"], str(pid))
        gone = supervisor.events.wait("client_gone", mark)
        self.assertGreater(gone["id"], ended["id"])
        # Nobody else's, though it is the same user's and in the same cgroup.
        neighbour.stdin.close()
        self.assertEqual(json.loads(self.line(neighbour))["cuMemGetInfo"], 0)
        self.assertEqual(neighbour.wait(timeout=harness.DEADLINE), 0)
        self.assertEqual(len(supervisor.events.of("client_terminated")), 1)
        self.assertNotEqual(other, pid)

    def test_a_program_that_handles_the_signal_has_its_time(self):
        supervisor = self.supervisor(for_everybody()).start()
        script = (
            "import signal,subprocess,sys\n"
            "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
            "p=subprocess.Popen(sys.argv[1:])\nwhile True:\n    p.wait()\n    signal.pause()\n"
        )
        started = self.launch(
            supervisor, "--guard", "--grace", "1500ms", "--", PYTHON, "-c", script,
            *self.probe("--hold-until-stdin-closes", "--look-at-end"), stdin=subprocess.PIPE,
        )
        found = json.loads(self.line(started))
        wait_until(lambda: found["pid"] in self.connected(supervisor), "it is connected")
        mark = supervisor.events.last_id()
        started.send_signal(signal.SIGTERM)
        self.assertEqual(self.line(started), "asked\n")
        self.assertEqual(supervisor.events.of("client_terminated"), [])
        ended = supervisor.events.wait("client_terminated", mark)
        self.assertEqual(ended["data"]["pid"], str(found["pid"]))
        self.assertIsNone(started.poll())
        started.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    harness.main()
