"""The examples of client-shim/examples, run as they are: with Podman, with a stand-in for Docker,
and with what Slurm and systemd give them."""

import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import harness
import podman_kit
from gate_kit import OTHER_UID, REFUSED, for_everybody
from harness import OPTIONS, SOURCE, wait_until
from podman_kit import PodmanSuite
from run_kit import DEVICES, MEMORY, PERCENTAGE, PIPE, RunSuite, devices_of

EXAMPLES = SOURCE / "client-shim/examples"
PLAIN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NVIDIA = {
    "cdiVersion": "0.3.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": "0", "containerEdits": {"env": ["NVIDIA=here"]}}],
}
# Writes down what it was called with, and ends when it is told to, or with 42.
DOCKER = """\
#!/bin/bash
trap 'exit 143' TERM
printf '%s\\0' "$@" >"$RECORD.new" && mv "$RECORD.new" "$RECORD"
until read -r -t 0.2 line || [[ $? -le 128 ]]; do :; done  # a trap may come just before a read
exit "${line:-42}"
"""


def with_ctl(supervisor, path=PLAIN_PATH):
    """The environment of somebody who works with that agent."""
    return {
        "PATH": f"{OPTIONS.build / 'bin'}:{path}",
        "MPS_SUPERVISOR_SOCKET": str(supervisor.run / "supervisor.sock"),
    }


def shares_of(supervisor):
    """Those made on demand that still are."""
    shares = supervisor.get("/v1/shares")
    return [share["id"] for share in shares if re.fullmatch(r"s\d+", share["id"])]


class Podman(PodmanSuite):
    def setUp(self):
        super().setUp()
        if reason := podman_kit.missing():
            print(f"NOT TESTED HERE: {self.id()}: {reason}", file=sys.stderr, flush=True)
            self.skipTest(reason)

    def example(self, supervisor, limits, command):
        image = ["--volume", "/usr:/usr:ro", "--rootfs"]
        options = [word for option in image for word in ("--option", option)]
        words = [*limits, *options, self.engine.root, *command]
        done = subprocess.run(
            self.engine.within(EXAMPLES / "podman.sh", *words),
            env=self.engine.environment(**with_ctl(supervisor)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=harness.DEADLINE,
        )
        return done.returncode, done.stdout, done.stderr

    def test_the_command_has_a_share_while_it_runs(self):
        supervisor = self.supervisor().start()
        self.podman(supervisor)
        nvidia = pathlib.Path(supervisor.settings["cdiDir"]) / "nvidia.json"
        nvidia.write_text(json.dumps(NVIDIA))
        limits = ["--threads", "25", "--memory", "12Gi"]
        status, out, err = self.example(supervisor, limits, ["sh", "-c", "env; exit 7"])
        self.assertEqual((status, err), (7, ""))
        self.assertIn("NVIDIA=here\n", out)
        self.assertEqual(
            self.variables(out),
            {PIPE: "/run/mps-share/s1/pipe", PERCENTAGE: "25.0", MEMORY: "0=12288M"},
        )
        self.assertEqual(shares_of(supervisor), [])
        nvidia.unlink()
        status, out, err = self.example(supervisor, limits, ["echo", "started"])
        self.assertEqual((status, out), (126, ""))
        self.assertRegex(err, "unresolvable CDI devices .*nvidia.com/gpu=0")
        self.assertEqual(shares_of(supervisor), [])


class Docker(RunSuite):
    def start_example(self, supervisor, *words, **more):
        folder = supervisor.root / "docker"
        folder.mkdir(exist_ok=True)
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        self.record = supervisor.root / "record"
        env = {**with_ctl(supervisor, f"{folder}:{PLAIN_PATH}"), "RECORD": str(self.record), **more}
        started = subprocess.Popen(
            [str(EXAMPLES / "docker.sh"), *words],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        supervisor.helpers.append(started)
        return started

    def recorded(self):
        wait_until(self.record.exists, "docker is called")
        return self.record.read_text().split("\0")[:-1]

    def test_what_docker_is_asked_for(self):
        supervisor = self.supervisor().start()
        words = ["--threads", "25", "--memory", "12Gi", "--option", "--shm-size=1g", "an/image"]
        started = self.start_example(supervisor, *words, "python3", "-c", "print(1, 2)")
        devices = ["--device", "mps-supervisor.dev/share=s1", "--device", "nvidia.com/gpu=0"]
        run = ["/run/mps-share/s1/bin/mps-run", "--guard", "--wait", "60s", "--"]
        command = ["python3", "-c", "print(1, 2)"]
        self.assertEqual(
            self.recorded(), ["run", "--rm", *devices, "--shm-size=1g", "an/image", *run, *command]
        )
        share = supervisor.get("/v1/shares")[-1]
        self.assertEqual(
            (share["id"], share["limits"]),
            ("s1", {"activeThreadPercentage": 25, "pinnedDeviceMemoryMiB": 12288}),
        )
        out, err = started.communicate("42\n", timeout=harness.DEADLINE)
        self.assertEqual((started.returncode, out, err), (42, "", ""))
        self.assertEqual(shares_of(supervisor), [])

    def test_a_signal_ends_the_container_and_the_share(self):
        supervisor = self.supervisor().start()
        started = self.start_example(supervisor, "an/image", "true", MPS_GPU_DEVICE="none")
        device = "mps-supervisor.dev/share=s1"
        self.assertEqual(self.recorded()[2:5], ["--device", device, "an/image"])
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=harness.DEADLINE)
        out, err = started.communicate()
        self.assertEqual((started.returncode, out, err), (143, "", ""))
        self.assertEqual(shares_of(supervisor), [])

    def test_without_a_share_nothing_is_started(self):
        supervisor = self.supervisor().start()
        for words, status, error in (
            (["--gpu", "7", "an/image", "true"], 1, 'mps-ctl: no device "7"'),
            (["an/image"], 2, "usage: docker.sh [--gpu N]"),
            (["--threads", "25"], 2, "usage: docker.sh [--gpu N]"),
        ):
            started = self.start_example(supervisor, *words)
            out, err = started.communicate(timeout=harness.DEADLINE)
            self.assertEqual((started.returncode, out), (status, ""), err)
            self.assertTrue(err.startswith(error), err)
        self.assertFalse(self.record.exists())


class Slurm(RunSuite):
    """With the variables that Slurm's guide to prolog and epilog names, and no others."""

    def cluster(self, devices=1, start=True, **settings):
        supervisor = self.supervisor(devices=devices_of(devices))
        self.state = supervisor.root / "slurm-state"
        ours = {**with_ctl(supervisor), "MPS_CTL": OPTIONS.build / "bin/mps-ctl"}
        ours = {**ours, "MPS_SLURM_STATE": self.state, **settings}
        del ours["PATH"]
        self.settings = supervisor.root / "slurm.env"
        self.settings.write_text("".join(f"{k}={v}\n" for k, v in ours.items()))
        return supervisor.start() if start else supervisor

    def script(self, name, uid=None, **variables):
        env = {
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_GPUS": "0",
            "SLURM_JOB_UID": str(OTHER_UID),
            "SLURM_JOB_USER": "somebody",
            "MPS_SLURM_SETTINGS": str(self.settings),
            **variables,
        }
        done = subprocess.run(
            [str(EXAMPLES / f"slurm/{name}.sh")],
            env={key: value for key, value in env.items() if value is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=harness.DEADLINE,
            user=uid,
            group=uid,
            extra_groups=[] if uid is not None else None,
        )
        return done.returncode, done.stdout, done.stderr

    def task(self, **variables):
        """What slurmstepd takes from the TaskProlog's output for the task's environment."""
        status, out, err = self.script("task_prolog", uid=OTHER_UID, **variables)
        self.assertEqual((status, err), (0, ""))
        lines = [line.split(" ", 1) for line in out.splitlines()]
        self.assertEqual({word for word, _ in lines} - {"export"}, set())
        return dict(setting.split("=", 1) for _, setting in lines)

    def limits(self, supervisor, share="s1"):
        return next(s["limits"] for s in supervisor.get("/v1/shares") if s["id"] == share)

    def test_a_job(self):
        supervisor = self.cluster(MPS_THREADS=25, MPS_MEMORY="12Gi")
        for _ in range(2):  # also where Slurm runs it again
            self.assertEqual(self.script("prolog"), (0, "", ""))
        self.assertEqual(shares_of(supervisor), ["s1"])
        folder = supervisor.run / "gpu0.shared/shares/s1"
        variables = self.task()
        self.assertEqual(
            variables,
            {
                PIPE: str(folder / "pipe"),
                DEVICES: devices_of(1)[0]["uuid"],
                PERCENTAGE: "25.0",
                MEMORY: "0=12288M",
                "MPS_RUN": str(folder / "bin/mps-run"),
            },
        )
        program = subprocess.Popen(
            [variables["MPS_RUN"], "--", *self.probe("--hold-until-stdin-closes")],
            env={**supervisor.backend.environment(""), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=OTHER_UID,
            group=OTHER_UID,
            extra_groups=[],
        )
        supervisor.helpers.append(program)
        self.assertEqual(json.loads(self.line(program))["cuInit"], REFUSED)
        supervisor.wait_heard(program.pid, OTHER_UID)
        self.assertEqual(supervisor.log.clients(), [(program.pid, OTHER_UID)])
        status, out, err = self.script("epilog")
        self.assertEqual((status, out), (0, ""))
        said = f"mps-slurm: job 4711: mps-ctl: share s1 has 1 client: pid {program.pid} ("
        self.assertIn(said, err)
        program.stdin.close()
        program.wait(timeout=harness.DEADLINE)
        supervisor.events.wait("share_deleted")
        self.assertEqual(list(self.state.iterdir()), [])
        self.assertEqual(self.script("epilog"), (0, "", ""))
        self.assertEqual(self.task(), {})

    def test_the_limits(self):
        supervisor = self.cluster(MPS_THREADS=50)

        def limits_of(percentage, mebibytes=None):
            return {"activeThreadPercentage": percentage, "pinnedDeviceMemoryMiB": mebibytes}

        tenth, quarter, half = (limits_of(percentage) for percentage in (10, 25, 50))
        both = limits_of(12.5, 3072)
        cases = (
            ({}, half, ""),
            ({"SLURM_JOB_COMMENT": "night run mps:threads=12.5,memory=3Gi urgent"}, both, ""),
            ({"SLURM_JOB_COMMENT": "mps:threads=25"}, quarter, ""),
            ({"SLURM_JOB_COMMENT": "mps:threads=$(reboot),memory=3Zi"}, half, ""),
            ({"SLURM_JOB_COMMENT": "mps:threads=900"}, half, "activeThreadPercentage: must be"),
            ({"SLURM_JOB_COMMENT": "mps:threads=90", PERCENTAGE: "10"}, tenth, ""),
        )
        for number, (variables, limits, error) in enumerate(cases, 1):
            with self.subTest(variables):
                status, out, err = self.script("prolog", **variables)
                self.assertEqual((status, out), (0, ""))
                self.assertIn(error, err) if error else self.assertEqual(err, "")
                self.assertEqual(self.limits(supervisor, f"s{number}"), limits)
                self.assertEqual(self.script("epilog", **variables), (0, "", ""))

    def test_several_gpus_and_none(self):
        supervisor = self.cluster(devices=2)
        self.assertEqual(self.script("prolog", SLURM_JOB_GPUS=None), (0, "", ""))
        self.assertEqual((shares_of(supervisor), self.state.exists()), ([], False))
        self.assertEqual(self.script("prolog", SLURM_JOB_GPUS="0,1"), (0, "", ""))
        self.assertEqual(sorted(shares_of(supervisor)), ["s1", "s2"])
        tasks = [self.task(SLURM_LOCALID=str(number))[DEVICES] for number in range(4)]
        first, second = (device["uuid"] for device in devices_of(2))
        self.assertEqual(tasks, [first, second, first, second])
        self.assertEqual(self.script("epilog"), (0, "", ""))
        self.assertEqual(shares_of(supervisor), [])

    def test_a_job_starts_without_the_agent_unless_it_must_not(self):
        self.cluster(start=False)
        status, out, err = self.script("prolog")
        self.assertEqual((status, out), (0, ""))
        self.assertIn("mps-slurm: job 4711: no share: mps-ctl: ", err)
        self.assertEqual(self.task(), {})
        self.assertEqual(self.script("epilog")[:2], (0, ""))
        self.cluster(start=False, MPS_REQUIRED="yes")
        self.assertEqual(self.script("prolog")[0], 1)

    def test_what_an_epilog_cannot_delete_the_next_one_does(self):
        supervisor = self.cluster()
        self.assertEqual(self.script("prolog")[0], 0)
        supervisor.kill9()
        status, out, err = self.script("epilog")
        self.assertEqual((status, out), (0, ""))
        self.assertIn("mps-slurm: job 4711: mps-ctl: ", err)
        supervisor.start()
        self.assertEqual(shares_of(supervisor), ["s1"])
        self.assertEqual(self.script("epilog", SLURM_JOB_ID="4712"), (0, "", ""))
        self.assertEqual((shares_of(supervisor), list(self.state.iterdir())), ([], []))


class Service(RunSuite):
    def unit(self, supervisor):
        """Its lines, with this test's share and a program that is there in the place of its own."""
        text = (EXAMPLES / "mps-job.service").read_text()
        for placeholder, ours in (
            ("/run/mps/", f"{supervisor.run}/"),
            ("/usr/local/bin/my-cuda-program", "/usr/bin/sleep 600"),
        ):
            self.assertIn(placeholder, text)
            text = text.replace(placeholder, ours)
        lines = [line.partition("=") for line in text.splitlines() if not line.startswith("#")]
        return text, {key: value for key, sign, value in lines if sign}

    def test_it_is_started_and_ended(self):
        supervisor = self.supervisor(for_everybody(percentage=25)).start()
        self.folder(supervisor)
        command = shlex.split(self.unit(supervisor)[1]["ExecStart"])
        started = subprocess.Popen(command, env={"PATH": PLAIN_PATH}, stdin=subprocess.DEVNULL)
        supervisor.helpers.append(started)
        children = pathlib.Path(f"/proc/{started.pid}/task/{started.pid}/children")

        def program():
            pids = children.read_text().split()
            path = pathlib.Path(f"/proc/{pids[0]}") if pids else None
            if path is None or (path / "comm").read_text() != "sleep\n":
                return None
            return (path / "environ").read_text()  # empty until its exec is through

        environment = wait_until(program, "the program runs").split("\0")
        self.assertIn(f"{PERCENTAGE}=25.0", environment)
        started.send_signal(signal.SIGTERM)
        self.assertEqual(started.wait(timeout=harness.DEADLINE), -signal.SIGTERM)

    def test_systemd_gives_it_the_time_that_it_takes(self):
        supervisor = self.supervisor().start()
        self.folder(supervisor)
        text, lines = self.unit(supervisor)
        self.assertEqual(lines["KillMode"], "mixed")
        grace = int(re.search(r"--grace (\d+)s", lines["ExecStart"]).group(1))
        self.assertGreater(int(lines["TimeoutStopSec"]), grace + 20)
        verify = shutil.which("systemd-analyze")
        if verify is None:
            print(f"NOT TESTED HERE: {self.id()}: no systemd-analyze", file=sys.stderr, flush=True)
            return
        unit = supervisor.root / "mps-job.service"
        # Of mps-supervisor.service it would say where that is not installed.
        unit.write_text(re.sub(r"(?m)^(After|Wants)=.*\n", "", text))
        done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    harness.main()
