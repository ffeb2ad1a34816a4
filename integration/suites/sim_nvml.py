"""The simulated NVML of one supervisor: what it lists, and the Xids and recovery actions that it is
had to tell (integration/simulator/nvml/README.md)."""

import contextlib
import os
import pathlib

from harness import OPTIONS, wait_until


def write_inventory(path, *lines):
    """Whole, by a rename: it may be read at any moment."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text("".join(line + "\n" for line in lines))
    os.rename(fresh, path)


class SimNvml:
    """The supervisor, which has not been started yet, takes its devices from it."""

    def __init__(self, supervisor, *lines):
        self.supervisor = supervisor
        self.inventory = supervisor.root / "nvml"
        self.board = supervisor.root / "nvml.events"
        supervisor.environment["MPS_SIM_NVML"] = str(self.inventory)
        supervisor.settings["devices"] = "auto"
        supervisor.settings["nvmlLibrary"] = str(OPTIONS.build / "sim/lib/libnvidia-ml.so.1")
        self.lists(*lines)

    def lists(self, *lines):
        """From now on."""
        write_inventory(self.inventory, *lines)

    def text(self):
        return self.inventory.read_text()

    def tell(self, line):
        with open(self.board, "a") as board:
            board.write(line + "\n")

    def wait_listener(self):
        """What comes before a listener is told to nobody."""
        wait_until(self.has_listener, "the supervisor listens to NVML")

    def has_listener(self):
        """This supervisor, and not the last one, whose file is still there."""
        with contextlib.suppress(OSError):
            for entry in pathlib.Path(f"/proc/{self.supervisor.process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(entry) == str(self.board):
                        return True
        return False
