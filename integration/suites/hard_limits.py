"""Each client gets its own limits from the server (`hardLimits: on`), whatever it asks for itself:
simulated servers and clients under the real control daemon."""

import json
import select
import time

import harness
from gate_kit import SHARED, GateSuite
from harness import policy, wait_until

ALL_SMS = 132
MEBIBYTE = 1024 * 1024
TEAMS = {"team-a": (10, 1024), "team-b": (50, 4096)}
GREEDY = {
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "100",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=100G",
}


class HardLimits(GateSuite):
    def started(self, **settings):
        groups = self.cgroups()
        files = {
            f"{team}.yaml": policy(team, percentage=percentage, memory=f"{mebibytes}Mi")
            for team, (percentage, mebibytes) in TEAMS.items()
        }
        supervisor = self.supervisor(files, **{"hardLimits": "on", **settings})
        known = {}
        self.containers = {team: groups.container(team, known) for team in TEAMS}
        self.identities(supervisor, known)
        return supervisor.start()

    def client(self, supervisor, team, **environment):
        inside = self.groups.inside(self.containers[team])
        prefix = ["env", *(f"{key}={value}" for key, value in environment.items()), *inside]
        return supervisor.probe("--hold-until-stdin-closes", prefix=prefix)

    def found(self, client):
        if not select.select([client.stdout], [], [], harness.DEADLINE)[0]:
            raise AssertionError(f"{client.pid} says nothing")
        return json.loads(client.stdout.readline())

    def check(self, team, found):
        percentage, mebibytes = TEAMS[team]
        self.assertEqual(found["cuInit"], 0, found)
        # The simulator rounds down to an even number.
        self.assertEqual(found["smCount"], ALL_SMS * percentage // 100 // 2 * 2, team)
        self.assertEqual(found["memFree"], mebibytes * MEBIBYTE, team)

    def limits_of_the_server(self, supervisor):
        time.sleep(0.3)  # the supervisor needs the one command session too
        server = supervisor.ask_daemon("get_server_list").strip()
        return (
            supervisor.ask_daemon(f"get_active_thread_percentage {server}"),
            supervisor.ask_daemon(f"get_device_pinned_mem_limit {server} 0"),
            supervisor.ask_daemon("get_default_active_thread_percentage"),
            supervisor.ask_daemon("get_default_device_pinned_mem_limit 0"),
        )

    def test_two_namespaces_on_one_instance_each_get_their_own(self):
        supervisor = self.started()
        # The first finds no server, the next ones do; each asks for more than it has.
        for team in ("team-a", "team-b", "team-a", "team-b"):
            self.check(team, self.found(self.client(supervisor, team, **GREEDY)))
        # Then the ceiling stands again: the largest of both.
        shown = wait_until(
            lambda: (limits := supervisor.instance()["limits"])["confirmed"] and limits, "confirmed"
        )
        wait_until(
            lambda: self.limits_of_the_server(supervisor) == ("50.0\n", "4G\n", "50.0\n", "4G\n"),
            "the ceiling is put back",
        )
        self.assertEqual(shown["activeThreadPercentage"], 50)
        self.assertEqual(supervisor.events.of("limits_drifted"), [])
        self.assertEqual(supervisor.events.of("hard_limits_unsure"), [])

    def test_many_that_come_at_once(self):
        supervisor = self.started(
            probe={"interval": "300ms", "timeout": "2s", "failures": 3},
            overcommit={"threads": 100, "memory": 1},
        )
        order = [team for team in TEAMS for _ in range(6)]
        self.random.shuffle(order)
        clients = [(team, self.client(supervisor, team, **GREEDY)) for team in order]
        for team, client in clients:
            self.check(team, self.found(client))
        self.assertEqual(supervisor.events.of("limits_drifted"), [])

    def test_a_client_may_ask_for_less(self):
        supervisor = self.started()
        found = self.found(
            self.client(supervisor, "team-b", CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="25")
        )
        self.assertEqual(found["smCount"], 32)

    def test_without_it_the_ceiling_is_all_there_is(self):
        supervisor = self.started(hardLimits="off")
        found = self.found(self.client(supervisor, "team-a", **GREEDY))
        self.assertEqual(found["smCount"], 66)

    def test_whose_limits_cannot_be_set_waits(self):
        supervisor = self.started()
        self.check("team-b", self.found(self.client(supervisor, "team-b")))
        wait_until(lambda: supervisor.instance()["limits"]["confirmed"], "the ceiling is put back")
        session = supervisor.hold_session()
        waiting = self.client(supervisor, "team-a", **GREEDY)
        wait_until(lambda: waiting.pid in supervisor.admitted_pids(), "it has its slot")
        supervisor.events.wait("channel_busy")
        self.assertFalse(select.select([waiting.stdout], [], [], 0)[0])
        self.assertNotIn(waiting.pid, supervisor.log.pids())
        session.stdin.close()
        session.wait(timeout=harness.DEADLINE)
        self.check("team-a", self.found(waiting))

    def test_after_an_end_of_the_daemon(self):
        supervisor = self.started()
        self.check("team-a", self.found(self.client(supervisor, "team-a", **GREEDY)))
        mark = supervisor.events.last_id()
        supervisor.kill_daemon()
        waiting = self.client(supervisor, "team-b", **GREEDY)
        supervisor.events.wait("ready", mark, SHARED)
        self.check("team-b", self.found(waiting))
        self.check("team-a", self.found(self.client(supervisor, "team-a", **GREEDY)))


if __name__ == "__main__":
    harness.main()
