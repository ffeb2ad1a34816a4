"""What goes wrong around the supervisor gives one clear error that says what to do."""

import json
import os
import pathlib
import shutil
import subprocess

import harness
from harness import OPTIONS, Suite, wait_until


class Errors(Suite):
    def outcome(self, supervisor, *flags):
        """Runs it to its end; (status, the lines of its complaint)."""
        config = supervisor.root / "supervisor.yaml"
        config.write_text(json.dumps(supervisor.settings))
        done = subprocess.run(
            [str(OPTIONS.build / "bin/mps-supervisor"), "--config", str(config), *flags],
            capture_output=True,
            text=True,
            timeout=harness.DEADLINE,
            env={**os.environ, "PATH": "/nonexistent"},
        )
        return done.returncode, done.stderr.strip().splitlines()

    def test_bad_settings(self):
        supervisor = self.supervisor()
        supervisor.settings["probe"] = {"intervall": "3s"}
        status, lines = self.outcome(supervisor)
        self.assertEqual(status, 2)
        self.assertEqual(len(lines), 1)
        self.assertTrue(
            lines[0].endswith(
                ': probe.intervall: unknown key, did you mean interval: "intervall"'
            ),
            lines[0],
        )
        self.assertTrue(lines[0].startswith(f"{supervisor.root}/supervisor.yaml:1:"), lines[0])

    def test_check_config_changes_nothing(self):
        supervisor = self.supervisor()
        status, lines = self.outcome(supervisor, "--check-config")
        self.assertEqual((status, lines), (0, []))
        self.assertFalse(supervisor.run.exists())

    def test_a_run_directory_that_is_too_long(self):
        supervisor = self.supervisor()
        supervisor.settings["runDir"] = "/tmp/" + "x" * 90
        status, lines = self.outcome(supervisor)
        self.assertEqual(status, 2)
        self.assertEqual(len(lines), 1)
        self.assertEqual(
            lines[0],
            "mps-supervisor: runDir: is 95 bytes long and may have 57: the path of a socket, "
            "<runDir>/<24 bytes>/pipe/control_privileged, ends at 106; choose a shorter one: "
            f'"{supervisor.settings["runDir"]}"',
        )

    def test_a_run_directory_that_cannot_be_made(self):
        supervisor = self.supervisor()
        supervisor.settings["runDir"] = "/proc/mps"
        status, lines = self.outcome(supervisor)
        self.assertEqual(status, 1)
        self.assertEqual(len(lines), 1)
        self.assertTrue(
            lines[0].endswith(
                "cannot make the run directory /proc/mps: No such file or directory"
            ),
            lines,
        )

    def test_a_missing_program(self):
        supervisor = self.supervisor()
        supervisor.settings["mpsPath"] = [str(supervisor.root / "nowhere")]
        if pathlib.Path("/usr/bin/nvidia-cuda-mps-control").exists():
            self.skipTest("the node has MPS where drivers put it")
        status, lines = self.outcome(supervisor)
        self.assertEqual(status, 1)
        self.assertEqual(len(lines), 1)
        self.assertIn("nvidia-cuda-mps-control", lines[0])
        self.assertIn(str(supervisor.root / "nowhere"), lines[0])
        self.assertIn("mpsPath", lines[0])

    def fake_programs(self, supervisor, control):
        folder = supervisor.root / "fake"
        folder.mkdir()
        for name, text in {
            "nvidia-cuda-mps-control": control,
            "nvidia-cuda-mps-server": "#!/bin/sh\nexit 1\n",
        }.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        supervisor.settings["mpsPath"] = [str(folder)]

    def test_a_program_that_prints_rubbish(self):
        slow = {"initial": "30s", "max": "30s"}
        supervisor = self.supervisor(settings={"probe": {"timeout": "500ms"}, "backoff": slow})
        self.fake_programs(
            supervisor,
            '#!/bin/sh\n[ "$1" = -f ] && exec sleep 1000\nhead -c 3000 /dev/urandom\n',
        )
        supervisor.start(wait_ready=False)
        failed = supervisor.events.wait("start_failed")
        self.assertTrue(failed["message"].startswith("not ready within 10s: "), failed)
        self.assertEqual(supervisor.instance()["state"], "backoff")

    def test_a_program_that_ends_at_once_is_given_up_on(self):
        supervisor = self.supervisor()
        self.fake_programs(supervisor, "#!/bin/sh\nexit 7\n")
        supervisor.start(wait_ready=False)
        failed = supervisor.events.wait("failed")
        self.assertEqual(
            failed["message"],
            "gave up after 5 failed starts within 2m; the last: the control daemon exited with "
            "status 7; `mps-ctl restart gpu0.shared` tries again",
        )
        self.assertEqual(supervisor.instance()["state"], "failed")
        self.assertEqual(len(supervisor.events.of("start_failed")), 4)
        # Given up is not the end: it is asked for, and the programs are right again.
        supervisor.settings["mpsPath"] = None
        shutil.copy(supervisor.backend.control, supervisor.root / "fake/nvidia-cuda-mps-control")
        self.assertEqual(supervisor.post("/v1/instances/gpu0.shared:restart")[0], 202)
        supervisor.events.wait("ready", failed["id"])

    def test_a_full_disk(self):
        supervisor = self.supervisor()
        supervisor.run.mkdir()
        supervisor.state.mkdir()
        for folder in (supervisor.run, supervisor.state):
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(folder)], check=True
            )
            self.addCleanup(subprocess.run, ["umount", "-l", str(folder)])
        supervisor.start()
        mark = supervisor.events.last_id()
        for folder in (supervisor.run, supervisor.state):
            filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
            try:
                while True:
                    os.write(filler, b"x" * 4096)
            except OSError:
                os.close(filler)
        full = supervisor.events.wait("disk_full", mark)
        self.assertIn(": no space left: ", full["message"])
        # It goes on: a killed daemon comes back, events are kept in memory.
        started = harness.time.monotonic()
        wait_until(lambda: harness.time.monotonic() - started > 1.05, "a life")
        os.kill(supervisor.instance()["control"]["pid"], 9)
        supervisor.events.wait("ready", full["id"])

    def test_a_log_flood(self):
        supervisor = self.supervisor().start()
        with open(supervisor.run / "gpu0.shared/private/mps.log", "ab") as log:
            for _ in range(100):
                log.write(b"what is this line and why are there so many of it\n" * 1000)
        flood = supervisor.events.wait("log_flood")
        self.assertIn("more than 5000 unknown lines a second", flood["message"])
        wait_until(lambda: supervisor.instance()["unknownLogLines"] >= 100000, "all were read")
        # Kept short: what was read is given back to the file system.
        size = os.stat(supervisor.run / "gpu0.shared/private/mps.log")
        self.assertLess(size.st_blocks * 512, 1024 * 1024)
        os.kill(supervisor.instance()["control"]["pid"], 9)
        supervisor.events.wait("ready", flood["id"])


if __name__ == "__main__":
    harness.main()
