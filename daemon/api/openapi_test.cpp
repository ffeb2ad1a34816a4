#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "api/api.h"
#include "api/metrics.h"

using namespace mps::api;

namespace {

using Lines = std::set<std::string>;

// "GET /v1/events ?follow ?kind": what can be asked, in one line for each operation.
void describe(Lines& lines, std::string_view method, const std::string& path,
              const Lines& parameters) {
  std::string line = std::string(method) + " " + path;
  for (const auto& name : parameters) line += " ?" + name;
  lines.insert(line);
}

void described_by_routes(Lines& lines, const std::vector<RouteInfo>& routes) {
  for (const auto& route : routes) {
    describe(lines, route.method, std::string(route.path),
             Lines(route.parameters.begin(), route.parameters.end()));
  }
}

Lines described_by_document() {
  Lines lines;
  const auto document = YAML::LoadFile(MPS_OPENAPI_FILE);
  for (const auto& path : document["paths"]) {
    for (const auto& operation : path.second) {
      auto method = operation.first.as<std::string>();
      if (method != "get" && method != "post" && method != "delete") continue;
      std::transform(method.begin(), method.end(), method.begin(),
                     [](char c) { return static_cast<char>(std::toupper(c)); });
      Lines parameters;
      for (const auto& parameter : operation.second["parameters"]) {
        if (parameter["in"].as<std::string>() != "query") continue;
        parameters.insert(parameter["name"].as<std::string>());
      }
      describe(lines, method, path.first.as<std::string>(), parameters);
    }
  }
  return lines;
}

std::string source_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The kinds of events that the sources name where they tell of one.
Lines kinds_of_sources() {
  // Two that are put together where they are told: "channel_" and the state, and who asked.
  Lines kinds{"channel_busy", "channel_blocked", "channel_unanswered", "client_asked"};
  const std::regex telling(
      R"re(\b(?:(?:emit|say|say_|say_of|news\.push_back)\(\s*\{?|Emit\{)\s*"([a-z_]+)",|\bsay_once\([^,]*,\s*"([a-z_]+)")re");
  for (const char* room : {"admission", "app", "fault", "instance"}) {
    const auto directory = std::filesystem::path(MPS_SOURCE_DIRECTORY) / "daemon" / room;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      const auto name = entry.path().filename().string();
      if (!name.ends_with(".cpp") || name.ends_with("_test.cpp")) continue;
      const auto text = source_text(entry.path());
      for (auto at = std::sregex_iterator(text.begin(), text.end(), telling);
           at != std::sregex_iterator(); ++at) {
        kinds.insert((*at)[1].matched ? (*at)[1].str() : (*at)[2].str());
      }
    }
  }
  return kinds;
}

}  // namespace

TEST_CASE("docs/openapi.yaml lists the kinds of events that there are, and no others") {
  const auto document = YAML::LoadFile(MPS_OPENAPI_FILE);
  Lines listed;
  const auto list =
      document["components"]["schemas"]["Event"]["properties"]["kind"]["anyOf"][1]["enum"];
  for (const auto& kind : list) CHECK(listed.insert(kind.as<std::string>()).second);
  const auto told = kinds_of_sources();
  const auto without = [](const Lines& all, const Lines& others) {
    std::string left;
    for (const auto& kind : all) left += others.contains(kind) ? "" : kind + " ";
    return left;
  };
  CHECK(without(told, listed) == "");
  CHECK(without(listed, told) == "");
}

TEST_CASE("docs/openapi.yaml has the routes that there are, and no others") {
  Lines routes;
  described_by_routes(routes, Api::routes());
  described_by_routes(routes, MetricsServer::routes());
  CHECK(routes.size() == 28);
  CHECK(described_by_document() == routes);
}

TEST_CASE("docs/openapi.yaml refers only to what it has") {
  const auto document = YAML::LoadFile(MPS_OPENAPI_FILE);
  CHECK(document["openapi"].as<std::string>() == "3.1.0");
  CHECK(document["info"]["version"].as<std::string>() == MPS_VERSION);
  Lines references;
  const auto collect = [&references](const auto& self, const YAML::Node& node) -> void {
    if (node.IsSequence()) {
      for (const auto& element : node) self(self, element);
    } else if (node.IsMap()) {
      for (const auto& entry : node) {
        if (entry.first.as<std::string>() == "$ref")
          references.insert(entry.second.as<std::string>());
        self(self, entry.second);
      }
    }
  };
  collect(collect, document);
  CHECK(references.size() > 5);
  for (const auto& reference : references) {
    CAPTURE(reference);
    const auto slash = reference.rfind('/');
    const auto kind = reference.substr(13, slash - 13);  // behind "#/components/"
    CHECK(document["components"][kind][reference.substr(slash + 1)].IsMap());
  }
}
