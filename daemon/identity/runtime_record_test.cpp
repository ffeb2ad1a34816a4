#include "identity/runtime_record.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity/overrides.h"
#include "identity/record_text.h"
#include "identity/subject.h"
#include "identity/test_support.h"
#include "identity/trusted_file.h"

using namespace mps::identity;
using namespace mps::identity::testing;

namespace {

const std::string k_tasks = "run/containerd/io.containerd.runtime.v2.task/";
const std::string k_storage = "run/containers/storage/overlay-containers/";

std::string containerd_config(const std::string& more = "") {
  return R"({"ociVersion": "1.1.0", "linux": {"cgroupsPath": "/kubepods/pod)" + k_uid + "/" +
         k_id_a + R"("}, "annotations": {)" + more + R"(
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "trainer",
    "io.kubernetes.cri.sandbox-id": ")" +
         k_id_b + R"(", "io.kubernetes.cri.sandbox-name": "train-0",
    "io.kubernetes.cri.sandbox-namespace": "team-a",
    "io.kubernetes.cri.sandbox-uid": ")" +
         k_uid + R"("}})";
}

std::string crio_config(const std::string& manager = "cri-o") {
  return R"({"linux": {"cgroupsPath": "kubepods-pod)" + k_uid_ + ".slice:crio:" + k_id_a +
         R"("}, "annotations": {"io.container.manager": ")" + manager +
         R"(", "io.kubernetes.pod.namespace": "team-b", "io.kubernetes.pod.name": "web-1",
    "io.kubernetes.pod.uid": ")" +
         k_uid + R"(", "io.kubernetes.container.name": "web",
    "io.kubernetes.cri-o.Labels": "{\"io.kubernetes.pod.name\": \"web-1\"}",
    "io.kubernetes.cri.sandbox-namespace": "kube-system",
    "io.kubernetes.cri-o.SandboxID": ")" +
         k_id_b + R"("}})";
}

const std::string k_crio_sandbox =
    R"({"annotations": {"io.kubernetes.cri-o.Labels":
      "{\"app\": \"web\", \"io.kubernetes.pod.name\": \"web-1\"}"}})";

class Node {
 public:
  [[nodiscard]] RecordPlaces places() const {
    RecordPlaces places;
    places.root = folder_.path();
    places.owner = ::geteuid();
    return places;
  }
  [[nodiscard]] std::string path(const std::string& name) const {
    return (folder_ / name).string();
  }
  TempFolder folder_{};
};

Record found(const Node& node, const std::string& id = k_id_a) {
  auto record = find_record(node.places(), id);
  REQUIRE(record);
  REQUIRE(*record);
  return **record;
}

std::string error_of(const Node& node) {
  const auto record = find_record(node.places(), k_id_a);
  return record ? "none" : record.error().message;
}

}  // namespace

TEST_CASE("containerd's record names the pod, and no labels") {
  const Node node;
  const auto file =
      node.folder_.write(k_tasks + "k8s.io/" + k_id_a + "/config.json", containerd_config());
  const auto record = found(node);
  CHECK(record.runtime == Runtime::containerd);
  CHECK(record.container_id == k_id_a);
  CHECK(record.cgroups_path == "/kubepods/pod" + k_uid + "/" + k_id_a);
  CHECK(record.pod_namespace == "team-a");
  CHECK(record.pod == "train-0");
  CHECK(record.pod_uid == k_uid);
  CHECK(record.container == "trainer");
  CHECK_FALSE(record.labels);
  CHECK_FALSE(record.owner);
  CHECK(record.file == file);
}

TEST_CASE("k3s keeps containerd's records elsewhere") {
  const Node node;
  node.folder_.write(
      "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/" + k_id_a + "/config.json",
      containerd_config());
  CHECK(found(node).pod_namespace == "team-a");
}

TEST_CASE("only Kubernetes' own part of containerd speaks of pods") {
  const Node node;
  node.folder_.write(k_tasks + "moby/" + k_id_a + "/config.json", containerd_config());
  const auto record = found(node);
  CHECK(record.pod_namespace.empty());
  CHECK(record.pod_uid.empty());
}

TEST_CASE("CRI-O's record: the kubelet's words count, other runtimes' annotations do not") {
  const Node node;
  node.folder_.write(k_storage + k_id_a + "/userdata/config.json", crio_config());
  auto record = found(node);
  CHECK(record.runtime == Runtime::crio);
  CHECK(record.pod_namespace == "team-b");
  CHECK(record.pod == "web-1");
  CHECK(record.pod_uid == k_uid);
  CHECK(record.container == "web");
  CHECK_FALSE(record.labels);
  node.folder_.write(k_storage + k_id_b + "/userdata/config.json", k_crio_sandbox);
  CHECK(found(node).labels == Labels{{"app", "web"}});
}

TEST_CASE("a sandbox id that is none opens no file") {
  const Node node;
  auto config = crio_config();
  config.replace(config.find(k_id_b), k_id_b.size(), "../" + k_id_b);
  node.folder_.write(k_storage + k_id_a + "/userdata/config.json", config);
  node.folder_.write("run/containers/storage/" + k_id_b + "/userdata/config.json", k_crio_sandbox);
  CHECK_FALSE(found(node).labels);
}

TEST_CASE("Podman's record, with its name from the store's list") {
  const Node node;
  const std::string folder = "var/lib/containers/storage/overlay-containers/";
  node.folder_.write(folder + k_id_a + "/userdata/config.json", crio_config("libpod"));
  CHECK(found(node).runtime == Runtime::podman);
  CHECK(found(node).pod_namespace.empty());
  CHECK(found(node).name.empty());
  node.folder_.write(folder + "containers.json", R"([{"id": ")" + k_id_b +
                                                     R"(", "names": ["other"]}, {"id": ")" +
                                                     k_id_a + R"(", "names": ["web"]}])");
  CHECK(found(node).name == "web");
  const auto list = node.folder_.write(folder + "containers.json", "{}");
  CHECK(error_of(node) == list.string() + " is not a JSON array");
}

TEST_CASE("Docker's record, with its name and what cri-dockerd says") {
  const Node node;
  node.folder_.write(k_tasks + "moby/" + k_id_a + "/config.json",
                     R"({"linux": {"cgroupsPath": "system.slice:docker:)" + k_id_a + "\"}}");
  const auto config = "var/lib/docker/containers/" + k_id_a + "/config.v2.json";
  node.folder_.write(config, R"({"Name": "/web_1.x", "Config": {"Labels": {"a": "b"}}})");
  auto record = found(node);
  CHECK(record.runtime == Runtime::docker);
  CHECK(record.name == "web_1.x");
  CHECK(record.pod_namespace.empty());
  node.folder_.write(config, R"({"Name": "/k8s_x", "Config": {"Labels": {
      "io.kubernetes.pod.namespace": "team-c", "io.kubernetes.pod.uid": "u",
      "io.kubernetes.pod.name": "p", "io.kubernetes.container.name": "c"}}})");
  record = found(node);
  CHECK(record.pod_namespace == "team-c");
  CHECK(record.pod == "p");
  CHECK(record.pod_uid == "u");
  CHECK(record.container == "c");
}

TEST_CASE("no record is none, and a record of something else is not one") {
  const Node node;
  CHECK(error_of(node) == "none");
  CHECK_FALSE(*find_record(node.places(), k_id_a));
  node.folder_.write(k_tasks + "k8s.io", "a file where a folder should be");
  CHECK_FALSE(*find_record(node.places(), k_id_a));
}

TEST_CASE("a record that others could have written is not believed") {
  const Node node;
  const auto name = k_tasks + "k8s.io/" + k_id_a + "/config.json";
  const auto file = node.folder_.write(name, containerd_config());
  REQUIRE(::chmod(file.c_str(), 0664) == 0);
  CHECK(error_of(node) == file.string() + " can be written by others");
  REQUIRE(::chmod(file.c_str(), 0646) == 0);
  CHECK(error_of(node) == file.string() + " can be written by others");
  REQUIRE(::chmod(file.c_str(), 0644) == 0);
  auto places = node.places();
  places.owner = ::geteuid() + 1;
  CHECK(find_record(places, k_id_a).error().message ==
        file.string() + " belongs to uid " + std::to_string(::geteuid()) + ", not to uid " +
            std::to_string(places.owner));
}

TEST_CASE("a record that is no regular file is not believed") {
  const Node node;
  const auto name = k_tasks + "k8s.io/" + k_id_a + "/config.json";
  const auto other = node.folder_.write("elsewhere.json", containerd_config());
  node.folder_.make(k_tasks + "k8s.io/" + k_id_a);
  std::filesystem::create_symlink(other, node.path(name));
  CHECK(error_of(node) == node.path(name) + " is a symbolic link");
  std::filesystem::remove(node.path(name));
  REQUIRE(::mkfifo(node.path(name).c_str(), 0600) == 0);
  CHECK(error_of(node) == node.path(name) + " is not a regular file");
  std::filesystem::remove(node.path(name));
  std::filesystem::create_directory(node.path(name));
  CHECK(error_of(node) == node.path(name) + " is not a regular file");
}

TEST_CASE("a record that is too long, too deep or no JSON is an error") {
  const Node node;
  const auto name = k_tasks + "k8s.io/" + k_id_a + "/config.json";
  const auto file = node.folder_.write(name, std::string(k_record_limit + 1, ' ')).string();
  CHECK(error_of(node) == file + " is longer than 1048576 bytes");
  node.folder_.write(name, std::string(k_record_limit, '['));
  CHECK(error_of(node) == file + " is nested too deeply");
  node.folder_.write(name,
                     R"({"annotations": )" + std::string(100, '[') + std::string(100, ']') + "}");
  CHECK(error_of(node) == file + " is nested too deeply");
  node.folder_.write(name, "{");
  CHECK(error_of(node) == file + " is not JSON");
  node.folder_.write(name, "");
  CHECK(error_of(node) == file + " is not JSON");
  node.folder_.write(name, "[]");
  CHECK(error_of(node) == file + " is not a JSON object");
}

TEST_CASE("fields of the wrong type are as if they were not there") {
  const auto record = parse_oci_config(
      R"({"linux": [], "annotations": {"io.kubernetes.cri.sandbox-namespace": 7}})", Writer::cri);
  REQUIRE(record);
  CHECK(record->cgroups_path.empty());
  CHECK(record->pod_namespace.empty());
  CHECK_FALSE(parse_sandbox_labels("{}"));
  CHECK_FALSE(parse_sandbox_labels(R"({"annotations": {"io.kubernetes.cri-o.Labels": "[]"}})"));
  CHECK_FALSE(
      parse_sandbox_labels(R"({"annotations": {"io.kubernetes.cri-o.Labels": "{\"a\": 1}"}})"));
}

TEST_CASE("cgroupsPath: both forms") {
  CHECK(cgroup_named_by("/kubepods/pod1/x") == "/kubepods/pod1/x");
  CHECK(cgroup_named_by("/docker/x/") == "/docker/x");
  CHECK(cgroup_named_by("system.slice:docker:x") == "/system.slice/docker-x.scope");
  CHECK(cgroup_named_by(":docker:x") == "/system.slice/docker-x.scope");
  CHECK(cgroup_named_by("a-b-c.slice:crio:x") == "/a.slice/a-b.slice/a-b-c.slice/crio-x.scope");
  CHECK(cgroup_named_by("-.slice:crio:x") == "/crio-x.scope");
  CHECK(cgroup_named_by("a.slice::x") == "/a.slice/x.scope");
  CHECK(cgroup_named_by("a.slice:crio:b.slice") == "/a.slice/b.slice");
  for (const auto* bad :
       {"", "/", "x", "a:b", "a:b:c", "a.slice:b:", "a.slice:b:c:d", ".slice:b:c", "-a.slice:b:c",
        "a-.slice:b:c", "a--b.slice:b:c", "x/a.slice:b:c", "/a/../b"}) {
    CAPTURE(bad);
    CHECK_FALSE(cgroup_named_by(bad));
  }
}

TEST_CASE("a record confirms its own cgroup and no other") {
  Record record;
  record.cgroups_path = "kubepods-pod" + k_uid_ + ".slice:cri-containerd:" + k_id_a;
  const auto scope = "/kubepods-pod" + k_uid_ + ".slice/cri-containerd-" + k_id_a + ".scope";
  const auto at = [](std::size_t levels, std::string path) {
    return CgroupPath{Hierarchy::unified, levels, std::move(path)};
  };
  CHECK(confirms(record, at(0, "/kubepods.slice" + scope)));
  CHECK_FALSE(confirms(record, at(0, scope)));
  CHECK_FALSE(confirms(record, at(0, "/evil.slice/kubepods.slice" + scope)));
  CHECK_FALSE(confirms(record, at(0, "/kubepods.slice" + scope + "/container")));
  // Part of it is hidden from inside a cgroup namespace.
  CHECK(confirms(record, at(2, scope)));
  CHECK(confirms(record, at(3, "/kubepods.slice" + scope)));
  CHECK_FALSE(confirms(record, at(3, "/user.slice/kubepods.slice" + scope)));
  CHECK_FALSE(confirms(record, at(3, "/")));
  // A name for systemd given to the cgroupfs driver.
  const auto literal = "/system.slice/containerd.service/" + record.cgroups_path;
  CHECK(confirms(record, at(0, literal), true));
  CHECK_FALSE(confirms(record, at(0, literal)));
  CHECK_FALSE(confirms(Record{}, at(0, "/")));
  CHECK_FALSE(confirms(Record{}, at(0, "/x/"), true));
}

TEST_CASE("overrides: by container before pod, and strict") {
  const auto parse = [](std::string_view text) { return parse_overrides(text, k_id_a, k_uid); };
  const auto by_pod = parse(R"({")" + k_uid + R"(": {"namespace": "team-a"}})");
  REQUIRE(by_pod);
  REQUIRE(*by_pod);
  CHECK((*by_pod)->pod_namespace == "team-a");
  CHECK((*by_pod)->pod_uid == k_uid);
  const auto by_id = parse(R"({")" + k_uid + R"(": {"namespace": "team-a"}, ")" + k_id_a +
                           R"(": {"namespace": "team-b", "pod": "p", "container": "c",
                              "owner": "Job/x", "labels": {"app": "x"}}})");
  REQUIRE(by_id);
  REQUIRE(*by_id);
  CHECK((*by_id)->pod_namespace == "team-b");
  CHECK((*by_id)->labels == Labels{{"app", "x"}});
  CHECK((*by_id)->owner == "Job/x");
  CHECK_FALSE(*parse(R"({"other": 7})"));
  CHECK_FALSE(*parse_overrides(R"({"": {"namespace": "x"}})", "", ""));
  const auto error = [&](std::string_view entry) {
    const auto result = parse(R"({")" + k_id_a + R"(": )" + std::string(entry) + "}");
    return result ? "none" : result.error().message;
  };
  CHECK(error("7") == k_id_a + ": must be an object");
  CHECK(error("{}") == k_id_a + ": namespace: is missing");
  CHECK(error(R"({"namespace": 7})") == k_id_a + ": namespace: must be text");
  CHECK(error(R"({"nmespace": "x"})") == k_id_a + ": nmespace: unknown field");
  CHECK(error(R"({"labels": 7})") == k_id_a + ": labels: must be an object");
  CHECK(error(R"({"labels": {"a": 7}})") == k_id_a + ": labels.a: must be text");
  CHECK(parse("x").error().message == "is not JSON");
  CHECK(parse("[]").error().message == "is not a JSON object");
}

TEST_CASE("subjects are such as policies can name") {
  CHECK(*pod_subject("team-a") == "team-a");
  for (const auto* bad : {"", "*", "Team", "-a", "a-", "a.b", "docker:x"}) {
    CHECK(pod_subject(bad).error().message == "\"" + std::string(bad) + "\" is no namespace");
  }
  CHECK_FALSE(pod_subject(std::string(64, 'a')));
  CHECK(*container_subject("web_1.x", k_id_b) == "docker:web_1.x");
  CHECK(*container_subject("", k_id_b) == "docker:0123456789ab");
  CHECK(container_subject("*", k_id_b).error().message ==
        "\"*\" is no name that a policy can have");
  CHECK(*unit_subject("train@team\\x2da.service") == "unit:train@team\\x2da.service");
  CHECK_FALSE(unit_subject(std::string(129, 'a')));
  CHECK(user_subject(1000, "alice") == "user:alice");
  CHECK(user_subject(1000, std::nullopt) == "user:1000");
  CHECK(user_subject(1000, "alice smith") == "user:1000");
  CHECK(user_subject(1000, "1001") == "user:1000");
  CHECK(user_subject(1000, "*") == "user:1000");
}
