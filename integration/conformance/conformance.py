#!/usr/bin/env python3
"""Plays the same scripts to the simulator and to the real control daemon and compares what came of
it: answers, exit statuses, directory entries and modes, log lines. Needs no GPU: where a server
must live, both control daemons get the simulated server and the simulated libcuda."""

import argparse
import difflib
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from world import Programs, Stuck, World  # noqa: E402

SKIPPED = 125
REAL_LIBRARIES = "usr/lib/x86_64-linux-gnu/nvidia/current"


def read_script(path):
    lines, marks = [], set()
    for line in path.read_text().splitlines():
        line = line.split("  #")[0].rstrip()
        if line.startswith("%"):
            marks.update(line[1:].split())
        elif line and not line.startswith("#"):
            lines.append(line)
    return lines, marks


def play(programs, version, lines):
    # Short, as a socket's path holds 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="conf", dir="/tmp"))
    try:
        return World(programs, version, folder).play(lines)
    except Stuck as stuck:
        log = folder / "log"
        return [f"STUCK: {stuck}", log.read_text(errors="replace") if log.exists() else ""]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def worlds(options, marks):
    """Pairs of (name, programs) of which each is compared with the first."""
    sim, real = Path(options.sim), Path(options.real)
    sim_control = sim / "bin/nvidia-cuda-mps-control"
    real_control = real / "usr/bin/nvidia-cuda-mps-control"
    sim_server, sim_library = sim / "bin", sim / "lib"
    real_server, real_library = real / "usr/sbin", real / REAL_LIBRARIES

    def programs(control, front_end, server, library, client_library):
        return Programs(control, front_end, server, library, client_library, options.probe)

    simulator = programs(sim_control, sim_control, sim_server, sim_library, sim_library)
    if "alive" in marks:
        yield "real daemon, simulated server", programs(
            real_control, real_control, sim_server, sim_library, sim_library)
        yield "simulator", simulator
        return
    yield "real", programs(real_control, real_control, real_server, real_library, real_library)
    yield "simulator", simulator
    if "cross" in marks:
        yield "simulated daemon, real front-end and libcuda", programs(
            sim_control, real_control, sim_server, sim_library, real_library)
        yield "real daemon, simulated front-end and libcuda", programs(
            real_control, sim_control, real_server, real_library, sim_library)


def compare(name, lines, marks, options):
    wanted, agreed = None, True
    for world, programs in worlds(options, marks):
        transcript = play(programs, options.version, lines)
        if options.verbose:
            print(f"=== {name}: {world}", *transcript, sep="\n")
        if wanted is None:
            wanted, first = transcript, world
        if transcript != wanted or transcript[0].startswith("STUCK"):
            agreed = False
            print(f"FAILED {name}: '{first}' and '{world}' differ")
            print(*difflib.unified_diff(wanted, transcript, first, world, lineterm="", n=4),
                  sep="\n")
    return agreed


def skip(reason):
    print(f"skipped: {reason}")
    return SKIPPED


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sim", required=True, help="the build's sim folder")
    parser.add_argument("--real", required=True, help="unpacked real programs, as usr/bin/...")
    parser.add_argument("--version", required=True, choices=["535", "550"])
    parser.add_argument("--probe", required=True, help="mps-probe")
    parser.add_argument("--only", help="play one script")
    parser.add_argument("--verbose", action="store_true", help="print what was seen")
    options = parser.parse_args()
    for name in ("sim", "real", "probe"):  # Each world has a working directory of its own.
        setattr(options, name, str(Path(getattr(options, name)).resolve()))
    if not (Path(options.real) / "usr/bin/nvidia-cuda-mps-control").exists():
        return skip(f"no real programs in {options.real} (scripts/fetch-mps {options.version})")
    os.umask(0o022)  # clients of other users get to what is made here
    if os.geteuid() != 0:
        return skip("needs root, as clients of several users are part of it")
    failed = played = 0
    for path in sorted((Path(__file__).parent / "scripts").glob("*.script")):
        lines, marks = read_script(path)
        if options.only not in (None, path.stem):
            continue
        if {"535", "550"} & marks and options.version not in marks:
            continue
        agreed = compare(path.stem, lines, marks, options)
        print(f"{'agreed' if agreed else 'FAILED'}: {path.stem}", flush=True)
        played, failed = played + 1, failed + (not agreed)
    print(f"{played} scripts with {options.version}, {failed} failed")
    return 1 if failed or not played else 0


if __name__ == "__main__":
    sys.exit(main())
