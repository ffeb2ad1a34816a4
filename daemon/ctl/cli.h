// mps-ctl without main(): arguments in, text and an exit status out.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace mps::ctl {

// 0 done, 1 failed, 2 usage, 3 the supervisor is not reachable. `arguments` without the program.
int run(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err);

}  // namespace mps::ctl
