// What this room's tests share.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>  // mkdtemp()
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "base/result.h"

template <typename T>
struct doctest::StringMaker<boost::system::result<T, mps::Error>> {
  static String convert(const boost::system::result<T, mps::Error>& result) {
    return (result ? "a value" : "error: " + result.error().message).c_str();
  }
};

namespace mps::identity::testing {

inline const std::string k_id_a(64, 'a');
inline const std::string k_id_b =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
inline const std::string k_uid = "7a1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";
inline const std::string k_uid_ = "7a1c2d3e_4f50_6172_8394_a5b6c7d8e9f0";
inline const std::string k_static_uid = "00112233445566778899aabbccddeeff";

class TempFolder {
 public:
  TempFolder() {
    ::umask(022);  // what others may write to is not believed
    auto pattern = (std::filesystem::temp_directory_path() / "mps-identity-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  // Private to its owner, as believed files are.
  std::filesystem::path write(std::string_view name, std::string_view text) const {
    auto file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
    std::filesystem::permissions(file, std::filesystem::perms{0644});
    return file;
  }
  void make(std::string_view name) const { std::filesystem::create_directories(path_ / name); }

 private:
  std::filesystem::path path_;
};

}  // namespace mps::identity::testing
