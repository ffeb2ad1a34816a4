// A value or an Error: what every function returns that can fail for a reason outside the program.
// Exceptions are kept for broken invariants and for what Asio throws.
#pragma once

#include <boost/system/result.hpp>
#include <initializer_list>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace mps {

// What went wrong, in one sentence for a person: where, what, and what to do.
struct Error {
  std::string message;

  Error() = default;

  // Only with braces, Error{"…"}: were a plain string enough to make an Error, a
  // Result<std::string> could not tell a value from one.
  Error(std::initializer_list<std::string> text) : message(*text.begin()) {}

  // "open /run/mps/x: Permission denied", from errno.
  static Error from_errno(std::string_view what, int error_number);

  // The same error, with what was being done put in front: "starting gpu0.shared: …".
  [[nodiscard]] Error in(std::string_view context) const {
    return Error{std::string(context) + ": " + message};
  }

  bool operator==(const Error&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const Error& error) {
    return out << error.message;
  }
};

[[noreturn]] inline void throw_exception_from_error(const Error& error,
                                                    const boost::source_location&) {
  throw std::runtime_error(error.message);
}

template <typename T>
using Result = boost::system::result<T, Error>;

}  // namespace mps
