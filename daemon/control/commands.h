// The commands of nvidia-cuda-mps-control (v2 interface) and the reading of their answers.
// Facts: section O of the MPS notes in docs/mps-behaviour.md. A rejected command still exits 0, and
// values are misread in silence, so what is sent is built from checked types here, and what was
// set is read back. Pure: no I/O.
//
// There is no `ps`: its answer holds names that clients give themselves, line ends included, and
// the daemon writes it into its log, which is believed (log_event.h).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/outcome.h"

namespace mps::control {

struct Command {
  std::string text;
  bool operator==(const Command&) const = default;
};

// Percentages are above 0 and at most 100, with one decimal at most (that is what is printed).
// What is not so is made so: rounded down to a tenth, at least 0.1, at most 100.
Command set_default_active_thread_percentage(double percentage);
Command get_default_active_thread_percentage();
// Device is the ordinal that the daemon gives it: 0, as each daemon sees one device. 0 MiB takes
// the limit away. Sent as integer and 'M', the only form that no version misreads.
Command set_default_device_pinned_mem_limit(unsigned ordinal, std::uint64_t mebibytes);
Command get_default_device_pinned_mem_limit(unsigned ordinal);
Command set_default_client_priority(unsigned priority);  // 0 normal, 1 below normal
Command get_default_client_priority();
Command get_server_list();
Command get_server_status(pid_t server);
Command get_client_list(pid_t server);
Command set_active_thread_percentage(pid_t server, double percentage);
Command get_active_thread_percentage(pid_t server);
Command set_device_pinned_mem_limit(pid_t server, unsigned ordinal, std::uint64_t mebibytes);
Command get_device_pinned_mem_limit(pid_t server, unsigned ordinal);
Command terminate_client(pid_t server, pid_t client);
Command shutdown_server(pid_t server, bool force);
// A quit that is carried out has no answer, as nobody is left to complain about its marker: the
// daemon's end is the fact to wait for. Only a refused one is Answered.
Command quit(std::optional<unsigned> timeout_seconds);

// The text for the front-end's standard input: each command followed by a marker, "end-of-<n>", a
// command that cannot exist and whose complaint therefore ends the answer before it.
std::string script(const std::vector<Command>& batch);

// The front-end's output for that script, any bytes, in linear time. Exactly one answer a command,
// or nothing: a batch with a marker missing, out of turn or too many was not answered.
// An answer is a Refusal when its first line is one of the daemon's known ways to say no; the words
// are that line.
std::optional<std::vector<Answer>> parse_answers(const std::vector<Command>& batch,
                                                 std::string_view output);

// What this daemon can do, probed by asking, never guessed from a version.
struct Capabilities {
  bool server_status = false;      // get_server_status: not in 535
  bool device_query = false;       // from CUDA 13.1
  bool static_partitions = false;  // lspart
  bool operator==(const Capabilities&) const = default;
};
std::vector<Command> capability_probe();
// From the answers to capability_probe().
Capabilities capabilities(const std::vector<Answer>& answers);

// Typed readings; nullopt when the answer is not what such a command says.
std::optional<double> read_percentage(const Answer& answer);  // "50.0"
struct PinnedLimit {
  std::optional<std::uint64_t> mebibytes;  // none: no limit is set
  bool whole_gibibytes = false;            // printed in G, so rounded down to one
  bool operator==(const PinnedLimit&) const = default;
};
std::optional<PinnedLimit> read_pinned_limit(const Answer& answer);  // "1G", "512M", ""
std::optional<unsigned> read_priority(const Answer& answer);         // "0", "1"
std::optional<std::vector<pid_t>> read_pids(const Answer& answer);   // one a line

// True if a limit of `wanted` MiB prints as `seen` (1536 MiB prints as "1G"; 0 or none as nothing).
bool prints_as(std::optional<std::uint64_t> wanted_mebibytes, const PinnedLimit& seen);

}  // namespace mps::control
