// The actor's share of the daemon's output: where it is followed, and what its lines are.
#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "base/text.h"
#include "instance/actor.h"
#include "instance/line_time.h"

namespace mps::instance {

using std::chrono::steady_clock;
using std::chrono::system_clock;

namespace {

constexpr std::size_t k_flood = 5000;  // unknown lines within a second
constexpr std::chrono::minutes k_flood_said_every{1};

}  // namespace

Result<void> Actor::follow_output_of(pid_t pid) {
  const auto output = "/proc/" + std::to_string(pid) + "/fd/1";
  UniqueFd file(::open(output.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  struct stat kind {};
  if (!file || ::fstat(file.get(), &kind) != 0) return Error::from_errno("open " + output, errno);
  if (!S_ISREG(kind.st_mode)) return Error{output + " is not a file"};
  return follow_log(std::move(file));
}

void Actor::log_failed(const Error& error) {
  log_lost_ = true;
  carry_out(Emit{"log_lost",
                 "the daemon's output cannot be read: " + error.message +
                     "; its events are missing until its next start",
                 {}});
}

Result<void> Actor::follow_log(UniqueFd file) {
  auto name = log_identity(file.get());
  if (!name) return name.error();
  if (log_ && !log_lost_ && log_name_ == *name) return {};
  if (log_) follower_.unfollow(*std::exchange(log_, std::nullopt));
  const auto offset = recorder_.position(settings_.id, *name).value_or(0);
  auto id = follower_.follow(
      std::move(file), offset,
      [this](std::span<const process::FollowedLine> lines) { on_lines(lines); },
      [this](const Error& error) { log_failed(error); });
  if (!id) return id.error();
  log_ = *id;
  log_name_ = *name;
  read_to_.reset();
  log_lost_ = false;
  return {};
}
LogLine Actor::log_line(std::string_view text) {
  LogLine line{.event = control::parse_log_line(text)};
  fault_lists_.take(line.event);
  line.at = time_of_line(line.event.time, system_clock::now(), reading_on_);
  pid_t subject = 0;
  if (const auto* asked = std::get_if<control::ClientAsked>(&line.event.kind)) {
    subject = asked->pid;
  } else if (const auto* connected = std::get_if<control::ClientConnected>(&line.event.kind)) {
    subject = connected->pid;
  }
  if (subject == 0) return line;
  // A process that is younger than the line got the pid of the one that it names.
  const auto stat = proc_.stat(subject);
  if (stat && started_at(stat->start_time) <= line.at + std::chrono::seconds{1}) {
    line.command = printable(stat->name, 64);
    line.start_ticks = stat->start_time;
  }
  return line;
}

void Actor::on_lines(std::span<const process::FollowedLine> lines) {
  const auto unknown_before = machine_.unknown_lines();
  for (const auto& line : lines) {
    if (closed_) return;
    auto said = log_line(line.text);
    const ReadPosition end{log_name_, line.end_offset};
    if (settings_.heard && machine_.concerns(said.event)) settings_.heard(said, end);
    give(std::move(said), end);
  }
  note_flood(static_cast<std::size_t>(machine_.unknown_lines() - unknown_before));
}

void Actor::note_flood(std::size_t unknown_lines) {
  const auto now = steady_clock::now();
  if (now - flood_window_ > std::chrono::seconds{1}) {
    flood_window_ = now;
    flood_lines_ = 0;
  }
  flood_lines_ += unknown_lines;
  if (flood_lines_ < k_flood || now - flood_said_ < k_flood_said_every) return;
  flood_said_ = now;
  carry_out(Emit{"log_flood",
                 "the daemon's output has more than " + std::to_string(k_flood) +
                     " unknown lines a second; they are read and dropped, look at " +
                     layout_.log.string(),
                 {}});
}

}  // namespace mps::instance
