#include "event_board.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <fstream>

#include "steering.h"
#include "values.h"

namespace mps::sim {
namespace {

constexpr std::string_view name_of(BoardEvent::Kind kind) {
  if (kind == BoardEvent::Kind::k_xid) return "xid";
  return kind == BoardEvent::Kind::k_action ? "action" : "drop";
}

}  // namespace

std::optional<BoardEvent> parse_board_line(std::string_view line) {
  const auto parts = words(line);
  if (parts.size() < 2 || parts.size() > 4) return std::nullopt;
  BoardEvent event;
  if (parts[0] == "drop" && parts.size() == 2) {
    event.kind = BoardEvent::Kind::k_drop;
  } else if (parts[0] == "action" && parts.size() == 3) {
    event.kind = BoardEvent::Kind::k_action;
  } else if (parts[0] != "xid" || parts.size() < 3) {
    return std::nullopt;
  }
  const char* end = parts[1].data() + parts[1].size();
  const auto [rest, error] = std::from_chars(parts[1].data(), end, event.number);
  if (error != std::errc{} || rest != end) return std::nullopt;
  if (parts.size() > 2) event.uuid = parts[2];
  return event;
}

std::string board_file() {
  const std::string own = environment("MPS_SIM_EVENTS", "");
  const std::string inventory = environment("MPS_SIM_NVML", "");
  return own.empty() && !inventory.empty() ? inventory + ".events" : own;
}

void post_on_board(const BoardEvent& event) {
  const UniqueFd file(::open(board_file().c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (!file) return;
  std::string line = std::string(name_of(event.kind)) + " " + std::to_string(event.number);
  if (!event.uuid.empty()) line += " " + event.uuid;
  line += "\n";
  (void)!::write(file.get(), line.data(), line.size());
}

BoardReader::BoardReader(const std::string& file)
    : file_(::open(file.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0666)),
      changes_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
  if (!file_) return;
  (void)::fchmod(file_.get(), 0666);
  (void)::lseek(file_.get(), 0, SEEK_END);
  if (changes_) (void)::inotify_add_watch(changes_.get(), file.c_str(), IN_MODIFY);
}

std::optional<std::string> BoardReader::next_line() {
  std::array<char, 4096> bytes{};
  while (rest_.find('\n') == std::string::npos) {
    const ssize_t count = file_ ? ::read(file_.get(), bytes.data(), bytes.size()) : 0;
    if (count <= 0) return std::nullopt;
    rest_.append(bytes.data(), static_cast<std::size_t>(count));
  }
  const auto end = rest_.find('\n');
  std::string line = rest_.substr(0, end);
  rest_.erase(0, end + 1);
  return line;
}

std::optional<BoardEvent> BoardReader::next() {
  while (auto line = next_line()) {
    auto event = parse_board_line(*line);
    if (!event) continue;
    if (event->kind == BoardEvent::Kind::k_drop) {
      drop_ += event->number;
    } else if (event->kind == BoardEvent::Kind::k_xid && drop_ > 0) {
      --drop_;
    } else {
      return event;
    }
  }
  return std::nullopt;
}

void BoardReader::wait(int milliseconds) const {
  pollfd changed{changes_.get(), POLLIN, 0};
  if (::poll(&changed, 1, milliseconds) <= 0) return;
  std::array<char, 4096> ignored{};
  while (::read(changes_.get(), ignored.data(), ignored.size()) > 0) {
  }
}

unsigned last_action(const std::string& file, std::string_view uuid) {
  unsigned action = 0;
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const auto event = parse_board_line(line);
    const bool is_ours = event && event->kind == BoardEvent::Kind::k_action && event->uuid == uuid;
    if (is_ours) action = event->number;
  }
  return action;
}

}  // namespace mps::sim
