"""Which processes there are, as /proc tells it."""

import os
import pathlib
import re


def processes():
    """(pid, comm, state, parent) of all processes."""
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        rest = text[text.rindex(")") + 2 :].split()
        yield int(entry.name), name, rest[0], int(rest[1])


def control_daemons(pipe):
    """Pids of the daemons (not front-ends) with this pipe directory."""
    found = []
    for pid, name, state, _ in processes():
        if not name.startswith("nvidia-cuda-mps") or state == "Z":
            continue
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"-f" in command and f"CUDA_MPS_PIPE_DIRECTORY={pipe}".encode() in environment:
            found.append(pid)
    return found


def socket_inodes(pid):
    inodes = set()
    try:
        for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
            if found:
                inodes.add(int(found.group(1)))
    except OSError:
        pass  # it ended, or closed one meanwhile
    return inodes


def front_ends(supervisor):
    """Pids of the command front-ends that this process has."""
    found = []
    for pid, name, state, parent in processes():
        if parent != supervisor or not name.startswith("nvidia-cuda-mps") or state in "ZX":
            continue
        try:
            if b"-f" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class HangingFrontEnd:
    """Called again and again: the only front-end that this process has, once it was there at so many
    looks that it can be neither about to be answered nor just begun."""

    LOOKS = 20

    def __init__(self, supervisor):
        self.supervisor = supervisor
        self.looks = []

    def __call__(self):
        self.looks = [*self.looks[1 - self.LOOKS :], front_ends(self.supervisor)]
        same = all(look == self.looks[0] for look in self.looks)
        return self.looks[0][0] if len(self.looks) == self.LOOKS and same and self.looks[0] else None
