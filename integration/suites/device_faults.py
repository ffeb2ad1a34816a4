"""A device that needs a reset, or its node a reboot: it is taken out of service with a clear word, who
is there may finish, its daemon ends and stays down, over restarts, until there is a reason for it to
be back. Xids and recovery actions come from the simulated NVML."""

import json
import os
import signal
import subprocess
import zlib

import harness
from device_kit import (
    GPUS,
    OTHER,
    TELLS_ACTIONS,
    TELLS_NO_ACTIONS,
    DeviceSuite,
)
from fault_kit import IGNORING, faults
from gate_kit import REFUSED, SHARED, Program, for_everybody, socket_inodes
from harness import OPTIONS, wait_until


class OutOfService(DeviceSuite):
    def test_an_idle_one_and_what_is_said_of_it(self):
        supervisor = self.node()
        mark = supervisor.events.last_id()
        said = self.taken_out(supervisor)
        self.assertIn(f"{GPUS[0]} is out of service since ", said["message"])
        self.assertIn(" until it is reset: Xid 46 (GPU timeout), incident f1;", said["message"])
        stopped = self.stopped(supervisor, mark)
        self.assertIn(f"stopped: {GPUS[0]} is out of service", stopped["message"])
        self.refused(supervisor)
        shown = {d["uuid"]: d["outOfService"] for d in supervisor.get("/v1/devices")}
        self.assertIsNone(shown[GPUS[1]])
        entry = shown[GPUS[0]]
        self.assertEqual((entry["needs"], entry["xid"], entry["action"]), ("reset", 46, None))
        instance = supervisor.instance()
        self.assertEqual(instance["outOfService"], entry["message"])
        self.assertEqual(instance["lastError"], entry["message"])
        self.assertIsNone(supervisor.instance(OTHER)["outOfService"])
        incident = supervisor.get(f"/v1/faults/{entry['incident']}")
        self.assertEqual((incident["kind"], incident["end"]), ("device_trouble", "given_up"))
        for view in ("status", "instances"):
            self.assertIn(entry["message"], supervisor.ctl(view)[1])
        self.assertIn("out until reset: Xid 46 (GPU timeout)", supervisor.ctl("devices")[1])
        self.assertIn(entry["message"], supervisor.ctl("doctor")[1])
        self.assertIn(
            f'mps_supervisor_device_out_of_service{{device="{GPUS[0]}",needs="reset"}} 1\n',
            self.http("/metrics")[1],
        )
        # The other one serves, and that is what readiness is about; the word is there too.
        status, body = self.http("/readyz")
        self.assertEqual(status, 200)
        self.assertTrue(body.startswith("ok\n" + entry["message"] + "\npolicies: "), body)
        self.serves(supervisor, OTHER)
        self.launcher_is_refused(supervisor, entry["message"])
        # The last one, too: nothing is left to be ready.
        self.taken_out(supervisor, 79, GPUS[1])
        supervisor.events.wait("stopped", mark, OTHER)
        status, body = self.http("/readyz")
        self.assertEqual(status, 503)
        self.assertIn(f"{OTHER}: {GPUS[1]} is out of service since ", body)

    def launcher_is_refused(self, supervisor, why):
        done = subprocess.run(
            [OPTIONS.build / "bin/mps-run", "--", "true"],
            env=supervisor.backend.environment(supervisor.open_pipe()),
            capture_output=True,
            text=True,
            timeout=harness.DEADLINE,
        )
        self.assertEqual(done.returncode, 125)
        self.assertIn(f"(device_out): {SHARED} takes no new clients: {why}", done.stderr)

    def test_who_is_there_may_finish(self):
        supervisor = self.node()
        client = self.client(supervisor)
        mark = supervisor.events.last_id()
        self.taken_out(supervisor)
        supervisor.events.wait("draining", mark, SHARED)
        self.refused(supervisor)
        self.assertEqual(client.ask("launch 1")["result"], 0)
        self.assertEqual(len(self.daemons(supervisor)), 1)
        self.assertEqual(self.state(supervisor), "draining")
        client.leave()
        self.stopped(supervisor, mark)
        self.assertEqual(self.starts(supervisor, mark), [])
        self.assertEqual(supervisor.events.about_since(mark, OTHER), [])
        self.assertEqual(self.state_of(supervisor, OTHER), "ready")

    def state_of(self, supervisor, name):
        return supervisor.instance(name)["state"]

    def test_a_daemon_that_dies_meanwhile_is_not_started_again(self):
        supervisor = self.node()
        client = self.client(supervisor)
        mark = supervisor.events.last_id()
        self.taken_out(supervisor)
        supervisor.events.wait("draining", mark, SHARED)
        os.kill(self.daemons(supervisor)[0], signal.SIGKILL)
        self.stopped(supervisor, mark)
        client.kill()
        self.assertEqual(self.starts(supervisor, mark), [])

    def test_an_xid_before_with_and_after_a_fault(self):
        for order in ("before", "with", "after"):
            with self.subTest(order):
                supervisor = self.node(ready=(SHARED,), hardware=[f"gpu {GPUS[0]}"])
                # They do not go when they are asked to, so that it is not over before the Xid.
                culprit, victim = [self.client(supervisor, IGNORING) for _ in range(2)]
                mark = supervisor.events.last_id()
                if order == "before":
                    self.taken_out(supervisor, 95)
                elif order == "with":
                    self.xid(supervisor, 95)
                faults(culprit)
                supervisor.events.wait("fault", mark, SHARED)
                if order == "after":
                    self.xid(supervisor, 95)
                supervisor.events.wait("device_out", mark)
                self.stopped(supervisor, mark)
                for client in (culprit, victim):
                    client.kill()
                self.refused(supervisor)
                self.assertEqual(self.starts(supervisor, mark), [])
                entry = self.out(supervisor)[0]
                incident = supervisor.get(f"/v1/faults/{entry['incident']}")
                self.assertEqual(incident["deviceNeeds"], "out_until_reset")
                self.assertEqual({c["pid"] for c in incident["culprits"]}, {culprit.pid})
                supervisor.kill9()

    def test_without_a_gate(self):
        supervisor = self.node(gate="off")
        client = self.client(supervisor)
        mark = supervisor.events.last_id()
        self.taken_out(supervisor)
        supervisor.events.wait("draining", mark, SHARED)
        self.assertEqual(Program(supervisor).answer(), REFUSED)
        self.assertEqual(client.ask("launch 1")["result"], 0)
        client.leave()
        self.stopped(supervisor, mark)
        self.assertEqual(Program(supervisor).answer(), REFUSED)
        # The next supervisor has seen no daemon that it could greet like: they wait, and do not run
        # without MPS.
        mark = supervisor.events.last_id()
        self.again(supervisor)
        self.stopped(supervisor, mark)
        newcomer = Program(supervisor)
        wait_until(lambda: socket_inodes(newcomer.pid), "it has come")
        self.assertFalse(newcomer.has_answered())
        self.assertEqual(supervisor.ctl("restart", SHARED, "--force")[0], 0)
        self.assertIn(newcomer.answer(), (0, REFUSED))
        self.serves(supervisor)

    def test_what_any_program_can_cause_takes_nothing_out(self):
        supervisor = self.node()
        mark = supervisor.events.last_id()
        for number in (13, 31, 32, 43, 45, 68, 69, 94, 109):
            self.xid(supervisor, number)
        supervisor.events.wait("incident_opened", mark, SHARED)

        def all_heard():
            found = supervisor.get("/v1/faults")
            seen = supervisor.get(f"/v1/faults/{found[0]['id']}")["xids"]
            return {x["xid"] for x in seen} >= {109, 13}

        wait_until(all_heard, "all were heard")
        self.assertEqual(self.out(supervisor), [])
        self.assertEqual(self.state(supervisor), "ready")
        self.serves(supervisor)


class WaysBack(DeviceSuite):
    def test_the_driver_asks_for_a_reset_and_then_for_nothing(self):
        supervisor = self.node(TELLS_ACTIONS)
        mark = supervisor.events.last_id()
        self.tell(supervisor, f"action 1 {GPUS[0]}")
        said = supervisor.events.wait("device_out", mark)
        self.assertIn("recovery action gpu_reset", said["message"])
        self.stopped(supervisor, mark)
        self.refused(supervisor)
        mark = supervisor.events.last_id()
        self.tell(supervisor, f"action 0 {GPUS[0]}")
        back = supervisor.events.wait("device_back", mark)
        self.assertEqual(
            back["message"], f"{GPUS[0]} is back in service: the driver asks for nothing any more"
        )
        supervisor.events.wait("ready", mark, SHARED)
        self.serves(supervisor)
        self.assertEqual(len(self.starts(supervisor, mark)), 1)
        self.assertNotIn("device_out_of_service{", self.http("/metrics")[1])

    def test_back_while_it_drains(self):
        supervisor = self.node(TELLS_ACTIONS)
        client = self.client(supervisor)
        mark = supervisor.events.last_id()
        self.tell(supervisor, f"action 4 {GPUS[0]}")
        supervisor.events.wait("draining", mark, SHARED)
        self.tell(supervisor, f"action 0 {GPUS[0]}")
        supervisor.events.wait("undrained", mark, SHARED)
        self.assertEqual(client.ask("launch 1")["result"], 0)
        self.serves(supervisor)
        self.assertEqual(self.starts(supervisor, mark), [])

    def test_an_xid_that_the_driver_asks_nothing_for(self):
        supervisor = self.node(TELLS_ACTIONS)
        mark = supervisor.events.last_id()
        self.xid(supervisor, 95)
        closed = supervisor.events.wait("incident_closed", mark, SHARED)
        incident = supervisor.get("/v1/faults")[0]
        self.assertEqual(incident["end"], "unconfirmed", closed)
        self.assertEqual(supervisor.events.of("device_out"), [])
        self.assertEqual(self.state(supervisor), "ready")

    def test_it_is_kept_in_mind_when_the_supervisor_is_killed(self):
        supervisor = self.node()
        client = self.client(supervisor)
        self.taken_out(supervisor)
        entry = self.out(supervisor)
        mark = supervisor.events.last_id()
        self.again(supervisor)
        supervisor.events.wait("draining", mark, SHARED)
        self.assertEqual(self.out(supervisor), entry)
        self.refused(supervisor)
        self.assertEqual(client.ask("launch 1")["result"], 0)
        client.leave()
        self.stopped(supervisor, mark)
        # And when there is nothing left of it.
        mark = supervisor.events.last_id()
        self.again(supervisor)
        said = self.stopped(supervisor, mark)
        self.assertIn(f"not started: {GPUS[0]} is out of service since ", said["message"])
        self.refused(supervisor)
        self.assertEqual(self.starts(supervisor, mark), [])

    def rewritten(self, supervisor, change):
        """What the supervisor has kept of the device, as another one had."""
        path = supervisor.state / "faults.log"
        lines = []
        for line in path.read_text().splitlines():
            value = json.loads(line[9:])
            if "deviceOut" in value:
                change(value["deviceOut"])
            text = json.dumps(value)
            lines.append(f"{zlib.crc32(text.encode()):08x} {text}\n")
        path.write_text("".join(lines))

    def test_the_node_was_booted(self):
        supervisor = self.node()
        mark = supervisor.events.last_id()
        self.taken_out(supervisor, 79)
        self.stopped(supervisor, mark)
        supervisor.kill9()
        self.rewritten(supervisor, lambda entry: entry.update(bootId=None))
        self.begin(supervisor, [OTHER])
        self.assertEqual(len(self.out(supervisor)), 1)  # nothing is known of the boot
        supervisor.kill9()
        self.rewritten(supervisor, lambda entry: entry.update(bootId="another"))
        mark = supervisor.events.last_id()
        self.begin(supervisor)
        back = supervisor.events.wait("device_back", mark)
        self.assertIn("the node was booted since", back["message"])
        self.serves(supervisor)

    def test_an_operator_puts_it_back(self):
        supervisor = self.node()
        mark = supervisor.events.last_id()
        self.taken_out(supervisor)
        self.stopped(supervisor, mark)
        for verb in ("restart", "undrain"):
            status, _, error = supervisor.ctl(verb, SHARED)
            self.assertEqual(status, 1)
            self.assertIn(f"{GPUS[0]} is out of service since ", error)
            self.assertIn("--force", error)
        mark = supervisor.events.last_id()
        status, said, error = supervisor.ctl("restart", SHARED, "--force")
        self.assertEqual((status, error), (0, ""))
        self.assertIn(f"and its device {GPUS[0]} is back in service", said)
        supervisor.events.wait("ready", mark, SHARED)
        self.serves(supervisor)
        back = supervisor.events.wait("device_back", mark)
        self.assertIn(f"put back by `mps-ctl restart {SHARED} --force`", back["message"])
        self.assertEqual(len(self.starts(supervisor, mark)), 1)
        self.assertEqual(len(self.daemons(supervisor)), 1)
        # It stays so.
        self.again(supervisor, [SHARED, OTHER])
        self.assertEqual(self.out(supervisor), [])

    def test_an_operators_word_against_the_drivers(self):
        supervisor = self.node(TELLS_ACTIONS)
        mark = supervisor.events.last_id()
        self.tell(supervisor, f"action 1 {GPUS[0]}")
        self.stopped(supervisor, mark)
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("restart", SHARED, "--force")[0], 0)
        supervisor.events.wait("ready", mark, SHARED)
        # The next one is told of the same action, at its start.
        self.again(supervisor, [SHARED, OTHER])
        self.serves(supervisor)
        self.tell(supervisor, f"action 2 {GPUS[0]}")
        said = supervisor.events.wait("device_out", mark)
        self.assertIn("until the node is rebooted", said["message"])


class NewInstances(DeviceSuite):
    def test_one_that_appears_on_it_is_told(self):
        supervisor = self.node()
        mark = supervisor.events.last_id()
        self.taken_out(supervisor)
        self.stopped(supervisor, mark)
        supervisor.policies.put("own.yaml", harness.policy("team-a", isolation="dedicated"))
        own = "gpu0.ns-team-a"
        said = supervisor.events.wait("stopped", mark, own)
        self.assertIn("not started: ", said["message"])
        supervisor.events.wait("ready", mark, "gpu1.ns-team-a")
        self.assertEqual(self.daemons(supervisor, own), [])
        # Gone, and wanted again.
        supervisor.policies.remove("own.yaml")
        wait_until(lambda: own not in supervisor.instance_ids(), "it has gone")
        mark = supervisor.events.last_id()
        supervisor.policies.put("own.yaml", harness.policy("team-a", isolation="dedicated"))
        supervisor.events.wait("stopped", mark, own)
        self.assertEqual(self.starts(supervisor, mark, own), [])
        # All of the device are back with it.
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("restart", SHARED, "--force")[0], 0)
        supervisor.events.wait("ready", mark, own)
        supervisor.events.wait("ready", mark, SHARED)
        self.assertEqual(len(self.starts(supervisor, mark)), 1)
        self.assertEqual(len(self.starts(supervisor, mark, own)), 1)

    def test_one_that_was_to_leave_and_is_wanted_again(self):
        files = {**for_everybody(), "own.yaml": harness.policy("user:root", isolation="dedicated")}
        supervisor = self.node(policies=files)
        own = [i for i in supervisor.instance_ids() if i.startswith("gpu0.ns-")][0]
        supervisor.events.wait("ready", instance=own)
        supervisor.wait_open(own)
        client = self.client(supervisor, name=own)
        mark = supervisor.events.last_id()
        supervisor.policies.remove("own.yaml")
        supervisor.events.wait("leaving", mark)
        self.taken_out(supervisor)
        supervisor.policies.put("own.yaml", files["own.yaml"])
        supervisor.events.wait("waiting", mark)
        client.leave()
        said = supervisor.events.wait("stopped", mark, own, 2)
        self.assertIn("not started: ", said["message"])
        self.assertEqual(self.daemons(supervisor, own), [])
        self.assertEqual(self.starts(supervisor, mark, own), [])


class Mig(DeviceSuite):
    MIGS = [f"MIG-00000000-0000-0000-0000-{n:012d}" for n in range(3)]
    NAMES = ["gpu0-mig0.shared", "gpu0-mig1.shared"]

    def lines(self, *migs):
        return [f"gpu {GPUS[0]} mig=on", *(f"mig {uuid} memory=16384 sms=16" for uuid in migs)]

    def test_what_the_driver_asks_of_the_gpu_is_for_all_on_it(self):
        supervisor = self.node(TELLS_ACTIONS, self.lines(*self.MIGS[:2]), self.NAMES)
        mark = supervisor.events.last_id()
        self.tell(supervisor, f"action 1 {GPUS[0]}")
        for name in self.NAMES:
            supervisor.events.wait("stopped", mark, name)
        self.assertEqual([e["device"] for e in self.out(supervisor)], [GPUS[0]])
        for device in supervisor.get("/v1/devices"):
            self.assertEqual(device["outOfService"]["device"], GPUS[0])
        mark = supervisor.events.last_id()
        self.tell(supervisor, f"action 0 {GPUS[0]}")
        for name in self.NAMES:
            supervisor.events.wait("ready", mark, name)

    def test_made_anew(self):
        supervisor = self.node(TELLS_NO_ACTIONS, self.lines(*self.MIGS[:2]), self.NAMES)
        mark = supervisor.events.last_id()
        self.xid(supervisor, 95, self.MIGS[1])
        supervisor.events.wait("stopped", mark, self.NAMES[1])
        self.assertEqual([e["device"] for e in self.out(supervisor)], [self.MIGS[1]])
        self.assertEqual(supervisor.instance(self.NAMES[0])["state"], "ready")
        supervisor.kill9()
        supervisor.nvml.lists(
            f"driver {TELLS_NO_ACTIONS}", *self.lines(self.MIGS[0], self.MIGS[2])
        )
        mark = supervisor.events.last_id()
        self.begin(supervisor, self.NAMES)
        back = supervisor.events.wait("device_back", mark)
        self.assertEqual(
            back["message"],
            f"{self.MIGS[1]} is back in service: there is no such MIG device any more",
        )
        self.assertEqual(self.out(supervisor), [])


if __name__ == "__main__":
    harness.main()
