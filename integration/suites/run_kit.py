"""What the suites about mps-run and the shim share: programs started through them in a share."""

import select
import subprocess

import harness
from gate_kit import GateSuite
from harness import OPTIONS, wait_until

MEMORY = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
PRIORITY = "CUDA_MPS_CLIENT_PRIORITY"
PIPE = "CUDA_MPS_PIPE_DIRECTORY"
DEVICES = "CUDA_VISIBLE_DEVICES"


def devices_of(count):
    """For the settings."""
    uuid = "GPU-00000000-0000-0000-0000-{:012d}".format
    return [
        {"uuid": uuid(n), "index": n, "memory": "141Gi", "smCount": 132} for n in range(count)
    ]


class RunSuite(GateSuite):
    def folder(self, supervisor, name="gpu0.shared"):
        """The open share's, with its programs in it."""
        folder = supervisor.run / name / "open"
        wait_until(lambda: (folder / "lib/libmps-shim.so").exists(), "the share is complete")
        return folder

    def environment(self, supervisor, **more):
        """Nothing of MPS in it but what the test has."""
        clean = supervisor.backend.environment("")
        del clean[PIPE]
        return {**clean, **more}

    def launch(self, supervisor, *words, env=None, name="gpu0.shared", **options):
        """mps-run with these words, started."""
        started = subprocess.Popen(
            [str(self.folder(supervisor, name) / "bin/mps-run"), *map(str, words)],
            env=self.environment(supervisor, **(env or {})),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        supervisor.helpers.append(started)
        return started

    def finish(self, started):
        if started.stdin and started.stdin.closed:
            started.stdin = None
        out, err = started.communicate(timeout=harness.DEADLINE)
        return started.returncode, out, err

    def mps_run(self, supervisor, *words, **options):
        """(status, stdout, stderr)"""
        return self.finish(self.launch(supervisor, *words, **options))

    def variables(self, text):
        """Those of CUDA that `env` printed."""
        lines = (line.partition("=") for line in text.splitlines())
        return {name: value for name, _, value in lines if name.startswith("CUDA_")}

    def probe(self, *arguments):
        return [str(OPTIONS.build / "bin/mps-probe"), *arguments]

    def line(self, started):
        if not select.select([started.stdout], [], [], harness.DEADLINE)[0]:
            raise AssertionError(f"{started.pid} says nothing")
        return started.stdout.readline()
