#include "ctl/table.h"

#include <doctest/doctest.h>

using mps::ctl::Table;
using mps::ctl::to_text;

TEST_CASE("columns are aligned, and no line ends with a blank") {
  CHECK(to_text(
            Table{{"ID", "STATE", "ERROR"},
                  {{"gpu0.shared", "ready", ""}, {"gpu1.ns-a", "draining", "x"}, {"é", "", ""}}}) ==
        "ID           STATE     ERROR\n"
        "gpu0.shared  ready     -\n"
        "gpu1.ns-a    draining  x\n"
        "é            -         -\n");
  CHECK(to_text(Table{{"ID", "STATE"}, {}}) == "ID  STATE\n");
}

TEST_CASE("what comes from outside stays in its cell") {
  CHECK(to_text(Table{{"A", "B"}, {{"a\nb\x1b[2J", "c  "}}}) ==
        "A              B\n"
        "a\\x0ab\\x1b[2J  c\n");
}

TEST_CASE("a row that is too long or too short harms nobody") {
  CHECK(to_text(Table{{"A", "B"}, {{"1", "2", "3"}, {"4"}}}) == "A  B\n1  2  3\n4\n");
}
