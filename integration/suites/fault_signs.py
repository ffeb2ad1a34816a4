"""What a supervisor knows of a fault by: what went on before it came, a log of which lines are lost,
the word of MPS and of the driver; and which ends of a server are nobody's fault."""

import datetime
import os
import signal

import harness
from fault_kit import WAITS, faults
from fault_suite import IncidentSuite
from gate_kit import OTHER_UID, SHARED, Program, for_everybody
from harness import OPTIONS, wait_until
from sim_kit import order
from sim_nvml import SimNvml


def now():
    """As the API says times."""
    time = datetime.datetime.now(datetime.timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z"


class Restarts(IncidentSuite):
    """Faults around the end of a supervisor: each of them one incident, of whose doing it was."""

    def test_clients_from_before_are_known(self):
        supervisor = self.node(for_everybody(percentage=25))
        begun = now()
        culprit, victim = self.client(supervisor), self.client(supervisor)
        came = now()
        supervisor.kill9()
        supervisor.start()
        faults(culprit)
        incident = self.closed(supervisor)
        self.assertEqual(incident["attribution"], "named")
        for who, pid in ((incident["culprits"], culprit.pid), (incident["victims"], victim.pid)):
            self.assertEqual(self.pids(who), {pid})
            self.assertIn("mps-probe --commands", who[0]["command"])
            self.assertEqual(who[0]["namespace"], "user:root")
            self.assertEqual(who[0]["uid"], os.getuid())
            self.assertEqual(who[0]["share"], "open")
            self.assertEqual(who[0]["limits"]["activeThreadPercentage"], 25)
            self.assertLessEqual(begun, who[0]["since"])
            self.assertLessEqual(who[0]["since"], came)

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
        faults(culprit)
        for _ in range(4):
            supervisor.kill9()
            supervisor.start()
        culprit.leave()
        victim.leave()
        incident = self.closed(supervisor)  # whose number a supervisor may have taken with it
        self.assertEqual((incident["faults"], incident["rounds"]), (1, 1))
        self.assertEqual(self.pids(incident["culprits"]), {culprit.pid})

    def test_who_is_served_first(self):
        supervisor = self.node()
        culprit = self.client(supervisor)
        faults(culprit)
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
        faults(clients[0], how)
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
        uuid = supervisor.settings["devices"][0]["uuid"]
        nvml = SimNvml(supervisor, "driver 550.163.01", f"gpu {uuid} cc=9.0")
        supervisor.start(wait_ready=[SHARED])
        nvml.wait_listener()
        clients = [self.client(supervisor) for _ in range(2)]
        self.assertEqual(order(self.server(supervisor), "garble 100"), "done")
        faults(clients[0], "trap")
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
        mark = supervisor.events.last_id()
        os.kill(self.server(supervisor), signal.SIGKILL)
        supervisor.events.wait("incident_opened", mark, SHARED)
        (opened,) = self.incidents(supervisor)
        incident = supervisor.get(f"/v1/faults/{opened['id']}")
        self.assertEqual(incident["kind"], "server_died")
        self.assertEqual(self.pids(incident["victims"]), {client.pid})

    def test_one_that_an_operator_shuts_down_is_none(self):
        supervisor = self.node()
        client = self.client(supervisor)
        client.leave()
        mark = supervisor.events.last_id()
        server = self.server(supervisor)
        supervisor.answered(f"shutdown_server {server}")
        event = supervisor.events.wait("server_exited", mark, SHARED)
        self.assertIn("as the command shutdown_server asked", event["message"])
        self.client(supervisor)
        self.assertEqual(self.incidents(supervisor), [])

    def test_one_that_makes_room_for_another_uid_is_none(self):
        supervisor = self.node()
        client = self.client(supervisor)
        client.leave()
        self.nobody_is_there(supervisor)
        server = self.server(supervisor)
        mark = supervisor.events.last_id()
        other = Program(supervisor, user=OTHER_UID, group=OTHER_UID, extra_groups=[])
        self.assertEqual(other.answer(), 0)
        supervisor.events.wait("server_exited", mark, SHARED)
        self.server(supervisor, other_than=server)
        self.assertEqual(self.incidents(supervisor), [])
        other.end()

    def test_one_that_ends_with_its_daemon_is_none(self):
        supervisor = self.node()
        client = self.client(supervisor)
        client.leave()
        self.nobody_is_there(supervisor)  # else a restart is refused
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("restart", SHARED)[0], 0)
        supervisor.events.wait("ready", mark, SHARED)
        self.client(supervisor)
        self.assertEqual(self.incidents(supervisor), [])


if __name__ == "__main__":
    harness.main()
