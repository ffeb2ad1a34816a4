#include "app/settings_fields.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/text.h"

namespace mps::app {
namespace {

constexpr std::size_t k_path_limit = 4096;
constexpr std::size_t k_name_limit = 96;
constexpr std::size_t k_device_limit = 256;
constexpr unsigned k_index_limit = 255;
constexpr std::string_view k_letters_and_digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

bool only_of(std::string_view text, std::string_view more) {
  return std::all_of(text.begin(), text.end(), [more](char character) {
    return k_letters_and_digits.find(character) != std::string_view::npos ||
           more.find(character) != std::string_view::npos;
  });
}

bool has_control_characters(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char character) {
    const auto byte = static_cast<unsigned char>(character);
    return byte < 0x20 || byte == 0x7f;
  });
}

bool is_address(int family, std::string_view text) {
  std::array<unsigned char, sizeof(in6_addr)> address{};
  return inet_pton(family, std::string(text).c_str(), address.data()) == 1;
}

// What has been declared so far, to say which of two is the second.
struct Declared {
  std::map<std::string, std::size_t> uuids;
  std::map<std::pair<unsigned, int>, std::size_t> places;
};

struct DeviceFields {
  std::optional<Field> uuid, index, mig_index;
};

void read_uuid(Reader& reader, const Field& field, device::Device& out) {
  constexpr std::string_view what =
      "must be GPU- or MIG- and then letters, digits, \"-\" and \"/\"";
  const auto word = reader.text(field, what);
  if (!word) return;
  const bool mig = word->starts_with("MIG-");
  if ((!mig && !word->starts_with("GPU-")) || word->size() < 5 || word->size() > k_name_limit ||
      !only_of(*word, "-/")) {
    return reader.fail(field, what);
  }
  out.uuid = *word;
  out.kind = mig ? device::Kind::mig : device::Kind::gpu;
}

void read_name(Reader& reader, const Field& field, std::string& out) {
  const auto what = "must be a name of at most " + std::to_string(k_name_limit) + " bytes";
  const auto word = reader.text(field, what);
  if (!word) return;
  if (word->empty() || word->size() > k_name_limit || has_control_characters(*word)) {
    return reader.fail(field, what);
  }
  out = *word;
}

DeviceFields read_device_fields(Reader& reader, const Field& entry, device::Device& out) {
  DeviceFields seen;
  const auto read_mig_index = [&](const Field& f) {
    seen.mig_index = f;
    unsigned value = 0;
    if (reader.whole_number(f, 0, k_index_limit, value)) out.mig_index = value;
  };
  const auto read_memory = [&](const Field& f) {
    if (const auto value = reader.mebibytes(f)) out.memory_mebibytes = *value;
  };
  reader.read_mapping(
      entry, {{"uuid", [&](const Field& f) { read_uuid(reader, *(seen.uuid = f), out); }},
              {"index",
               [&](const Field& f) {
                 seen.index = f;
                 reader.whole_number(f, 0, k_index_limit, out.index);
               }},
              {"migIndex", read_mig_index},
              {"memory", read_memory},
              {"smCount", [&](const Field& f) { reader.whole_number(f, 1, 4096, out.sm_count); }},
              {"name", [&](const Field& f) { read_name(reader, f, out.name); }}});
  return seen;
}

std::string twice(std::size_t first) {
  return "given twice, first in devices[" + std::to_string(first) + "]";
}

void check_device(Reader& reader, const Field& entry, const DeviceFields& seen,
                  const device::Device& device, std::size_t number, Declared& declared) {
  if (!entry.node->is_mapping()) return;
  if (!seen.uuid) reader.fail(entry, "must have a uuid");
  if (!seen.index) reader.fail(entry, "must have an index");
  const bool mig = device.kind == device::Kind::mig;
  if (mig && !seen.mig_index) reader.fail(entry, "must have a migIndex, as it is a MIG device");
  if (!device.uuid.empty() && !mig && seen.mig_index) {
    reader.fail(*seen.mig_index, "is for MIG devices alone");
  }
  if (!device.uuid.empty()) {
    const auto [first, fresh] = declared.uuids.try_emplace(device.uuid, number);
    if (!fresh) reader.fail(*seen.uuid, twice(first->second));
  }
  if (seen.index && (!mig || device.mig_index)) {
    const int within = device.mig_index ? static_cast<int>(*device.mig_index) : -1;
    const auto [first, fresh] = declared.places.try_emplace({device.index, within}, number);
    if (!fresh) reader.fail(mig ? *seen.mig_index : *seen.index, twice(first->second));
  }
}

}  // namespace

std::string path_problem(std::string_view path) {
  if (!path.starts_with('/')) return "must be an absolute path";
  if (path.size() > k_path_limit) {
    return "must not be longer than " + std::to_string(k_path_limit) + " bytes";
  }
  if (has_control_characters(path)) return "must not have control characters in it";
  const std::filesystem::path parts(path);
  if (std::find(parts.begin(), parts.end(), "..") != parts.end())
    return "must not have \"..\" in it";
  return {};
}

std::string listen_address_problem(std::string_view address) {
  constexpr std::string_view what =
      "must be an address and a port, such as 127.0.0.1:9464 or [::1]:9464, or off";
  if (address.empty()) return {};
  const auto colon = address.rfind(':');
  if (colon == std::string_view::npos) return std::string(what);
  auto host = address.substr(0, colon);
  const bool six = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (six) host = host.substr(1, host.size() - 2);
  if (!parse_number<std::uint16_t>(address.substr(colon + 1)) ||
      !is_address(six ? AF_INET6 : AF_INET, host)) {
    return std::string(what);
  }
  return {};
}

void read_path(Reader& reader, const Field& field, std::filesystem::path& out) {
  const auto word = reader.text(field, "must be an absolute path");
  if (!word) return;
  if (const auto problem = path_problem(*word); !problem.empty())
    return reader.fail(field, problem);
  auto path = std::filesystem::path(*word).lexically_normal();
  out = path.has_filename() ? path : path.parent_path();
}

void read_optional_path(Reader& reader, const Field& field, std::filesystem::path& out) {
  if (field.node->is_scalar() && field.node->text.empty()) {
    out.clear();
    return;
  }
  read_path(reader, field, out);
}

void read_group(Reader& reader, const Field& field, std::string& out) {
  constexpr std::string_view what = "must be the name of a group, or its number";
  const auto word = reader.text(field, what);
  if (!word) return;
  if (word->empty() || word->size() > 32 || word->front() == '-' || !only_of(*word, "._-")) {
    return reader.fail(field, what);
  }
  out = *word;
}

void read_library(Reader& reader, const Field& field, std::string& out) {
  constexpr std::string_view what = "must be the name of a library, or an absolute path";
  const auto word = reader.text(field, what);
  if (!word) return;
  const bool is_name = word->find('/') == std::string::npos && !word->empty() &&
                       word->size() <= k_name_limit && !has_control_characters(*word);
  if (!is_name && !path_problem(*word).empty()) return reader.fail(field, what);
  out = *word;
}

void read_listen_address(Reader& reader, const Field& field, std::string& out) {
  const std::string no_text = "no text";
  const auto word = reader.text(field, listen_address_problem(no_text));
  if (!word) return;
  const auto address = *word == "off" ? std::string() : *word;
  if (const auto problem = listen_address_problem(address); !problem.empty()) {
    return reader.fail(field, problem);
  }
  out = address;
}

void read_devices(Reader& reader, const Field& field,
                  std::optional<std::vector<device::Device>>& out) {
  constexpr std::string_view what = "must be auto or a list of devices";
  if (field.node->is_scalar() && field.node->text == "auto") {
    out.reset();
    return;
  }
  std::vector<device::Device> devices;
  Declared declared;
  const bool is_list = reader.read_list(field, what, k_device_limit, [&](const Field& entry) {
    auto& device = devices.emplace_back();
    device.declared = true;
    const auto seen = read_device_fields(reader, entry, device);
    check_device(reader, entry, seen, device, devices.size() - 1, declared);
  });
  if (!is_list) return;
  if (devices.empty()) return reader.fail(field, "must name a device, or be auto");
  out = std::move(devices);
}

}  // namespace mps::app
