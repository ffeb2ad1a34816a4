"""Shares as CDI devices, in containers that Podman runs: what a container's user is promised."""

import json

from gate_kit import REFUSED, for_everybody
from podman_kit import LAUNCHER, PodmanSuite, main
from run_kit import DEVICES, MEMORY, PERCENTAGE, PIPE, devices_of

QUARTER = ("--threads", "25", "--memory", "12Gi")
LIMITS = {PERCENTAGE: "25.0", MEMORY: "0=12288M"}


def pipe_of(share):
    return f"/run/mps-share/{share}/pipe"


def launcher(share, *options):
    return [LAUNCHER.format(share), *options, "--"]


class OnDemand(PodmanSuite):
    def with_share(self, *limits):
        supervisor = self.supervisor().start()
        self.podman(supervisor)
        self.assertEqual(self.create(supervisor, *limits)["id"], "s1")
        return supervisor

    def test_the_container_has_the_share_and_its_limits(self):
        self.with_share(*QUARTER)
        status, out, err = self.run_in(["s1"], "env")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.variables(out), {PIPE: pipe_of("s1"), **LIMITS})

    def test_what_the_user_sets_is_overridden(self):
        self.with_share(*QUARTER)
        mine = {PIPE: "/x", PERCENTAGE: "90", MEMORY: "0=100G"}
        options = [word for item in mine.items() for word in ("-e", "=".join(item))]
        out = self.run_in(["s1"], "env", options=options)[1]
        self.assertEqual(self.variables(out), {PIPE: pipe_of("s1"), **LIMITS})

    def test_the_mount_is_read_only_and_programs_start_from_it(self):
        self.with_share(*QUARTER)
        look = "grep ' /run/mps-share/s1 ' /proc/self/mountinfo; touch /run/mps-share/s1/mine"
        status, out, err = self.run_in(["s1"], "sh", "-c", look)
        options = out.split(" - ")[0].split()[5].split(",")
        looked_at = {"ro", "nosuid", "nodev", "noexec"}
        self.assertEqual(looked_at & set(options), {"ro", "nosuid", "nodev"})
        self.assertEqual(status, 1)
        self.assertIn("/run/mps-share/s1/mine': Read-only file system", err)
        status, out, err = self.run_in(["s1"], LAUNCHER.format("s1"), "--version")
        self.assertEqual((status, out, err), (0, "mps-run 0.1.0\n", ""))

    def test_the_launcher_gets_in_and_passes_the_status_on(self):
        self.with_share(*QUARTER)
        status, out, err = self.run_in(["s1"], *launcher("s1"), "sh", "-c", "env; exit 7")
        self.assertEqual((status, err), (7, ""))
        self.assertEqual(self.variables(out), {PIPE: pipe_of("s1"), **LIMITS})

    def test_a_cuda_program_reaches_the_gate_as_its_container(self):
        supervisor = self.with_share(*QUARTER)
        probe = ["/probe", "--hold-until-stdin-closes"]
        started = self.start_in(["s1"], *probe, options=self.with_cuda(supervisor))
        self.assertEqual(json.loads(self.line(started))["cuInit"], REFUSED)
        pid = self.engine.pid(started.name)
        supervisor.wait_heard(pid)
        self.assertEqual(supervisor.log.clients(), [(pid, 0)])
        admission = supervisor.get("/v1/admissions")[0]
        expected = ("s1", f"docker:{started.name}")
        self.assertEqual((admission["share"], admission["namespace"]), expected)
        started.stdin.close()
        self.finish(started)
        supervisor.wait_no_admissions()

    def test_a_deleted_share_fails_the_start(self):
        supervisor = self.with_share()
        self.assertEqual(self.run_in(["s1"], "true")[0], 0)
        self.assertEqual(supervisor.ctl("shares", "delete", "s1")[0], 0)
        status, out, err = self.run_in(["s1"], "echo", "started")
        self.assertEqual((status, out), (126, ""))
        self.assertRegex(err, r"unresolvable CDI devices mps-supervisor\.dev/share=s1")


class Guard(PodmanSuite):
    """As the container's first process, which the kernel keeps signals from."""

    def stopped(self, script):
        """The exit status that `podman run` has after `podman stop`; 137 would be its SIGKILL."""
        started = self.start_in(
            ["gpu0.shared"], *launcher("gpu0.shared", "--guard"), "sh", "-c", script
        )
        self.assertEqual(self.line(started), "ready\n")
        status, _, err = self.engine.do("stop", "--time", "50", started.name)
        self.assertEqual((status, err), (0, ""))
        return self.finish(started)[0]

    def test_it_ends_when_it_is_asked_to(self):
        self.podman(self.supervisor().start())
        self.assertEqual(self.stopped("echo ready; exec sleep 600"), 143)
        handles = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done"
        self.assertEqual(self.stopped(handles), 5)


class Open(PodmanSuite):
    def test_by_the_name_of_its_instance(self):
        quarter = for_everybody(percentage=40, memory="3Gi")
        self.podman(self.supervisor(quarter).start())
        shared = {PIPE: pipe_of("gpu0.shared")}
        self.assertEqual(self.variables(self.run_in(["gpu0.shared"], "env")[1]), shared)
        out = self.run_in(["gpu0.shared"], *launcher("gpu0.shared"), "env")[1]
        limits = {PERCENTAGE: "40.0", MEMORY: "0=3072M"}
        self.assertEqual(self.variables(out), {**shared, **limits})

    def test_without_a_policy_the_launcher_says_so(self):
        self.podman(self.supervisor({}).start())
        status, out, err = self.run_in(["gpu0.shared"], *launcher("gpu0.shared"), "echo", "started")
        self.assertEqual((status, out), (125, ""))
        self.assertRegex(err, r"^mps-run: refused \(no_policy\): [^\n]+\n$")


class Two(PodmanSuite):
    """Shares of two devices in one container: one program uses one of them."""

    def test_the_launcher_chooses(self):
        supervisor = self.supervisor(devices=devices_of(2)).start()
        self.podman(supervisor)
        self.create(supervisor, "--threads", "25", device=0)
        self.create(supervisor, "--threads", "25", device=1)
        for given in (["s1", "s2"], ["s2", "s1"]):
            for device, share in enumerate(("s1", "s2")):
                words = launcher("s1", "--device", str(device))
                status, out, err = self.run_in(given, *words, "env")
                self.assertEqual((status, err), (0, ""), f"{given} {share}")
                expected = {
                    PIPE: pipe_of(share),
                    PERCENTAGE: "25.0",
                    DEVICES: devices_of(2)[device]["uuid"],
                }
                self.assertEqual(self.variables(out), expected)


if __name__ == "__main__":
    main()
