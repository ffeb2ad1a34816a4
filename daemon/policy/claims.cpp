#include "policy/claims.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/text.h"
#include "policy/subject.h"

namespace mps::policy {
namespace {

constexpr std::string_view k_separators = ":=;";
constexpr std::string_view k_word_ends = " \t\r\n\"',[]{}";
constexpr std::size_t k_longest_key = 16;
constexpr std::size_t k_anchor_limit = 4096;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char character) {
    return character >= 'A' && character <= 'Z' ? static_cast<char>(character + 32) : character;
  });
  return out;
}

bool is_key(std::string_view word) {
  constexpr std::array<std::string_view, 1> meant{"namespace"};
  if (word.empty() || word.size() > k_longest_key) return false;
  const auto small = lower(word);
  return small == "name" || small == "ns" || did_you_mean(small, meant).has_value();
}

// The document's own keys, which stand on the next line where a namespace was left out.
bool is_next_key(std::string_view word) {
  return word == "apiVersion" || word == "kind" || word == "metadata" || word == "spec";
}

std::string_view without_separators(std::string_view word) {
  return word.substr(0, word.find_last_not_of(k_separators) + 1);
}

// The namespace that a word is or, with capitals and underscores, most likely means.
std::string subject_of(std::string_view word, bool escaped) {
  std::string text(word.substr(0, word.find('#')));
  for (auto at = text.find("\\\\"); escaped && at != std::string::npos;) {
    text.erase(at, 1);
    at = text.find("\\\\", at + 1);
  }
  if (is_subject(text)) return text;
  text = lower(text);
  std::replace(text.begin(), text.end(), '_', '-');
  return is_subject(text) ? text : std::string();
}

// One pass over the words, whatever is around them.
class Scan {
 public:
  explicit Scan(std::string_view text) : text_(text) {}

  std::vector<Claim> run() {
    while (at_ < text_.size() && claims_.size() < k_claim_limit) step();
    return std::move(claims_);
  }

 private:
  void step() {
    const char character = text_[at_];
    if (character == '\n' || character == '\r') return end_line();
    if (character == '#' && (!seen_word_ || (awaits_ && after_blank()))) return skip_line();
    if (k_word_ends.find(character) == std::string_view::npos) return word();
    if (character == ',' || character == ']' || character == '}') key_ = awaits_ = false;
    escaped_ = character == '"';
    seen_word_ = seen_word_ || (character != ' ' && character != '\t');
    ++at_;
  }

  void end_line() {
    if (text_[at_] == '\n') ++line_;
    ++at_;
    column_ = 1;
    counted_ = at_;
    seen_word_ = false;
    same_line_ = false;
  }

  void skip_line() { at_ = std::min(text_.find_first_of("\r\n", at_), text_.size()); }

  [[nodiscard]] bool after_blank() const {
    return at_ > 0 && (text_[at_ - 1] == ' ' || text_[at_ - 1] == '\t');
  }

  void word() {
    const auto begin = at_;
    at_ = std::min(text_.find_first_of(k_word_ends, at_), text_.size());
    seen_word_ = true;
    take(text_.substr(begin, at_ - begin));
    escaped_ = false;
  }

  void take(std::string_view word) {
    const auto separators = std::min(word.find_first_not_of(k_separators), word.size());
    if (separators > 0) {
      awaits_ = awaits_ || key_;
      key_ = false;
      word.remove_prefix(separators);
    } else if (key_ && same_line_) {
      awaits_ = true;  // its colon was forgotten
    }
    if (word.empty() || word == "-" || word == "?") return;
    key_ = false;
    if (word.size() > 1 && word.front() == '&') {
      anchor_ = word.substr(1);
      return;
    }
    if (awaits_ && (word.front() == '!' || word.front() == '|' || word.front() == '>')) return;
    take_value(word);
  }

  void take_value(std::string_view word) {
    const auto anchor = std::exchange(anchor_, {});
    if (!anchor.empty() && anchors_.size() < k_anchor_limit) {
      anchors_.try_emplace(anchor, without_separators(word));
    }
    const auto separator = word.find_first_of(k_separators);
    const auto front = word.substr(0, separator);
    const bool is_followed = separator != std::string_view::npos;
    if (is_followed && is_key(front)) {
      const auto rest = std::min(word.find_first_not_of(k_separators, separator), word.size());
      awaits_ = same_line_ = true;
      if (rest < word.size()) claim(word.substr(rest));
      return;
    }
    if (awaits_) claim(word);
    key_ = !is_followed && is_key(word);
    same_line_ = true;
  }

  void claim(std::string_view word) {
    awaits_ = false;
    const auto bare = without_separators(word);
    if (bare.size() < word.size() && !same_line_ && is_next_key(bare)) return;
    auto meant = bare;
    if (bare.size() > 1 && bare.front() == '*') {
      const auto found = anchors_.find(bare.substr(1));
      if (found != anchors_.end()) meant = found->second;
    }
    auto subject = subject_of(meant, escaped_);
    if (subject.empty() || !claimed_.insert(subject).second) return;
    claims_.push_back({std::move(subject), {line_, column_of(word)}});
  }

  // In characters. Counts on from the claim before it.
  int column_of(std::string_view word) {
    const auto offset = static_cast<std::size_t>(word.data() - text_.data());
    for (; counted_ < offset; ++counted_) {
      if ((static_cast<unsigned char>(text_[counted_]) & 0xC0U) != 0x80U) ++column_;
    }
    return column_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::size_t counted_ = 0;  // the column's character
  int column_ = 1;
  bool seen_word_ = false;  // in this line
  bool same_line_ = false;  // as the word before
  bool key_ = false;        // the word before is one; its colon may come
  bool awaits_ = false;     // a key and its colon were there
  bool escaped_ = false;    // right behind a double quote
  std::string_view anchor_;
  std::map<std::string_view, std::string_view> anchors_;
  std::set<std::string, std::less<>> claimed_;
  std::vector<Claim> claims_;
};

}  // namespace

std::vector<Claim> likely_claims(std::string_view text) {
  // UTF-16, as some editors write it, is the same text with zeros in it.
  if (text.find('\0') == std::string_view::npos) return Scan(text).run();
  std::string without(text);
  std::erase(without, '\0');
  return Scan(without).run();
}

}  // namespace mps::policy
