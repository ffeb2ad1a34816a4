"""The simulator's faults, seen by real processes: a control daemon (NVIDIA's own or ours), a
simulated server, and CUDA programs. What mps-supervisor makes of them is other suites' matter."""

import os
import unittest

import harness
from harness import wait_until
from sim_kit import DEVICE, Lines, Node, order

BAD_ADDRESS = {"call": "cuCtxSynchronize", "result": 700, "name": "CUDA_ERROR_ILLEGAL_ADDRESS"}
TRAP = {"call": "cuCtxSynchronize", "result": 719, "name": "CUDA_ERROR_LAUNCH_FAILED"}

NOBODY = "ACTIVE, 0 clients, 0 contexts, 0 busy"


class SimFaults(unittest.TestCase):
    def node(self, **settings):
        node = Node(settings).start()
        self.addCleanup(node.close)
        return node

    def status(self, node):
        answer = node.commands(f"get_server_status {node.server()}")
        unknown = 'Unknown command "get_server_status"'
        return None if answer == [unknown] else answer[0]

    def assert_status(self, node, status):
        """535 does not know the command, so there the server itself is asked."""
        self.assertIn(self.status(node), (status, None))
        self.assertEqual(node.order("status").split(",")[0], status)

    def faulted(self, node, kind="bad-address", victims=3):
        """A culprit and its victims, after the fault."""
        clients = [node.client() for _ in range(victims + 1)]
        said = clients[0].ask(f"fault {kind}")
        expected = TRAP if kind == "trap" else BAD_ADDRESS
        self.assertEqual(said, {"step": "fault", **expected})
        return clients

    def named(self, node, client):
        """As a server's log names a client's first context; 580 has words for it."""
        is_new = node.backend.version == "580"
        return f"{{PID: {client.pid}, Context ID: 1}}" if is_new else f"{{{client.pid}, 1}}"

    def assert_order_of(self, lines, *expected):
        place = 0
        for line in expected:
            self.assertIn(line, lines[place:])
            place = lines.index(line, place) + 1

    def test_a_fault_reaches_all_and_names_the_one_who_did_it(self):
        node = self.node()
        culprit, *victims = clients = self.faulted(node)
        for victim in victims:
            self.assertEqual(victim.ask("launch 1")["result"], 700)
            self.assertEqual(victim.ask("memory")["result"], 700)
        head, length = "Server is handling a fatal GPU error.", 13

        def told():
            lines = node.server_lines()
            begin = lines.index(head) if head in lines else len(lines)
            return lines[begin : begin + length] if len(lines) >= begin + length else None

        who = self.named(node, culprit) if node.backend.version == "580" else culprit.pid
        self.assertEqual(
            wait_until(told, "all lines of the fault"),
            [
                head,
                f"Client process {who} encountered a fatal GPU error.",
                *(f"Status of client {self.named(node, c)} is INACTIVE" for c in clients),
                "The following devices will be reset:",
                "0",
                "The following clients have a sticky error set:",
                *(str(client.pid) for client in clients),
            ],
        )
        self.assert_status(node, "FAULT")
        self.assertEqual(node.refused(), 807)

    def test_a_trap_names_nobody(self):
        node = self.node()
        _, victim = self.faulted(node, "trap", victims=1)
        self.assertEqual(victim.ask("launch 1")["result"], 719)
        self.assertNotIn("encountered a fatal GPU error", node.log_text())

    def test_it_recovers_when_all_have_left(self):
        node = self.node()
        clients = self.faulted(node)
        server = node.server()
        for client in clients:
            client.leave()
        node.wait_log("Creating server context on device 0 (Simulated GPU)")
        self.assert_order_of(
            node.server_lines(),
            f"Client {self.named(node, clients[-1])} exit",
            "Destroy server context on device 0",
            "Creating server context on device 0 (Simulated GPU)",
        )
        wait_until(lambda: node.order("status").startswith("ACTIVE"), "ACTIVE")
        newcomer = node.client()
        self.assertEqual(newcomer.ask("launch 1")["result"], 0)
        self.assertEqual(node.server(), server)
        self.assert_status(node, "ACTIVE")

    def test_a_victim_that_stays_keeps_it_in_fault(self):
        node = self.node(recovery_ms=0)
        *others, last = self.faulted(node)
        for client in others:
            client.leave()
        node.wait_log("Client process disconnected", count=len(others))
        self.assert_status(node, "FAULT")
        self.assertEqual(node.refused(), 807)
        last.kill()
        node.wait_log("Creating server context on device 0")
        self.assert_status(node, "ACTIVE")

    def test_terminate_client_works_in_fault_and_its_end_ends_it(self):
        node = self.node()
        clients = self.faulted(node)
        server = node.server()
        for client in clients:
            self.assertEqual(node.commands(f"terminate_client {server} {client.pid}"), ["0"])
            self.assertEqual(client.ask("memory")["result"], 810)
        self.assert_status(node, "FAULT")  # the processes are there still
        for client in clients:
            client.kill()
        node.wait_log("Creating server context on device 0")
        self.assertEqual(node.client().ask("launch 1")["result"], 0)

    def test_a_hanging_kernel_hurts_nobody_else_and_can_be_terminated(self):
        node = self.node()
        hanging, other = node.client(), node.client()
        self.assertEqual(hanging.ask("hang")["result"], 0)
        self.assertEqual(other.ask("launch 1")["result"], 0)
        self.assertTrue(hanging.is_silent())
        self.assertEqual(node.commands(f"terminate_client {node.server()} {hanging.pid}"), ["0"])
        ended = hanging.said()
        self.assertEqual((ended["step"], ended["result"]), ("hang-ended", 810))
        self.assertEqual(other.ask("launch 1")["result"], 0)

    def test_terminate_client_that_is_not_answered(self):
        node = self.node(terminate_hangs=1)
        hanging = node.client()
        hanging.ask("hang")
        server = node.server()
        self.assertIsNone(node.commands(f"terminate_client {server} {hanging.pid}", deadline=0.5))
        os.kill(server, 9)
        self.assertEqual(hanging.said()["result"], 806)

    def test_a_busy_client_killed_hangs_the_server_until_it_is_killed(self):
        node = self.node(kill_busy_hangs=1)
        busy, idle, other = node.client(), node.client(), node.client()
        self.assertEqual(busy.ask("start 60000")["result"], 0)
        idle.kill()  # one that has no work does no harm
        node.wait_log("Client process disconnected")
        self.assertEqual(other.ask("launch 1")["result"], 0)
        server = node.server()
        busy.kill()
        wait_until(lambda: order(server, "status").endswith(", hangs"), "it hangs")
        other.tell("launch 1")
        newcomer = node.probe()
        node.wait_log("NEW CLIENT", count=4)
        self.assertTrue(other.is_silent() and newcomer.is_silent())
        os.kill(server, 9)
        self.assertEqual(other.said()["result"], 806)
        self.assertIn(newcomer.said()["cuInit"], (805, 806))

    def test_a_client_that_exits_with_work_outstanding(self):
        for hangs in (0, 1):
            with self.subTest(kill_busy_hangs=hangs):
                node = self.node(kill_busy_hangs=hangs)
                bad, other = node.client(), node.client()
                self.assertEqual(bad.ask("exit-badly")["result"], 0)
                self.assertEqual(bad.process.wait(timeout=harness.DEADLINE), 0)
                if hangs:
                    wait_until(lambda: node.order("status").endswith(", hangs"), "it hangs")
                else:
                    node.wait_log("Client process disconnected")
                    self.assertEqual(other.ask("launch 1")["result"], 0)

    def test_clients_of_a_server_that_dies_get_806(self):
        for line, status in (("die", 0), ("die status 3", 3), ("die signal 11", 0)):
            with self.subTest(line):
                node = self.node()
                looping, waiting = node.client(), node.client()
                self.assertEqual(looping.ask("until-error 1")["result"], 0)
                self.assertEqual(waiting.ask("hang")["result"], 0)
                server = node.server()
                self.assertIsNone(order(server, line))
                self.assertEqual(looping.said()["name"], "CUDA_ERROR_MPS_RPC_FAILURE")
                self.assertEqual(waiting.said()["result"], 806)
                node.wait_log(f"Server {server} exited with status {status}")
                self.assertEqual(node.client().ask("launch 1")["result"], 0)
                self.assertNotEqual(node.server(), server)

    def test_48_clients_and_no_more(self):
        node = self.node()
        clients = [node.client() for _ in range(48)]
        self.assertEqual(node.refused(), 808)
        node.wait_log("Failed to accept new client. Maximum number of clients (48) reached.")
        clients.pop().leave()
        node.wait_log("Client process disconnected")
        clients.append(node.client())
        self.assertEqual(clients[0].ask("fault trap")["result"], 719)
        for client in clients[1:]:
            self.assertEqual(client.ask("launch 1")["result"], 719)

    def test_connections_of_a_device_and_no_more(self):
        node = self.node(most_connections=10)
        environment = {**node.environment, "CUDA_DEVICE_MAX_CONNECTIONS": "7"}
        many = Lines([harness.OPTIONS.build / "bin/mps-probe", "--commands"], environment)
        node.helpers.append(many)
        self.assertEqual(many.said()["cuCtxCreate"], 0)
        few = node.client()  # two, as is the default under MPS
        refused = node.probe()
        said = refused.said()
        self.assertEqual((said["cuInit"], said["cuCtxCreate"]), (0, 809))
        node.wait_log("Failed to accept new client. Reached maximum number of device connections.")
        refused.leave()
        few.leave()
        wait_until(lambda: node.order("status").startswith("ACTIVE, 1 clients"), "they have left")
        self.assertEqual(node.client().ask("launch 1")["result"], 0)

    def test_other_devices_of_a_server_go_on_but_let_nobody_in(self):
        second = "GPU-00000000-0000-4000-8000-000000000001"
        node = self.node(devices=f"{DEVICE},{second}")
        culprit, elsewhere = node.client(), node.client("--device", "1")
        self.assertEqual(culprit.ask("fault trap")["result"], 719)
        self.assertEqual(elsewhere.ask("launch 1")["result"], 0)
        self.assertEqual(node.refused(), 807)
        culprit.leave()
        node.wait_log("Creating server context on device 0")
        self.assertNotIn("server context on device 1", node.log_text())
        self.assertEqual(elsewhere.ask("launch 1")["result"], 0)

    def test_another_uid_waits_until_all_have_left(self):
        node = self.node()
        first = node.client()
        other = node.probe(user=1235, group=1235, extra_groups=[])
        node.wait_log("from user 1235: Server is not ready, push client to pending list")
        self.assertTrue(other.is_silent())
        first.leave()
        self.assertEqual(other.said()["cuInit"], 0)
        node.wait_log("for user 1235")

    def xids(self, watch, count):
        said = [watch.said() for _ in range(count)]
        self.assertEqual({(event["device"], event["event"]) for event in said}, {(DEVICE, "xid")})
        return [event["number"] for event in said]

    def test_xids_of_a_fault(self):
        for kind, first in (("bad-address", 31), ("trap", 13)):
            with self.subTest(kind):
                node = self.node()
                watch = node.watch()
                self.faulted(node, kind, victims=2)
                self.assertEqual(self.xids(watch, 4), [first, 45, 45, 43])

    def test_a_migs_xids_name_its_instances(self):
        mig = "MIG-00000000-0000-4000-8000-0000000000aa"
        node = Node({"devices": mig})
        self.addCleanup(node.close)
        node.write_inventory(f"gpu {DEVICE} mig=on", f"mig {mig} place=2")
        node.start()
        watch = node.watch()
        self.faulted(node, "trap", victims=0)
        event = watch.said()
        self.assertEqual((event["device"], event["number"]), (DEVICE, 13))
        self.assertEqual((event["gpuInstance"], event["computeInstance"]), (3, 0))

    def test_xids_and_recovery_actions_by_order(self):
        node = self.node()
        node.client()
        is_new = node.backend.version == "580"  # the driver has had it since 570
        watch = node.watch()
        self.assertEqual(watch.first["types"], 0x8008 if is_new else 0x8)
        self.assertEqual(watch.first["recoveryAction"], 0 if is_new else -1)
        self.assertEqual(node.order("xid 79"), "done")
        self.assertEqual(self.xids(watch, 1), [79])
        self.assertEqual(node.order("xid 79 GPU-1234"), "refused: no such device")
        self.assertEqual(node.order("drop-xid 2"), "done")
        self.assertEqual(node.order(f"xid 1 {DEVICE}"), "done")
        self.assertEqual(node.order("xid 2"), "done")
        self.assertEqual(node.order("recovery reset"), "done")
        self.assertEqual(node.order("xid 3"), "done")
        if is_new:
            self.assertEqual(self.xids(watch, 1), [154])
            event = watch.said()
            self.assertEqual((event["event"], event["number"]), ("recoveryAction", 1))
            self.assertEqual(event["recoveryAction"], 1)
        self.assertEqual(self.xids(watch, 1), [3])
        self.assertEqual(watch.leave(), 0)

    def test_a_server_of_another_uid_tells_xids_too(self):
        node = self.node()
        watch = node.watch()
        client = node.client(user=1235, group=1235, extra_groups=[])
        self.assertEqual(client.ask("fault bad-address")["result"], 700)
        self.assertEqual(self.xids(watch, 2), [31, 43])

    def test_orders(self):
        node = self.node()
        client = node.client()
        server = node.server()
        self.assertEqual(order(server, "status"), "ACTIVE, 1 clients, 1 contexts, 0 busy")
        self.assertTrue(order(server, "fault it").startswith("refused: fault PID"))
        self.assertEqual(order(server, "hang 1"), "refused: no such client with a context")
        self.assertEqual(order(server, "out-of-memory on"), "done")
        self.assertEqual(client.ask("alloc 1")["result"], 2)
        self.assertEqual(order(server, "out-of-memory off"), "done")
        self.assertEqual(client.ask("alloc 1")["result"], 0)
        self.assertEqual(order(server, f"hang {client.pid}"), "done")
        self.assertEqual(order(server, "status"), "ACTIVE, 1 clients, 1 contexts, 1 busy")
        client.tell("await")
        self.assertEqual(order(server, f"fault {client.pid}"), "done")
        self.assertEqual(client.said()["result"], 700)
        self.assertEqual(order(server, "set recovery_fails 1"), "done")
        client.leave()
        node.wait_log("Client process disconnected")
        self.assertEqual(order(server, "status"), "FAULT, 0 clients, 0 contexts, 0 busy")
        self.assertEqual(order(server, "set recovery_fails 0"), "done")
        node.wait_log("Creating server context on device 0")

    def test_a_server_that_stops_answering_and_answers_again(self):
        node = self.node()
        client = node.client()
        server = node.server()
        self.assertEqual(order(server, "stop answering"), "done")
        client.tell("memory")
        self.assertIsNone(node.commands(f"get_client_list {server}", deadline=0.5))
        self.assertTrue(client.is_silent())
        self.assertEqual(order(server, "answer again"), "done")
        self.assertEqual(client.said()["result"], 0)

    def test_a_slow_server(self):
        node = self.node()
        client = node.client()
        self.assertEqual(node.order("slow 30"), "done")
        self.assertGreaterEqual(client.ask("launch 0")["milliseconds"], 30)
        self.assertEqual(node.order("slow 0"), "done")

    def test_what_the_probe_does_without_commands(self):
        node = self.node()
        for options, said in (
            ("--launch-ms 20", [("launch", 0)]),
            ("--loop 3 --launch-ms 2", [("loop", 0)]),
            ("--fault trap", [("fault", 719)]),
            ("--fault bad-address --loop 2", [("fault", 700), ("loop", 700)]),
            ("--fault trap --until-error", [("fault", 719), ("until-error", 719)]),
            ("--exit-badly --fault trap", [("exit-badly", 0)]),
        ):
            with self.subTest(options):
                probe = node.program("mps-probe", *options.split())
                self.assertEqual(probe.said()["memLimit"], 144384 << 20)
                lines = [probe.said() for _ in said]
                self.assertEqual([(line["step"], line["result"]) for line in lines], said)
                self.assertEqual(probe.leave(), 0)
                wait_until(lambda: node.order("status") == NOBODY, "it has left")

    def test_a_kernel_takes_its_time(self):
        client = self.node().client()
        self.assertGreaterEqual(client.ask("launch 20")["milliseconds"], 20)
        self.assertEqual(client.ask("start 20")["result"], 0)
        self.assertEqual(client.ask("await")["result"], 0)

    def test_without_mps_a_fault_is_ones_own(self):
        node = Node()
        self.addCleanup(node.close)
        alone, other = node.client(), node.client()
        self.assertEqual(alone.ask("fault trap")["result"], 719)
        self.assertEqual(alone.ask("launch 1")["result"], 719)
        self.assertEqual(other.ask("launch 1")["result"], 0)

    def test_garbled_log_lines(self):
        node = self.node()
        node.client()
        self.assertEqual(node.order("garble 2"), "done")
        node.client()
        node.wait_log("\x01")
        node.client()
        node.wait_log("Worker created", count=2)
        self.assertEqual(node.log_text().count("\x01"), 2)


    def test_lines_of_the_log_that_are_lost(self):
        node = self.node()
        node.client()
        self.assertEqual(node.order("lose 3"), "done")
        node.client().leave()
        node.wait_log("Client process disconnected")
        self.assertEqual(node.log_text().count("Worker created"), 1)

    def test_the_list_of_what_happened(self):
        node = self.node()
        truth = node.root / "truth"
        truth.touch()
        node.client()
        self.assertEqual(node.order(f"set truth {truth}"), "done")
        clients = [node.client() for _ in range(2)]
        self.assertEqual(clients[0].ask("fault trap")["result"], 719)
        self.assertEqual(clients[1].ask("fault bad-address")["result"], 719)  # it has its error
        at, pid, directory, kind = truth.read_text().split()
        self.assertGreater(int(at), 0)
        self.assertEqual((int(pid), directory, kind), (clients[0].pid, str(node.pipe), "trap"))

    def test_what_is_documented_of_580(self):
        node = Node(backend="sim-580")  # with older ones the real programs are compared
        self.addCleanup(node.close)
        node.start("-multiuser-server")
        other = node.client(user=1235, group=1235, extra_groups=[])
        mine = node.client()
        self.assertEqual(mine.ask("launch 1")["result"], 0)  # besides the other one
        for text in (
            "CUDA MPS Control binary version: 13000",
            "CUDA MPS Server for Linux/Unix. Binary version: 13000",
            "Display Driver version: 580",
            f"NEW CLIENT {other.pid} from user 0:",
            f"Client {{PID: {mine.pid}, Context ID: 0}} connected",
        ):
            node.wait_log(text)


if __name__ == "__main__":
    harness.main()
