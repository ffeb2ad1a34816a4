#include "fault/book.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "fault/book_kit.h"
#include "fault/incident_json.h"

using namespace mps;
using namespace mps::fault;
using namespace mps::fault::test;

TEST_CASE("an incident as JSON and back") {
  const auto one = incident(12);
  REQUIRE(one.suspects.size() == 3);
  REQUIRE(one.culprits.size() == 1);
  const auto back = incident_from(nlohmann::json::parse(to_json(one).dump()));
  REQUIRE(back.has_value());
  CHECK(*back == one);
  Watched open;
  open.on(Wedged{"x"}, 0);
  CHECK(*incident_from(to_json(open.one())) == open.one());
  auto wrong = to_json(one);
  wrong["kind"] = "sabotage";
  CHECK(incident_from(wrong).error().message == "lacks what an incident has");
  const auto brief = brief_json(one);
  CHECK(brief["durations"] == nlohmann::json::parse(R"({"noticedMs": 0, "attributedMs": 1,
                                                            "servingMs": 100, "firstServedMs": null})"));
  CHECK_FALSE(brief.contains("victims"));
}

TEST_CASE("incidents of earlier versions, which say less") {
  auto old = to_json(incident(12));
  for (const char* key : {"happened", "othersPossible", "firstServed", "firstServedPid"}) {
    old.erase(key);
  }
  const auto back = incident_from(old);
  REQUIRE(back.has_value());
  CHECK(back->happened == back->noticed);
  CHECK_FALSE(back->others_possible);
  CHECK_FALSE(back->first_served);
  CHECK_FALSE(back->read_to);
}

TEST_CASE("what is not known of a client is null, and stays so") {
  ClientFacts facts;
  facts.pid = 7;
  const auto json = to_json(facts);
  CHECK(json["uid"].is_null());
  CHECK(json["limits"]["activeThreadPercentage"].is_null());
  CHECK(json["since"].is_null());
  CHECK(client_from(json) == facts);
}

TEST_CASE("how far the log counts is kept in the book, and shown to nobody") {
  auto one = incident(12);
  one.read_to = LogPlace{"5-1.2", 4711};
  one.first_served = FirstServed{9, at(150)};
  one.others_possible = true;
  CHECK_FALSE(to_json(one).contains("readTo"));
  CHECK(*incident_from(record_json(one)) == one);
  CHECK(brief_json(one)["durations"]["firstServedMs"] == 150);
}

TEST_CASE("what was recorded is there after a restart") {
  Folder folder;
  std::deque<Incident> before;
  {
    auto opened = open(folder);
    fill(opened.book);
    before = opened.book.incidents();
  }
  struct stat status {};
  ::stat(folder.file().c_str(), &status);
  CHECK((status.st_mode & 0777) == 0600);
  const auto after = open(folder);
  CHECK(after.problems.empty());
  CHECK_FALSE(after.torn);
  CHECK(after.book.incidents() == before);
  CHECK(after.book.quarantine().entries.at(4) == k_entry);
  CHECK(after.book.quarantine().faults.size() == 1);
  CHECK(after.book.quarantine().next == 5);
}

TEST_CASE("numbers are never used twice") {
  Folder folder;
  std::set<std::uint64_t> used;
  for (int restart = 0; restart < 20; ++restart) {
    auto opened = open(folder, {4, 1 << 20, 2000, 1 << 24});
    for (int i = 0; i < restart; ++i) {
      const auto number = opened.book.next_number();
      CHECK(used.insert(number).second);
      if (i % 2 == 0) CHECK(opened.book.record(incident(number)));
    }
  }
  CHECK(used.size() == 190);
}

TEST_CASE("the history is bounded") {
  Folder folder;
  auto opened = open(folder, {4, 1 << 20, 20000, 1 << 24});
  for (std::uint64_t number = 1; number <= 50; ++number) {
    CHECK(opened.book.record(incident(number)));
    rewrite(opened.book);
  }
  CHECK(opened.book.incidents().size() == 4);
  CHECK(opened.book.incidents().front().number == 47);
  CHECK(folder.text().size() < 100000);
  const auto line = to_json(incident(50)).dump().size();
  Folder other;
  auto by_size = open(other, {256, 3 * line, 20000, 1 << 24});
  for (std::uint64_t number = 1; number <= 9; ++number) {
    CHECK(by_size.book.record(incident(number)));
  }
  CHECK(by_size.book.incidents().size() == 2);
  CHECK(open(other, {1, 1 << 20, 20000, 1 << 24}).book.incidents().size() == 1);
}

TEST_CASE("an incident that changes is there once") {
  Folder folder;
  auto opened = open(folder);
  auto one = incident(3);
  CHECK(opened.book.record(one));
  CHECK(opened.book.record(incident(5)));
  one.cause = "another one";
  CHECK(opened.book.record(one));
  CHECK(opened.book.incidents().size() == 2);
  const auto again = open(folder);
  CHECK(again.book.incidents().front().cause == "another one");
}

TEST_CASE("a book that was cut short or garbled at any place") {
  Folder folder;
  {
    auto opened = open(folder);
    fill(opened.book, small_incident);
  }
  const auto whole = folder.text();
  const auto known = open(folder).book.incidents();
  const auto check_known = [&known](const Book& book) {
    for (const auto& one : book.incidents()) {
      CHECK(std::find(known.begin(), known.end(), one) != known.end());
    }
  };
  for (std::size_t cut = 0; cut < whole.size(); cut += 3) {
    folder.write(whole.substr(0, cut));
    const auto opened = Book::open(folder.file());
    if (!opened) FAIL("cut at " << cut);
    const bool at_line_end = cut == 0 || whole[cut - 1] == '\n';
    if (opened->torn == at_line_end || opened->damaged_lines != 0) FAIL("cut at " << cut);
    check_known(opened->book);
  }
  for (std::size_t at = 0; at < whole.size(); at += 3) {
    auto garbled = whole;
    garbled[at] = garbled[at] == '#' ? '%' : '#';
    folder.write(garbled);
    auto opened = Book::open(folder.file());
    if (!opened) FAIL("garbled at " << at);
    // A line end that is gone makes two lines one; at the very end, one that is torn.
    if (opened->damaged_lines + (opened->torn ? 1 : 0) != 1) FAIL("garbled at " << at);
    if (opened->book.incidents().size() + 2 < known.size()) FAIL("garbled at " << at);
    if (opened->book.next_number() <= known.back().number) FAIL("garbled at " << at);
    check_known(opened->book);
  }
}

TEST_CASE("what is damaged is said, and written anew with the next record") {
  Folder folder;
  {
    auto opened = open(folder);
    fill(opened.book);
  }
  auto text = folder.text();
  folder.write("rubbish\n" + text + "half a li");
  auto opened = open(folder);
  CHECK(opened.problems == std::vector<Book::Opened::Problem>{{1, "is damaged"}});
  CHECK(opened.torn);
  CHECK(opened.book.incidents().size() == 3);
  CHECK(opened.book.record(incident(opened.book.next_number())));
  const auto again = open(folder);
  CHECK(again.problems.empty());
  CHECK_FALSE(again.torn);
  CHECK(again.book.incidents().size() == 4);
  CHECK(again.book.quarantine().entries.size() == 1);
  CHECK(again.book.quarantine().faults.size() == 1);
}

TEST_CASE("a damaged file is kept as it was, one at a time") {
  Folder folder;
  const auto aside = folder.path / "faults.log.damaged";
  const auto kept_text = [&aside] {
    std::ifstream in(aside);
    std::stringstream all;
    all << in.rdbuf();
    return all.str();
  };
  {
    auto opened = open(folder);
    fill(opened.book);
  }
  const auto whole = folder.text();
  folder.write(whole + "half a li");
  CHECK(open(folder).kept.empty());  // a crash leaves that
  CHECK_FALSE(std::filesystem::exists(aside));
  for (const std::string damage : {"first\n", "second\n"}) {
    folder.write(damage + whole);
    const auto damaged = folder.text();
    CHECK(open(folder).kept == aside);
    auto opened = open(folder);  // killed before it was written anew, and started again
    CHECK(opened.kept == aside);
    CHECK(opened.not_kept.empty());
    CHECK(opened.book.record(incident(opened.book.next_number())));
    CHECK(kept_text() == damaged);
    CHECK(folder.text() != damaged);
    CHECK(open(folder).damaged_lines == 0);
  }
  std::filesystem::remove(aside);
  std::filesystem::create_directory(aside);
  folder.write("third\n" + whole);
  const auto opened = open(folder);
  CHECK(opened.kept.empty());
  CHECK(opened.not_kept == "rename " + aside.string() + ".new: Is a directory");
  CHECK_FALSE(std::filesystem::exists(aside.string() + ".new"));
}

TEST_CASE("on a full disk nothing is lost but what is not written when the process ends") {
  Folder folder;
  auto opened = open(folder);
  auto& book = opened.book;
  CHECK(book.record(incident(book.next_number())));
  {
    const NoRoom no_room(folder.text().size() + 100);
    const auto failed = book.record(incident(book.next_number()));
    REQUIRE_FALSE(failed);
    CHECK(failed.error().message ==
          "write " + folder.file().string() + ": No space left on device");
    CHECK(book.incidents().size() == 2);
    CHECK(open(folder).problems.empty());
    CHECK_FALSE(book.record(std::vector<QuarantineChange>{EntryMade{k_entry}}));
  }
  CHECK(book.record(incident(book.next_number())));
  const auto again = open(folder);
  CHECK(again.book.incidents().size() == 3);
  CHECK(again.book.quarantine().entries.size() == 1);
}

TEST_CASE("a file that is not ours to use") {
  Folder folder;
  std::filesystem::create_directory(folder.file());
  CHECK(Book::open(folder.file()).error().message ==
        "open " + folder.file().string() + ": Is a directory");
  std::filesystem::remove(folder.file());
  folder.write(std::string(3 << 20U, 'x'));
  CHECK(Book::open(folder.file(), {4, 1 << 20, 1000, 2 << 20}).error().message ==
        folder.file().string() + ": too large for a history of faults, more than 2Mi");
}
