"""Real CUDA programs at the share: who they are, and a server that does not start."""

import json
import shutil

import harness
from harness import Suite, wait_until


class Clients(Suite):
    def ask(self, supervisor, **options):
        """Starts a program that stays, and waits for the event of its asking."""
        mark = supervisor.events.last_id()
        probe = supervisor.probe("--hold-until-stdin-closes", **options)
        return probe, supervisor.events.wait("client_asked", mark)

    def test_pid_and_uid(self):
        supervisor = self.supervisor().start()
        for uid in (0, 1235):
            probe, event = self.ask(supervisor, user=uid, group=uid, extra_groups=[])
            self.assertEqual(event["data"]["pid"], str(probe.pid))
            self.assertEqual(event["data"]["uid"], str(uid))
            shown = wait_until(
                lambda: [c for c in supervisor.get("/v1/clients") if c["pid"] == probe.pid], "shown"
            )[0]
            self.assertEqual((shown["uid"], shown["command"]), (uid, "mps-probe"))
            probe.stdin.close()
            supervisor.events.wait("client_gone", event["id"])
            # One uid's server must go before another's can come (535, 550).
            wait_until(
                lambda: not supervisor.get("/v1/clients"), "nobody is left"
            )

    @harness.skip_unless(shutil.which("unshare"), "no unshare")
    def test_pid_from_another_namespace_is_the_nodes(self):
        supervisor = self.supervisor().start()
        probe, event = self.ask(
            supervisor,
            prefix=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "--uts", "--net"],
        )
        seen = int(event["data"]["pid"])
        self.assertNotEqual(seen, probe.pid)  # that is unshare itself
        status = (harness.pathlib.Path("/proc") / str(seen) / "status").read_text()
        inside = [line for line in status.splitlines() if line.startswith("NSpid:")][0].split()
        self.assertEqual(inside[1:], [str(seen), "1"])

    def test_a_server_that_does_not_start_is_one_incident(self):
        supervisor = self.supervisor()
        if not supervisor.backend.real:
            (supervisor.root / "sim.conf").write_text("server_fails = 1\n")
            supervisor.environment["MPS_SIM_CONF"] = str(supervisor.root / "sim.conf")
        supervisor.start()
        for n in range(3):
            probe = supervisor.probe()
            answer = json.loads(probe.stdout.readline())
            self.assertEqual(answer["cuInit"], 805)
            probe.wait(timeout=harness.DEADLINE)
        failed = supervisor.events.wait("server_start_failed")
        self.assertEqual(
            failed["message"], "the server does not start: no CUDA-capable device is detected"
        )
        # MPS starts it six times for each of the three.
        wait_until(lambda: supervisor.instance()["server"]["failedStarts"] == 18, "18 starts")
        shown = supervisor.instance()
        self.assertEqual(shown["server"]["status"], "startFailed")
        self.assertEqual(shown["server"]["cause"], "no CUDA-capable device is detected")
        self.assertEqual(shown["state"], "ready")
        self.assertEqual(len(supervisor.events.of("server_start_failed")), 1)

    def test_a_drained_instance_refuses_and_does_not_fail_open(self):
        supervisor = self.supervisor().start()
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.post("/v1/instances/gpu0.shared:drain")[0], 202)
        supervisor.events.wait("stopped", mark)
        probe = supervisor.probe()
        self.assertEqual(json.loads(probe.stdout.readline())["cuInit"], 805)
        self.assertEqual(supervisor.events.of("client_asked"), [])
        self.assertEqual(supervisor.post("/v1/instances/gpu0.shared:undrain")[0], 202)
        supervisor.events.wait("ready", mark)
        supervisor.wait_open()
        probe = supervisor.probe()
        supervisor.events.wait("client_asked")


if __name__ == "__main__":
    harness.main()
