#include "fault/book.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/checked_line.h"
#include "base/text.h"
#include "fault/incident_json.h"
#include "fault/out_of_service_json.h"
#include "fault/quarantine_json.h"

namespace mps::fault {

namespace {

using nlohmann::json;

constexpr std::size_t k_line_limit = 2 * 1024 * std::size_t{1024};
constexpr std::size_t k_problem_limit = 100;
// Numbers are told of before they are used, so many at a time: one that is never written down,
// since the disk was full, is not used again.
constexpr std::uint64_t k_reserve = 8;

std::string line_of(const json& value) {
  return checked_line(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

std::string line_of(const Incident& incident) {
  return line_of(json{{"incident", record_json(incident)}});
}

// A second name for it: that needs no room, and what it is written anew as is another file.
Result<std::filesystem::path> keep_damaged(const std::filesystem::path& path) {
  const auto kept = path.string() + ".damaged";
  const auto fresh = kept + ".new";
  ::unlink(fresh.c_str());
  if (::link(path.c_str(), fresh.c_str()) != 0) return Error::from_errno("link " + fresh, errno);
  const bool done = ::rename(fresh.c_str(), kept.c_str()) == 0;
  const auto error = errno;
  ::unlink(fresh.c_str());  // is there still where both were the same file already
  if (!done) return Error::from_errno("rename " + fresh, error);
  return std::filesystem::path(kept);
}

}  // namespace

Book::Book(std::filesystem::path path, BookSettings settings, AppendFile file)
    : path_(std::move(path)), settings_(settings), file_(std::move(file)) {}

Result<Book::Opened> Book::open(const std::filesystem::path& path, BookSettings settings) {
  auto file = AppendFile::open(path, settings.limit, "a history of faults");
  if (!file) return file.error();
  Opened opened{Book(path, settings, std::move(file->file)), {}, 0, {}, {}, false};
  auto& book = opened.book;
  ::unlink((path.string() + Rewrite::k_suffix).c_str());  // a crash may have left it
  std::string_view text = file->text;
  std::size_t number = 0;
  for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    ++number;
    if (const auto taken = book.take_line(text.substr(0, end), file->text.size() - text.size());
        !taken) {
      ++opened.damaged_lines;
      if (opened.problems.size() < k_problem_limit) {
        opened.problems.push_back({number, taken.error().message});
      }
    }
    text.remove_prefix(end + 1);
  }
  opened.torn = !text.empty();
  if (opened.damaged_lines != 0) {
    auto kept = keep_damaged(path);
    if (kept) opened.kept = *kept;
    if (!kept) opened.not_kept = kept.error().message;
  }
  // Each line that cannot be read may have told of as many numbers.
  const auto lost = opened.damaged_lines + (opened.torn ? 1 : 0);
  book.reserved_ += lost * k_reserve;
  book.quarantine_.next += lost;
  book.next_ = book.reserved_;
  book.fresh_size_ = settings.rewrite_from / 2;
  // To append to half a line would spoil what is appended.
  book.behind_ = lost != 0;
  return opened;
}

Result<void> Book::take_line(std::string_view line, std::uint64_t offset) {
  if (line.size() > k_line_limit) return Error{"is too long"};
  const auto text = checked_text(line);
  if (!text) return Error{"is damaged"};
  const auto value = json::parse(*text, nullptr, false);
  if (!value.is_object() || value.size() != 1) return Error{"is no line of this book"};
  const auto& kind = value.items().begin().key();
  const auto& what = value.items().begin().value();
  if (kind == "incident") {
    auto incident = incident_from(what);
    if (!incident) return incident.error();
    take(*incident, {offset, line.size() + 1});
    return {};
  }
  if (kind == "next") {
    if (!what.is_object() || !what.contains("incident") || !what.contains("entry") ||
        !what["incident"].is_number_unsigned() || !what["entry"].is_number_unsigned()) {
      return Error{"lacks what it should say"};
    }
    reserved_ = std::max(reserved_, what["incident"].get<std::uint64_t>());
    quarantine_.next = std::max(quarantine_.next, what["entry"].get<std::uint64_t>());
    return {};
  }
  if (is_device_change(kind)) {
    const auto change = device_change_from(kind, what);
    if (!change) return change.error();
    devices_out_.apply(*change);
    return {};
  }
  const auto change = quarantine_change_from(kind, what);
  if (!change) return change.error();
  quarantine_.apply(*change);
  return {};
}

void Book::take(const Incident& incident, LinePlace place) {
  reserved_ = std::max(reserved_, incident.number + 1);
  const auto at = std::lower_bound(
      incidents_.begin(), incidents_.end(), incident.number,
      [](const Incident& one, std::uint64_t number) { return one.number < number; });
  const auto line_at = lines_.begin() + (at - incidents_.begin());
  bytes_ += place.size;
  if (at != incidents_.end() && at->number == incident.number) {
    bytes_ -= line_at->size;
    *at = incident;
    *line_at = place;
  } else {
    lines_.insert(line_at, place);
    incidents_.insert(at, incident);
  }
  while (incidents_.size() > 1 &&
         (incidents_.size() > settings_.incidents || bytes_ > settings_.bytes)) {
    bytes_ -= lines_.front().size;
    lines_.pop_front();
    incidents_.pop_front();
  }
}

std::string Book::counters() const {
  return line_of(json{{"next", {{"incident", reserved_}, {"entry", quarantine_.next}}}});
}

// The counters come first and last, so that one damaged line does not lose them. Entries come
// before the faults: behind them, one would take those that it does not stand for with it.
std::string Book::head() const {
  std::string text = counters();
  for (const auto& [device, entry] : devices_out_.entries) {
    text += line_of(to_json(DeviceChange(DeviceTakenOut{entry})));
  }
  for (const auto& [gpu, said] : devices_out_.overruled) {
    text += line_of(to_json(DeviceChange(said)));
  }
  for (const auto& [number, entry] : quarantine_.entries) {
    text += line_of(to_json(EntryMade{entry}));
  }
  return text;
}

std::string Book::foot() const {
  std::string text;
  for (const auto& fault : quarantine_.faults) text += line_of(to_json(FaultCounted{fault}));
  return text + counters();
}

std::uint64_t Book::next_number() {
  const auto number = next_++;
  if (next_ > reserved_) {
    reserved_ = number + k_reserve;
    // Where it fails, the incident itself fails to be written, and that is said.
    (void)put(counters());
  }
  return number;
}

Result<void> Book::record(const Incident& incident) {
  const auto line = line_of(incident);
  take(incident, {file_.size(), line.size()});
  return put(line);
}

Result<void> Book::record(std::span<const QuarantineChange> changes) {
  if (changes.empty()) return {};
  std::string text;
  for (const auto& change : changes) {
    quarantine_.apply(change);
    text += line_of(to_json(change));
  }
  return put(text);
}

Result<void> Book::record(std::span<const DeviceChange> changes) {
  if (changes.empty()) return {};
  std::string text;
  for (const auto& change : changes) {
    devices_out_.apply(change);
    text += line_of(to_json(change));
  }
  return put(text);
}

Result<void> Book::put(const std::string& text) {
  if (behind_ || file_.size() + text.size() > settings_.limit) return write_anew();
  auto written = file_.append(text);
  behind_ = !written;
  return written;
}

Result<void> Book::write_anew() {
  behind_ = true;
  auto text = head();
  std::deque<LinePlace> lines;
  for (const auto& incident : incidents_) {
    const auto line = line_of(incident);
    lines.push_back({text.size(), line.size()});
    text += line;
  }
  text += foot();
  if (text.size() > settings_.limit) {
    return Error{path_.string() + ": the history does not fit into " +
                 format_mebibytes(settings_.limit >> 20U)};
  }
  if (auto written = file_.replace(text, AppendFile::Sync::yes); !written) return written;
  lines_ = std::move(lines);
  bytes_ = 0;
  for (const auto& line : lines_) bytes_ += line.size;
  fresh_size_ = text.size();
  behind_ = false;
  rewrite_is_stale_ = rewriting_;
  return {};
}

std::shared_ptr<Rewrite> Book::begin_rewrite() {
  const bool is_time = file_.size() > std::max(settings_.rewrite_from, 2 * fresh_size_);
  if (!is_time || behind_ || rewriting_) return nullptr;
  auto source = file_.handle();
  if (!source) return nullptr;  // no descriptor is free: it is asked for again
  Rewrite::Plan plan{path_, std::move(*source), file_.size(), head(), {}, foot()};
  for (std::size_t i = 0; i < incidents_.size(); ++i) {
    plan.incidents.emplace_hint(plan.incidents.end(), incidents_[i].number, lines_[i]);
  }
  rewriting_ = true;
  rewrite_is_stale_ = false;
  return std::make_shared<Rewrite>(std::move(plan));
}

Result<void> Book::finish_rewrite(Rewrite& rewrite) {
  rewriting_ = false;
  if (rewrite_is_stale_ || behind_) return {};
  auto done = put_in_place(rewrite);
  fresh_size_ = file_.size();  // where it has failed: again when there is twice as much
  return done;
}

Result<void> Book::put_in_place(Rewrite& rewrite) {
  auto& fresh = *rewrite.file_;
  if (!fresh) return fresh.error();
  const auto& plan = rewrite.plan_;
  const auto rest_size = static_cast<std::size_t>(file_.size() - plan.until);
  const auto rest = read_part(plan.source.get(), plan.until, rest_size, path_.string());
  if (!rest) return rest.error();
  const auto rest_at = fresh->size();
  if (auto written = fresh->append(*rest); !written) return written;
  if (auto done = file_.succeed(std::move(*fresh)); !done) return done;
  move_lines(rewrite, rest_at);
  return {};
}

void Book::move_lines(const Rewrite& rewrite, std::uint64_t rest_at) {
  const auto until = rewrite.plan_.until;
  for (std::size_t i = 0; i < incidents_.size(); ++i) {
    auto& offset = lines_[i].offset;
    offset =
        offset >= until ? rest_at + (offset - until) : rewrite.offsets_.at(incidents_[i].number);
  }
}

}  // namespace mps::fault
