#include "identity/cgroup_fs.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity/test_support.h"

using namespace mps::identity;
using namespace mps::identity::testing;

namespace {

CgroupPath at(std::string path, Hierarchy hierarchy = Hierarchy::unified) {
  return {hierarchy, 0, std::move(path)};
}

CgroupFs fs_of(const TempFolder& folder) {
  return CgroupFs(folder.path(), ::geteuid());
}

}  // namespace

TEST_CASE("where the hierarchies are mounted") {
  const TempFolder folder;
  const auto cgroups = fs_of(folder);
  CHECK(cgroups.directory(at("/a")) == folder / "unified/a");
  CHECK(cgroups.directory(at("/a", Hierarchy::systemd)) == folder / "systemd/a");
  CHECK(cgroups.directory(at("/", Hierarchy::pids)) == folder / "pids");
  folder.write("cgroup.controllers", "");
  CHECK(cgroups.directory(at("/a/b")) == folder / "a/b");
  CHECK_FALSE(cgroups.directory({Hierarchy::unified, 1, "/a"}));
}

TEST_CASE("a cgroup of the same name made later is another one") {
  const TempFolder folder;
  folder.write("cgroup.controllers", "");
  folder.write("a/cgroup.events", "populated 1\nfrozen 0\n");
  const auto cgroups = fs_of(folder);
  const auto first = cgroups.find(at("/a"));
  CHECK(first.inode != 0);
  CHECK(cgroups.populated(first));
  folder.make("keeps the inode number from being used again");
  std::filesystem::rename(folder / "a", folder / "b");
  CHECK_FALSE(cgroups.populated(first));
  folder.write("a/cgroup.events", "populated 1\n");
  CHECK_FALSE(cgroups.populated(first));
  CHECK(cgroups.populated(cgroups.find(at("/a"))));
}

TEST_CASE("v2: populated is what cgroup.events says") {
  const TempFolder folder;
  folder.write("cgroup.controllers", "");
  folder.write("a/cgroup.events", "populated 0\nfrozen 0\n");
  const auto cgroups = fs_of(folder);
  CHECK_FALSE(cgroups.populated(cgroups.find(at("/a"))));
  folder.write("a/cgroup.events", "frozen 0\npopulated 1\n");
  CHECK(cgroups.populated(cgroups.find(at("/a"))));
  std::filesystem::remove(folder / "a/cgroup.events");
  CHECK(cgroups.populated(cgroups.find(at("/a"))));
  CHECK(cgroups.populated(cgroups.find(at("/"))));
}

TEST_CASE("v1: populated is a pid anywhere below") {
  const TempFolder folder;
  folder.write("pids/a/cgroup.procs", "");
  folder.write("pids/a/b/c/cgroup.procs", "");
  const auto cgroups = fs_of(folder);
  const auto cgroup = cgroups.find(at("/a", Hierarchy::pids));
  CHECK_FALSE(cgroups.populated(cgroup));
  folder.write("pids/a/b/c/cgroup.procs", "17\n");
  CHECK(cgroups.populated(cgroup));
}

TEST_CASE("v1: too many cgroups to look at are taken for populated") {
  const TempFolder folder;
  for (int number = 0; number < 1100; ++number) folder.make("pids/a/" + std::to_string(number));
  const auto cgroups = fs_of(folder);
  CHECK(cgroups.populated(cgroups.find(at("/a", Hierarchy::pids))));
}

TEST_CASE("what was never seen is not said to be empty") {
  const TempFolder folder;
  const auto cgroups = fs_of(folder);
  const auto unseen = cgroups.find(at("/a"));
  CHECK(unseen.inode == 0);
  CHECK(cgroups.populated(unseen));
  CHECK(cgroups.populated({.at = {Hierarchy::unified, 1, "/a"}, .inode = 7}));
  CHECK_FALSE(cgroups.populated({.at = at(""), .inode = 0}));
}

TEST_CASE("only what root alone could have made has a name that counts") {
  const TempFolder folder;
  folder.make("unified/system.slice/web.service");
  const auto cgroups = fs_of(folder);
  const auto web = at("/system.slice/web.service");
  CHECK(cgroups.named_by_root(web));
  REQUIRE(::chmod((folder / "unified/system.slice/web.service").c_str(), 0777) == 0);
  CHECK(cgroups.named_by_root(web));
  CHECK(cgroups.named_by_root(web, true).error().message ==
        (folder / "unified/system.slice/web.service").string() + " is not root's alone");
  REQUIRE(::chmod((folder / "unified/system.slice").c_str(), 0775) == 0);
  CHECK(cgroups.named_by_root(web).error().message ==
        (folder / "unified/system.slice").string() + " is not root's alone");
  CHECK(cgroups.named_by_root(at("/gone")).error().message ==
        (folder / "unified/gone").string() + " is not there");
  CHECK(cgroups.named_by_root({Hierarchy::unified, 1, "/x"}).error().message ==
        "its directory cannot be seen from the supervisor's cgroup namespace");
  const CgroupFs roots(folder.path(), ::geteuid() + 1);
  CHECK(roots.named_by_root(web).error().message ==
        (folder / "unified/system.slice").string() + " is not root's alone");
}

TEST_CASE("our own root is found among all cgroups") {
  const TempFolder folder;
  folder.make("kubepods/pod1/c1/sub");
  folder.make("system.slice");
  CHECK(find_own_root(folder / "kubepods/pod1/c1", folder.path()) == "/kubepods/pod1/c1");
  CHECK(find_own_root(folder.path(), folder.path()) == "/");
  const TempFolder other;
  CHECK_FALSE(find_own_root(other.path(), folder.path()));
  CHECK_FALSE(find_own_root(folder / "gone", folder.path()));
}
