"""mps-run --guard: in each case a program is started by itself and below the guard, and whoever
started it sees the same. (What the guard is there for is in guard_cuda.py.)"""

import os
import pathlib
import pty
import resource
import select
import signal
import subprocess

import harness
from harness import PYTHON, processes, wait_until
from run_kit import RunSuite

# What the programs of the table begin with. `say` is one line at once; `hear` waits for one.
PRELUDE = """
import os, select, signal, sys, time
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def hear():
    while not select.select([0], [], [], 0.02)[0]:
        pass  # a signal that comes just before a wait is handled after it
    os.read(0, 1)
times = 0
def caught(number, frame):
    global times
    times += 1
    say("caught", signal.Signals(number).name)
def until_caught(count):
    while times < count:
        time.sleep(0.01)
say("ready", os.getpid())
"""

HANDLES = "signal.signal(signal.SIGTERM, lambda *_: (say('saves'), sys.exit(3)))\n"


class Case:
    """A program, and what is done to it by whoever started it; `seen` is what can be compared."""

    def __init__(self, prefix, program, folder, setup=None):
        self.seen = []
        self.ended = False
        self.input, theirs = os.pipe2(os.O_CLOEXEC)[::-1]
        self.output, ours = os.pipe2(os.O_CLOEXEC)
        self.process = subprocess.Popen(
            [*prefix, PYTHON, "-c", PRELUDE + program],
            stdin=theirs,
            stdout=ours,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            preexec_fn=lambda: in_a_group(setup),
        )
        os.close(theirs)
        os.close(ours)
        self.rest = b""
        self.program = int(self.line().split()[1])
        self.pid = self.process.pid

    def line(self):
        while b"\n" not in self.rest:
            if not select.select([self.output], [], [], harness.DEADLINE)[0]:
                raise AssertionError(f"the program says nothing; so far {self.seen}")
            part = os.read(self.output, 4096)
            if not part:
                return None
            self.rest += part
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def hears(self):
        """What the program says next; None is the end of its output."""
        self.seen.append(self.line())
        return self

    def tell(self):
        os.write(self.input, b"\n")
        return self

    def send(self, number):
        os.kill(self.pid, number)
        return self

    def sees(self):
        """What becomes of it: an end, a stop, or that it goes on."""
        what = []

        def changed():
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if pid:
                what.append(status)
            return pid

        wait_until(changed, f"{self.pid} changes; so far {self.seen}")
        status = what[0]
        if os.WIFSTOPPED(status):
            self.seen.append(f"stopped by {signal.Signals(os.WSTOPSIG(status)).name}")
        elif os.WIFCONTINUED(status):
            self.seen.append("continued")
        elif os.WIFSIGNALED(status):
            self.seen.append(f"killed by {os.WTERMSIG(status)}")
            self.ended = True
        else:
            self.seen.append(f"exited with {os.WEXITSTATUS(status)}")
            self.ended = True
        return self

    def program_is_gone(self):
        wait_until(lambda: state_of(self.program) in (None, "Z"), f"{self.program} is gone")
        return self

    def close(self):
        for pid in (self.pid, self.program):
            if not self.ended or pid != self.pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if not self.ended:
            os.waitpid(self.pid, 0)
        self.process.returncode = 0
        os.close(self.input)
        os.close(self.output)


def in_a_group(setup):
    """As a shell's job: a stop is for nobody in a group that nobody of the session looks after."""
    os.setpgid(0, 0)
    if setup:
        setup()


def state_of(pid):
    return next((state for number, _, state, _ in processes() if number == pid), None)


def ignore_hangup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def ignore_children():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def block_user_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def alarm_soon():
    signal.setitimer(signal.ITIMER_REAL, 2)


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def outlive(case):
    """A child of the program goes on when the program ends, and nobody waits for it."""
    child = int(case.line().split()[1])
    case.tell().sees()
    case.seen.append(state_of(child) is not None)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: state_of(child) is None, "nobody is left of it")


def double_fork(case):
    """What a program leaves behind while it runs is reaped when it ends."""
    child = int(case.line().split()[1])
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: state_of(child) is None, "it is reaped")
    case.tell().sees()


FORK_AND_TELL = (
    "child = os.fork()\n"
    "if child == 0:\n    os.close(1); time.sleep(600); os._exit(0)\n"
    "say('child', child)\nhear()\nsys.exit(4)\n"
)
FORK_TWICE = (
    "r, w = os.pipe()\n"
    "if os.fork() == 0:\n"
    "    child = os.fork()\n"
    "    if child == 0:\n        os.setsid(); os.close(1); time.sleep(600); os._exit(0)\n"
    "    os.write(w, str(child).encode()); os._exit(0)\n"
    "os.wait()\nsay('child', os.read(r, 20).decode())\nhear()\nsys.exit(5)\n"
)
COUNT = (
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 3})\nsay('blocked')\nhear()\n"
    "count = 0\n"
    "while signal.sigtimedwait({signal.SIGRTMIN + 3}, 0) is not None:\n    count += 1\n"
    "say('count', count)\n"
)
REPORT = (
    "say(os.getcwd(), oct(os.umask(0)), sorted(os.listdir('/proc/self/fd'))[:3])\n"
    "lines = open('/proc/self/status').read().splitlines()\n"
    "say([l for l in lines if l.startswith(('SigBlk', 'SigIgn', 'SigCgt', 'CapEff'))])\n"
)

# name: (program, what is done, how it is started)
CASES = {
    "it ends with 0": ("", lambda c: c.sees(), None),
    "it ends with 7": ("sys.exit(7)", lambda c: c.sees(), None),
    "it ends with 255": ("os._exit(255)", lambda c: c.sees(), None),
    "terminated": ("hear()", lambda c: c.send(signal.SIGTERM).sees().program_is_gone(), None),
    "terminated, and it saves first": (
        HANDLES + "say('set')\nhear()",
        lambda c: c.hears().send(signal.SIGTERM).hears().sees(),
        None,
    ),
    "it ignores being terminated, and is killed": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('set')\nhear()\nsay('on')\nhear()",
        lambda c: c.hears()
        .send(signal.SIGTERM)
        .tell()
        .hears()
        .send(signal.SIGKILL)
        .sees()
        .program_is_gone(),
        None,
    ),
    "interrupted": (
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\nsay('set')\nhear()",
        lambda c: c.hears().send(signal.SIGINT).sees(),
        None,
    ),
    "interrupted, and it catches that": (
        "try:\n    say('set')\n    hear()\nexcept KeyboardInterrupt:\n    say('interrupted')\n    sys.exit(9)",
        lambda c: c.hears().send(signal.SIGINT).hears().sees(),
        None,
    ),
    "hung up": ("hear()", lambda c: c.send(signal.SIGHUP).sees(), None),
    "hung up, and started by nohup": (
        "hear()\nsay('on')",
        lambda c: c.send(signal.SIGHUP).tell().hears().sees(),
        ignore_hangup,
    ),
    "a signal that it counts": (
        "signal.signal(signal.SIGUSR1, caught)\nsay('set')\nuntil_caught(3)",
        lambda c: c.hears()
        .send(signal.SIGUSR1)
        .hears()
        .send(signal.SIGUSR1)
        .hears()
        .send(signal.SIGUSR1)
        .hears()
        .sees(),
        None,
    ),
    "a signal that it does not know": ("hear()", lambda c: c.send(signal.SIGUSR2).sees(), None),
    "real-time signals, none of them lost": (
        COUNT,
        lambda c: [c.hears(), [c.send(signal.SIGRTMIN + 3) for _ in range(5)], settle(c)],
        None,
    ),
    "the first real-time signal": ("hear()", lambda c: c.send(signal.SIGRTMIN).sees(), None),
    "quit": ("hear()", lambda c: c.send(signal.SIGQUIT).sees(), no_core),
    "stopped and continued": (
        "hear()\nsay('on')",
        lambda c: c.send(signal.SIGTSTP).sees().send(signal.SIGCONT).sees().tell().hears().sees(),
        None,
    ),
    "it stops itself": (
        "os.kill(os.getpid(), signal.SIGSTOP)\nsay('on')",
        lambda c: c.sees().send(signal.SIGCONT).sees().hears().sees(),
        None,
    ),
    "it kills itself": ("os.kill(os.getpid(), signal.SIGKILL)", lambda c: c.sees(), None),
    "it aborts": ("os.abort()", lambda c: c.sees(), no_core),
    "it faults": ("os.kill(os.getpid(), signal.SIGSEGV)", lambda c: c.sees(), no_core),
    "its child outlives it": (FORK_AND_TELL, outlive, None),
    "it forks twice": (FORK_TWICE, double_fork, None),
    "it closes its output and goes on": (
        "os.close(1)\nhear()\nsys.exit(6)",
        lambda c: c.hears().tell().sees(),
        None,
    ),
    "an alarm that was set before": ("hear()", lambda c: c.sees(), alarm_soon),
    "its children are ignored": (REPORT, lambda c: c.hears().hears().sees(), ignore_children),
    "what it inherits": (REPORT, lambda c: c.hears().hears().sees(), block_user_signal),
}


def settle(case):
    """The signals are with the program before it is told to look."""
    pending = 1 << (signal.SIGRTMIN + 3 - 1)

    def there():
        status = pathlib.Path(f"/proc/{case.program}/status").read_text()
        queued = int(status.split("SigQ:")[1].split("/")[0])
        mine = next(l for l in status.splitlines() if l.startswith("ShdPnd"))
        return int(mine.split()[1], 16) & pending and queued

    wait_until(there, "they are there")
    if case.pid != case.program:  # none is still with the guard
        guard = pathlib.Path(f"/proc/{case.pid}/status")

        def passed():
            """It has taken them, and waits again: between the two it passes them on."""
            text = guard.read_text()
            taken = not int(text.split("ShdPnd:")[1].split()[0], 16) & pending
            return taken and text.split("State:")[1].split()[0] == "S"

        wait_until(passed, "the guard has passed them all")
    case.tell().hears().sees()


class Table(RunSuite):
    def test_as_if_it_were_not_there(self):
        supervisor = self.supervisor().start()
        guarded = [str(self.folder(supervisor) / "bin/mps-run"), "--guard", "--"]
        for name, (program, act, setup) in CASES.items():
            with self.subTest(name):
                plain = self.outcome([], program, act, setup, supervisor.root)
                below = self.outcome(guarded, program, act, setup, supervisor.root)
                self.assertEqual(below, plain)
                self.assertTrue(plain)
        supervisor.wait_no_slots()

    def outcome(self, prefix, program, act, setup, folder):
        case = Case(prefix, program, folder, setup)
        try:
            act(case)
            return case.seen
        finally:
            case.close()

    def test_a_terminal(self):
        supervisor = self.supervisor().start()
        guarded = [str(self.folder(supervisor) / "bin/mps-run"), "--guard", "--"]
        self.assertEqual(self.at_terminal(guarded), self.at_terminal([]))

    def at_terminal(self, prefix):
        """Ctrl-C reaches the program once, Ctrl-Z stops what was started, and it goes on."""
        program = (
            PRELUDE + "signal.signal(signal.SIGINT, caught)\nsay('set')\nuntil_caught(1)\n"
            "time.sleep(0.2)\nsay('times', times)\nuntil_caught(2)\nsay('on')\n"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            # Not the session's leader, as a shell's job is not: else a stop is for nobody.
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                os.tcsetpgrp(0, os.getpid())
                signal.signal(signal.SIGTTOU, signal.SIG_DFL)
                os.execv((prefix + [PYTHON])[0], [*prefix, PYTHON, "-c", program])
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            while True:
                _, status = os.waitpid(child, os.WUNTRACED)
                os.write(1, f"saw {os.WIFSTOPPED(status)} {status}\n".encode())
                if not os.WIFSTOPPED(status):
                    os._exit(0)
                os.killpg(child, signal.SIGCONT)
        seen, text = [], b""

        def until(word):
            nonlocal text
            while word not in text:
                self.assertTrue(select.select([terminal], [], [], harness.DEADLINE)[0], text)
                try:
                    text += os.read(terminal, 4096)
                except OSError:
                    break

        until(b"set")
        os.write(terminal, b"\x03")
        until(b"times")
        os.write(terminal, b"\x1a")
        until(b"saw True")
        os.write(terminal, b"\x03")
        until(b"saw False")
        os.waitpid(pid, 0)
        os.close(terminal)
        seen = [l for l in text.decode().split("\r\n") if l and not l.startswith("ready")]
        return [l.replace("^C", "").replace("^Z", "") for l in seen]


class AsInit(RunSuite):
    """Below a pid namespace of its own: what a container's first process has to do."""

    def init(self, supervisor, *command, guard=("--guard",), **options):
        run = str(self.folder(supervisor) / "bin/mps-run")
        prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        return subprocess.Popen(
            [*prefix, run, *guard, "--", *command],
            env=self.environment(supervisor),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def first(self, started):
        """Of the namespace, as this machine sees it."""
        path = pathlib.Path(f"/proc/{started.pid}/task/{started.pid}/children")
        return int(wait_until(lambda: path.read_text().split(), "it runs")[0])

    def test_it_ends_by_a_signal_that_the_first_process_would_not_get(self):
        supervisor = self.supervisor().start()
        started = self.init(supervisor, "sh", "-c", "echo ready; exec sleep 600")
        self.assertEqual(self.line(started), "ready\n")
        os.kill(self.first(started), signal.SIGTERM)
        started.wait(timeout=harness.DEADLINE)
        self.assertEqual(started.returncode, 128 + signal.SIGTERM)

    def test_it_reaps(self):
        supervisor = self.supervisor().start()
        script = "(sleep 600 & echo $!); read line; exit 3"
        started = self.init(supervisor, "sh", "-c", script)
        self.line(started)
        first = self.first(started)
        sleeper = wait_until(
            lambda: [p for p, name, _, parent in processes() if parent == first and name == "sleep"],
            "it is the first process' child now",
        )[0]
        os.kill(sleeper, signal.SIGKILL)
        wait_until(lambda: state_of(sleeper) is None, "it is reaped")
        started.stdin.close()
        self.assertEqual(started.wait(timeout=harness.DEADLINE), 3)


class Away(RunSuite):
    def test_without_an_agent_a_signal_is_passed_on_all_the_same(self):
        supervisor = self.supervisor().start()
        started = self.launch(supervisor, "--guard", "--", "sh", "-c", "echo ready; exec sleep 600")
        self.assertEqual(self.line(started), "ready\n")
        supervisor.kill9()
        started.send_signal(signal.SIGTERM)
        self.assertEqual(started.wait(timeout=harness.DEADLINE), -signal.SIGTERM)

    def test_an_agent_that_says_nothing_holds_it_up_for_seconds_only(self):
        supervisor = self.supervisor().start()
        started = self.launch(supervisor, "--guard", "--", "sh", "-c", "echo ready; exec sleep 600")
        self.assertEqual(self.line(started), "ready\n")
        supervisor.process.send_signal(signal.SIGSTOP)
        try:
            started.send_signal(signal.SIGTERM)
            self.assertEqual(started.wait(timeout=harness.DEADLINE), -signal.SIGTERM)
        finally:
            supervisor.process.send_signal(signal.SIGCONT)

    def test_one_that_is_refused_is_as_without_a_guard(self):
        supervisor = self.supervisor({}).start()
        status, out, err = self.mps_run(supervisor, "--guard", "--", "echo", "started")
        self.assertEqual((status, out), (125, ""))
        self.assertRegex(err, r"^mps-run: refused \(no_policy\): ")


if __name__ == "__main__":
    harness.main()
