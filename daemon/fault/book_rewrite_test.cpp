#include "fault/book_rewrite.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "fault/book.h"
#include "fault/book_kit.h"

using namespace mps;
using namespace mps::fault;
using namespace mps::fault::test;

namespace {

// From few bytes on; the last few incidents are kept.
constexpr BookSettings k_small{4, 1 << 20, 1000, 1 << 24};

// What a book says, as another one reads it from the file.
void check_read_again(const Folder& folder, const Book& book) {
  const auto again = open(folder, k_small);
  CHECK(again.problems.empty());
  CHECK_FALSE(again.torn);
  CHECK(again.book.incidents() == book.incidents());
  CHECK(again.book.quarantine() == book.quarantine());
  CHECK(again.book.devices_out() == book.devices_out());
}

std::filesystem::path beside(const Folder& folder) {
  return folder.file().string() + ".rewrite";
}

// A book most of whose file is of the past: three of one incident's lines count for nothing.
struct OfThePast {
  OfThePast() {
    fill(book);
    const FaultCounted counted{{8, 1, 7, 70, {"team-a", "", "x"}, at(1)}};
    auto entry = k_entry;
    entry.number = 5;
    CHECK(book.record(QuarantineChanges{counted, EntryMade{entry}}));  // which spends it
    const auto last = incident(book.next_number());
    for (int i = 0; i < 4; ++i) CHECK(book.record(last));
  }
  std::shared_ptr<Rewrite> begin() {
    auto work = book.begin_rewrite();
    REQUIRE(work);
    return work;
  }

  Folder folder;
  Book book = open(folder, k_small).book;
};

}  // namespace

TEST_CASE_FIXTURE(OfThePast, "it is time to write anew when most of the file is of the past") {
  const Folder other;
  CHECK_FALSE(open(other, k_small).book.begin_rewrite());
  const auto before = folder.text().size();
  CHECK(rewrite(book));
  CHECK(folder.text().size() < before);
  check_read_again(folder, book);
  CHECK_FALSE(book.begin_rewrite());
  CHECK_FALSE(std::filesystem::exists(beside(folder)));
}

TEST_CASE_FIXTURE(OfThePast, "what is recorded while the file is written anew is in it") {
  const auto work = begin();
  CHECK_FALSE(book.begin_rewrite());  // one at a time
  CHECK(book.record(incident(book.next_number())));
  auto changed = book.incidents().front();
  changed.cause = "another one";
  CHECK(book.record(changed));
  work->run();
  CHECK(book.record(QuarantineChanges{FaultCounted{{9, 1, 7, 70, {"team-b", "", "y"}, at(2)}}}));
  CHECK(book.record(DeviceChanges{DeviceTakenOut{{.device = "GPU-1", .gpu = "GPU-1"}}}));
  Folder after_a_crash;
  after_a_crash.write(folder.text());
  check_read_again(after_a_crash, book);
  CHECK(book.finish_rewrite(*work));
  check_read_again(folder, book);
}

TEST_CASE("lines that moved are copied from where they are") {
  Folder folder;
  auto opened = open(folder, k_small);
  auto& book = opened.book;
  int rewrites = 0;
  for (int i = 0; i < 200; ++i) {
    const auto number = book.next_number();
    CHECK(book.record(incident(number)));
    if (const auto work = book.begin_rewrite()) {
      CHECK(book.record(incident(book.next_number())));
      work->run();
      CHECK(book.record(incident(number)));
      CHECK(book.finish_rewrite(*work));
      check_read_again(folder, book);
      ++rewrites;
    }
  }
  CHECK(rewrites > 5);
}

TEST_CASE_FIXTURE(OfThePast,
                  "what a failed write made anew itself is not replaced by an older file") {
  const auto work = begin();
  work->run();
  {
    const NoRoom no_room(folder.text().size() + 10);
    CHECK_FALSE(book.record(incident(book.next_number())));
  }
  CHECK(book.record(incident(book.next_number())));  // and with it what was not
  CHECK(book.finish_rewrite(*work));
  check_read_again(folder, book);
}

TEST_CASE_FIXTURE(OfThePast,
                  "a rewrite that fails leaves the file as it was, and is tried again later") {
  std::filesystem::create_directory(beside(folder));
  const auto before = folder.text();
  const auto work = begin();
  work->run();
  const auto done = book.finish_rewrite(*work);
  REQUIRE_FALSE(done);
  CHECK(done.error().message == "open " + beside(folder).string() + ": File exists");
  CHECK(folder.text() == before);
  CHECK_FALSE(book.begin_rewrite());
  std::filesystem::remove(beside(folder));
  while (!rewrite(book)) CHECK(book.record(incident(book.next_number())));
  check_read_again(folder, book);
}

TEST_CASE_FIXTURE(OfThePast, "without room the file stays, and the new one goes") {
  const auto work = begin();
  {
    const NoRoom no_room(2000);
    work->run();
  }
  const auto done = book.finish_rewrite(*work);
  REQUIRE_FALSE(done);
  CHECK(done.error().message == "write " + beside(folder).string() + ": No space left on device");
  check_read_again(folder, book);
}

TEST_CASE("what a crash left of one is removed") {
  Folder folder;
  std::ofstream(beside(folder)) << "half a fi";
  CHECK(open(folder).problems.empty());
  CHECK_FALSE(std::filesystem::exists(beside(folder)));
}
