#include "cdi/spec.h"

#include <doctest/doctest.h>

using namespace mps;
using namespace mps::cdi;

TEST_CASE("a share made on demand, byte for byte") {
  Spec spec{"s12", "/run/mps/gpu0.shared/shares/s12", share::Grant{25, 12288}, ""};
  CHECK(encode(spec) == R"({
  "cdiVersion": "0.3.0",
  "kind": "mps-supervisor.dev/share",
  "devices": [
    {
      "name": "s12",
      "containerEdits": {
        "env": [
          "CUDA_MPS_PIPE_DIRECTORY=/run/mps-share/s12/pipe",
          "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25.0",
          "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=12288M"
        ],
        "mounts": [
          {
            "hostPath": "/run/mps/gpu0.shared/shares/s12",
            "containerPath": "/run/mps-share/s12",
            "options": [
              "rbind",
              "ro",
              "nosuid",
              "nodev"
            ]
          }
        ]
      }
    }
  ]
}
)");
  spec.grant = share::Grant{100, 1, true};
  spec.visible_devices = "MIG-1";
  CHECK(encode(spec).find(R"(        "env": [
          "CUDA_MPS_PIPE_DIRECTORY=/run/mps-share/s12/pipe",
          "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1M",
          "CUDA_MPS_CLIENT_PRIORITY=1",
          "CUDA_VISIBLE_DEVICES=MIG-1"
        ],)") != std::string::npos);
}

TEST_CASE("an open share has no limits of its own") {
  const Spec spec{"gpu0.shared", "/run/mps/gpu0.shared/open"};
  CHECK(encode(spec).find(R"(        "env": [
          "CUDA_MPS_PIPE_DIRECTORY=/run/mps-share/gpu0.shared/pipe"
        ],)") != std::string::npos);
}

TEST_CASE("names") {
  CHECK(device_of("s12") == "mps-supervisor.dev/share=s12");
  CHECK(file_of("s12") == "mps-supervisor.dev-share-s12.json");
  CHECK(name_in("mps-supervisor.dev-share-s12.json") == "s12");
  CHECK(name_in("mps-supervisor.dev-share-gpu0-mig3.ns-team-a.json") == "gpu0-mig3.ns-team-a");
  for (const auto* other : {"mps-supervisor.dev-share-.json", "mps-supervisor.dev-share.json",
                            "mps-supervisor.dev-share-s1.yaml", "mps-supervisor.dev-share-s 1.json",
                            ".mps-supervisor.dev-share-s1.json", "nvidia.json", ""}) {
    CHECK_FALSE(name_in(other));
  }
  for (const auto* name : {"s1", "gpu0.shared", "gpu0.ns-team-mach-3f9a21", "a"}) {
    CHECK(is_device_name(name));
  }
  for (const auto* name : {"", "1s", ".a", "a.", "a-", "a/b", "a b", "ä"}) {
    CHECK_FALSE(is_device_name(name));
  }
}

TEST_CASE("whose a file is") {
  const Spec spec{"s1", "/run/mps/gpu0.shared/shares/s1"};
  CHECK(folder_in(encode(spec)) == "/run/mps/gpu0.shared/shares/s1");
  for (
      const auto* other :
      {"", "{", "[]", "{}", R"({"kind": "mps-supervisor.dev/share"})",
       R"({"kind": "mps-supervisor.dev/share", "devices": []})",
       R"({"kind": "mps-supervisor.dev/share", "devices": [{"containerEdits": {"mounts": [{}]}}]})",
       R"({"kind": "x.y/z", "devices": [{"containerEdits": {"mounts": [{"hostPath": "/a"}]}}]})",
       R"({"kind": "mps-supervisor.dev/share",
            "devices": [{"containerEdits": {"mounts": [{"hostPath": 1}]}}]})"}) {
    CHECK_FALSE(folder_in(other));
  }
}
