#include "commands.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>

#include "wire.h"

namespace mps::sim {
namespace {

const std::set<std::string, std::less<>> k_on_a_server = {"get_client_list",
                                                          "get_device_client_list",
                                                          "get_active_thread_percentage",
                                                          "set_active_thread_percentage",
                                                          "get_device_pinned_mem_limit",
                                                          "set_device_pinned_mem_limit",
                                                          "shutdown_server"};

std::string word(const std::vector<std::string>& words, std::size_t index) {
  return index < words.size() ? words[index] : std::string();
}

long number(const std::vector<std::string>& words, std::size_t index) {
  return std::strtol(word(words, index).c_str(), nullptr, 10);
}

bool is_number(const std::string& text) {
  char* rest = nullptr;
  (void)std::strtol(text.c_str(), &rest, 10);
  return rest != text.c_str();
}

std::string not_found(long server) {
  return "Server " + std::to_string(server) + " not found";
}

std::string partial_uuid(const ProcessRow& row) {
  std::array<char, 32> text{};
  const auto& id = row.uuid;
  (void)std::snprintf(text.data(), text.size(), "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x",
                      row.is_mig != 0 ? "MIG" : "GPU", id[0], id[1], id[2], id[3], id[4], id[5],
                      id[6], id[7]);
  return text.data();
}

std::string pid_namespace(pid_t pid) {
  std::array<char, 64> target{};
  const std::string link = "/proc/" + std::to_string(pid) + "/ns/pid";
  if (::readlink(link.c_str(), target.data(), target.size() - 1) <= 0) return "?";
  const std::string text = target.data();  // pid:[4026531836]
  const auto open = text.find('[');
  return open == std::string::npos ? "?" : text.substr(open + 1, text.find(']') - open - 1);
}

std::string command_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline");
  std::string first;
  std::getline(file, first, '\0');
  return first;
}

std::string row_text(const std::array<std::string, 6>& cells) {
  std::array<char, 4096> text{};
  (void)std::snprintf(text.data(), text.size(), "%-10s%-10s%-15s%-26s%-15s%-15s", cells[0].c_str(),
                      cells[1].c_str(), cells[2].c_str(), cells[3].c_str(), cells[4].c_str(),
                      cells[5].c_str());
  return text.data();
}

}  // namespace

bool Commands::run(const Session& session, std::string_view line, const Answer& answer) {
  const Words line_words = words(line);
  const std::string name = word(line_words, 0);
  if (name == "quit") return quit(session, line_words, answer);
  if (name.find("_default_") != std::string::npos && run_default(session, line_words, answer)) {
    return false;
  }
  if (run_on_processes(session, line_words, answer)) return false;
  if (k_on_a_server.contains(name)) {
    (void)run_on_server(line_words, answer);
  } else {
    answer("Unknown command \"" + name + "\"");
  }
  return false;
}

bool Commands::quit(const Session& session, const Words& line, const Answer& answer) {
  if (!session.privileged) {
    answer("Not enough privilege to execute quit command");
    return false;
  }
  std::optional<std::chrono::seconds> timeout;
  if (word(line, 1) == "-t" && line.size() > 2) {
    timeout = std::chrono::seconds(number(line, 2));
    log_.say("quit command issued with timeout of " + std::to_string(number(line, 2)));
  }
  keeper_.begin_quit(timeout);
  return true;
}

bool Commands::run_default(const Session& session, const Words& line, const Answer& answer) {
  const std::string name = line[0];
  if (name == "get_default_active_thread_percentage") {
    answer(print_percentage(defaults_.percentage));
  } else if (name == "get_default_client_priority") {
    answer(std::to_string(defaults_.priority));
  } else if (name == "get_default_device_pinned_mem_limit") {
    const auto device = is_number(word(line, 1)) ? ordinal(line, 1) : std::nullopt;
    if (device || !is_number(word(line, 1)))
      say_limit(device ? defaults_.limits[*device] : 0, answer);
  } else if (name == "set_default_active_thread_percentage" ||
             name == "set_default_client_priority" ||
             name == "set_default_device_pinned_mem_limit") {
    if (session.privileged || is_535_) {
      set_default(line, answer);
    } else {
      answer("Insufficient privileges for UID " + std::to_string(session.uid) +
             ". Control deamon settings can only be modified by the user started it or by the "
             "root user.");
    }
  } else {
    return false;
  }
  return true;
}

void Commands::set_default(const Words& line, const Answer& answer) {
  if (line[0] == "set_default_active_thread_percentage") {
    const auto percentage = read_percentage(word(line, 1));
    if (!percentage) log_.say("Invalid percentage, expected between (0.0, 100.0]");
    defaults_.percentage = percentage.value_or(defaults_.percentage);
    answer(print_percentage(defaults_.percentage));
  } else if (line[0] == "set_default_client_priority") {
    const long priority = number(line, 1);
    if (priority == 0 || priority == 1) {
      defaults_.priority = static_cast<int>(priority);
    } else {
      answer("Invalid priority value - must be 0 or 1!");
    }
  } else if (!is_number(word(line, 1))) {
    return;  // as with the UUID of a device that is not there
  } else if (const auto device = ordinal(line, 1)) {
    defaults_.limits[*device] = read_pinned_limit(word(line, 2));
  }
}

void Commands::say_limit(std::uint64_t bytes, const Answer& answer) {
  if (bytes == 0) return log_.say("No default pinned memory limit set for the device!");
  answer(print_pinned_limit(bytes));
}

std::optional<std::size_t> Commands::ordinal(const Words& line, std::size_t index) const {
  const long device = number(line, index);
  if (device >= 0 && device < static_cast<long>(k_limited_devices)) {
    return static_cast<std::size_t>(device);
  }
  log_.say("Invalid device ordinal!");
  return std::nullopt;
}

bool Commands::run_on_processes(const Session& session, const Words& line, const Answer& answer) {
  const std::string name = word(line, 0);
  if (name == "get_server_list") {
    if (keeper_.server()) answer(std::to_string(*keeper_.server()));
  } else if (name == "get_server_status" && !is_535_) {
    server_status(line, answer);
  } else if (name == "start_server") {
    start_server(session, line, answer);
  } else if (name == "terminate_client") {
    terminate_client(line, answer);
  } else if (name == "ps") {
    list_processes(line, answer);
  } else {
    return false;
  }
  return true;
}

void Commands::start_server(const Session& session, const Words& line, const Answer& answer) {
  if (word(line, 1) != "-uid" || !is_number(word(line, 2))) {
    return answer("A user id (UID) is required to start a new server");
  }
  const auto uid = static_cast<uid_t>(number(line, 2));
  if (session.uid != 0 && session.uid != uid) {
    return answer("Insufficient privileges for UID " + std::to_string(session.uid) +
                  (is_535_ ? "" : ". Only the root user may start server for another user."));
  }
  keeper_.start(uid);
}

void Commands::server_status(const Words& line, const Answer& answer) {
  const long server = number(line, 1);
  if (server == 0) return answer("A server PID is required");
  if (!is_here(line, answer)) return;
  if (!keeper_.is_ready()) return answer("INITIALIZING");
  (void)send_value(keeper_.orders(), Order::k_status);
  const auto status = receive_value<std::uint32_t>(keeper_.orders());
  if (status) answer(*status == 0 ? "FAULT" : "ACTIVE");
}

bool Commands::is_here(const Words& line, const Answer& answer) const {
  const long server = number(line, 1);
  if (keeper_.server() && *keeper_.server() == server) return true;
  answer(not_found(server));
  return false;
}

bool Commands::is_ready() const {
  if (keeper_.is_ready()) return true;
  if (keeper_.server()) log_.say("Server " + std::to_string(*keeper_.server()) + " is <busy>");
  return false;
}

bool Commands::run_on_server(const Words& line, const Answer& answer) {
  const std::string name = line[0];
  const bool of_any_server = name == "get_device_client_list" && line.size() == 1;
  if (!of_any_server && !is_here(line, answer)) return false;
  if (name == "shutdown_server") {
    keeper_.shut_down(word(line, 2) == "-f");
  } else if (name == "get_client_list") {
    if (keeper_.is_ready()) client_list(answer);
  } else if (!keeper_.server() || !is_ready()) {
    return false;
  } else if (name == "get_device_client_list") {
    (void)send_value(keeper_.orders(), Order::k_device_client_list);
    (void)receive_value<std::uint32_t>(keeper_.orders());
  } else if (name.ends_with("active_thread_percentage")) {
    server_percentage(line, answer);
  } else {
    server_limit(line, answer);
  }
  return true;
}

void Commands::client_list(const Answer& answer) {
  (void)send_value(keeper_.orders(), Order::k_client_list);
  const auto count = receive_value<std::uint32_t>(keeper_.orders()).value_or(0);
  for (std::uint32_t index = 0; index < count; ++index) {
    const auto pid = receive_value<std::int32_t>(keeper_.orders());
    if (pid) answer(std::to_string(*pid));
  }
}

void Commands::server_percentage(const Words& line, const Answer& answer) {
  if (line[0].starts_with("set")) {
    const auto percentage = read_percentage(word(line, 2));
    if (percentage) {
      (void)send_value(keeper_.orders(), Order::k_set_percentage);
      (void)send_value(keeper_.orders(), *percentage);
    } else {
      log_.say("Invalid percentage, expected between (0.0, 100.0]");
    }
  }
  (void)send_value(keeper_.orders(), Order::k_get_percentage);
  const auto now = receive_value<double>(keeper_.orders());
  if (now) answer(print_percentage(*now));
}

void Commands::server_limit(const Words& line, const Answer& answer) {
  const auto device = ordinal(line, 2);
  if (!device) return;
  const auto device_number = static_cast<std::uint32_t>(*device);
  const bool sets = line[0].starts_with("set");
  (void)send_value(keeper_.orders(), sets ? Order::k_set_pinned_limit : Order::k_get_pinned_limit);
  (void)send_value(keeper_.orders(), device_number);
  if (sets) {
    (void)send_value(keeper_.orders(), read_pinned_limit(word(line, 3)));
    return;
  }
  const auto bytes = receive_value<std::uint64_t>(keeper_.orders());
  if (bytes && *bytes != 0) answer(print_pinned_limit(*bytes));
}

void Commands::terminate_client(const Words& line, const Answer& answer) {
  const std::string server = "Server " + std::to_string(number(line, 1));
  const bool here = is_here(line, answer);
  if (!here || !is_ready()) {
    answer(server + " not found!");
    return answer("1");
  }
  const auto client = static_cast<std::int32_t>(number(line, 2));
  if (client <= 0) {
    answer("Invalid process " + std::to_string(client) + "!");
    return answer("1");
  }
  (void)send_value(keeper_.orders(), Order::k_terminate_client);
  (void)send_value(keeper_.orders(), client);
  answer(std::to_string(receive_value<std::int32_t>(keeper_.orders()).value_or(1)));
}

void Commands::list_processes(const Words& line, const Answer& answer) {
  if (word(line, 1) == "-p" && !is_here({"ps", word(line, 2)}, answer)) {
    // Said twice, the second time with a line end of its own.
    return answer(not_found(number(line, 2)) + "\n");
  }
  if (!keeper_.server() || !is_ready()) return answer("Server not found");
  (void)send_value(keeper_.orders(), Order::k_processes);
  const auto count = receive_value<std::uint32_t>(keeper_.orders()).value_or(0);
  if (count != 0) {
    answer(row_text({"PID", "ID", "SERVER", "DEVICE", "NAMESPACE", "COMMAND"}));
  }
  for (std::uint32_t index = 0; index < count; ++index) {
    const auto row = receive_value<ProcessRow>(keeper_.orders());
    if (!row) return;
    answer(row_text({std::to_string(row->pid), std::to_string(row->context),
                     std::to_string(*keeper_.server()), partial_uuid(*row), pid_namespace(row->pid),
                     command_of(row->pid)}));
  }
  (void)send_value(keeper_.orders(), std::uint32_t{0});
}

}  // namespace mps::sim
