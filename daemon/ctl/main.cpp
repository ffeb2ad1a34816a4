#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "ctl/cli.h"

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const int status = mps::ctl::run(arguments, std::cout, std::cerr);
    std::cout.flush();
    if (std::cout.good() || status != 0) return status;
    std::cerr << "mps-ctl: cannot write the output\n";
  } catch (const std::exception& failure) {
    std::cerr << "mps-ctl: " << failure.what() << "\n";
  }
  return 1;
}
