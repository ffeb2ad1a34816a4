"""A client's fault on a running supervisor: the others are ended or waited for, newcomers wait at
the gate, and it serves again; when the server does not recover it is ended, then its daemon; it is
said whose doing it was. With the real control daemon where there is one, and simulated servers."""

import os
import signal

import harness
from fault_kit import IGNORING, WAITS, faults
from fault_suite import FaultSuite, IncidentSuite
from gate_kit import REFUSED, SHARED, Program, for_everybody
from harness import wait_until
from sim_kit import order


class Faults(FaultSuite):
    def test_its_clients_are_ended_and_it_serves_again(self):
        supervisor = self.node()
        # Who goes when it is asked to may have gone before MPS ends it.
        culprit, *victims = [self.client(supervisor, IGNORING) for _ in range(4)]
        mark = supervisor.events.last_id()
        server = self.server(supervisor)
        faults(culprit)
        supervisor.events.wait("fault", mark, SHARED)
        ended = supervisor.events.wait("fault_clients", mark, SHARED)
        self.assertEqual(
            ended["message"], "4 clients that hold the fault were ended, 0 are waited for"
        )
        self.serves_again(supervisor, mark)
        self.assertEqual(self.server(supervisor), server)
        terminated = [e["data"]["pid"] for e in supervisor.events.of("client_terminated")]
        self.assertEqual(set(terminated), {str(p.pid) for p in (culprit, *victims)})
        self.assertEqual(supervisor.instance()["restarts"], 0)

    def test_newcomers_wait_at_the_gate_meanwhile(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit, victim = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        faults(culprit, "trap")
        supervisor.events.wait("fault_clients", mark, SHARED)
        newcomer = self.is_held(supervisor)
        self.assertFalse(newcomer.has_answered())
        self.assertEqual(self.state(supervisor), "faulted")
        culprit.leave()
        victim.leave()
        self.assertEqual(newcomer.answer(), 0)
        supervisor.events.wait("fault_over", mark, SHARED)

    def test_who_may_take_its_time_is_waited_for(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit, victim = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        faults(culprit)
        ended = supervisor.events.wait("fault_clients", mark, SHARED)
        self.assertEqual(
            ended["message"], "0 clients that hold the fault were ended, 2 are waited for"
        )
        culprit.leave()
        self.assertEqual(self.state(supervisor), "faulted")
        self.assertEqual(supervisor.events.of("client_terminated"), [])
        victim.leave()
        self.serves_again(supervisor, mark)

    def test_a_second_fault_after_the_first(self):
        supervisor = self.node()
        for _ in range(3):
            mark = supervisor.events.last_id()
            client, _ = self.client(supervisor), self.client(supervisor)
            faults(client)
            self.serves_again(supervisor, mark)
        self.assertEqual(len(supervisor.events.of("fault")), 3)
        self.assertEqual(supervisor.instance()["restarts"], 0)

    def test_a_server_that_is_killed_in_its_fault(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit, victim = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        faults(culprit)
        supervisor.events.wait("fault_clients", mark, SHARED)
        os.kill(self.server(supervisor), signal.SIGKILL)
        supervisor.events.wait("server_exited", mark, SHARED)
        supervisor.events.wait("fault_over", mark, SHARED)
        for client in (culprit, victim):
            client.kill()
        self.serves_again(supervisor, mark)

    def test_a_daemon_that_is_killed_in_its_fault(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit = self.client(supervisor)
        mark = supervisor.events.last_id()
        faults(culprit)
        supervisor.events.wait("fault_clients", mark, SHARED)
        supervisor.kill_daemon()
        supervisor.events.wait("ready", mark, SHARED)
        culprit.kill()
        newcomer = self.client(supervisor)
        self.assertEqual(newcomer.ask("launch 1")["result"], 0)

    def test_a_supervisor_that_is_killed_in_the_middle(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit, _ = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        faults(culprit)
        supervisor.events.wait("fault_clients", mark, SHARED)
        supervisor.kill9()
        (supervisor.policies.path / "0.yaml").unlink()
        for name, text in for_everybody().items():
            supervisor.policies.put(name, text)
        supervisor.start()
        # The new one finds the server as it is, and its clients' policy says otherwise now.
        self.serves_again(supervisor, mark)

    def test_a_front_end_that_ends_a_client_ends_with_its_supervisor(self):
        """In the daemon's own mount namespace, where a thread of a moment starts it."""
        supervisor = self.node()
        # Of clients that go nobody is terminated any more.
        culprit, _ = [self.client(supervisor, IGNORING) for _ in range(2)]
        server = self.server(supervisor)
        mark = supervisor.events.last_id()
        self.assertIsNotNone(order(server, "set terminate_hangs 1"))
        faults(culprit)
        supervisor.events.wait("fault", mark, SHARED)
        hanging = wait_until(
            harness.HangingFrontEnd(supervisor.process.pid), "MPS leaves terminate_client unanswered"
        )
        supervisor.kill9()
        wait_until(lambda: not harness.is_running(hanging), "it has ended, too")
        order(server, "die signal 9")
        supervisor.start()
        newcomer = self.client(supervisor)
        self.assertEqual(newcomer.ask("launch 1")["result"], 0)
        seen = [e["kind"] for e in supervisor.events.seen if e["id"] > mark]
        self.assertEqual([kind for kind in seen if kind == "channel_busy"], [])

    def test_who_holds_the_fault_and_stays_is_asked_to_go(self):
        """And killed where it does not; whose policy says wait is left alone."""
        supervisor = self.node()
        culprit, deaf = self.client(supervisor), self.client(supervisor, IGNORING)
        mark = supervisor.events.last_id()
        faults(culprit)
        first = supervisor.events.wait("fault_clients_signalled", mark, SHARED)
        self.assertEqual(
            first["message"],
            "2 clients that hold a fault were sent SIGTERM: the server still waits for them",
        )
        second = supervisor.events.wait("fault_clients_signalled", mark, SHARED, count=2)
        self.assertEqual(
            second["message"],
            "1 clients that hold a fault were sent SIGKILL: the server still waits for them",
        )
        self.assertEqual(culprit.process.wait(timeout=harness.DEADLINE), -signal.SIGTERM)
        self.assertEqual(deaf.process.wait(timeout=harness.DEADLINE), -signal.SIGKILL)
        self.serves_again(supervisor, mark)

    def test_while_it_drains(self):
        supervisor = self.node()
        culprit, _ = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("drain", SHARED)[0], 0)
        faults(culprit)
        supervisor.events.wait("fault", mark, SHARED)
        supervisor.events.wait("stopped", mark, SHARED)

    def test_a_server_that_does_not_recover_is_ended(self):
        supervisor = self.node()
        culprit, _ = self.client(supervisor), self.client(supervisor)
        server = self.server(supervisor)
        mark = supervisor.events.last_id()
        self.assertIsNotNone(order(server, "set recovery_fails 1"))
        faults(culprit)
        supervisor.events.wait("fault_shutdown", mark, SHARED)
        self.serves_again(supervisor, mark)
        self.assertNotEqual(self.server(supervisor), server)

    def test_other_devices_never_notice(self):
        supervisor = self.node()
        supervisor.kill9()
        first = supervisor.settings["devices"][0]
        second = {**first, "index": 1, "uuid": first["uuid"][:-1] + "1"}
        supervisor.settings["devices"] = [first, second]
        supervisor.start()
        culprit = self.client(supervisor)
        mark = supervisor.events.last_id()
        faults(culprit)
        supervisor.events.wait("fault_over", mark, SHARED)
        self.assertEqual(supervisor.events.about_since(mark, "gpu1.shared"), [])


class Incidents(IncidentSuite):
    QUARANTINE = {"onFault": {"quarantine": {"after": 1, "within": "10m", "for": "15m"}}}

    def test_it_says_who_did_it_and_who_suffered(self):
        supervisor = self.node()
        # Where clients go at once it may be over before MPS has ended them.
        culprit, *victims = [self.client(supervisor, IGNORING) for _ in range(4)]
        faults(culprit)
        incident = self.closed(supervisor)
        self.assertEqual(incident["kind"], "app_fault")
        self.assertEqual(incident["end"], "serving")
        self.assertEqual(incident["instance"], SHARED)
        self.assertEqual(incident["attribution"], "named")
        self.assertEqual(self.pids(incident["culprits"]), {culprit.pid})
        who = incident["culprits"][0]
        self.assertIn("mps-probe --commands", who["command"])
        self.assertEqual(who["namespace"], "user:root")
        self.assertEqual(self.pids(incident["victims"]), {victim.pid for victim in victims})
        self.assertIn("end its clients", [step["name"] for step in incident["steps"]])
        self.assertLessEqual(incident["noticed"], incident["serving"])
        status, out, err = supervisor.ctl("faults", incident["id"])
        self.assertEqual((status, err), (0, ""))
        self.assertIn(str(culprit.pid), out)

    def test_where_nobody_is_named_it_is_one_of_these(self):
        supervisor = self.node()
        clients = [self.client(supervisor) for _ in range(3)]
        faults(clients[0], "trap")
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "one_of")
        self.assertEqual(incident["culprits"], [])
        self.assertEqual(self.pids(incident["suspects"]), {client.pid for client in clients})

    def test_who_faults_too_often_is_kept_out(self):
        supervisor = self.node(for_everybody(**self.QUARANTINE))
        culprit = self.client(supervisor)
        mark = supervisor.events.last_id()
        faults(culprit)
        self.closed(supervisor)
        supervisor.events.wait("quarantined", mark)
        held = supervisor.get("/v1/quarantine")
        self.assertEqual(len(held), 1)
        refused = Program(supervisor)
        self.assertEqual(refused.answer(), 0)  # another command: a workload of its own
        refused.end()
        event = self.is_kept_out(supervisor)
        self.assertIn("quarantined: ", event["message"])
        # It survives a restart, and is lifted by hand.
        supervisor.kill9()
        supervisor.start()
        self.is_kept_out(supervisor)
        status, out, err = supervisor.ctl("quarantine", "list")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(held[0]["id"], out)
        status, _, err = supervisor.ctl("quarantine", "remove", held[0]["id"])
        self.assertEqual((status, err), (0, ""))
        self.client(supervisor)

    def is_kept_out(self, supervisor):
        mark = supervisor.events.last_id()
        self.assertEqual(self.program(supervisor).said()["cuInit"], REFUSED)
        return supervisor.events.wait("refused", mark, SHARED)

    def test_it_is_readable_after_a_restart(self):
        supervisor = self.node()
        culprit = self.client(supervisor)
        faults(culprit)
        before = self.closed(supervisor)
        supervisor.kill9()
        supervisor.start()
        self.assertEqual(self.closed(supervisor), before)


if __name__ == "__main__":
    harness.main()
