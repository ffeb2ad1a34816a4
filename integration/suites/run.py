"""mps-run in a share, with the real control daemon: the environment that it sets, what it says when
it is refused, and that the program is otherwise as if it had been started by itself."""

import json
import pathlib
import shutil
import signal
import subprocess

import harness
from gate_kit import REFUSED, SHARED, WITHOUT_MPS, GatedSupervisor, for_everybody
from harness import OPTIONS, wait_until
from run_kit import DEVICES, MEMORY, PERCENTAGE, PIPE, PRIORITY, RunSuite

QUARTER = {"percentage": 25, "memory": "10Gi"}


class Environment(RunSuite):
    def test_what_was_granted_is_set_and_nothing_else(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        status, out, err = self.mps_run(supervisor, "--", "env")
        self.assertEqual((status, err), (0, ""))
        pipe = str(supervisor.open_pipe())
        self.assertEqual(
            self.variables(out), {PIPE: pipe, PERCENTAGE: "25.0", MEMORY: "0=10240M"}
        )

    def test_without_limits_the_users_own_stay(self):
        supervisor = self.supervisor(for_everybody()).start()
        mine = {PERCENTAGE: "70", MEMORY: "0=3G", PRIORITY: "1"}
        out = self.mps_run(supervisor, "env", env=mine)[1]
        self.assertEqual(self.variables(out), {PIPE: str(supervisor.open_pipe()), **mine})

    def test_only_ever_lowered(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        for mine, theirs in (
            ({PERCENTAGE: "10"}, {PERCENTAGE: "10", MEMORY: "0=10240M"}),
            ({PERCENTAGE: "90"}, {PERCENTAGE: "25.0", MEMORY: "0=10240M"}),
            ({PERCENTAGE: "lots"}, {PERCENTAGE: "25.0", MEMORY: "0=10240M"}),
            ({MEMORY: "0=2G"}, {PERCENTAGE: "25.0", MEMORY: "0=2048M"}),
            ({MEMORY: "0=200G"}, {PERCENTAGE: "25.0", MEMORY: "0=10240M"}),
            ({PIPE: "/tmp/nvidia-mps"}, {PERCENTAGE: "25.0", MEMORY: "0=10240M"}),
        ):
            with self.subTest(mine):
                out = self.mps_run(supervisor, "env", env=mine)[1]
                got = self.variables(out)
                self.assertEqual(got.pop(PIPE), str(supervisor.open_pipe()))
                self.assertEqual(got, theirs)

    def test_priority_below_normal(self):
        files = for_everybody(client={"priority": "below-normal"})
        files = {name: text.replace("  client: {}\n", "") for name, text in files.items()}
        supervisor = self.supervisor(files).start()
        out = self.mps_run(supervisor, "env", env={PRIORITY: "0"})[1]
        self.assertEqual(self.variables(out)[PRIORITY], "1")

    def test_a_program_gets_in_at_the_gate_with_the_slot_it_was_given(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        started = self.launch(
            supervisor, "--", *self.probe("--hold-until-stdin-closes"), stdin=subprocess.PIPE
        )
        self.assertEqual(json.loads(self.line(started))["cuInit"], REFUSED)
        supervisor.wait_heard(started.pid)
        self.assertEqual(supervisor.log.clients(), [(started.pid, 0)])
        self.assertEqual(supervisor.admitted_pids(), {started.pid})
        started.stdin.close()
        started.wait(timeout=harness.DEADLINE)
        supervisor.wait_no_slots()


class Status(RunSuite):
    def test_of_the_command(self):
        supervisor = self.supervisor().start()
        script = self.root_file(supervisor, "script", "#!/bin/sh\nexit 9\n", 0o755)
        plain = self.root_file(supervisor, "plain", "no program\n", 0o644)
        bare = self.root_file(supervisor, "bare", 'exit "$1"\n', 0o755)
        for words, status, error in (
            (["true"], 0, ""),
            (["sh", "-c", "exit 7"], 7, ""),
            (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM, ""),
            ([script], 9, ""),
            ([bare, "4"], 4, ""),
            ([plain], 126, f"mps-run: {plain}: Permission denied\n"),
            (["/nowhere/x"], 127, "mps-run: /nowhere/x: No such file or directory\n"),
            (["no-such-program"], 127, "mps-run: no-such-program: No such file or directory\n"),
        ):
            with self.subTest(words):
                self.assertEqual(self.mps_run(supervisor, "--", *words), (status, "", error))

    def root_file(self, supervisor, name, text, mode):
        path = supervisor.root / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def test_how_it_is_used(self):
        supervisor = self.supervisor().start()
        status, out, err = self.mps_run(supervisor, "--help")
        self.assertEqual((status, err), (0, ""))
        self.assertTrue(out.startswith("usage: mps-run [options] [--] COMMAND"), out)
        self.assertEqual(self.mps_run(supervisor, "--version"), (0, "mps-run 0.1.0\n", ""))
        self.assertEqual(
            self.mps_run(supervisor),
            (125, "", "mps-run: no command; see mps-run --help\n"),
        )
        self.assertEqual(
            self.mps_run(supervisor, "--gard", "true"),
            (125, "", "mps-run: unknown option --gard; see mps-run --help\n"),
        )

    def test_a_copy_elsewhere_goes_by_the_pipe_directory(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        copy = supervisor.root / "mps-run"
        shutil.copy2(self.folder(supervisor) / "bin/mps-run", copy)
        env = self.environment(supervisor)
        done = subprocess.run([str(copy), "env"], env=env, capture_output=True, text=True)
        self.assertEqual(done.returncode, 125)
        self.assertEqual(
            done.stderr,
            f"mps-run: {copy} lies in no share's folder, and CUDA_MPS_PIPE_DIRECTORY names none: "
            "start the mps-run of the share, as /run/mps-share/NAME/bin/mps-run\n",
        )
        env[PIPE] = str(supervisor.open_pipe())
        done = subprocess.run([str(copy), "env"], env=env, capture_output=True, text=True)
        self.assertEqual(self.variables(done.stdout)[PERCENTAGE], "25.0")


class Refusals(RunSuite):
    def refused(self, supervisor, code, advice, *options):
        status, out, err = self.mps_run(supervisor, *options, "--", "echo", "started")
        self.assertEqual((status, out), (125, ""), err)
        self.assertRegex(err, rf"^mps-run: refused \({code}\): [^\n]+; {advice}\n$")

    def test_no_policy(self):
        supervisor = self.supervisor({}).start()
        self.refused(supervisor, "no_policy", "ask this node's operators for a policy")

    def test_draining(self):
        supervisor = self.supervisor().start()
        self.assertEqual(supervisor.ctl("drain", SHARED)[0], 0)
        self.refused(supervisor, "draining", "take another device, or ask this node's operators")

    def test_over_quota_and_no_wait(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        first = self.launch(supervisor, "--", "cat", stdin=subprocess.PIPE)
        wait_until(lambda: first.pid in supervisor.admitted_pids(), "the first is in")
        advice = "wait with --wait 60s, or end another program of yours"
        self.refused(supervisor, "quota_clients", advice)
        advice = "wait longer with --wait, or end another program of yours"
        started = self.launch(supervisor, "--wait", "1s", "--", "echo", "started")
        status, out, err = self.finish(started)
        self.assertEqual((status, out), (125, ""))
        waiting, refused = err.splitlines()
        self.assertRegex(waiting, r"^mps-run: waiting: \S")
        self.assertRegex(refused, rf"^mps-run: refused \(quota_clients\): .+; {advice}$")
        first.stdin.close()
        self.assertEqual(self.finish(first)[0], 0)

    def test_waiting_is_served_in_order(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        order = supervisor.root / "order"
        first = self.launch(supervisor, "--", "cat", stdin=subprocess.PIPE)
        wait_until(lambda: first.pid in supervisor.admitted_pids(), "the first is in")
        waiting = []
        for number in range(6):
            script = f"echo {number} >> {order}"
            started = self.launch(supervisor, "--wait", "60s", "--", "sh", "-c", script)
            self.assertRegex(started.stderr.readline(), r"^mps-run: waiting: ")
            waiting.append(started)
        self.assertFalse(order.exists())
        first.stdin.close()
        for started in waiting:
            self.assertEqual(self.finish(started)[0], 0)
        self.assertEqual(order.read_text().split(), list("012345"))

    def test_started_without_mps_where_that_was_asked_for(self):
        supervisor = self.supervisor({}).start()
        words = ["--on-refusal=run-without-mps", "--", *self.probe()]
        status, out, err = self.mps_run(supervisor, *words)
        self.assertRegex(err, r"^mps-run: refused \(no_policy\): [^\n]+; starting without MPS\n$")
        expected = WITHOUT_MPS if supervisor.backend.real else 0
        self.assertEqual(json.loads(out)["cuInit"], expected)
        self.assertEqual(supervisor.log.clients(), [])


class Away(RunSuite):
    def test_closed_while_the_supervisor_is_away(self):
        supervisor = self.supervisor().start()
        self.folder(supervisor)
        supervisor.kill9()
        status, out, err = self.mps_run(supervisor, "--", "echo", "started")
        self.assertEqual((status, out), (125, ""))
        self.assertRegex(
            err,
            r"^mps-run: mps-supervisor does not answer: [^\n]*: (Connection refused|"
            r"Connection reset by peer|Connection timed out|Operation timed out); "
            r"wait with --wait 60s\n$",
        )

    def test_waits_until_it_is_back(self):
        supervisor = self.supervisor().start()
        self.folder(supervisor)
        supervisor.kill9()
        started = self.launch(supervisor, "--wait", "60s", "--", "echo", "started")
        wait_until(lambda: started.poll() is None, "it runs")
        supervisor.start()
        self.assertEqual(self.finish(started)[:2], (0, "started\n"))

    def test_waits_over_a_restart_in_the_middle_of_waiting(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        first = self.launch(supervisor, "--", "cat", stdin=subprocess.PIPE)
        wait_until(lambda: first.pid in supervisor.admitted_pids(), "the first is in")
        started = self.launch(supervisor, "--wait", "60s", "--", "echo", "started")
        self.assertRegex(started.stderr.readline(), r"^mps-run: waiting: ")
        supervisor.kill9()
        supervisor.start()
        self.assertIsNone(started.poll())
        first.stdin.close()
        self.assertEqual(self.finish(started)[:2], (0, "started\n"))


class Devices(RunSuite):
    UUID = "GPU-00000000-0000-0000-0000-{:012d}"

    def two(self):
        made = GatedSupervisor(devices=2)
        self.made.append(made)
        for name, text in for_everybody(**QUARTER).items():
            made.policies.put(name, text)
        return made.start()

    def test_the_share_of_another_device(self):
        supervisor = self.two()
        for wanted in ("1", "gpu1", "gpu1.shared", self.UUID.format(1), self.UUID.format(1).lower()):
            with self.subTest(wanted):
                status, out, err = self.mps_run(supervisor, "--device", wanted, "--", "env")
                self.assertEqual((status, err), (0, ""))
                got = self.variables(out)
                self.assertEqual(got[PIPE], str(supervisor.open_pipe("gpu1.shared")))
                self.assertEqual(got[DEVICES], self.UUID.format(1))
        out = self.mps_run(supervisor, "--device=0", "--", "env")[1]
        self.assertEqual(self.variables(out)[PIPE], str(supervisor.open_pipe()))

    def test_one_that_is_not_there_or_not_this(self):
        supervisor = self.two()
        folder = self.folder(supervisor)
        for wanted in ("2", "gpu", "GPU-000", "open"):
            with self.subTest(wanted):
                self.assertEqual(
                    self.mps_run(supervisor, "--device", wanted, "true"),
                    (125, "", f'mps-run: no share of device "{wanted}" answers beside {folder}\n'),
                )
        same = "GPU-00000000"  # both begin with it; a program's own share comes first
        out = self.mps_run(supervisor, "--device", same, "env")[1]
        self.assertEqual(self.variables(out)[DEVICES], self.UUID.format(0))
        other = {DEVICES: self.UUID.format(1)}
        self.assertEqual(
            self.mps_run(supervisor, "true", env=other),
            (
                125,
                "",
                "mps-run: CUDA_VISIBLE_DEVICES names another device than the share's "
                f"{self.UUID.format(0)}: unset it, or use a share of that device\n",
            ),
        )
        out = self.mps_run(supervisor, "env", env={DEVICES: "1"})[1]
        self.assertEqual(self.variables(out)[DEVICES], self.UUID.format(0))

    def test_whatever_is_visible(self):
        supervisor = self.two()
        first, second = (self.UUID.format(number) for number in range(2))
        out = self.mps_run(supervisor, "--device", "1", "env", env={DEVICES: first})[1]
        self.assertEqual(self.variables(out)[DEVICES], second)

    def test_waits_for_the_agent_to_tell(self):
        supervisor = self.two()
        self.folder(supervisor)
        supervisor.kill9()
        words = ["--device", "1", "--wait", "60s", "--", "env"]
        started = self.launch(supervisor, *words)
        wait_until(lambda: started.poll() is None, "it runs")
        supervisor.start()
        status, out, _ = self.finish(started)
        self.assertEqual(status, 0)
        self.assertEqual(self.variables(out)[DEVICES], self.UUID.format(1))


class Images(RunSuite):
    """Root file systems that have nothing of this machine's."""

    def root(self, supervisor):
        root = supervisor.root / "image"
        (root / "mps").mkdir(parents=True)
        return root

    def inside(self, supervisor, root, *words):
        """The share is mounted read-only at /mps; there is no /proc and no /dev."""
        script = (
            'root=$1; shift; mount --bind "$0" "$root/mps" && '
            'mount -o remount,bind,ro "$root/mps" && exec chroot "$root" "$@"'
        )
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, str(self.folder(supervisor)), str(root), *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            timeout=harness.DEADLINE,
        )
        return done.returncode, done.stdout, done.stderr

    def test_an_empty_one(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        root = self.root(supervisor)
        run = "/mps/bin/mps-run"
        status, out, err = self.inside(supervisor, root, run, "--", run, "--version")
        self.assertEqual((status, out, err), (0, "mps-run 0.1.0\n", ""))
        status, out, err = self.inside(supervisor, root, run, "--guard", "--", run, "--version")
        self.assertEqual((status, out, err), (0, "mps-run 0.1.0\n", ""))

    def test_one_of_musl_as_alpine_is(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        root = self.root(supervisor)
        loader = next(pathlib.Path("/lib").glob("ld-musl-*.so.1"))
        (root / "lib").mkdir()
        shutil.copy(loader, root / "lib")
        source = root / "show.c"
        source.write_text(
            "#include <stdio.h>\nextern char **environ;\n"
            'int main(void) { for (char **e = environ; *e; ++e) puts(*e); return 3; }\n'
        )
        subprocess.run(["musl-gcc", "-o", root / "show", source], check=True)
        status, out, err = self.inside(supervisor, root, "/mps/bin/mps-run", "--", "/show")
        self.assertEqual((status, err), (3, ""))
        self.assertEqual(
            self.variables(out), {PIPE: "/mps/pipe", PERCENTAGE: "25.0", MEMORY: "0=10240M"}
        )

    def test_what_it_needs_is_a_kernel_of_2014(self):
        program = OPTIONS.build / "bin/mps-run"
        self.assertLess(program.stat().st_size, 200_000)
        headers = subprocess.run(
            ["readelf", "-lW", program], capture_output=True, text=True, check=True
        ).stdout
        self.assertNotIn("INTERP", headers)
        self.assertNotIn("DYNAMIC", headers)


if __name__ == "__main__":
    harness.main()
