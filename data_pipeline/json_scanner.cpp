// See json_scanner.h.
#include "data_pipeline/json_scanner.h"

#include <charconv>
#include <nlohmann/json.hpp>

namespace nf::data {

void JsonScanner::fail(const char* expected) const {
  throw JsonSyntax("expected " + std::string(expected) + " at byte " +
                   std::to_string(at_ - begin_));
}

std::string_view JsonScanner::string_view(std::string& storage) {
  if (peek() != '"') fail("a string");
  const char* first = at_ + 1;
  bool plain = true;  // printable ASCII without escapes
  const char* p = first;
  for (; p != end_ && *p != '"'; ++p) {
    plain = plain && *p >= ' ' && *p != '\\' && *p != '\x7f';
    if (*p == '\\' && ++p == end_) break;
  }
  if (p == end_) fail("the end of a string");
  if (plain) {
    at_ = p + 1;
    return {first, static_cast<size_t>(p - first)};
  }
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
      string_view(key_storage_);
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
