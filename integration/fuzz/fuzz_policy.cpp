// A policy file's text.
#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "policy/effective.h"
#include "policy/generation.h"
#include "policy/parse.h"
#include "policy/subject.h"
#include "targets.h"

namespace mps::fuzz {

namespace {

using namespace mps::policy;

constexpr std::string_view k_file = "f.yaml";

bool is_printable(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char letter) {
    const auto byte = static_cast<unsigned char>(letter);
    return byte < 0x20 || byte == 0x7f;
  });
}

// Reads "NUMBER:" off the front.
int take_number(std::string_view& text) {
  int value = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  require(error == std::errc{} && stop != end && *stop == ':', "an error has a place");
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()) + 1);
  return value;
}

void check_error(std::string_view error, std::string_view text) {
  require(is_printable(error) && error.size() <= 2048, "an error is one bounded printable line");
  require(error.starts_with(std::string(k_file) + ":"), "an error names the file");
  error.remove_prefix(k_file.size() + 1);
  if (error.starts_with(" and ")) return;  // so many more
  const auto lines =
      std::count(text.begin(), text.end(), '\n') + std::count(text.begin(), text.end(), '\r') + 2;
  const auto line = take_number(error);
  const auto column = take_number(error);
  require(line >= 1 && line <= lines, "an error's line is one of the text");
  require(column >= 1 && column <= static_cast<int>(text.size()) + 1,
          "an error's column is one of the text");
  require(error.size() > 1 && error.front() == ' ', "an error has a reason");
}

void check_client(const Client& client) {
  if (client.active_thread_percentage) {
    const auto value = client.active_thread_percentage->value;
    require(value >= 0.1 && value <= 100, "a client's percentage is from 0.1 to 100");
  }
  if (client.pinned_memory_mebibytes) {
    const auto value = client.pinned_memory_mebibytes->value;
    require(value >= 1 && value <= 1024UL * 1024 * 1024, "memory is 1Mi to 1Pi");
  }
}

void check_policy(const Policy& policy) {
  using namespace std::chrono_literals;
  require(is_subject(policy.subject), "a policy is for a namespace");
  require(policy.devices.size() <= 256, "devices are bounded");
  require(policy.isolation.value == Isolation::shared || !is_kind_default(policy.subject),
          "only who has a name has an instance");
  check_client(policy.client);
  require(policy.overrides.size() <= 64, "overrides are bounded");
  require(policy.overrides.empty() || is_for_pods(policy.subject), "overrides are for pods");
  for (const auto& override : policy.overrides) {
    require(!override.pod_labels.empty() && override.pod_labels.size() <= 32, "labels are bounded");
    check_client(override.client);
  }
  if (policy.quota.clients) {
    require(policy.quota.clients->value >= 1 && policy.quota.clients->value <= 60,
            "a quota of clients is 1 to 60");
  }
  if (const auto& rule = policy.quarantine) {
    require(rule->after >= 1 && rule->after <= 1000, "quarantine begins after 1 to 1000 faults");
    require(rule->within >= 1s && rule->duration >= 1s && rule->duration <= 720h,
            "quarantine has an end");
  }
}

// A mistake never widens: whom a bad file names does not get what "*" gives.
void check_refused(const std::string& text, const std::vector<Claim>& claims,
                   const DeviceFacts& device) {
  const SourceFile open_to_all{"all.yaml",
                               "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\n"
                               "metadata: {namespace: \"*\"}\nspec: {}\n",
                               ""};
  const auto generation =
      next_generation(Generation{}, {open_to_all, {std::string(k_file), text, ""}}, {device});
  require(generation->policies.contains("*"), "a good file beside a bad one is in force");
  for (const auto& claim : claims) {
    if (claim.subject == "*") continue;
    require(std::holds_alternative<NoPolicy>(effective(*generation, claim.subject, {}, device)),
            "whom a bad file names is refused");
  }
}

void check_bad(const std::string& text, const Parsed& parsed, const DeviceFacts& device) {
  if (!parsed.errors.empty()) check_refused(text, parsed.claims, device);
  // Whatever stands before it, a name at the end is seen.
  const auto named = text + "\nmetadata: {namespace: named-last}\n";
  const auto again = parse(named, std::string(k_file));
  if (again.errors.empty() || again.claims.size() == k_claim_limit) return;
  check_refused(named, {{"named-last", {}}}, device);
}

}  // namespace

void policy(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  const std::string file(k_file);
  const auto parsed = parse(text, file);
  require(parsed.errors.empty() != parsed.policies.empty(), "a text is good or bad");
  for (const auto& error : parsed.errors) check_error(error, text);
  for (const auto& one : parsed.policies) check_policy(one);
  for (const auto& claim : parsed.claims) require(is_subject(claim.subject), "a claim is a name's");
  require(parsed.claims.size() <= k_claim_limit, "claims are bounded");
  require(parsed.errors.size() <= 101, "errors are bounded");
  const auto again = parse(text, file);
  require(again.errors == parsed.errors && again.policies.size() == parsed.policies.size(),
          "a text says the same each time");
  DeviceFacts device;
  device.name = "gpu0";
  device.memory_mebibytes = 16384;
  device.sm_count = 16;
  device.exclusive = true;
  device.max_clients = 48;
  check_bad(text, parsed, device);
  for (const auto& error : check_devices(parsed.policies, file, {device})) check_error(error, text);
}

}  // namespace mps::fuzz
