"""Namespaces with an instance of their own, and what becomes of clients when policies change."""

import hashlib
import json
import os
import select
import signal
import unittest

import harness
from harness import control_daemons, policy, wait_until
from policy_suite import KEPT, QUICK, SETTINGS, SHARED, TEAM_A, PolicySuite, as_daemon_prints


class Dedicated(PolicySuite):
    def test_it_comes_and_goes_with_its_policy(self):
        supervisor = self.supervisor().start()
        policies = supervisor.policies
        policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        policies.put("team-a.yaml", policy("team-a", 60, "8Gi", isolation="dedicated"))
        supervisor.events.wait("ready", 0, TEAM_A)
        supervisor.wait_open(TEAM_A)
        self.check_limits(supervisor, 60, "8Gi", TEAM_A)
        self.check_limits(supervisor, 25, "2Gi")
        shown = supervisor.instance(TEAM_A)
        self.assertEqual(shown["domain"], "ns-team-a")
        self.assertEqual(shown["device"], supervisor.settings["devices"][0]["uuid"])
        daemons = {
            name: supervisor.instance(name)["control"]["pid"] for name in (SHARED, TEAM_A)
        }
        for name, pid in daemons.items():
            self.assertEqual(control_daemons(supervisor.pipe(name)), [pid])

        mark = self.mark(supervisor)
        policies.put("team-a.yaml", policy("team-a", 70, "9Gi", isolation="dedicated"))
        supervisor.events.wait("limits_changed", mark, TEAM_A)
        self.check_limits(supervisor, 70, "9Gi", TEAM_A)
        self.check_limits(supervisor, 25, "2Gi")

        policies.remove("team-a.yaml")
        leaving = supervisor.events.wait("leaving", mark)
        self.assertEqual(
            leaving["message"],
            f"{TEAM_A}: no policy asks for it any more; it is ended when its clients have gone",
        )
        supervisor.events.wait("stopped", mark, TEAM_A)
        self.wait_gone(supervisor, TEAM_A)
        self.assertEqual(supervisor.instance()["control"]["pid"], daemons[SHARED])

        mark = self.mark(supervisor)
        policies.put("team-a.yaml", policy("team-a", 60, "8Gi", isolation="dedicated"))
        supervisor.events.wait("ready", mark, TEAM_A)
        self.check_limits(supervisor, 60, "8Gi", TEAM_A)

    def wait_serves(self, supervisor, mark):
        """One of its own since `mark`, made anew or asked to stay while it drained. That it is
        listed is not enough: this may be its predecessor, whose daemon is ending."""
        wait_until(
            lambda: any(
                event["kind"] in ("ready", "undrained")
                for event in supervisor.events.about_since(mark, TEAM_A)
            ),
            f"{TEAM_A} serves",
        )

    def test_it_becomes_shared_and_dedicated_again(self):
        supervisor = self.supervisor().start()
        policies = supervisor.policies
        for _ in range(3):
            mark = self.mark(supervisor)
            policies.put("team-a.yaml", policy("team-a", 60, "8Gi", isolation="dedicated"))
            self.wait_serves(supervisor, mark)
            self.check_limits(supervisor, 60, "8Gi", TEAM_A)
            self.check_limits(supervisor, *SETTINGS)
            policies.put("team-a.yaml", policy("team-a", 60, "8Gi"))
            supervisor.events.wait("leaving", mark)
            self.check_limits(supervisor, 60, "8Gi")
        self.wait_gone(supervisor, TEAM_A)

    def test_a_bad_file_ends_nothing(self):
        supervisor = self.supervisor().start()
        text = policy("team-a", 60, "8Gi", isolation="dedicated")
        supervisor.policies.put("team-a.yaml", text)
        supervisor.events.wait("ready", 0, TEAM_A)
        daemon = supervisor.instance(TEAM_A)["control"]["pid"]
        supervisor.policies.put("team-a.yaml", text.replace("dedicated", "dedicate"))
        error = supervisor.events.wait("policy_error")
        self.assertTrue(error["message"].endswith(KEPT), error["message"])
        self.wait_stored(supervisor)
        supervisor.kill9()
        supervisor.start(wait_ready=[SHARED, TEAM_A])
        self.check_limits(supervisor, 60, "8Gi", TEAM_A)
        self.assertEqual(supervisor.instance(TEAM_A)["control"]["pid"], daemon)
        self.assertEqual(supervisor.events.of("leaving"), [])

    def test_it_is_adopted_with_the_others(self):
        supervisor = self.supervisor(devices=2).start()
        supervisor.policies.put("a.yaml", policy("team-a", 60, "8Gi", isolation="dedicated"))
        names = [SHARED, TEAM_A, "gpu1.shared", "gpu1.ns-team-a"]
        for name in names:
            supervisor.events.wait("ready", 0, name)
        before = {name: supervisor.instance(name)["control"]["pid"] for name in names}
        supervisor.kill9()
        mark = supervisor.events.last_id()
        supervisor.start(wait_ready=names)
        for name, pid in before.items():
            adopted = supervisor.events.wait("control_adopted", mark, name)
            self.assertEqual(adopted["data"]["pid"], str(pid))
        # And what nothing asks for any more, after its policy went in between, is ended.
        supervisor.kill9()
        supervisor.policies.remove("a.yaml")
        mark = supervisor.events.last_id()
        supervisor.start()
        for name in (TEAM_A, "gpu1.ns-team-a"):
            self.wait_gone(supervisor, name)
        self.assertEqual(len([e for e in supervisor.events.of("leftover") if e["id"] > mark]), 2)
        self.assertEqual(supervisor.instance()["control"]["pid"], before[SHARED])

    def test_a_killed_daemon_of_its_own_is_started_again(self):
        supervisor = self.supervisor(settings=QUICK).start()
        supervisor.policies.put("a.yaml", policy("team-a", 60, "8Gi", isolation="dedicated"))
        supervisor.events.wait("ready", 0, TEAM_A)
        mark = self.mark(supervisor)
        os.kill(supervisor.instance(TEAM_A)["control"]["pid"], signal.SIGKILL)
        supervisor.events.wait("ready", mark, TEAM_A)
        self.check_limits(supervisor, 60, "8Gi", TEAM_A)

    def test_two_of_them_and_a_long_name(self):
        supervisor = self.supervisor().start()
        long_name = "team-machine-learning-platform-eu-west"
        for name, percentage in (("team-a", 30), ("team-b", 40), (long_name, 50)):
            text = policy(name, percentage, "8Gi", isolation="dedicated")
            supervisor.policies.put(f"{name}.yaml", text)
        domain = f"ns-{long_name}"
        digits = hashlib.sha1(bytes(16) + domain.encode()).hexdigest()[:6]
        shortened = f"gpu0.ns-team-mach-{digits}"
        self.assertEqual(len(shortened), 24)
        for name, percentage in ((TEAM_A, 30), ("gpu0.ns-team-b", 40), (shortened, 50)):
            supervisor.events.wait("ready", 0, name)
            supervisor.wait_open(name)
            self.check_limits(supervisor, percentage, "8Gi", name)
        self.assertEqual(supervisor.instance(shortened)["domain"], domain)
        self.check_limits(supervisor, *SETTINGS)


class WithClients(PolicySuite):
    """A client runs meanwhile: it has a living server."""

    def answer(self, probe):
        """Its one line; a newcomer that waits for ever is an error, not a test that hangs."""
        readable, _, _ = select.select([probe.stdout], [], [], harness.DEADLINE)
        self.assertTrue(readable, "the client neither got in nor was refused")
        return json.loads(probe.stdout.readline())

    def client(self, supervisor, name=SHARED):
        probe = supervisor.probe("--hold-until-stdin-closes", name=name)
        answer = self.answer(probe)
        self.assertEqual(answer["cuInit"], 0, answer)
        wait_until(lambda: supervisor.instance(name)["clients"] >= 1, "a client")
        wait_until(lambda: self.server_status(supervisor, name) == "active", "its server is ready")
        probe.sm_count = answer["smCount"]
        return probe

    def server_status(self, supervisor, name):
        return (supervisor.instance(name)["server"] or {}).get("status")

    def sm_count(self, supervisor, name=SHARED):
        probe = supervisor.probe(name=name)
        answer = self.answer(probe)
        self.assertEqual(answer["cuInit"], 0, answer)
        probe.wait(timeout=harness.DEADLINE)
        return answer["smCount"]

    def end(self, probe):
        """A client that noticed nothing ends as it pleases."""
        self.assertIsNone(probe.poll())
        probe.stdin.close()
        self.assertEqual(probe.wait(timeout=harness.DEADLINE), 0)

    def dedicated(self, supervisor):
        mark = self.mark(supervisor)
        text = policy("team-a", 25, "4Gi", isolation="dedicated")
        supervisor.policies.put("team-a.yaml", text)
        supervisor.events.wait("ready", mark, TEAM_A)
        supervisor.wait_open(TEAM_A)

    def test_a_running_server_takes_the_new_ceiling(self):
        supervisor = self.supervisor().start()
        probe = self.client(supervisor)
        self.assertEqual(probe.sm_count, 66)
        server = supervisor.instance()["server"]["pid"]
        for percentage, memory, count in ((25, "2Gi", 32), (75, "20Gi", 98)):
            mark = self.mark(supervisor)
            supervisor.policies.put("all.yaml", policy(percentage=percentage, memory=memory))
            supervisor.events.wait("limits_changed", mark, SHARED)
            self.check_limits(supervisor, percentage, memory)
            output = supervisor.answered(
                f"get_active_thread_percentage {server}", f"get_device_pinned_mem_limit {server} 0"
            )
            self.assertEqual(output, f"{percentage:.1f}\n{as_daemon_prints(memory)}")
            self.assertIsNone(probe.poll())
            self.assertEqual(self.sm_count(supervisor), count)
        shown = supervisor.instance()
        self.assertEqual(shown["server"]["pid"], server)
        self.assertIn(probe.pid, [c["pid"] for c in supervisor.get("/v1/clients")])
        self.end(probe)
        self.assertEqual(supervisor.events.of("limits_drifted"), [])

    def test_a_dedicated_instance_has_its_own_ceiling_and_door(self):
        supervisor = self.supervisor().start()
        supervisor.policies.put("all.yaml", policy(percentage=10, memory="1Gi"))
        self.check_limits(supervisor, 10, "1Gi")
        self.dedicated(supervisor)
        self.assertNotEqual(supervisor.open_pipe(TEAM_A), supervisor.open_pipe())
        self.assertEqual(self.sm_count(supervisor, TEAM_A), 32)
        self.assertEqual(self.sm_count(supervisor), 12)
        self.check_limits(supervisor, 10, "1Gi")

    def test_it_ends_when_its_last_client_has_gone(self):
        supervisor = self.supervisor().start()
        self.dedicated(supervisor)
        probe = self.client(supervisor, TEAM_A)
        mark = self.mark(supervisor)
        supervisor.policies.remove("team-a.yaml")
        supervisor.events.wait("draining", mark, TEAM_A)
        late = supervisor.probe(name=TEAM_A)
        self.assertEqual(self.answer(late)["cuInit"], 805)
        self.assertEqual(supervisor.instance(TEAM_A)["state"], "draining")
        status, body = supervisor.post(f"/v1/instances/{TEAM_A}:undrain")
        self.assertEqual(status, 409)
        self.assertEqual(
            body["error"]["message"],
            f"{TEAM_A} is not wanted any more, by a policy or a device, and ends when its clients "
            "have gone",
        )
        self.end(probe)
        supervisor.events.wait("stopped", mark, TEAM_A)
        self.wait_gone(supervisor, TEAM_A)

    def test_an_end_with_stop_instances_ends_those_that_leave_too(self):
        supervisor = self.supervisor().start(flags=["--stop-instances"])
        self.dedicated(supervisor)
        self.client(supervisor, TEAM_A)
        mark = self.mark(supervisor)
        supervisor.policies.remove("team-a.yaml")
        supervisor.events.wait("draining", mark, TEAM_A)
        self.assertEqual(supervisor.terminate(), 0)
        for name in (SHARED, TEAM_A):
            self.assertEqual(control_daemons(supervisor.pipe(name)), [])

    def test_it_is_wanted_again_while_it_drains(self):
        supervisor = self.supervisor().start()
        self.dedicated(supervisor)
        probe = self.client(supervisor, TEAM_A)
        daemon = supervisor.instance(TEAM_A)["control"]["pid"]
        mark = self.mark(supervisor)
        supervisor.policies.remove("team-a.yaml")
        supervisor.events.wait("draining", mark, TEAM_A)
        text = policy("team-a", 50, "4Gi", isolation="dedicated")
        supervisor.policies.put("team-a.yaml", text)
        supervisor.events.wait("undrained", mark, TEAM_A)
        supervisor.wait_open(TEAM_A)
        self.check_limits(supervisor, 50, "4Gi", TEAM_A)
        shown = supervisor.instance(TEAM_A)
        self.assertEqual((shown["state"], shown["control"]["pid"]), ("ready", daemon))
        self.assertEqual(self.sm_count(supervisor, TEAM_A), 66)
        self.end(probe)

    def test_its_client_survives_the_supervisor(self):
        supervisor = self.supervisor().start()
        self.dedicated(supervisor)
        probe = self.client(supervisor, TEAM_A)
        daemon = supervisor.instance(TEAM_A)["control"]["pid"]
        supervisor.kill9()
        supervisor.start(wait_ready=[SHARED, TEAM_A])
        self.assertEqual(supervisor.instance(TEAM_A)["control"]["pid"], daemon)
        wait_until(lambda: supervisor.instance(TEAM_A)["clients"] == 1, "the client is known")
        self.check_limits(supervisor, 25, "4Gi", TEAM_A)
        self.end(probe)

    def test_a_leftover_of_a_removed_policy_waits_for_its_client(self):
        supervisor = self.supervisor().start()
        self.dedicated(supervisor)
        probe = self.client(supervisor, TEAM_A)
        daemon = supervisor.instance(TEAM_A)["control"]["pid"]
        supervisor.kill9()
        supervisor.policies.remove("team-a.yaml")
        mark = supervisor.events.last_id()
        supervisor.start()
        left = supervisor.events.wait("leftover", mark)
        self.assertEqual(
            left["message"],
            f"{TEAM_A}: a control daemon, pid {daemon} for GPU-00000000-0000-0000-0000-000000000000"
            ", was left running, and no device or policy asks for it: it is ended when its "
            "clients have gone",
        )
        supervisor.events.wait("draining", mark, TEAM_A)
        wait_until(lambda: supervisor.instance(TEAM_A)["clients"] == 1, "the client is known")
        late = supervisor.probe(name=TEAM_A)
        self.assertEqual(self.answer(late)["cuInit"], 805)
        self.assertEqual(control_daemons(supervisor.pipe(TEAM_A)), [daemon])
        self.end(probe)
        self.wait_gone(supervisor, TEAM_A)


def load_tests(loader, _tests, _pattern):
    cases = [Dedicated]
    if not harness.Backend(harness.OPTIONS.backend, harness.OPTIONS.build).real:
        cases.append(WithClients)  # without a GPU, NVIDIA's own server does not live
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


if __name__ == "__main__":
    harness.main()
