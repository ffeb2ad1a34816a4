// What an administrator says about containers by hand. Threading: stateless, any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "identity/runtime_record.h"

namespace mps::identity {

// What the file says of the container, else of the pod; none where it says nothing, or there is no
// such file. An Error where the file is not believed or has anything wrong in that entry.
Result<std::optional<Record>> find_override(const std::filesystem::path& file, uid_t owner,
                                            const std::string& container_id,
                                            const std::string& pod_uid);

// Pure.
Result<std::optional<Record>> parse_overrides(std::string_view text,
                                              const std::string& container_id,
                                              const std::string& pod_uid);

}  // namespace mps::identity
