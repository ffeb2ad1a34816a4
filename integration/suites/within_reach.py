"""scripts/within-reach: a command of the tests runs where other users get to the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import SKIPPED, wait_until

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/within-reach"
AS_NOBODY = ("setpriv", "--reuid", "65534", "--clear-groups")


class WithinReach(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="mps-reach-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.root)
        self.root.chmod(0o755)
        self.home = self.root / "home"
        self.checkout = self.home / "some where/m"
        (self.checkout / "scripts").mkdir(parents=True)
        shutil.copy(SCRIPT, self.checkout / "scripts")
        for path, text in ((self.checkout / "file", "in it"), (self.home / ".beside", "beside it")):
            path.write_text(text)
        (self.home / "link").symlink_to(".beside")

    def run_in(self, *command):
        return subprocess.run([self.checkout / "scripts/within-reach", *command], cwd=self.checkout,
                              capture_output=True, text=True, timeout=60)

    def read(self, *names):
        return self.run_in(*AS_NOBODY, "cat", *names)

    def test_a_closed_folder_above_it(self):
        for closed in (self.home, self.home / "some where"):
            closed.chmod(0o700)
            done = self.read("file", self.checkout / "file", self.home / ".beside", self.home / "link")
            self.assertEqual((done.stderr, done.returncode), ("", 0))
            self.assertEqual(done.stdout, "in itin itbeside itbeside it")
        self.assertEqual(self.run_in("pwd").stdout, f"{self.checkout}\n")
        self.assertEqual(self.home.stat().st_mode & 0o777, 0o700)
        self.assertNotIn(str(self.root), pathlib.Path("/proc/self/mounts").read_text())
        wait_until(lambda: not list(pathlib.Path("/tmp").glob("within-reach-*")), "its own is gone")

    def test_what_is_written_there_stays(self):
        self.home.chmod(0o700)
        self.assertEqual(self.run_in("cp", "file", "copy").returncode, 0)
        self.assertEqual((self.checkout / "copy").read_text(), "in it")

    def test_the_commands_status_is_its_own(self):
        for mode in (0o755, 0o700):
            self.home.chmod(mode)
            self.assertEqual(self.run_in("sh", "-c", "exit 7").returncode, 7)

    def test_an_open_one_needs_nothing(self):
        here = os.readlink("/proc/self/ns/mnt")
        self.assertEqual(self.run_in("readlink", "/proc/self/ns/mnt").stdout.strip(), here)

    def test_a_closed_checkout_is_said(self):
        self.checkout.chmod(0o700)
        for mode in (0o755, 0o700):
            self.home.chmod(mode)
            done = self.run_in("true")
            self.assertEqual(done.returncode, 1)
            self.assertEqual(
                done.stderr,
                f"within-reach: other users cannot get to {self.checkout}, since {self.checkout} is "
                "closed to them; put the checkout elsewhere, or open it (chmod o+x)\n")


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("skipped: needs root: other uids, a mount namespace")
        sys.exit(SKIPPED)
    os.umask(0o022)
    unittest.main(verbosity=2)
