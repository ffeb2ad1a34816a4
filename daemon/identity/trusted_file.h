// Files whose word is taken: regular, with one owner that nobody else can write in place of.
// Threading: stateless, any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mps::identity {

// None where there is no such file. An Error, with the file's name in front, where it is a symbolic
// link or anything else but a regular file, belongs to somebody else, others may write to it, or it
// is longer than `limit`. Judged on the open file, so it cannot be exchanged in between.
Result<std::optional<std::string>> read_trusted(const std::filesystem::path& file,
                                                std::size_t limit, uid_t owner);

// An Error where it is no JSON, or nested deeper than anything that is read here.
Result<nlohmann::json> parse_json(std::string_view text);

}  // namespace mps::identity
