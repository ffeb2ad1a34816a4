"""Containers by Podman, from this machine's own files, that find the CDI devices of one supervisor.

Podman 4.3 looks for CDI files in /etc/cdi and /var/run/cdi only: it runs in a mount namespace in
which the supervisor's own folder is there. Nothing is written to the machine's.
"""

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import harness
from harness import OPTIONS, wait_until
from run_kit import RunSuite

CDI = pathlib.Path("/var/run/cdi")
KIND = "mps-supervisor.dev/share"
LAUNCHER = "/run/mps-share/{}/bin/mps-run"

# No systemd, no network, no journal needed; and no limit above those that this process has.
CONFIGURATION = """\
[containers]
netns = "none"
log_driver = "none"
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
"""


def missing():
    """Why there can be no containers here; None: there can be."""
    for program in ("podman", "runc"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return f"no {program}"
    return None


def main():
    reason = missing()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIPPED)
    harness.main()


def at_most(limit, wanted):
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


class Podman:
    def __init__(self, folder, cdi):
        self.folder = folder / "podman"
        self.root = self.folder / "root"
        for name in ("usr", "proc", "sys", "dev", "tmp", "etc", "run", "var", "root"):
            (self.root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        self.configuration = self.folder / "containers.conf"
        self.configuration.write_text(
            CONFIGURATION.format(
                files=at_most(resource.RLIMIT_NOFILE, 1024),
                processes=at_most(resource.RLIMIT_NPROC, 4096),
            )
        )
        self.names = []
        self.inside = self.enter(cdi)

    def enter(self, cdi):
        """Who keeps the mount namespace."""
        CDI.mkdir(parents=True, exist_ok=True)
        mount = 'mount --bind "$0" "$1" && echo ready && exec cat'
        keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", mount, str(cdi), str(CDI)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert keeper.stdout.readline() == "ready\n"
        return keeper

    def within(self, *command):
        """The command, in the namespace."""
        return ["nsenter", f"--mount=/proc/{self.inside.pid}/ns/mnt", *map(str, command)]

    def environment(self, **more):
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return {**path, "CONTAINERS_CONF": str(self.configuration), **more}

    def do(self, *words):
        """(status, stdout, stderr) of a command of Podman's."""
        done = subprocess.run(
            self.within("podman", *words),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=harness.DEADLINE,
        )
        return done.returncode, done.stdout, done.stderr

    def new_name(self):
        self.names.append(f"mps-test-{os.getpid()}-{id(self) & 0xFFFFFF:x}-{len(self.names)}")
        return self.names[-1]

    def words(self, name, shares, options, command):
        """Of `run`, for this machine's own programs in a container."""
        devices = [word for share in shares for word in ("--device", f"{KIND}={share}")]
        of_ours = ["--volume", "/usr:/usr:ro", *devices, *options]
        return ["run", "--rm", "--name", name, *of_ours, "--rootfs", str(self.root), *command]

    def start(self, shares, command, options=()):
        """`podman run`, started; it has the container's name as `.name`."""
        name = self.new_name()
        started = subprocess.Popen(
            self.within("podman", *self.words(name, shares, ["-i", *options], command)),
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.name = name
        return started

    def pid(self, name):
        """The container's first process, as this machine sees it."""
        return int(self.do("inspect", "--format", "{{.State.Pid}}", name)[1])

    def close(self):
        for name in self.names:
            self.do("rm", "--force", "--ignore", "--time", "0", name)
        wait_until(lambda: not set(self.names) & set(self.all()), "no container is left")
        self.inside.stdin.close()
        self.inside.wait(timeout=harness.DEADLINE)

    def all(self):
        return self.do("ps", "--all", "--format", "{{.Names}}")[1].split()


class PodmanSuite(RunSuite):
    def podman(self, supervisor):
        made = Podman(supervisor.root, supervisor.settings["cdiDir"])
        self.addCleanup(made.close)
        self.engine = made
        self.of = supervisor
        return made

    def create(self, supervisor, *arguments, device=0):
        status, out, err = supervisor.ctl(
            "-o", "json", "shares", "create", "--device", str(device), *arguments
        )
        self.assertEqual(status, 0, err)
        return json.loads(out)

    def with_cuda(self, supervisor):
        """Options: a CUDA program, /probe, and the library that it needs."""
        library = supervisor.backend.libraries[0]
        mounts = {OPTIONS.build / "bin/mps-probe": "/probe", library: "/cuda"}
        words = [w for here, there in mounts.items() for w in ("-v", f"{here}:{there}:ro")]
        environment = ("LD_LIBRARY_PATH=/cuda", f"MPS_SIM_VERSION={supervisor.backend.version}")
        return [*words, *(word for one in environment for word in ("-e", one))]

    def run_in(self, shares, *command, options=()):
        """(status, stdout, stderr) of a container with these shares."""
        words = self.engine.words(self.engine.new_name(), shares, options, command)
        return self.engine.do(*words)

    def start_in(self, shares, *command, options=()):
        started = self.engine.start(shares, command, options)
        self.of.helpers.append(started)
        return started
