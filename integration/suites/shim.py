"""libmps-shim.so in other people's programs: each does what it does without it, to the byte; and the
limits and refusals get to those that use CUDA."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess

import harness
from gate_kit import OTHER_UID, REFUSED, for_everybody
from harness import OPTIONS, PYTHON, wait_until
from run_kit import DEVICES, MEMORY, PERCENTAGE, PIPE, RunSuite

QUARTER = {"percentage": 25, "memory": "10Gi"}

# What a program finds of its own process when main() begins.
HOST = r"""
#include <dirent.h>
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static int entries(const char *path) {
  DIR *folder = opendir(path);
  int count = 0;
  if (folder == NULL) return -1;
  while (readdir(folder) != NULL) ++count;
  closedir(folder);
  return count;
}
int main(void) {
  int first = errno;
  sigset_t mask;
  char folder[4096];
  sigprocmask(SIG_SETMASK, NULL, &mask);
  printf("errno %d locale %s folder %s\n", first, setlocale(LC_ALL, NULL), getcwd(folder, 4096));
  for (int n = 1; n < 65; ++n) {
    struct sigaction action;
    if (sigaction(n, NULL, &action) != 0) continue;
    printf("%d%s ", (int)sigismember(&mask, n), action.sa_handler == SIG_DFL ? "" : "x");
  }
  printf("\ndescriptors %d threads %d\n", entries("/proc/self/fd"), entries("/proc/self/task"));
  return 5;
}
"""

# One that asks for no memory itself.
MODEST = '#include <unistd.h>\nint main(void) { return write(1, "fine\\n", 5) == 5 ? 5 : 1; }\n'

THREADS = (
    "import signal,threading\n"
    "seen=[]\n"
    "def look():\n    seen.append(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))\n"
    "all=[threading.Thread(target=look) for _ in range(64)]\n"
    "[t.start() for t in all]\n[t.join() for t in all]\nprint(sorted(seen))\n"
)
CLOSES = (
    "import os\nos.closerange(0, 4096)\nfd=os.open('/dev/null', os.O_RDWR)\n"
    "os._exit(10 + fd)\n"
)


class ShimSuite(RunSuite):
    def library(self, supervisor):
        return str(self.folder(supervisor) / "lib/libmps-shim.so")

    def run_in(self, supervisor, words, preload=None, env=None, **options):
        """(status, stdout, stderr)"""
        clean = self.environment(supervisor, **(env or {}))
        if preload is not None:
            clean["LD_PRELOAD"] = preload
        done = subprocess.run(
            words,
            env=clean,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=harness.DEADLINE,
            **options,
        )
        return done.returncode, done.stdout, done.stderr

    def compiled(self, supervisor, text, *options, compiler="gcc"):
        source = supervisor.root / "program.c"
        source.write_text(text)
        program = supervisor.root / "program"
        subprocess.run([compiler, "-o", program, source, *options], check=True)
        return str(program)

    def check_same(self, supervisor, words, **options):
        preload = self.library(supervisor)
        without = self.run_in(supervisor, words, **options)
        self.assertEqual(self.run_in(supervisor, words, preload=preload, **options), without)
        return without


class Hosts(ShimSuite):
    def setUp(self):
        super().setUp()
        self.made_one = self.supervisor(for_everybody(**QUARTER)).start()

    def test_ordinary_programs(self):
        for words, status in (
            (["/bin/true"], 0),
            (["/bin/false"], 1),
            ([PYTHON, "-c", "import sys; print(sys.version); sys.exit(4)"], 4),
            (["bash", "-c", "echo $BASH_VERSION; (exit 3); echo $?; kill -TERM $$"], -15),
            ([PYTHON, "-c", THREADS], 0),
            ([PYTHON, "-c", CLOSES], 10),
            (["sh", "-c", "exec 0<&- 1>&- 2>&-; exit 8"], 8),
        ):
            with self.subTest(words):
                self.assertEqual(self.check_same(self.made_one, words)[0], status)

    def test_what_a_program_finds_of_its_process(self):
        program = self.compiled(self.made_one, HOST)
        status, out, _ = self.check_same(self.made_one, [program], cwd="/usr")
        self.assertEqual(status, 5)
        self.assertIn("errno 0 locale C folder /usr\n", out)

    def test_blocked_signals_stay_so(self):
        def block():
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)

        program = self.compiled(self.made_one, HOST)
        self.check_same(self.made_one, [program], preexec_fn=block)
        self.check_same(self.made_one, [PYTHON, "-c", THREADS], preexec_fn=block)

    def test_closed_standard_descriptors(self):
        program = self.compiled(self.made_one, HOST.replace("printf(", "dprintf(9, "))
        for closed in ((0,), (1,), (2,), (0, 1, 2)):
            with self.subTest(closed):
                results = []
                for preload in (None, self.library(self.made_one)):
                    path = self.made_one.root / "output"

                    def prepare():
                        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                        os.dup2(file, 9)
                        if file != 9:
                            os.close(file)
                        os.set_inheritable(9, True)
                        for descriptor in closed:
                            os.close(descriptor)

                    status = self.run_in(
                        self.made_one,
                        [program],
                        preload=preload,
                        preexec_fn=prepare,
                        close_fds=False,
                    )[0]
                    results.append((status, path.read_text()))
                self.assertEqual(results[0], results[1])
                self.assertIn("descriptors", results[0][1])

    def test_a_static_program(self):
        program = self.compiled(self.made_one, HOST, "-static", compiler="musl-gcc")
        self.assertEqual(self.check_same(self.made_one, [program])[0], 5)

    def test_a_setuid_program(self):
        program = self.made_one.root / "id"
        shutil.copy(shutil.which("id"), program)
        program.chmod(0o4755)
        options = {"user": OTHER_UID, "group": OTHER_UID, "extra_groups": []}
        out = self.check_same(self.made_one, [str(program), "-u"], **options)[1]
        self.assertEqual(out, "0\n")

    def test_no_descriptors(self):
        def none():
            os.close(0)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))

        self.check_same(self.made_one, [self.compiled(self.made_one, HOST)], preexec_fn=none)

    def test_hardly_any_memory(self):
        """From where the library does not fit to where all does, a page at a time."""
        program = self.compiled(self.made_one, MODEST)
        preload = self.library(self.made_one)
        expected = self.run_in(self.made_one, [program])

        def limited(size):
            def limit():
                resource.setrlimit(resource.RLIMIT_AS, (size, size))

            return limit

        low, high = 256 * 1024, 64 * 1024 * 1024
        while high - low > 4096:
            middle = (low + high) // 2
            done = self.run_in(self.made_one, [program], preexec_fn=limited(middle))
            low, high = (low, middle) if done == expected else (middle, high)
        for pages in range(48):
            size = high + pages * 4096
            status, out, err = self.run_in(
                self.made_one, [program], preload=preload, preexec_fn=limited(size)
            )
            err = re.sub(r"ERROR: ld\.so: object '[^']+' from LD_PRELOAD .*: ignored\.\n", "", err)
            if (status, out) == (127, "") and "libmps-shim:" not in err:
                continue  # the loader's doing: the C library itself did not fit beside it
            self.assertEqual((status, out, err), expected, f"{pages} pages more")


class Limits(ShimSuite):
    def test_a_program_and_its_children_have_them(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        preload = self.library(supervisor)
        theirs = {PIPE: str(supervisor.open_pipe()), PERCENTAGE: "25.0", MEMORY: "0=10240M"}
        for words in (["env"], ["bash", "-c", "env"], ["sh", "-c", "env; true"]):
            with self.subTest(words):
                status, out, err = self.run_in(supervisor, words, preload=preload)
                self.assertEqual((status, err), (0, ""))
                self.assertEqual(self.variables(out), theirs)
                self.assertNotIn("LD_PRELOAD", out)
        shown = "import os; print(os.environ['CUDA_MPS_ACTIVE_THREAD_PERCENTAGE'])"
        out = self.run_in(supervisor, [PYTHON, "-c", shown], preload=preload)[1]
        self.assertEqual(out, "25.0\n")
        out = self.run_in(supervisor, ["env"], preload=preload, env={PERCENTAGE: "5"})[1]
        self.assertEqual(self.variables(out)[PERCENTAGE], "5")
        # None of these has used CUDA, and none has taken a place.
        self.assertEqual(supervisor.admitted_pids(), set())

    def test_whose_children_get_it_too(self):
        supervisor = self.supervisor().start()
        ours = self.library(supervisor)
        keep = {"MPS_SHIM_CHILDREN": "keep"}
        for preload, env, left in (
            (ours, {}, None),
            (f"{ours}:libc.so.6", {}, "libc.so.6"),
            (f"libc.so.6 {ours}", {}, "libc.so.6"),
            (ours, keep, ours),
            (f"{ours}:{ours}", {}, None),
        ):
            with self.subTest(preload=preload, env=env):
                out = self.run_in(supervisor, ["env"], preload=preload, env=env)[1]
                found = re.search(r"^LD_PRELOAD=(.*)$", out, re.M)
                self.assertEqual(found and found.group(1), left)

    def test_off(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        preload = self.library(supervisor)
        status, out, err = self.run_in(supervisor, ["env"], preload, {"MPS_SHIM": "off"})
        self.assertEqual((status, self.variables(out), err), (0, {}, ""))
        status, out, err = self.run_in(supervisor, ["env"], preload, {"MPS_SHIM": "on"})
        self.assertEqual(self.variables(out)[PERCENTAGE], "25.0")
        self.assertEqual(
            err, "libmps-shim: MPS_SHIM: must be auto, ask or off; going on as with auto\n"
        )

    def test_a_program_that_uses_cuda_gets_in(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        env = self.environment(supervisor, LD_PRELOAD=self.library(supervisor))
        started = subprocess.Popen(
            self.probe("--hold-until-stdin-closes"),
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        supervisor.helpers.append(started)
        self.assertEqual(json.loads(self.line(started))["cuInit"], REFUSED)
        supervisor.wait_heard(started.pid)
        self.assertEqual(supervisor.log.pids(), [started.pid])
        # One that is linked with CUDA takes its place before it uses it, and is told if there is none.
        linked = f"{self.library(supervisor)}:libcuda.so.1"
        status, out, err = self.run_in(supervisor, ["env"], preload=linked)
        self.assertEqual(status, 0)
        self.assertEqual(self.variables(out)[DEVICES], "")
        self.assertRegex(
            err,
            r"^libmps-shim: refused \(quota_clients\): [^\n]+; end another program of yours; "
            r"this program sees no GPU\n$",
        )
        started.stdin.close()
        started.wait(timeout=harness.DEADLINE)
        supervisor.wait_no_slots()
        for words in ({"preload": linked}, {"preload": self.library(supervisor), "env": {"MPS_SHIM": "ask"}}):
            before = len(supervisor.admitted_pids())
            self.assertEqual(self.run_in(supervisor, ["true"], **words), (0, "", ""))
            wait_until(lambda: len(supervisor.admitted_pids()) == before + 1, "it had a place")
            supervisor.wait_no_slots()

    def test_waits_where_it_is_told_to(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        first = self.launch(supervisor, "--", "cat", stdin=subprocess.PIPE)
        wait_until(lambda: first.pid in supervisor.admitted_pids(), "the first is in")
        env = self.environment(
            supervisor, LD_PRELOAD=self.library(supervisor), MPS_SHIM="ask", MPS_SHIM_WAIT="60s"
        )
        second = subprocess.Popen(["echo", "in"], env=env, stdout=subprocess.PIPE, text=True)
        supervisor.helpers.append(second)
        wait_until(lambda: supervisor.get("/v1/admissions") and second.poll() is None, "it waits")
        first.stdin.close()
        self.assertEqual(self.finish(first)[0], 0)
        self.assertEqual(second.communicate(timeout=harness.DEADLINE), ("in\n", None))

    def test_a_wait_that_is_none(self):
        supervisor = self.supervisor().start()
        env = {"MPS_SHIM_WAIT": "5"}
        err = self.run_in(supervisor, ["true"], self.library(supervisor), env)[2]
        self.assertEqual(
            err, "libmps-shim: MPS_SHIM_WAIT: must be as 500ms, 30s or 5m, at most 24h\n"
        )


class Refusals(ShimSuite):
    def test_no_policy(self):
        supervisor = self.supervisor({}).start()
        status, out, err = self.run_in(supervisor, ["env"], preload=self.library(supervisor))
        self.assertEqual(status, 0)
        self.assertEqual(
            self.variables(out), {PIPE: str(supervisor.open_pipe()), DEVICES: ""}
        )
        self.assertRegex(
            err,
            r"^libmps-shim: refused \(no_policy\): [^\n]+; ask this node's operators for a policy; "
            r"this program sees no GPU\n$",
        )
        # Only what is refused is an event; a look is not.
        self.assertEqual(supervisor.events.of("refused"), [])

    def test_while_the_supervisor_is_away_the_gate_has_the_word(self):
        supervisor = self.supervisor().start()
        preload = self.library(supervisor)
        supervisor.kill9()
        status, out, err = self.run_in(supervisor, ["env"], preload=preload)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.variables(out), {PIPE: str(supervisor.open_pipe())})

    def test_where_nobody_stands_no_device_is_seen(self):
        supervisor = self.supervisor().start()
        preload = self.library(supervisor)
        gate = supervisor.gate_pid()
        supervisor.kill9()
        os.kill(gate, signal.SIGKILL)
        wait_until(lambda: not supervisor.gates(), "the gate is gone")
        status, out, err = self.run_in(supervisor, ["env"], preload=preload)
        self.assertEqual(status, 0)
        self.assertEqual(self.variables(out)[DEVICES], "")
        self.assertRegex(
            err,
            r"^libmps-shim: mps-supervisor does not answer: [^\n]+; this program sees no GPU\n$",
        )

    def test_a_copy_that_lies_elsewhere(self):
        supervisor = self.supervisor(for_everybody(**QUARTER)).start()
        copy = supervisor.root / "libmps-shim.so"
        shutil.copy(self.library(supervisor), copy)
        status, out, err = self.run_in(supervisor, ["env"], preload=str(copy))
        self.assertEqual(self.variables(out), {DEVICES: ""})
        self.assertEqual(
            err,
            "libmps-shim: this library lies in no share's folder, and CUDA_MPS_PIPE_DIRECTORY names "
            "none; this program sees no GPU\n",
        )
        env = {PIPE: str(supervisor.open_pipe())}
        out = self.run_in(supervisor, ["env"], preload=str(copy), env=env)[1]
        self.assertEqual(self.variables(out)[PERCENTAGE], "25.0")


class Library(ShimSuite):
    def readelf(self, *options):
        library = OPTIONS.build / "lib/libmps-shim.so"
        return subprocess.run(
            ["readelf", "-W", *options, library], capture_output=True, text=True, check=True
        ).stdout

    def test_it_exports_nothing(self):
        symbols = [line.split() for line in self.readelf("--dyn-syms").splitlines()]
        rows = [s for s in symbols if s and s[0].rstrip(":").isdigit() and len(s) > 7]
        defined = [s[7] for s in rows if s[6] != "UND"]
        self.assertEqual(defined, [])
        self.assertGreater(len(rows), 5)

    def test_it_needs_a_c_library_of_2012_and_nothing_else(self):
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", self.readelf("-d"))
        self.assertEqual(needed, ["libc.so.6"])
        versions = set(re.findall(r"GLIBC_([0-9.]+)", self.readelf("-V")))
        self.assertTrue(versions)
        for version in versions:
            numbers = tuple(int(n) for n in version.split("."))
            self.assertLessEqual(numbers, (2, 17), version)


if __name__ == "__main__":
    harness.main()
