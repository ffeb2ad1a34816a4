// The settings' values that have rules of their own; the checks that flags need too are plain
// functions of text.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "yaml/reader.h"

namespace mps::app {

using yaml::Field;
using yaml::Reader;

// Why the value will not do ("must be …"); empty: it will.
std::string path_problem(std::string_view path);
std::string listen_address_problem(std::string_view address);

void read_path(Reader& reader, const Field& field, std::filesystem::path& out);
// "" too.
void read_optional_path(Reader& reader, const Field& field, std::filesystem::path& out);
void read_group(Reader& reader, const Field& field, std::string& out);
void read_library(Reader& reader, const Field& field, std::string& out);
void read_listen_address(Reader& reader, const Field& field, std::string& out);
// auto (none), or a list of {uuid, index, memory, smCount, name, migIndex}.
void read_devices(Reader& reader, const Field& field,
                  std::optional<std::vector<device::Device>>& out);

}  // namespace mps::app
