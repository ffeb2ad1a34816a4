#include "blast.h"

#include <algorithm>

namespace mps::sim {
namespace {

bool uses_any(const Party& party, const std::set<std::uint32_t>& devices) {
  return std::any_of(party.contexts.begin(), party.contexts.end(),
                     [&devices](std::uint32_t device) { return devices.contains(device); });
}

}  // namespace

Blast blast_of(const std::vector<Party>& parties, std::uint32_t device) {
  Blast blast;
  blast.devices.insert(device);
  for (std::size_t before = 0; before != blast.devices.size();) {
    before = blast.devices.size();
    for (const Party& party : parties) {
      if (!uses_any(party, blast.devices)) continue;
      blast.devices.insert(party.contexts.begin(), party.contexts.end());
    }
  }
  for (std::size_t index = 0; index < parties.size(); ++index) {
    if (uses_any(parties[index], blast.devices)) blast.parties.push_back(index);
  }
  return blast;
}

std::string Wording::client(pid_t pid, std::size_t context) const {
  const std::string first = std::to_string(pid);
  const std::string second = std::to_string(context);
  if (names_the_parts) return "{PID: " + first + ", Context ID: " + second + "}";
  return "{" + first + ", " + second + "}";
}

std::string Wording::status(pid_t pid, std::size_t context, bool is_active) const {
  return "Status of client " + client(pid, context) + (is_active ? " is ACTIVE" : " is INACTIVE");
}

std::vector<std::string> fault_lines(const Wording& wording, const std::vector<Party>& parties,
                                     const Blast& blast, const Party& culprit,
                                     bool culprit_is_named) {
  std::vector<std::string> lines{"Server is handling a fatal GPU error."};
  if (culprit_is_named) {
    const std::string who =
        wording.names_the_parts ? wording.client(culprit.pid, 1) : std::to_string(culprit.pid);
    lines.push_back("Client process " + who + " encountered a fatal GPU error.");
  }
  for (const std::size_t index : blast.parties) {
    const Party& party = parties[index];
    for (std::size_t context = 1; context <= party.contexts.size(); ++context) {
      lines.push_back(wording.status(party.pid, context, false));
    }
  }
  lines.emplace_back("The following devices will be reset:");
  for (const std::uint32_t device : blast.devices) lines.push_back(std::to_string(device));
  lines.emplace_back("The following clients have a sticky error set:");
  for (const std::size_t index : blast.parties) lines.push_back(std::to_string(parties[index].pid));
  return lines;
}

std::string garbled(std::string_view line) {
  return std::string(line.substr(0, line.size() / 3)) + "\x01\xff\x1b[31m%s\xc3";
}

}  // namespace mps::sim
