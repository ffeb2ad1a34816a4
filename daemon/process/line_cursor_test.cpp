#include "process/line_cursor.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

using namespace mps::process;

namespace {

constexpr std::size_t k_limit = Follower::k_line_limit;

struct Seen {
  std::string text;
  std::uint64_t end_offset;
  bool cut;
  bool operator==(const Seen&) const = default;
};

// A file in memory that is read as FollowedFile reads: so much at once, from where the cursor says.
struct Reader {
  explicit Reader(std::string content, std::uint64_t offset = 0)
      : file(std::move(content)), cursor(offset) {}

  void read_all() {
    for (;;) {
      auto piece = file.substr(cursor.read_from(), LineCursor::k_read_size);
      std::vector<FollowedLine> lines;
      const bool more = cursor.take(piece, lines);
      CHECK(lines.size() <= LineCursor::k_batch);
      for (const auto& line : lines) {
        seen.push_back({std::string(line.text), line.end_offset, line.cut});
      }
      if (!lines.empty()) cursor.consume(lines.back().end_offset);
      if (!more) return;
    }
  }

  std::string file;
  LineCursor cursor;
  std::vector<Seen> seen;
};

std::string nuls(std::size_t count) {
  return std::string(count, '\0');
}

}  // namespace

TEST_CASE("lines have the offset of the next one; an unfinished one waits") {
  Reader reader("one\n\nthree\nfou");
  reader.read_all();
  CHECK(reader.seen == std::vector<Seen>{{"one", 4, false}, {"", 5, false}, {"three", 11, false}});
  CHECK(reader.cursor.consumed() == 11);
  reader.file += "r\n";
  reader.read_all();
  CHECK(reader.seen.back() == Seen{"four", 16, false});
}

TEST_CASE("many short lines come in batches, none lost") {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::to_string(i) + "\n";
  Reader reader(text);
  reader.read_all();
  REQUIRE(reader.seen.size() == 1000);
  CHECK(reader.seen[999].text == "999");
  CHECK(reader.seen[999].end_offset == text.size());
}

TEST_CASE("a line of the limit is whole, one byte more is cut, once") {
  const std::string longest(k_limit, 'a');
  Reader reader(longest + "\n" + longest + "b\nnext\n");
  reader.read_all();
  REQUIRE(reader.seen.size() == 3);
  CHECK(reader.seen[0] == Seen{longest, k_limit + 1, false});
  CHECK(reader.seen[1] == Seen{longest, 2 * k_limit + 3, true});
  CHECK(reader.seen[2].text == "next");
}

TEST_CASE("a far too long line is delivered when it ends, and its middle is not needed") {
  Reader reader("first\n" + std::string(5 * k_limit, 'x'));
  reader.read_all();
  CHECK(reader.seen.size() == 1);
  CHECK(reader.cursor.consumed() == 6);
  CHECK(reader.cursor.skipped_from() == 6 + k_limit + 1);
  CHECK(reader.cursor.read_from() == reader.file.size());
  reader.file += "x\nlast\n";
  reader.read_all();
  REQUIRE(reader.seen.size() == 3);
  CHECK(reader.seen[1].text == std::string(k_limit, 'x'));
  CHECK(reader.seen[1].cut);
  CHECK(reader.seen[1].end_offset == reader.file.size() - 5);
  CHECK(reader.seen[2] == Seen{"last", reader.file.size(), false});

  SUBCASE("a successor sees the same, with a hole in the middle of it") {
    const auto hole = k_limit + 100;
    Reader successor(reader.file, 6);
    successor.file.replace(hole, 3 * k_limit, nuls(3 * k_limit));
    successor.read_all();
    CHECK(successor.seen == std::vector<Seen>(reader.seen.begin() + 1, reader.seen.end()));
  }
}

TEST_CASE("NULs of holes are no part of a line, however many") {
  Reader reader(nuls(3 * k_limit) + "one\n" + nuls(10) + "tw" + nuls(2) + "o\n" + nuls(5));
  reader.read_all();
  REQUIRE(reader.seen.size() == 2);
  CHECK(reader.seen[0] == Seen{"one", 3 * k_limit + 4, false});
  CHECK(reader.seen[1].text == "two");
  CHECK(reader.cursor.consumed() == reader.file.size());
  reader.file += "three\n";
  reader.read_all();
  CHECK(reader.seen.back() == Seen{"three", reader.file.size(), false});
}

TEST_CASE("any beginning at an end_offset sees exactly the rest") {
  const std::string text =
      "a\n\nbc\n" + std::string(2 * k_limit, 'y') + "\nd\n" + nuls(70000) + "e\nf";
  Reader whole(text);
  whole.read_all();
  REQUIRE(whole.seen.size() == 6);
  for (std::size_t i = 0; i < whole.seen.size(); ++i) {
    Reader rest(text, whole.seen[i].end_offset);
    rest.read_all();
    CHECK(rest.seen == std::vector<Seen>(whole.seen.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                         whole.seen.end()));
  }
}

TEST_CASE("nothing gives nothing") {
  Reader reader("");
  reader.read_all();
  CHECK(reader.seen.empty());
  CHECK(reader.cursor.read_from() == 0);
}
