#include "app/opening_book.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "base/file.h"

namespace mps::app {

namespace asio = boost::asio;

namespace {

constexpr std::size_t k_store_limit = std::size_t{64} * 1024;

Lesson lesson_of(gate::Opening opening) {
  Lesson lesson;
  if (opening.forwardable) {
    lesson.opening = std::move(opening);
  } else {
    lesson.impossible = true;
    lesson.why = opening.why_not;
  }
  return lesson;
}

std::optional<gate::Opening> recall(const std::filesystem::path& store, const std::string& driver) {
  const auto text = read_file(store, k_store_limit);
  if (!text || text->empty()) return std::nullopt;
  auto opening = gate::from_store(*text);
  if (!opening || opening->driver != driver) return std::nullopt;
  return std::move(*opening);
}

}  // namespace

asio::awaitable<Lesson> learn_or_recall(gate::LearnSettings settings, std::filesystem::path store) {
  Lesson lesson;
  const auto driver = co_await gate::driver_identity(settings);
  if (!driver) {
    lesson.why = driver.error().message;
    co_return lesson;
  }
  if (!*driver) {
    lesson.impossible = true;
    lesson.why = "no libcuda.so.1 can be loaded";
    co_return lesson;
  }
  if (auto known = recall(store, **driver)) co_return lesson_of(std::move(*known));
  auto opening = co_await gate::learn_opening(settings);
  if (!opening) {
    lesson.why = opening.error().message;
    co_return lesson;
  }
  // Without it the next start learns again.
  if (const auto kept = replace_file(store, gate::to_store(*opening)); !kept) {
    spdlog::warn("{}", kept.error().message);
  }
  lesson = lesson_of(std::move(*opening));
  lesson.fresh = true;
  co_return lesson;
}

}  // namespace mps::app
