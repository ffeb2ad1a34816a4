// mps-ctl as a test runs it.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "ctl/cli.h"

namespace mps::ctl::test {

struct Result {
  int status = 0;
  std::string out;
  std::string err;
};

inline Result run(const std::vector<std::string>& arguments) {
  std::ostringstream out;
  std::ostringstream err;
  const int status = ctl::run(arguments, out, err);
  return {status, out.str(), err.str()};
}

}  // namespace mps::ctl::test
