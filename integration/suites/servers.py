"""What needs a living server, so the simulator (or, later, a GPU)."""

import json
import os
import signal

import harness
from harness import Suite, wait_until

FAST_PROBE = {"probe": {"interval": "200ms", "timeout": "500ms", "failures": 3}}


class Servers(Suite):
    def client(self, supervisor, other_than=0):
        """One that is known, as is its server: `other_than` was the last one."""
        probe = supervisor.probe("--hold-until-stdin-closes")
        answer = json.loads(probe.stdout.readline())
        self.assertEqual(answer["cuInit"], 0, answer)

        def known():
            server = supervisor.instance()["server"]
            served = {c["pid"] for c in supervisor.get("/v1/clients") if c["connected"]}
            return server and server["pid"] not in (0, other_than) and probe.pid in served

        wait_until(known, "the client and its server are known")
        return probe

    def test_a_client_gets_the_limits(self):
        supervisor = self.supervisor().start()
        probe = supervisor.probe()
        answer = json.loads(probe.stdout.readline())
        self.assertEqual(answer["cuInit"], 0)
        self.assertEqual(answer["smCount"], 66)  # half of 132
        supervisor.events.wait("server_ready")
        self.assertEqual(supervisor.instance()["server"]["status"], "active")

    def test_drain_waits_for_the_last_client(self):
        supervisor = self.supervisor().start()
        probe = self.client(supervisor)
        mark = supervisor.events.last_id()
        supervisor.post("/v1/instances/gpu0.shared:drain")
        supervisor.events.wait("draining", mark)
        self.assertEqual(supervisor.instance()["state"], "draining")
        late = supervisor.probe()
        self.assertEqual(json.loads(late.stdout.readline())["cuInit"], 805)
        self.assertEqual(supervisor.instance()["state"], "draining")
        probe.stdin.close()
        self.assertEqual(probe.wait(timeout=harness.DEADLINE), 0)
        supervisor.events.wait("stopped", mark)

    def test_limits_of_a_running_server_are_put_right(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        probe = self.client(supervisor)
        server = supervisor.instance()["server"]["pid"]
        wait_until(lambda: supervisor.instance()["server"]["status"] == "active", "active")
        # As root in a container could, through the share: 550 refuses it the defaults, not this.
        supervisor.answered(f"set_active_thread_percentage {server} 90", pipe=supervisor.open_pipe())
        drifted = supervisor.events.wait("limits_drifted")
        self.assertEqual(
            drifted["message"],
            f"somebody changed the limits: server {server}: active thread percentage: 50 % was "
            'set, the daemon says "90.0"; they are put right',
        )
        wait_until(lambda: supervisor.instance()["limits"]["confirmed"], "confirmed again")
        output = supervisor.answered(f"get_active_thread_percentage {server}")
        self.assertEqual(output, "50.0\n")
        probe.stdin.close()

    def test_restart_asks_for_force_while_clients_run(self):
        supervisor = self.supervisor().start()
        probe = self.client(supervisor)
        status, body = supervisor.post("/v1/instances/gpu0.shared:restart")
        self.assertEqual(status, 409)
        self.assertEqual(
            body["error"]["message"],
            "1 clients run on gpu0.shared and would be ended; drain it first, or use --force",
        )
        mark = supervisor.events.last_id()
        status, _ = supervisor.post("/v1/instances/gpu0.shared:restart?force=1")
        self.assertEqual(status, 202)
        supervisor.events.wait("ready", mark)
        probe.stdin.close()

    def test_a_stopped_daemon_with_clients_is_left_alone(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        probe = self.client(supervisor)
        pid = supervisor.instance()["control"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        wedged = supervisor.events.wait("wedged")
        self.assertIn("; it is left alone, since 1 clients run", wedged["message"])
        os.kill(pid, signal.SIGCONT)
        supervisor.events.wait("channel_ok", wedged["id"])
        self.assertEqual(supervisor.instance()["control"]["pid"], pid)
        self.assertIsNone(probe.poll())
        probe.stdin.close()
        self.assertEqual(probe.wait(timeout=harness.DEADLINE), 0)

    def test_a_held_channel_with_clients_restarts_nothing(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        probe = self.client(supervisor)
        pid = supervisor.instance()["control"]["pid"]
        session = supervisor.hold_session()
        busy = supervisor.events.wait_holder("channel_busy", session.pid)
        session.stdin.close()
        supervisor.events.wait("channel_ok", busy["id"])
        peer = supervisor.silent_peer(supervisor.open_pipe() / "control", uid=1235)
        blocked = supervisor.events.wait_holder("channel_blocked", peer.pid, busy["id"])
        peer.stdin.close()
        supervisor.events.wait("channel_ok", blocked["id"])
        self.assertEqual(supervisor.instance()["control"]["pid"], pid)
        self.assertIsNone(probe.poll())

    def test_a_killed_server_is_seen_and_the_instance_serves_on(self):
        supervisor = self.supervisor().start()
        probe = self.client(supervisor)
        server = supervisor.instance()["server"]["pid"]
        os.kill(server, signal.SIGKILL)
        supervisor.events.wait("server_exited")
        probe.stdin.close()
        again = self.client(supervisor, other_than=server)
        self.assertNotEqual(supervisor.instance()["server"]["pid"], server)
        again.stdin.close()

    def test_clients_are_known_again_after_the_supervisors_death(self):
        supervisor = self.supervisor().start()
        probe = self.client(supervisor)
        supervisor.kill9()
        supervisor.start()
        wait_until(lambda: supervisor.instance()["clients"] == 1, "the client is known")
        (shown,) = supervisor.get("/v1/clients")
        self.assertEqual((shown["pid"], shown["adopted"]), (probe.pid, True))
        status, _ = supervisor.post("/v1/instances/gpu0.shared:restart")
        self.assertEqual(status, 409)
        probe.stdin.close()
        supervisor.events.wait("client_gone")


if __name__ == "__main__":
    harness.main()
