"""A client's fault on a running supervisor: the others are ended or waited for, newcomers wait at the
gate, and it serves again; when the server does not recover it is ended, then its daemon. With the
real control daemon where there is one, and simulated servers."""

import datetime
import json
import os
import signal

import harness
from gate_kit import OTHER_UID, SHARED, GateSuite, Program, for_everybody
from harness import OPTIONS, wait_until
from fault_kit import IGNORING
from sim_kit import Lines, order

WAITS = {"onFault": {"clients": "wait"}}


def now():
    """As the API says times."""
    time = datetime.datetime.now(datetime.timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z"


class FaultSuite(GateSuite):
    def node(self, policies=None, **settings):
        supervisor = self.supervisor(policies or for_everybody(), **settings)
        supervisor.environment["MPS_SIM_SERVER_READY_MS"] = "5"
        return supervisor.start()

    def client(self, supervisor, prefix=()):
        """A probe that is in, with a context, and does what it is told."""
        probe = Lines(
            [*prefix, OPTIONS.build / "bin/mps-probe", "--commands"],
            supervisor.backend.environment(supervisor.open_pipe()),
        )
        supervisor.helpers.append(probe.process)
        first = probe.said()
        self.assertEqual((first["cuInit"], first["cuCtxCreate"]), (0, 0))
        wait_until(lambda: probe.pid in self.connected(supervisor), "it is connected")
        return probe

    def connected(self, supervisor):
        return {c["pid"] for c in supervisor.get("/v1/clients") if c["connected"]}

    def server(self, supervisor):
        return supervisor.instance()["server"]["pid"]

    def state(self, supervisor):
        return supervisor.instance()["state"]

    def serves_again(self, supervisor, mark):
        supervisor.events.wait("fault_over", mark, SHARED)
        self.assertEqual(self.state(supervisor), "ready")
        newcomer = self.client(supervisor)
        self.assertEqual(newcomer.ask("launch 1")["result"], 0)
        return newcomer


class Faults(FaultSuite):
    def test_its_clients_are_ended_and_it_serves_again(self):
        supervisor = self.node()
        culprit, *victims = [self.client(supervisor) for _ in range(4)]
        mark = supervisor.events.last_id()
        server = self.server(supervisor)
        self.assertEqual(culprit.ask("fault bad-address")["result"], 700)
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
        culprit.ask("fault trap")
        supervisor.events.wait("fault_clients", mark, SHARED)
        newcomer = Program(supervisor)
        wait_until(lambda: supervisor.at_the_share() >= 1, "it waits")
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
        culprit.ask("fault bad-address")
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
            client.ask("fault bad-address")
            self.serves_again(supervisor, mark)
        self.assertEqual(len(supervisor.events.of("fault")), 3)
        self.assertEqual(supervisor.instance()["restarts"], 0)

    def test_a_server_that_is_killed_in_its_fault(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit, victim = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        culprit.ask("fault bad-address")
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
        culprit.ask("fault bad-address")
        supervisor.events.wait("fault_clients", mark, SHARED)
        supervisor.kill_daemon()
        supervisor.events.wait("ready", mark, SHARED)
        culprit.kill()
        newcomer = self.client(supervisor)
        self.assertEqual(newcomer.ask("launch 1")["result"], 0)

    def test_a_supervisor_that_is_killed_in_the_middle(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit, victim = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        culprit.ask("fault bad-address")
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
        culprit, _ = self.client(supervisor), self.client(supervisor)
        server = self.server(supervisor)
        mark = supervisor.events.last_id()
        self.assertIsNotNone(order(server, "set terminate_hangs 1"))
        culprit.ask("fault bad-address")
        supervisor.events.wait("fault", mark, SHARED)
        (hanging,) = wait_until(
            lambda: self.hanging_front_end(supervisor), "MPS leaves terminate_client unanswered"
        )
        supervisor.kill9()
        wait_until(lambda: not harness.is_running(hanging), "it has ended, too")
        order(server, "die signal 9")
        supervisor.start()
        newcomer = self.client(supervisor)
        self.assertEqual(newcomer.ask("launch 1")["result"], 0)
        seen = [e["kind"] for e in supervisor.events.seen if e["id"] > mark]
        self.assertEqual([kind for kind in seen if kind == "channel_busy"], [])

    def hanging_front_end(self, supervisor):
        """The same one as at the last look."""
        before = getattr(self, "front_ends_before", [])
        self.front_ends_before = harness.front_ends(supervisor.process.pid)
        return self.front_ends_before if self.front_ends_before == before else []

    def test_who_holds_the_fault_and_stays_is_asked_to_go(self):
        """And killed where it does not; whose policy says wait is left alone."""
        supervisor = self.node()
        culprit, deaf = self.client(supervisor), self.client(supervisor, IGNORING)
        mark = supervisor.events.last_id()
        culprit.ask("fault bad-address")
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
        culprit.ask("fault bad-address")
        supervisor.events.wait("fault_clients", mark, SHARED)
        supervisor.events.wait("stopped", mark, SHARED)

    def test_a_server_that_does_not_recover_is_ended(self):
        supervisor = self.node()
        culprit, _ = self.client(supervisor), self.client(supervisor)
        server = self.server(supervisor)
        mark = supervisor.events.last_id()
        self.assertIsNotNone(order(server, "set recovery_fails 1"))
        culprit.ask("fault bad-address")
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
        culprit.ask("fault bad-address")
        supervisor.events.wait("fault_over", mark, SHARED)
        others = [e for e in supervisor.events.seen if e["instance"] == "gpu1.shared"]
        self.assertEqual([e["kind"] for e in others if e["id"] > mark], [])


class IncidentSuite(FaultSuite):
    def incidents(self, supervisor):
        return supervisor.get("/v1/faults")

    def closed(self, supervisor):
        """The one incident, when it is over."""

        def over():
            found = self.incidents(supervisor)
            return found[0] if found and found[0]["closed"] else None

        incident = wait_until(over, "the incident is closed")
        self.assertEqual(len(self.incidents(supervisor)), 1)
        return supervisor.get(f"/v1/faults/{incident['id']}")

    def pids(self, clients):
        return {client["pid"] for client in clients}


class Incidents(IncidentSuite):
    QUARANTINE = {"onFault": {"quarantine": {"after": 1, "within": "10m", "for": "15m"}}}

    def test_it_says_who_did_it_and_who_suffered(self):
        supervisor = self.node()
        culprit, *victims = [self.client(supervisor) for _ in range(4)]
        culprit.ask("fault bad-address")
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
        clients[0].ask("fault trap")
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "one_of")
        self.assertEqual(incident["culprits"], [])
        self.assertEqual(self.pids(incident["suspects"]), {client.pid for client in clients})

    def test_who_faults_too_often_is_kept_out(self):
        supervisor = self.node(for_everybody(**self.QUARANTINE))
        culprit = self.client(supervisor)
        mark = supervisor.events.last_id()
        culprit.ask("fault bad-address")
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
        probe = Lines(
            [OPTIONS.build / "bin/mps-probe", "--commands"],
            supervisor.backend.environment(supervisor.open_pipe()),
        )
        supervisor.helpers.append(probe.process)
        self.assertEqual(probe.said()["cuInit"], 805)
        return supervisor.events.wait("refused", mark, SHARED)

    def test_it_is_readable_after_a_restart(self):
        supervisor = self.node()
        culprit = self.client(supervisor)
        culprit.ask("fault bad-address")
        before = self.closed(supervisor)
        supervisor.kill9()
        supervisor.start()
        self.assertEqual(self.closed(supervisor), before)


class Restarts(IncidentSuite):
    """Faults around the end of a supervisor: each of them one incident, of whose doing it was."""

    def test_clients_from_before_are_known(self):
        supervisor = self.node(for_everybody(percentage=25))
        culprit, victim = self.client(supervisor), self.client(supervisor)
        came = {c["pid"]: c["since"] for c in supervisor.get("/v1/clients")}
        supervisor.kill9()
        killed = now()
        supervisor.start()
        culprit.ask("fault bad-address")
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "named")
        for who, pid in ((incident["culprits"], culprit.pid), (incident["victims"], victim.pid)):
            self.assertEqual(self.pids(who), {pid})
            self.assertIn("mps-probe --commands", who[0]["command"])
            self.assertEqual(who[0]["namespace"], "user:root")
            self.assertEqual(who[0]["uid"], os.getuid())
            self.assertEqual(who[0]["share"], "open")
            self.assertEqual(who[0]["limits"]["activeThreadPercentage"], 25)
            self.assertLess(who[0]["since"], killed)
        self.assertEqual(set(came), {culprit.pid, victim.pid})

    def test_a_fault_while_no_supervisor_ran(self):
        supervisor = self.node()
        culprit, victim = self.client(supervisor), self.client(supervisor)
        supervisor.kill9()
        before = now()
        self.assertEqual(culprit.ask("fault bad-address")["result"], 700)
        culprit.kill()
        victim.kill()
        after = now()
        supervisor.start()
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "named")
        self.assertEqual(self.pids(incident["culprits"]), {culprit.pid})
        self.assertIn("mps-probe --commands", incident["culprits"][0]["command"])
        self.assertEqual(self.pids(incident["victims"]), {victim.pid})
        self.assertLessEqual(before, incident["happened"])
        self.assertLessEqual(incident["happened"], after)
        self.assertLess(after, incident["noticed"])
        self.serves_newcomers(supervisor)

    def test_one_that_nobody_is_named_for_while_no_supervisor_ran(self):
        supervisor = self.node()
        clients = [self.client(supervisor) for _ in range(2)]
        supervisor.kill9()
        self.assertEqual(clients[0].ask("fault trap")["result"], 719)
        clients[0].kill()
        supervisor.start()
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "one_of")
        self.assertEqual(self.pids(incident["suspects"]), {client.pid for client in clients})
        self.assertFalse(incident["othersPossible"])

    def test_the_only_client_while_no_supervisor_ran(self):
        supervisor = self.node()
        culprit = self.client(supervisor)
        supervisor.kill9()
        self.assertEqual(culprit.ask("fault trap")["result"], 719)
        culprit.kill()
        supervisor.start()
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "only_client")
        self.assertEqual(self.pids(incident["culprits"]), {culprit.pid})

    def test_killed_again_and_again_in_the_middle_it_is_one(self):
        supervisor = self.node(for_everybody(**WAITS))
        culprit, victim = self.client(supervisor), self.client(supervisor)
        culprit.ask("fault bad-address")
        for _ in range(4):
            supervisor.kill9()
            supervisor.start()
        culprit.leave()
        victim.leave()
        incident = self.closed(supervisor)
        self.assertEqual((incident["id"], incident["faults"], incident["rounds"]), ("f1", 1, 1))
        self.assertEqual(self.pids(incident["culprits"]), {culprit.pid})

    def test_who_is_served_first(self):
        supervisor = self.node()
        culprit = self.client(supervisor)
        culprit.ask("fault bad-address")
        self.assertIsNone(self.closed(supervisor)["firstServed"])
        newcomer = self.client(supervisor)
        incident = wait_until(
            lambda: (found := self.closed(supervisor))["firstServed"] and found, "it is served"
        )
        self.assertEqual(incident["firstServedPid"], newcomer.pid)
        self.assertLessEqual(incident["serving"], incident["firstServed"])

    def serves_newcomers(self, supervisor):
        wait_until(lambda: self.state(supervisor) == "ready", "it is ready")
        self.assertEqual(self.client(supervisor).ask("launch 1")["result"], 0)


class Signs(IncidentSuite):
    """Lines of the log are lost: each of the others is enough."""

    def fault_with_garbled(self, lines, how):
        supervisor = self.node()
        clients = [self.client(supervisor) for _ in range(2)]
        self.assertEqual(order(self.server(supervisor), f"garble {lines}"), "done")
        clients[0].ask(f"fault {how}")
        return supervisor, clients

    def test_the_line_that_names_a_client(self):
        supervisor, clients = self.fault_with_garbled(1, "bad-address")
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "named")
        self.assertEqual(self.pids(incident["culprits"]), {clients[0].pid})

    def test_the_list_of_clients(self):
        # The fatal line, two clients' statuses, the list of devices.
        supervisor, clients = self.fault_with_garbled(5, "trap")
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "one_of")
        self.assertEqual(self.pids(incident["suspects"]), {client.pid for client in clients})
        self.assertIn("sticky_clients", [signal["kind"] for signal in incident["signals"]])

    def test_the_answer_of_mps(self):
        if OPTIONS.backend.endswith("535"):
            self.skipTest("535 has no get_server_status")
        # In all of it; what is asked next finds it.
        supervisor, _ = self.fault_with_garbled(100, "trap")
        newcomer = Program(supervisor)  # somebody who comes has the supervisor ask
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "one_of")
        self.assertIn("server_status", [signal["kind"] for signal in incident["signals"]])
        newcomer.end()


    def test_an_xid_has_mps_asked(self):
        if OPTIONS.backend.endswith("535"):
            self.skipTest("535 has no get_server_status")
        supervisor = self.supervisor(
            for_everybody(), probe={"interval": "10m", "timeout": "2s", "failures": 3}
        )
        supervisor.environment["MPS_SIM_SERVER_READY_MS"] = "5"
        inventory = supervisor.root / "nvml"
        uuid = supervisor.settings["devices"][0]["uuid"]
        inventory.write_text(f"driver 550.163.01\ngpu {uuid} cc=9.0\n")
        supervisor.environment["MPS_SIM_NVML"] = str(inventory)
        supervisor.settings["devices"] = "auto"
        supervisor.settings["nvmlLibrary"] = str(OPTIONS.build / "sim/lib/libnvidia-ml.so.1")
        supervisor.start(wait_ready=[SHARED])
        clients = [self.client(supervisor) for _ in range(2)]
        self.assertEqual(order(self.server(supervisor), "garble 100"), "done")
        clients[0].ask("fault trap")
        incident = self.closed(supervisor)
        kinds = [signal["kind"] for signal in incident["signals"]]
        self.assertIn("xid", kinds)
        self.assertIn("server_status", kinds)
        self.assertEqual(self.pids(incident["suspects"]), {client.pid for client in clients})


class Ends(IncidentSuite):
    """Which ends of a server are incidents."""

    def test_one_that_was_killed_is_one(self):
        supervisor = self.node()
        client = self.client(supervisor)
        os.kill(self.server(supervisor), signal.SIGKILL)
        incident = self.closed_by(supervisor)
        self.assertEqual(incident["kind"], "server_died")
        self.assertEqual(self.pids(incident["victims"]), {client.pid})

    def closed_by(self, supervisor):
        wait_until(lambda: self.incidents(supervisor), "it is an incident")
        return supervisor.get(f"/v1/faults/{self.incidents(supervisor)[0]['id']}")

    def test_one_that_an_operator_shuts_down_is_none(self):
        supervisor = self.node()
        client = self.client(supervisor)
        client.leave()
        mark = supervisor.events.last_id()
        server = self.server(supervisor)
        supervisor.commands(f"shutdown_server {server}")
        event = supervisor.events.wait("server_exited", mark, SHARED)
        self.assertIn("as the command shutdown_server asked", event["message"])
        self.client(supervisor)
        self.assertEqual(self.incidents(supervisor), [])

    def test_one_that_makes_room_for_another_uid_is_none(self):
        supervisor = self.node()
        client = self.client(supervisor)
        client.leave()
        wait_until(lambda: not supervisor.get("/v1/clients"), "it has gone")
        server = self.server(supervisor)
        mark = supervisor.events.last_id()
        other = Program(supervisor, user=OTHER_UID, group=OTHER_UID, extra_groups=[])
        self.assertEqual(other.answer(), 0)
        supervisor.events.wait("server_exited", mark, SHARED)
        self.assertNotEqual(self.server(supervisor), server)
        self.assertEqual(self.incidents(supervisor), [])
        other.end()

    def test_one_that_ends_with_its_daemon_is_none(self):
        supervisor = self.node()
        client = self.client(supervisor)
        client.leave()
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("restart", SHARED)[0], 0)
        supervisor.events.wait("ready", mark, SHARED)
        self.client(supervisor)
        self.assertEqual(self.incidents(supervisor), [])


if __name__ == "__main__":
    harness.main()
