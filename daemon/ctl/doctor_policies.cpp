#include "ctl/doctor_policies.h"

#include <map>
#include <string>

#include "base/text.h"
#include "policy/effective.h"

namespace mps::ctl {

namespace {

constexpr std::size_t k_error_length = 1000;

void check_files(const policy::Generation& generation, Findings& findings) {
  for (const auto& file : generation.files) {
    if (file.errors.empty()) continue;
    const auto more = file.errors.size() - 1;
    auto message = printable(file.errors[0], k_error_length);
    if (more != 0) message += " (and " + std::to_string(more) + " more)";
    findings.push_back({Severity::error, "policies", message,
                        "mend " + printable(file.name) +
                            " (mps-ctl policy check): until then what it said last counts, or "
                            "nobody it names is let in"});
  }
}

// By what is missing and because of whom: the devices.
using Missing = std::map<std::string, std::string>;

void note_missing(Missing& missing, const char* limit, const policy::Origin& origin,
                  const std::string& device) {
  auto& devices = missing[std::string(limit) + " because of " + policy::describe(origin)];
  devices += (devices.empty() ? "" : ", ") + device;
}

void check_ceilings(const PolicyFacts& facts, Findings& findings) {
  Missing missing;
  for (const auto& device : facts.devices) {
    const auto ceiling = policy::shared_ceiling(*facts.generation, device);
    if (!ceiling) continue;
    const auto& threads = ceiling->active_thread_percentage;
    const auto& memory = ceiling->pinned_memory_mebibytes;
    if (threads.value >= 100.0) {
      note_missing(missing, "activeThreadPercentage", threads.origin, device.name);
    }
    if (!memory.value) note_missing(missing, "pinnedDeviceMemory", memory.origin, device.name);
  }
  for (const auto& [what, devices] : missing) {
    findings.push_back({Severity::warning, "policies",
                        "no ceiling on the shared instance of " + devices + " for " + what,
                        "limit or remove that policy, or give namespaces that are to be held to "
                        "their limits isolation: dedicated"});
  }
}

std::string counted(std::size_t count, const char* one, const char* many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

}  // namespace

void check_policies(const PolicyFacts& facts, Findings& findings) {
  if (!facts.error.empty()) {
    findings.push_back({Severity::warning, "policies", facts.error,
                        "make it, or name another policyDir: without it the policies that were in "
                        "force last stay, and where there were none nobody is let in"});
    return;
  }
  if (!facts.generation) return;
  const auto& generation = *facts.generation;
  findings.push_back({Severity::ok, "policies",
                      counted(generation.policies.size(), "policy", "policies") + " in " +
                          counted(generation.files.size(), "file", "files") + ", hash " +
                          generation.hash,
                      ""});
  check_files(generation, findings);
  check_ceilings(facts, findings);
}

}  // namespace mps::ctl
