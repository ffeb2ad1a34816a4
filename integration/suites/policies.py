"""Policy files change, and with them the limits of the daemons."""

import http.client
import json
import os
import signal
import socket
import time

import harness
from harness import control_daemons, policy, wait_until
from policy_suite import KEPT, QUICK, RESET, SETTINGS, SHARED, TEAM_A, PolicySuite, mebibytes

LIMITS = ("activeThreadPercentage", "pinnedDeviceMemoryMiB")
REFUSED = "; nobody gets in by it"


class Reloads(PolicySuite):
    def test_every_way_of_changing_a_file_is_noticed(self):
        supervisor = self.supervisor().start()
        self.check_limits(supervisor, *SETTINGS)
        policies = supervisor.policies
        mark = self.mark(supervisor)

        policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        changed = supervisor.events.wait("limits_changed", mark, SHARED)
        self.assertEqual(
            changed["message"], "each new client gets at most 25 % of the SMs, 2Gi" + RESET
        )
        self.check_limits(supervisor, 25, "2Gi")
        in_force = supervisor.events.wait("policies_changed", mark)
        state = self.policy_status(supervisor)
        self.assertEqual(
            in_force["message"],
            f"generation {state['generation']} ({state['hash']}) is in force: 1 policy in 1 file",
        )

        policies.put("all.yaml", policy(percentage=12.5, memory="512Mi"))
        self.check_limits(supervisor, 12.5, "512Mi")
        policies.write_in_place("all.yaml", policy(percentage=75, memory="20Gi"))
        self.check_limits(supervisor, 75, "20Gi")
        policies.remove("all.yaml")
        self.check_limits(supervisor, *SETTINGS)
        self.assertEqual(
            supervisor.instance()["limits"]["from"]["activeThreadPercentage"],
            "the settings (limits)",
        )
        self.assertEqual(supervisor.events.of("policy_error"), [])
        self.assertEqual(supervisor.events.of("limits_drifted"), [])

    def test_a_config_map_changes_as_a_whole(self):
        supervisor = self.supervisor().start()
        policies = supervisor.policies
        policies.swap_config_map({"all.yaml": policy(percentage=20, memory="1Gi")})
        self.check_limits(supervisor, 20, "1Gi")
        policies.swap_config_map(
            {
                "all.yaml": policy(percentage=30, memory="1Gi"),
                "team-a.yaml": policy("team-a", percentage=40, memory="3Gi"),
            }
        )
        self.check_limits(supervisor, 40, "3Gi")
        # A name is taken over by another file: no moment with two of them, or with none.
        policies.swap_config_map({"other.yaml": policy("team-a", percentage=60, memory="3Gi")})
        self.check_limits(supervisor, 60, "3Gi")
        policies.swap_config_map({})
        self.check_limits(supervisor, *SETTINGS)
        self.assertEqual(supervisor.events.of("policy_error"), [])

    def test_a_policy_that_is_there_first_is_there_from_the_first_daemon_on(self):
        supervisor = self.supervisor()
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        supervisor.start()
        self.check_limits(supervisor, 25, "2Gi")
        ready = supervisor.events.of("ready")
        self.assertEqual(
            [e["message"] for e in ready],
            ["serving; each client gets at most 25 % of the SMs, 2Gi"],
        )
        self.assertEqual(supervisor.events.of("limits_changed"), [])

    def test_each_device_has_the_limits_of_the_policies_that_name_it(self):
        supervisor = self.supervisor(devices=3).start()
        uuid = supervisor.settings["devices"][1]["uuid"]
        supervisor.policies.put("a.yaml", policy("a", 10, "1Gi", devices=[0]))
        supervisor.policies.put("b.yaml", policy("b", 20, "2Gi", devices=[uuid]))
        self.check_limits(supervisor, 10, "1Gi", "gpu0.shared")
        self.check_limits(supervisor, 20, "2Gi", "gpu1.shared")
        self.check_limits(supervisor, *SETTINGS, "gpu2.shared")
        supervisor.policies.put("all.yaml", policy("*", 15, "3Gi"))
        self.check_limits(supervisor, 15, "3Gi", "gpu0.shared")
        self.check_limits(supervisor, 20, "3Gi", "gpu1.shared")
        self.check_limits(supervisor, 15, "3Gi", "gpu2.shared")


class Ceilings(PolicySuite):
    def test_the_ceiling_is_the_largest_that_any_policy_grants(self):
        supervisor = self.supervisor().start()
        policies = supervisor.policies
        policies.put("all.yaml", policy(percentage=20, memory="1Gi"))
        policies.put("team-a.yaml", policy("team-a", percentage=10, memory="4Gi"))
        self.check_limits(supervisor, 20, "4Gi")
        shown = supervisor.instance()["limits"]["from"]
        self.assertEqual(
            shown,
            {
                "activeThreadPercentage": "all.yaml:7:29 (spec.client)",
                "pinnedDeviceMemoryMiB": "team-a.yaml:8:25 (spec.client)",
            },
        )
        large = {
            "match": {"podLabels": {"size": "large"}},
            "client": {"activeThreadPercentage": 80},
        }
        policies.put("team-a.yaml", policy("team-a", 10, "4Gi", overrides=[large]))
        self.check_limits(supervisor, 80, "4Gi")
        self.assertRegex(
            supervisor.instance()["limits"]["from"]["activeThreadPercentage"],
            r"^team-a\.yaml:9:\d+ \(spec\.overrides\[0\]\.client\)$",
        )

    def test_one_policy_without_a_limit_and_there_is_no_ceiling(self):
        supervisor = self.supervisor().start()
        supervisor.policies.put("team-a.yaml", policy("team-a", percentage=10, memory="4Gi"))
        self.check_limits(supervisor, 10, "4Gi")
        mark = self.mark(supervisor)
        supervisor.policies.put("team-b.yaml", policy("team-b", percentage=30))
        changed = supervisor.events.wait("limits_changed", mark, SHARED)
        self.assertEqual(
            changed["message"],
            "each new client gets at most 30 % of the SMs, no memory limit" + RESET,
        )
        self.check_limits(supervisor, 30, None)
        self.assertEqual(
            supervisor.instance()["limits"]["from"]["pinnedDeviceMemoryMiB"],
            "team-b.yaml:4:14 (gives none)",
        )
        supervisor.policies.put("team-b.yaml", policy("team-b"))
        self.check_limits(supervisor, 100, None)
        supervisor.policies.remove("team-b.yaml")
        self.check_limits(supervisor, 10, "4Gi")


class BadFiles(PolicySuite):
    TOO_MUCH = (
        "all.yaml:7:29: spec.client.activeThreadPercentage: must be above 0 and at most 100: "
        '"250"'
    )

    def test_a_bad_file_changes_nothing(self):
        supervisor = self.supervisor().start()
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        before = self.policy_status(supervisor)
        mark = self.mark(supervisor)
        supervisor.policies.put("all.yaml", policy(percentage=250, memory="3Gi"))
        error = supervisor.events.wait("policy_error", mark)
        self.assertEqual(error["message"], self.TOO_MUCH + KEPT)
        self.check_limits(supervisor, 25, "2Gi")
        after = self.policy_status(supervisor)
        self.assertEqual(after["badFiles"], 1)
        self.assertEqual(
            (after["generation"], after["hash"]), (before["generation"], before["hash"])
        )

        # The last good version outlives the supervisor, and so does the daemon.
        self.wait_stored(supervisor)
        daemon = supervisor.instance()["control"]["pid"]
        supervisor.kill9()
        supervisor.start()
        again = supervisor.events.wait("policy_error", error["id"])
        self.assertEqual(again["message"], self.TOO_MUCH + KEPT)
        self.check_limits(supervisor, 25, "2Gi")
        self.assertEqual(supervisor.instance()["control"]["pid"], daemon)
        self.assertEqual(self.policy_status(supervisor)["generation"], before["generation"])

        supervisor.policies.put("all.yaml", policy(percentage=35, memory="3Gi"))
        mended = supervisor.events.wait("policy_mended", again["id"])
        self.assertEqual(mended["message"], "all.yaml is good again")
        self.check_limits(supervisor, 35, "3Gi")
        self.assertEqual(self.policy_status(supervisor)["generation"], before["generation"] + 1)

    def test_a_file_that_is_moved_away_and_written_anew_at_once(self):
        supervisor = self.supervisor().start()
        policies = supervisor.policies
        text = policy(percentage=25, memory="2Gi")
        policies.put("all.yaml", text)
        self.check_limits(supervisor, 25, "2Gi")
        for percentage in (30, 31, 32):
            os.rename(policies.path / "all.yaml", policies.path / "all.yaml~")
            # What else changes meanwhile is in force at once, and does not make the other go.
            policies.put("team-a.yaml", policy("team-a", percentage=percentage, memory="1Gi"))
            policies.put("all.yaml", text)
            self.check_limits(supervisor, percentage, "2Gi")
        self.assertEqual(supervisor.events.of("policy_error"), [])

        self.wait_stored(supervisor)
        supervisor.kill9()
        mark = supervisor.events.last_id()
        policies.put("all.yaml", policy(percentage=250, memory="3Gi"))
        supervisor.start()
        error = supervisor.events.wait("policy_error", mark)
        self.assertEqual(error["message"], self.TOO_MUCH + KEPT)
        self.check_limits(supervisor, 32, "2Gi")

    def test_a_file_that_gets_another_name(self):
        supervisor = self.supervisor().start()
        path = supervisor.policies.path
        supervisor.policies.put("a.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        number = self.policy_status(supervisor)["generation"]
        os.rename(path / "a.yaml", path / "z.yaml")
        self.wait_generation(supervisor, number + 1)
        self.check_limits(supervisor, 25, "2Gi")
        self.assertEqual(supervisor.events.of("policy_error"), [])

    def test_a_config_map_whose_version_is_missing(self):
        supervisor = self.supervisor().start()
        path = supervisor.policies.path
        supervisor.policies.swap_config_map({"all.yaml": policy(percentage=25, memory="2Gi")})
        self.check_limits(supervisor, 25, "2Gi")
        version = os.readlink(path / "..data")
        os.symlink("nowhere", path / "..data_tmp")
        os.rename(path / "..data_tmp", path / "..data")
        gone = supervisor.events.wait("policies_unreadable")
        number = self.policy_status(supervisor)["generation"]
        self.assertEqual(
            gone["message"],
            f"cannot read the policy directory {path}/..data: No such file or directory; the "
            f"policies of generation {number} stay in force",
        )
        self.check_limits(supervisor, 25, "2Gi")
        os.symlink(version, path / "..data_tmp")
        os.rename(path / "..data_tmp", path / "..data")
        supervisor.events.wait("policies_readable", gone["id"])
        self.check_limits(supervisor, 25, "2Gi")
        self.assertEqual(self.policy_status(supervisor)["generation"], number)

    def test_a_file_that_was_never_good_lets_nobody_in(self):
        supervisor = self.supervisor()
        supervisor.policies.put("all.yaml", policy(percentage=250, memory="3Gi"))
        supervisor.start()
        error = supervisor.events.wait("policy_error")
        self.assertEqual(error["message"], self.TOO_MUCH + REFUSED)
        self.check_limits(supervisor, *SETTINGS)
        (entry,) = supervisor.get("/v1/policies")
        self.assertEqual(
            (entry["state"], entry["namespace"], entry["errors"]), ("refused", "*", [self.TOO_MUCH])
        )
        supervisor.policies.put("all.yaml", policy(percentage=35, memory="3Gi"))
        mended = supervisor.events.wait("policy_mended", error["id"])
        self.assertEqual(mended["message"], "all.yaml is good again")
        self.check_limits(supervisor, 35, "3Gi")

    def test_a_file_that_is_emptied_and_then_written(self):
        supervisor = self.supervisor().start()
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        supervisor.policies.write_in_place("all.yaml", "")
        error = supervisor.events.wait("policy_error")
        self.assertTrue(error["message"].startswith("all.yaml:"), error["message"])
        self.assertTrue(error["message"].endswith(KEPT), error["message"])
        self.check_limits(supervisor, 25, "2Gi")
        supervisor.policies.write_in_place("all.yaml", policy(percentage=35, memory="2Gi"))
        supervisor.events.wait("policy_mended", error["id"])
        self.check_limits(supervisor, 35, "2Gi")

    def test_files_that_cannot_be_read(self):
        supervisor = self.supervisor().start()
        path = supervisor.policies.path
        os.symlink("nowhere", path / "dangling.yaml")
        error = supervisor.events.wait("policy_error")
        self.assertEqual(
            error["message"],
            'dangling.yaml: is a link to a file that does not exist: "nowhere"' + REFUSED,
        )
        (path / "folder.yaml").mkdir()
        error = supervisor.events.wait("policy_error", error["id"])
        self.assertEqual(error["message"], "folder.yaml: is not a regular file" + REFUSED)
        self.check_limits(supervisor, *SETTINGS)
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        os.symlink("nowhere", path / "next")
        os.rename(path / "next", path / "all.yaml")
        error = supervisor.events.wait("policy_error", error["id"])
        self.assertEqual(
            error["message"],
            'all.yaml: is a link to a file that does not exist: "nowhere"' + KEPT,
        )
        self.check_limits(supervisor, 25, "2Gi")

    def test_two_files_for_one_namespace(self):
        supervisor = self.supervisor().start()
        supervisor.policies.put("b.yaml", policy("team-a", percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        supervisor.policies.put("a.yaml", policy("team-a", percentage=75, memory="8Gi"))
        error = supervisor.events.wait("policy_error")
        self.assertEqual(
            error["message"],
            "a.yaml:4:14: metadata.namespace: has a policy already, at b.yaml:4:14: "
            '"team-a"' + REFUSED,
        )
        self.check_limits(supervisor, 25, "2Gi")
        supervisor.policies.remove("b.yaml")
        self.check_limits(supervisor, 75, "8Gi")
        supervisor.events.wait("policy_mended", error["id"])

    def test_the_directory_goes_and_comes_back(self):
        supervisor = self.supervisor().start()
        path = supervisor.policies.path
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        number = self.policy_status(supervisor)["generation"]
        os.rename(path, supervisor.root / "away")
        gone = supervisor.events.wait("policies_unreadable")
        trouble = f"cannot read the policy directory {path}: No such file or directory"
        self.assertEqual(
            gone["message"], f"{trouble}; the policies of generation {number} stay in force"
        )
        self.assertEqual(self.policy_status(supervisor)["error"], trouble)
        self.check_limits(supervisor, 25, "2Gi")

        self.wait_stored(supervisor)
        supervisor.kill9()
        supervisor.start()
        gone = supervisor.events.wait("policies_unreadable", gone["id"])
        self.check_limits(supervisor, 25, "2Gi")

        os.rename(supervisor.root / "away", path)
        back = supervisor.events.wait("policies_readable", gone["id"])
        self.assertEqual(back["message"], f"{path} can be read again")
        self.assertIsNone(self.policy_status(supervisor)["error"])
        supervisor.policies.put("all.yaml", policy(percentage=35, memory="2Gi"))
        self.check_limits(supervisor, 35, "2Gi")

    def test_no_directory_at_all(self):
        supervisor = self.supervisor()
        supervisor.policies.path.rmdir()
        supervisor.start()
        said = supervisor.events.wait("policies_unreadable")
        self.assertEqual(
            said["message"],
            f"cannot read the policy directory {supervisor.policies.path}: "
            "No such file or directory; there are no policies",
        )
        self.check_limits(supervisor, *SETTINGS)
        supervisor.policies.path.mkdir()
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")


class Daemons(PolicySuite):
    def kill_daemon(self, supervisor):
        """Returns its pid; None where there is none."""
        control = supervisor.instance()["control"]
        if control is None:
            return None
        try:
            os.kill(control["pid"], signal.SIGKILL)
        except ProcessLookupError:
            pass
        return control["pid"]

    def test_a_new_daemon_gets_the_limits_of_now(self):
        supervisor = self.supervisor(settings=QUICK).start()
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        mark = self.mark(supervisor)
        self.kill_daemon(supervisor)
        ready = supervisor.events.wait("ready", mark, SHARED)
        self.assertEqual(
            ready["message"], "serving; each client gets at most 25 % of the SMs, 2Gi"
        )
        self.check_limits(supervisor, 25, "2Gi")

    def test_limits_that_change_while_no_supervisor_runs(self):
        supervisor = self.supervisor().start()
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        self.check_limits(supervisor, 25, "2Gi")
        daemon = supervisor.instance()["control"]["pid"]
        supervisor.kill9()
        supervisor.policies.put("all.yaml", policy(percentage=35, memory="3Gi"))
        supervisor.start()
        self.check_limits(supervisor, 35, "3Gi")
        self.assertEqual(supervisor.instance()["control"]["pid"], daemon)

    def test_random_reloads_while_daemons_are_killed(self):
        supervisor = self.supervisor(settings=QUICK).start()
        files = {"a.yaml": None, "b.yaml": None}  # (percentage, memory) that is in force
        dead = set()

        def in_force():
            said = {
                (p["file"], *(p["client"][limit] for limit in LIMITS))
                for p in supervisor.get("/v1/policies")
            }
            return said == {
                (f, good[0], mebibytes(good[1])) for f, good in files.items() if good is not None
            }

        for _ in range(200 if harness.OPTIONS.full else 25):
            name = self.random.choice(list(files))
            good = (self.random.randint(10, 1000) / 10, f"{self.random.randint(1, 100)}Gi")
            choice = self.random.random()
            killed = self.random.random() < 0.5
            if killed and self.random.random() < 0.5:
                dead.add(self.kill_daemon(supervisor))
            if choice < 0.2 and files[name]:
                # What went before is to have been seen, or it is not what stays in force.
                wait_until(in_force, f"in force: {files}")
                bad = policy(name[0], 250, good[1]) if choice < 0.1 else "spec: ["
                supervisor.policies.put(name, bad)
            elif choice < 0.3 and files[name]:
                wait_until(in_force, f"in force: {files}")
                supervisor.policies.remove(name)
                files[name] = None
            elif choice < 0.6:
                supervisor.policies.write_in_place(name, policy(name[0], *good))
                files[name] = good
            else:
                supervisor.policies.put(name, policy(name[0], *good))
                files[name] = good
            if killed:
                until = time.monotonic() + self.random.random() * 0.03
                wait_until(lambda end=until: time.monotonic() >= end, "a moment")
                dead.add(self.kill_daemon(supervisor))
        wait_until(in_force, f"in force: {files}")
        granted = [good for good in files.values() if good]
        percentage = max((g[0] for g in granted), default=SETTINGS[0])
        memory = max((g[1] for g in granted), key=mebibytes, default=SETTINGS[1])

        def serves():
            # The last one that was killed may be shown for a moment yet.
            instance = supervisor.instance()
            return instance["state"] == "ready" and instance["control"]["pid"] not in dead

        wait_until(serves, "ready")
        self.check_limits(supervisor, percentage, memory)
        self.assertEqual(supervisor.events.of("limits_drifted"), [])
        self.assertEqual(supervisor.events.of("failed"), [])
        self.assertEqual(len(control_daemons(supervisor.pipe())), 1)


class Shown(PolicySuite):
    def test_status_and_readiness_say_which_policies_are_in_force(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        supervisor = self.supervisor(settings={"metricsListen": f"127.0.0.1:{port}"})
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        supervisor.policies.put("bad.yaml", "no: policy\n")
        supervisor.start()
        shown = self.policy_status(supervisor)
        self.assertRegex(shown.pop("hash"), "^[0-9a-f]{12}$")
        self.assertRegex(shown.pop("changedAt"), r"^\d{4}-\d\d-\d\dT.*Z$")
        self.assertEqual(
            shown,
            {
                "generation": 1,
                "directory": str(supervisor.policies.path),
                "files": 2,
                "badFiles": 1,
                "error": None,
            },
        )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=harness.DEADLINE)
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        digest = self.policy_status(supervisor)["hash"]
        self.assertEqual(
            (response.status, response.read().decode()),
            (200, f"ok\npolicies: generation 1, hash {digest}, 2 files, 1 bad\n"),
        )
        connection.close()

    def test_the_hash_is_of_what_is_in_force_alone(self):
        hashes = []
        for _ in range(2):
            supervisor = self.supervisor()
            supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
            supervisor.start()
            hashes.append(self.policy_status(supervisor)["hash"])
        self.assertEqual(hashes[0], hashes[1])
        supervisor.policies.put("b.yaml", policy("b", percentage=30, memory="2Gi"))
        self.wait_generation(supervisor, 2)
        self.assertNotEqual(self.policy_status(supervisor)["hash"], hashes[0])
        supervisor.policies.remove("b.yaml")
        self.wait_generation(supervisor, 3)
        self.assertEqual(self.policy_status(supervisor)["hash"], hashes[0])

    def test_the_command_line(self):
        supervisor = self.supervisor()
        supervisor.policies.put("all.yaml", policy(percentage=25, memory="2Gi"))
        supervisor.policies.put("team-a.yaml", policy("team-a", 60, "8Gi", isolation="dedicated"))
        supervisor.policies.put("bad.yaml", policy("team-b", percentage=250))
        supervisor.start(wait_ready=[SHARED, TEAM_A])
        status, output, errors = supervisor.ctl("policy", "list", "-o", "json")
        self.assertEqual((status, errors), (0, ""))
        listed = {p["namespace"]: (p["file"], p["state"]) for p in json.loads(output)}
        self.assertEqual(
            listed,
            {
                "*": ("all.yaml", "good"),
                "team-a": ("team-a.yaml", "good"),
                "team-b": ("bad.yaml", "refused"),
            },
        )
        status, output, errors = supervisor.ctl(
            "policy", "explain", "--namespace", "team-a", "-o", "json"
        )
        self.assertEqual((status, errors), (0, ""))
        (device,) = json.loads(output)["devices"]
        self.assertEqual((device["admitted"], device["instance"]), (True, TEAM_A))
        self.assertEqual(
            device["limits"]["activeThreadPercentage"],
            {"value": 60, "from": "team-a.yaml:7:29 (spec.client)"},
        )
        status, output, _ = supervisor.ctl(
            "policy", "explain", "--namespace", "team-b", "-o", "json"
        )
        (device,) = json.loads(output)["devices"]
        self.assertFalse(device["admitted"])
        self.assertIn('must be above 0 and at most 100: "250"', device["reason"])


if __name__ == "__main__":
    harness.main()
