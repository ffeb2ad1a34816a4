"""Where a suite's control daemon, servers and CUDA library come from."""

import os
import pathlib
import shutil

SOURCE = pathlib.Path(__file__).resolve().parents[2]


class Backend:
    """Where the control daemon's programs and CUDA's library are.

    real-<version>: NVIDIA's own; without a GPU no server lives.
    sim-<version>: the simulator, with that version's manners; servers and clients live.
    mixed-<version>: NVIDIA's own control daemon with the simulator's server and libcuda.
    gpu: all that this machine has of NVIDIA's, with a GPU.
    """

    def __init__(self, name, build):
        self.name = name
        self.gpu = name == "gpu"
        if self.gpu:
            self.real, self.version = False, "0"
            found = shutil.which("nvidia-cuda-mps-control", path=self.driver_folders())
            self.control = pathlib.Path(found or "nvidia-cuda-mps-control")
            self.programs = [self.control.parent]
            self.libraries = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f]
            return
        kind, self.version = name.split("-")
        self.real = kind == "real"  # no server lives
        root = SOURCE / "build/real-mps" / self.version
        simulator = build / "sim"
        real_libraries = sorted(root.glob("usr/lib/*/nvidia/current")) or [root / "usr/lib"]
        self.programs = {
            "real": [root / "usr/bin", root / "usr/sbin"],
            "sim": [simulator / "bin"],
            "mixed": [root / "usr/bin", simulator / "bin"],
        }[kind]
        self.libraries = [real_libraries[0]] if self.real else [simulator / "lib"]
        self.control = self.programs[0] / "nvidia-cuda-mps-control"

    @staticmethod
    def driver_folders():
        """PATH, and where drivers and container runtimes put their programs."""
        known = ["/usr/bin", "/usr/local/nvidia/bin", "/usr/lib/nvidia/current", "/opt/nvidia/bin"]
        return ":".join([os.environ.get("PATH", ""), *known])

    def missing(self):
        if self.gpu and not list(pathlib.Path("/dev").glob("nvidia[0-9]*")):
            return "no GPU: there is no /dev/nvidia0"
        return None if self.control.exists() else f"no {self.control}"

    def environment(self, pipe):
        env = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}
        env["PATH"] = ":".join(map(str, self.programs)) + ":" + env.get("PATH", "/usr/bin:/bin")
        if self.libraries:
            env["LD_LIBRARY_PATH"] = ":".join(map(str, self.libraries))
        env["CUDA_MPS_PIPE_DIRECTORY"] = str(pipe)
        env["MPS_SIM_VERSION"] = self.version
        return env
