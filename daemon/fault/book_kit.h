// A book in a folder of its own, and what it is filled with.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/no_room_kit.h"
#include "fault/book.h"
#include "fault/tracker_kit.h"

namespace mps::fault::test {

using mps::test::NoRoom;

struct Folder {
  Folder() {
    std::string name = "/tmp/fault-book-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::filesystem::path file() const { return path / "faults.log"; }
  [[nodiscard]] std::string text() const {
    std::ifstream in(file());
    std::stringstream all;
    all << in.rdbuf();
    return all.str();
  }
  void write(const std::string& text) const { std::ofstream(file()) << text; }
  std::filesystem::path path;
};

inline Book::Opened open(const Folder& folder, BookSettings settings = {}) {
  auto opened = Book::open(folder.file(), settings);
  REQUIRE(opened.has_value());
  return *std::move(opened);
}

inline Incident incident(std::uint64_t number) {
  Watched watched;
  watched.number = number - 1;
  watched.clients({7, 8, 9})
      .on(FatalFaultLogged{41}, 0)
      .on(CulpritNamed{8}, 1)
      .on(CulpritNamed{99}, 2)
      .on(XidReported{31}, 3)
      .on(ServerEnded{41, "was killed", false}, 4)
      .on(ActionReported{RecoveryAction::none}, 5)
      .on(StepTaken{"close the door", "done"}, 6)
      .on(FatalFaultLogged{41}, 7)
      .on(Serving{}, 100);
  return watched.incidents.at(number);
}

inline const Entry k_entry{4, {"team-a", "", ""}, 3, at(0), at(5000), "3 faults", ""};

// So short that a file of them can be tried at every third of its bytes.
inline Incident small_incident(std::uint64_t number) {
  Watched watched;
  watched.number = number - 1;
  watched.on(Wedged{"x"}, 0);
  return watched.incidents.at(number);
}

inline void fill(Book& book, Incident (*make)(std::uint64_t) = incident) {
  for (int i = 0; i < 3; ++i) CHECK(book.record(make(book.next_number())));
  const QuarantineChanges changes{FaultCounted{{1, 1, 7, 70, {"team-b", "", "x"}, at(1)}},
                                  EntryMade{k_entry}};
  CHECK(book.record(changes));
}

// As its owner does, on its thread; false: it is not time to.
inline bool rewrite(Book& book) {
  const auto work = book.begin_rewrite();
  if (!work) return false;
  work->run();
  CHECK(book.finish_rewrite(*work));
  return true;
}

}  // namespace mps::fault::test
