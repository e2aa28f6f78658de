// See json_scanner.h.
#include "data_pipeline/json_scanner.h"

#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

namespace nf::data {

void JsonScanner::fail(const char* expected) const {
  throw JsonSyntax("expected " + std::string(expected) + " at byte " +
                   std::to_string(at_ - begin_));
}

namespace {

// Printable ASCII without escapes: such text stands for itself.
bool is_plain(const char* p, const char* end) {
  unsigned odd = 0;
  for (; p != end; ++p) {
    const auto c = static_cast<unsigned char>(*p);
    odd |= static_cast<unsigned>(c < ' ') | static_cast<unsigned>(c > '~') |
           static_cast<unsigned>(c == '\\');
  }
  return odd == 0;
}

}  // namespace

std::string_view JsonScanner::string_view(std::string& storage) {
  if (peek() != '"') fail("a string");
  const char* first = at_ + 1;
  const auto* quote =
      static_cast<const char*>(std::memchr(first, '"', static_cast<size_t>(end_ - first)));
  if (quote == nullptr) fail("the end of a string");
  if (is_plain(first, quote)) {
    at_ = quote + 1;
    return {first, static_cast<size_t>(quote - first)};
  }
  const char* p = first;  // an escaped quote does not end it
  while (p != end_ && *p != '"') p += *p == '\\' && p + 1 != end_ ? 2 : 1;
  if (p == end_) fail("the end of a string");
  const auto decoded = nlohmann::json::parse(at_, p + 1, nullptr, false);
  if (!decoded.is_string()) fail("a valid string");
  storage = decoded.get<std::string>();
  at_ = p + 1;
  return storage;
}

uint64_t JsonScanner::unsigned_number() {
  skip_space();
  uint64_t value = 0;
  const auto [next, error] = std::from_chars(at_, end_, value);
  const bool zeros = next - at_ > 1 && *at_ == '0';
  if (error != std::errc() || zeros ||
      (next != end_ && (*next == '.' || *next == 'e' || *next == 'E')))
    fail("a whole number");
  at_ = next;
  return value;
}

void JsonScanner::skip_word(std::string_view word) {
  if (static_cast<size_t>(end_ - at_) < word.size() || std::string_view(at_, word.size()) != word)
    fail("a value");
  at_ += word.size();
}

bool JsonScanner::boolean() {
  const bool value = peek() == 't';
  if (!value && peek() != 'f') fail("true or false");
  skip_word(value ? "true" : "false");
  return value;
}

void JsonScanner::skip_number() {
  const char* p = at_;
  while (p != end_ && (*p == '-' || *p == '+' || *p == '.' || *p == 'e' || *p == 'E' ||
                       (*p >= '0' && *p <= '9')))
    ++p;
  if (!nlohmann::json::accept(at_, p)) fail("a value");
  at_ = p;
}

void JsonScanner::skip_value() {
  switch (peek()) {
    case '{':
      object([&](std::string_view) { skip_value(); });
      return;
    case '[':
      array([&] { skip_value(); });
      return;
    case '"':
      string();
      return;
    case 't':
      skip_word("true");
      return;
    case 'f':
      skip_word("false");
      return;
    case 'n':
      skip_word("null");
      return;
    default:
      skip_number();
  }
}

void JsonScanner::finish() {
  skip_space();
  if (at_ != end_) fail("nothing more");
}

}  // namespace nf::data
