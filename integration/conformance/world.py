"""One world to play a script in: a control daemon, a front-end, servers and clients, each real or
simulated, in a directory of its own. Every wait has a deadline and waits for an event."""

import os
import re
import shlex
import signal
import socket
import stat
import struct
import subprocess
import time
from pathlib import Path

import pid_names

DEADLINE = 15.0
# The real front-end's two threads race for how it ends.
BUSY = [(status, "", text) for status in (0, 1)
        for text in ("", "Cannot send command to MPS control daemon process\n")]
OF_CONNECTIONS = re.compile(
    "Accepting|NEW (CLIENT|SERVER|DEBUGGEE)|Starting|Server \\d+ exited|Removed Shm|"
    "Server encountered|User did not|Unable|Unknown type")
OF_RETRIES = re.compile(
    "backoff is|will try shutting|active worker|unable to shutdown|notified to shutdown")
LOW_PIDS = 2000
CREDENTIALS = b"OUTBCRED\0"


class Stuck(Exception):
    pass


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise Stuck(f"waited {DEADLINE:.0f} s for {what}")
        time.sleep(0.005)


class Programs:
    """Where the programs of a world come from."""

    def __init__(self, control, front_end, server_folder, library_folder, client_library_folder,
                 probe):
        self.control = Path(control)
        self.front_end = Path(front_end)
        self.server_folder = Path(server_folder)
        self.library_folder = Path(library_folder)
        self.client_library_folder = Path(client_library_folder)
        self.probe = Path(probe)


class World:
    def __init__(self, programs, version, folder):
        self.programs = programs
        self.version = version
        self.folder = Path(folder)
        self.pipe = self.folder / "pipe"
        self.log = self.folder / "log"
        self.transcript = []
        self.daemon = None
        self.held = {}
        self.extra = {}
        self.pipe.mkdir(mode=0o711)
        self.pipe.chmod(0o711)
        self.folder.chmod(0o711)

    # What a script is made of; see README.md for the words.

    def play(self, lines):
        leave_the_low_pids()
        try:
            for line in lines:
                word, _, rest = line.partition(" ")
                self.note(f"> {line}")
                getattr(self, "do_" + word.replace("-", "_"))(rest)
            self.note_log()
        finally:
            self.end_everything()
        return self.transcript

    def note(self, text):
        self.transcript.append(text)

    def environment(self, assignments=()):
        environment = {
            "PATH": f"{self.programs.server_folder}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(self.programs.library_folder),
            "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe),
            "MPS_SIM_VERSION": self.version,
            "MPS_SIM_SERVER_READY_MS": "20",
        }
        # Ends with _exit and SIGKILL are part of it, and so is what they leak.
        environment["ASAN_OPTIONS"] = "detect_leaks=0"
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        environment.update(self.extra)
        environment.update(part.split("=", 1) for part in assignments)
        return environment

    def do_env(self, rest):
        self.extra.update(part.split("=", 1) for part in shlex.split(rest))

    def control_stamp(self):
        try:
            entry = os.stat(self.pipe / "control")
            return entry.st_ino, stat.S_IMODE(entry.st_mode), entry.st_mtime_ns
        except FileNotFoundError:
            return None

    def do_start(self, rest):
        before = self.control_stamp()
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(
                [self.programs.control, "-f"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(shlex.split(rest)), start_new_session=True,
                cwd=self.folder, restore_signals=True)

        def listening():
            now = self.control_stamp()
            return (now is not None and now != before and now[1] == 0o666) or self.ended()

        wait_for(listening, "the daemon to listen")
        if self.ended():
            self.note(f"the daemon ended with {self.daemon.returncode}")
        elif self.version != "535":
            pid_file = self.pipe / "nvidia-cuda-mps-control.pid"
            wait_for(lambda: pid_file.exists() and pid_file.read_text() == str(self.daemon.pid),
                     "the pid file")

    def ended(self):
        return self.daemon.poll() is not None

    def do_run_control(self, rest):
        """Runs the control program with these arguments to its end."""
        words = shlex.split(rest.replace("HERE", str(self.folder)))
        assignments = [word for word in words if "=" in word and not word.startswith("-")]
        done = subprocess.run(
            [self.programs.control] + [word for word in words if word not in assignments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
            env=self.environment(assignments), cwd=self.folder)
        self.note_result(done.returncode, done.stdout, done.stderr)

    def do_run_control_status(self, rest):
        """What it prints is a matter of chance."""
        before = len(self.transcript)
        self.do_run_control(rest)
        self.transcript = self.transcript[:before + 1]

    def note_result(self, status, out, err):
        self.note(f"status {status}")
        for name, text in (("out", out), ("err", err)):
            for line in text.replace(str(self.folder), "DIR").split("\n")[:-1]:
                self.note(f"{name}: {line}")
            if text and not text.endswith("\n"):
                self.note(f"{name} without a line end: {text.rsplit(chr(10), 1)[-1]}")

    def front_end(self, commands, pipe=None, uid=None, timeout=DEADLINE):
        environment = self.environment()
        if pipe is not None:
            environment["CUDA_MPS_PIPE_DIRECTORY"] = str(pipe)
        who = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
        try:
            done = subprocess.run(
                [self.programs.front_end], input=commands, capture_output=True, text=True,
                env=environment, timeout=timeout, cwd=self.folder, **who)
            return done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            return None

    def commands(self, rest):
        if rest.startswith("@"):
            return (Path(__file__).parent / "scripts" / rest[1:]).read_text()
        text = rest.replace("SERVER", self.server())
        text = text.replace("\\n", "\n")
        for name, process in self.held.items():
            if isinstance(process, subprocess.Popen):
                text = text.replace(f"PROBE-{name}", str(process.pid))
        return text + "\n"

    def do_ask(self, rest, **how):
        opened, closed = self.count("NEW UI"), self.count("UI closed")
        result = self.front_end(self.commands(rest), **how)
        if result is None:
            self.note("no answer")
            return
        self.note_result(*result)
        if self.daemon is None or result[0] != 0:
            return

        # Lines are printed by another thread than the one that answers.
        def printed():
            one_more = self.count("NEW UI") > opened and self.count("UI closed") > closed
            return one_more or self.ended()

        wait_for(printed, "the session in the log")

    def do_quit(self, rest):
        """The real front-end's own status is a matter of chance here: it may miss the daemon's last
        message. The daemon's is not."""
        self.front_end(f"quit {rest}".rstrip() + "\n")
        self.do_wait_exit("")

    def do_ask_control(self, rest):
        """The same through a directory that holds only `control`."""
        only = self.folder / "only-control"
        only.mkdir(exist_ok=True)
        (only / "control").unlink(missing_ok=True)
        os.link(self.pipe / "control", only / "control")
        self.do_ask(rest, pipe=only)

    def do_ask_as(self, rest):
        uid, _, commands = rest.partition(" ")
        self.do_ask(commands, uid=int(uid))

    def do_ask_busy(self, rest):
        result = self.front_end(self.commands(rest))
        self.note("busy" if result in BUSY else f"not busy: {result}")

    def do_ask_briefly(self, rest):
        """A front-end that gets no answer for half a second is not answered."""
        self.do_ask(rest, timeout=0.5)

    def do_ask_in_background(self, rest):
        name, _, commands = rest.partition(" ")
        sessions = self.count("NEW UI")
        process = subprocess.Popen(
            [self.programs.front_end], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=self.environment(), cwd=self.folder)
        process.stdin.write(self.commands(commands))
        process.stdin.flush()
        wait_for(lambda: self.count("NEW UI") > sessions, "a session")
        self.held[name] = process

    def do_wait_for(self, name):
        process = self.held.pop(name)
        process.communicate(timeout=DEADLINE)

    def count(self, text):
        return self.log_text().count(text) if self.log.exists() else 0

    def log_text(self):
        return self.log.read_text(errors="replace")

    def server(self):
        """The last one's pid; "0" where nobody has come. A server writes the line of its start itself,
        perhaps after it has let its client in."""
        if not self.count("NEW CLIENT"):
            return "0"

        def started():
            return re.findall(r"Starting new server (\d+)", self.log_text())

        wait_for(started, "a server has started")
        return started()[-1]

    def living_server(self):
        """The last one, once it is in the log: one that died before may be the last there yet."""

        def lives():
            try:
                return Path(f"/proc/{self.server()}/stat").read_text().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                return None

        wait_for(lambda: lives() not in (None, "Z", "X"), "a living server in the log")
        return self.server()

    def do_wait_log(self, rest):
        count, _, text = rest.partition(" ")
        text = text.replace("SERVER", self.server())
        wait_for(lambda: self.count(text) >= int(count), f"{count} times {text!r} in the log")

    def do_wait_exit(self, rest):
        wait_for(self.ended, "the daemon's end")
        self.note(f"status {self.daemon.returncode}")

    def do_kill(self, rest):
        os.kill(self.daemon.pid, getattr(signal, rest))
        self.do_wait_exit("")

    def do_signal(self, rest):
        os.kill(self.daemon.pid, getattr(signal, rest))

    def do_kill_server(self, rest):
        os.kill(int(self.living_server()), getattr(signal, rest))

    def do_entries(self, rest):
        for entry in sorted(os.scandir(self.pipe), key=lambda entry: entry.name):
            info = entry.stat(follow_symlinks=False)
            size = info.st_size if stat.S_ISREG(info.st_mode) else 0
            shown = "the pid" if entry.name.endswith(".pid") else size
            self.note(f"{stat.filemode(info.st_mode)} {shown} {entry.name}")

    def do_locks(self, rest):
        inode = os.stat(self.pipe / "control_lock").st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5].endswith(f":{inode}"):
                ours = "the daemon" if words[4] == str(self.daemon.pid) else "somebody else"
                self.note(" ".join(words[1:4] + words[6:]) + " " + ours)

    def probe(self, rest, **how):
        words = shlex.split(rest)
        assignments = [word for word in words if re.match("[A-Z_]+=", word)]
        uid = next((int(word[4:]) for word in words if word.startswith("uid:")), None)
        who = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
        rest = [word for word in words if word not in assignments and not word.startswith("uid:")]
        return subprocess.Popen(
            [self.programs.probe] + rest, text=True,
            env=self.environment(
                [f"LD_LIBRARY_PATH={self.programs.client_library_folder}"] + assignments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=self.folder, **who, **how)

    def do_probe(self, rest):
        process = self.probe(rest)
        out, _ = process.communicate(timeout=DEADLINE)
        self.note_probe(out, process.returncode)

    def note_probe(self, out, status):
        said = re.sub(r'"(pid|cuInitMicroseconds)": [0-9]+, ', "", out.strip())
        self.note(f"probe: {said} status {status}")

    def do_hold(self, rest):
        """A client that stays until `release`."""
        name, _, options = rest.partition(" ")
        self.held[name] = self.probe("--hold-until-stdin-closes " + options)

    def do_seen(self, name):
        held = self.held[name]
        said = held.stdout.readline()
        wait_for(lambda: self.count(f"NEW CLIENT {held.pid} "), "it is in the log")
        self.note_probe(said, "none yet")

    def do_release(self, name):
        process = self.held.pop(name)
        out, _ = process.communicate(timeout=DEADLINE)
        if out:
            self.note_probe(out, process.returncode)
        else:
            self.note(f"status {process.returncode}")

    def do_tell(self, rest):
        """tell NAME STEP: a held client with --commands does it; see integration/probe/steps.h."""
        name, _, step = rest.partition(" ")
        self.held[name].stdin.write(step + "\n")
        self.held[name].stdin.flush()
        self.note_probe(self.held[name].stdout.readline(), "none yet")

    def do_order(self, rest):
        """Tells the simulated server something; see integration/simulator/README.md."""
        server = self.living_server()
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.settimeout(DEADLINE)
        with peer:
            peer.connect(f"\0mps-sim-server-{server}")
            peer.send(rest.encode())
            try:
                self.note(f"answer: {peer.recv(4096).decode() or 'the end'}")
            except ConnectionResetError:
                self.note("answer: the end")

    # Bare connections: what the daemon makes of peers that are not what it expects.

    def do_connect(self, rest):
        """connect NAME: takes the greeting and is silent."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        peer.settimeout(DEADLINE)
        peer.connect(str(self.pipe / "control"))
        self.note(f"greeting of {len(peer.recv(100))} bytes")
        self.held[rest] = peer

    def do_say(self, rest):
        """say NAME credentials | HEX"""
        name, _, what = rest.partition(" ")
        if what == "credentials":
            own = struct.pack("3i", os.getpid(), os.getuid(), os.getgid())
            self.held[name].sendmsg(
                [CREDENTIALS], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, own)])
        else:
            self.held[name].send(bytes.fromhex(what))

    def do_hear(self, name):
        try:
            self.note(f"heard {self.held[name].recv(8192).hex() or 'the end'}")
        except ConnectionResetError:
            self.note("heard the end")

    def do_close(self, name):
        self.held.pop(name).close()

    # The log.

    def note_log(self):
        if not self.log.exists():
            return
        writers = {}
        names = pid_names.names_in(self.log_text(), os.getpid())
        for line in self.log_text().splitlines():
            match = re.match(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (\w+) ( *\d+)\] (.*)$", line)
            if match is None:
                writers.setdefault("no prefix", []).append(self.named(line, names))
                continue
            role, pid, text = match.groups()
            right_width = "" if len(pid) == max(5, len(pid.strip())) else " (width)"
            writer = names.get(pid.strip(), "somebody") + " as " + role + right_width
            writer += ", connections" if OF_CONNECTIONS.match(text) else ""
            text = re.sub(r"at most \d+ms", "at most TIMEms", self.named(text, names))
            # How often 550 tries to shut a server down is a matter of time.
            if OF_RETRIES.search(text) and text in writers.get(writer, []):
                continue
            writers.setdefault(writer, []).append(text)
        # Each writer's lines have an order; those of two writers have none, nor have those of a
        # command session against a server's that starts meanwhile.
        for writer in sorted(writers):
            self.note(f"log of {writer}:")
            for text in writers[writer]:
                self.note(f"  {text}")
        self.transcript = [self.named(line, names) for line in self.transcript]

    def named(self, text, names):
        text = pid_names.with_names(text.replace(str(self.folder), "DIR"), names)
        return text.replace(str(self.programs.probe), "PROBE")

    def end_everything(self):
        for process in self.held.values():
            if isinstance(process, socket.socket):
                process.close()
            else:
                process.kill()
                process.communicate()
        if self.daemon is not None and not self.ended():
            servers = re.findall(r"Starting new server (\d+)", self.log_text())
            os.kill(self.daemon.pid, signal.SIGKILL)
            self.daemon.wait()
            for pid in servers:
                end_server(int(pid), self.pipe)


def leave_the_low_pids():
    """A pid of a new container, or of a new round of pids, may be one of the scripts' percentages,
    user ids or results of CUDA, which would then be named."""
    for _ in range(LOW_PIDS):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if pid > LOW_PIDS:
            return


def end_server(pid, pipe):
    """Ends a server of ours: a process with that pid that has our pipe directory."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if f"CUDA_MPS_PIPE_DIRECTORY={pipe}".encode() in environment.split(b"\0"):
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
