#include "gate/wire.h"

#include <algorithm>
#include <cstring>

namespace mps::gate {

namespace {

constexpr std::uint32_t k_magic = 0x4750534dU;  // "MSPG"
constexpr std::size_t k_texts_limit = 16;
constexpr std::size_t k_text_limit = 255;

struct Header {
  std::uint32_t magic = k_magic;
  std::uint16_t kind = 0;
  std::uint16_t share_size = 0;
  std::uint64_t peer = 0;
  std::int32_t pid = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t code = 0;
  std::uint32_t bytes_size = 0;
  std::uint32_t zero = 0;
};
static_assert(sizeof(Header) == 40 &&
              sizeof(Header) + k_share_limit + k_bytes_limit <= k_message_limit);

bool is_known(std::uint16_t kind) {
  return (kind >= static_cast<std::uint16_t>(Kind::setup) &&
          kind <= static_cast<std::uint16_t>(Kind::end)) ||
         (kind >= static_cast<std::uint16_t>(Kind::welcome) &&
          kind <= static_cast<std::uint16_t>(Kind::refused));
}

}  // namespace

const char* to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::unknown_opening:
      return "unknown_opening";
    case Refusal::wrong_process:
      return "wrong_process";
    case Refusal::had_descriptors:
      return "had_descriptors";
    case Refusal::ended:
      return "ended";
  }
  return "unknown";
}

std::span<const char> encode(const Message& message, Buffer& buffer) {
  const auto share = message.share.substr(0, k_share_limit);
  const auto bytes = message.bytes.substr(0, k_bytes_limit);
  Header header;
  header.kind = static_cast<std::uint16_t>(message.kind);
  header.share_size = static_cast<std::uint16_t>(share.size());
  header.peer = message.peer;
  header.pid = message.pid;
  header.uid = message.uid;
  header.gid = message.gid;
  header.code = message.code;
  header.bytes_size = static_cast<std::uint32_t>(bytes.size());
  std::memcpy(buffer.data(), &header, sizeof(header));
  auto* end = std::copy(share.begin(), share.end(), buffer.data() + sizeof(header));
  end = std::copy(bytes.begin(), bytes.end(), end);
  return {buffer.data(), static_cast<std::size_t>(end - buffer.data())};
}

Result<Message> decode(std::span<const char> data) {
  Header header;
  if (data.size() < sizeof(header)) return Error{"a message that is too short"};
  std::memcpy(&header, data.data(), sizeof(header));
  if (header.magic != k_magic) return Error{"not a message of the gate's protocol"};
  if (!is_known(header.kind))
    return Error{"a message of an unknown kind: " + std::to_string(header.kind)};
  const bool fits = header.share_size <= k_share_limit && header.bytes_size <= k_bytes_limit &&
                    data.size() == sizeof(header) + header.share_size + header.bytes_size;
  if (!fits) return Error{"a message whose lengths are wrong"};
  Message message;
  message.kind = static_cast<Kind>(header.kind);
  message.peer = header.peer;
  message.pid = header.pid;
  message.uid = header.uid;
  message.gid = header.gid;
  message.code = header.code;
  message.share = {data.data() + sizeof(header), header.share_size};
  message.bytes = {data.data() + sizeof(header) + header.share_size, header.bytes_size};
  return message;
}

std::string pack(const std::vector<std::string>& texts) {
  std::string packed;
  for (const auto& text : texts) {
    packed += static_cast<char>(static_cast<unsigned char>(std::min(text.size(), k_text_limit)));
    packed += text.substr(0, k_text_limit);
  }
  return packed;
}

Result<std::vector<std::string>> unpack(std::string_view packed) {
  std::vector<std::string> texts;
  while (!packed.empty()) {
    const auto size = static_cast<std::size_t>(static_cast<unsigned char>(packed.front()));
    packed.remove_prefix(1);
    if (size > packed.size()) return Error{"a text that is cut off"};
    if (texts.size() == k_texts_limit) return Error{"too many texts"};
    texts.emplace_back(packed.substr(0, size));
    packed.remove_prefix(size);
  }
  return texts;
}

}  // namespace mps::gate
