#include "log_pipe.h"

#include <fcntl.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace mps::sim {
namespace {

constexpr std::size_t k_longest_record = 4096;

LogRecord record_now(std::uint32_t role, pid_t pid, std::size_t length) {
  timeval now{};
  (void)::gettimeofday(&now, nullptr);
  tm parts{};
  (void)::localtime_r(&now.tv_sec, &parts);
  LogRecord record;
  record.role = role;
  record.pid = pid;
  record.year = parts.tm_year + 1900;
  record.month = parts.tm_mon + 1;
  record.day = parts.tm_mday;
  record.weekday = parts.tm_wday;
  record.hour = parts.tm_hour;
  record.minute = parts.tm_min;
  record.second = parts.tm_sec;
  record.millisecond = static_cast<std::int32_t>(now.tv_usec / 1000);
  record.length = length;
  return record;
}

bool read_exactly(int file, char* into, std::size_t size) {
  while (size > 0) {
    const ssize_t count = ::read(file, into, size);
    if (count <= 0) return false;
    into += count;
    size -= static_cast<std::size_t>(count);
  }
  return true;
}

void write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(file, text.data(), text.size());
    if (count <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

const char* role_name(std::uint32_t role) {
  return role == static_cast<std::uint32_t>(Role::k_control) ? "Control" : "Other";
}

}  // namespace

std::string log_line(const LogRecord& record, std::string_view text) {
  std::array<char, 128> prefix{};
  const int size =
      std::snprintf(prefix.data(), prefix.size(), "[%04d-%02d-%02d %02d:%02d:%02d.%03d %s %5d] ",
                    record.year, record.month, record.day, record.hour, record.minute,
                    record.second, record.millisecond, role_name(record.role), record.pid);
  std::string line(prefix.data(), static_cast<std::size_t>(std::max(size, 0)));
  line += text;
  if (!line.ends_with('\n')) line += '\n';
  return line;
}

LogWriter::LogWriter(const std::string& directory, Role role)
    : fifo_(::open((directory + "/log").c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)), role_(role) {
  if (fifo_) (void)::fcntl(fifo_.get(), F_SETFL, 0);
}

void LogWriter::write_record(std::uint32_t role, pid_t pid, std::string_view text) const {
  if (!fifo_) return;
  text = text.substr(0, k_longest_record - sizeof(LogRecord));
  const LogRecord record = record_now(role, pid, text.size());
  // One write of at most PIPE_BUF bytes, so that records of several writers never mix.
  std::string bytes(reinterpret_cast<const char*>(&record), sizeof record);
  bytes += text;
  write_all(fifo_.get(), bytes);
}

void LogWriter::say(std::string_view text) const {
  say_as(::getpid(), text);
}

void LogWriter::say_as(pid_t pid, std::string_view text) const {
  write_record(static_cast<std::uint32_t>(role_), pid, text);
}

void LogWriter::end() const {
  write_record(k_end_of_log, ::getpid(), {});
}

void copy_log(int fifo, int control_output, int server_output) {
  LogRecord record;
  std::string text;
  while (read_exactly(fifo, reinterpret_cast<char*>(&record), sizeof record)) {
    if (record.role == k_end_of_log || record.length > k_longest_record) return;
    text.resize(record.length);
    if (!read_exactly(fifo, text.data(), text.size())) return;
    const bool is_control = record.role == static_cast<std::uint32_t>(Role::k_control);
    write_all(is_control ? control_output : server_output, log_line(record, text));
  }
}

}  // namespace mps::sim
