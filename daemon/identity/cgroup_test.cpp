#include "identity/cgroup.h"

#include <doctest/doctest.h>

#include <array>
#include <fstream>
#include <utility>
#include <vector>

#include "identity/place.h"
#include "identity/test_support.h"

using namespace mps::identity;
using namespace mps::identity::testing;

namespace {

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
}

std::string expand(std::string text) {
  const std::array<std::pair<std::string_view, std::string_view>, 5> words{
      {{"<A>", k_id_a}, {"<B>", k_id_b}, {"<U>", k_uid}, {"<u>", k_uid_}, {"<S>", k_static_uid}}};
  for (const auto& [word, value] : words) replace_all(text, word, value);
  return text;
}

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : text;
}

struct Describe {
  std::string operator()(const ContainerPlace& place) const {
    return std::string("container ") + to_string(place.runtime) + " " +
           or_dash(place.container_id) + " " + or_dash(place.pod_uid) + " " + place.cgroup;
  }
  std::string operator()(const UnitPlace& place) const {
    return "unit " + place.unit + " " + place.cgroup;
  }
  std::string operator()(const SessionPlace& place) const {
    return "session " + std::to_string(place.uid) + " " + or_dash(place.unit) + " " +
           or_dash(place.app) + " " + place.cgroup;
  }
  std::string operator()(const NoPlace&) const { return "none"; }
};

std::string describe(std::string_view file) {
  const auto cgroup = cgroup_that_counts(file);
  if (!cgroup) return "error " + cgroup.error().message;
  return std::visit(Describe{}, place_of(cgroup->path));
}

struct Row {
  std::string file;
  std::string expected;
};

std::vector<Row> corpus() {
  std::vector<Row> rows;
  std::ifstream file(MPS_CGROUPS_CORPUS);
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line.starts_with('#')) continue;
    line = expand(line);
    if (line.starts_with("-> ")) {
      rows.back().expected = line.substr(3);
    } else {
      replace_all(line, " | ", "\n");
      rows.push_back({line + "\n", ""});
    }
  }
  return rows;
}

}  // namespace

TEST_CASE("the corpus of cgroup lines") {
  const auto rows = corpus();
  CHECK(rows.size() >= 60);
  for (const auto& row : rows) {
    CAPTURE(row.file);
    CHECK(describe(row.file) == row.expected);
  }
}

TEST_CASE("hostile cgroup files are errors or nobody's, never a crash") {
  const auto long_name = std::string(5000, 'x');
  CHECK(cgroup_that_counts("").error().message ==
        "its cgroup file has no line of systemd, pids or cgroup v2");
  CHECK(cgroup_that_counts(std::string(70000, '0')).error().message ==
        "its cgroup file is too long");
  CHECK(cgroup_that_counts("0::/" + long_name).error().message ==
        "its cgroup /" + std::string(199, 'x') + "… has too long a path");
  CHECK(cgroup_that_counts(std::string("0::/a\0b", 7)).error().message ==
        "its cgroup /a\\x00b is no path");
  // The kernel allows no line end in a name; were there one, it must not win over the true line.
  CHECK(cgroup_that_counts("0::/user.slice/x\n0::/kubepods\n").error().message ==
        "its cgroup file names one hierarchy twice");
  CHECK(describe("0::/a\x1b[31m\n") == "none");
  CHECK(describe("0:::/:\n") == "error its cgroup :/: is no path");
  std::string deep;
  for (int level = 0; level < 2000; ++level) deep += "/a";
  CHECK(describe("0::" + deep) == "none");
}

TEST_CASE("every cut of a true line is a place or an error") {
  const auto line = expand("0::/kubepods.slice/kubepods-pod<u>.slice/cri-containerd-<A>.scope");
  for (std::size_t size = 0; size < line.size(); ++size) {
    const auto text = describe(line.substr(0, size));
    CHECK(text.find(k_id_a + ".scope ") == std::string::npos);
    CHECK_FALSE(text.empty());
  }
}

TEST_CASE("the hierarchy is kept, and the way up") {
  const auto unified = cgroup_that_counts("0::/../../pod/x\n");
  REQUIRE(unified);
  CHECK(*unified == CgroupPath{Hierarchy::unified, 2, "/pod/x"});
  CHECK(to_string(*unified) == "/../../pod/x");
  CHECK(cgroup_that_counts("4:pids:/a\n1:name=systemd:/b\n0::/c\n")->hierarchy ==
        Hierarchy::systemd);
  CHECK(cgroup_that_counts("4:pids:/a\n1:name=systemd:/\n0::/c\n")->hierarchy == Hierarchy::pids);
  CHECK(cgroup_that_counts("4:pids:/\n0::/\n")->hierarchy == Hierarchy::pids);
  CHECK(to_string(*cgroup_that_counts("0::/../..\n")) == "/../..");
}

TEST_CASE("what shows in a cgroup namespace is made whole with its root") {
  const auto whole = [](std::size_t levels, std::string path, std::string_view root) {
    return to_string(made_whole({Hierarchy::unified, levels, std::move(path)}, root));
  };
  CHECK(whole(2, "/pod2/c2", "/kubepods/pod1/c1") == "/kubepods/pod2/c2");
  CHECK(whole(3, "/system.slice/x", "/kubepods/pod1/c1") == "/system.slice/x");
  CHECK(whole(1, "/", "/kubepods/pod1/c1") == "/kubepods/pod1");
  CHECK(whole(0, "/sub", "/kubepods/pod1/c1") == "/kubepods/pod1/c1/sub");
  CHECK(whole(0, "/", "/kubepods/pod1/c1") == "/kubepods/pod1/c1");
  CHECK(whole(3, "/", "/kubepods/pod1/c1") == "/");
  CHECK(whole(4, "/x", "/kubepods/pod1/c1") == "/../../../../x");
  CHECK(whole(1, "/x", "/") == "/../x");
  CHECK(whole(0, "/x", "/") == "/x");
}

TEST_CASE("whether a runtime's own unit is around it is said") {
  const auto place = place_of("/system.slice/containerd.service/kubepods-pod" + k_uid_ +
                              ".slice:cri-containerd:" + k_id_a);
  CHECK(std::get<ContainerPlace>(place).in_runtime_unit);
  CHECK_FALSE(std::get<ContainerPlace>(place_of("/docker/" + k_id_a)).in_runtime_unit);
}
