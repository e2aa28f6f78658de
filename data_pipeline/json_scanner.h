// Reads JSON front to back without building a tree: the table of contents of a data set of 440,000
// shards is 60 MB of text and must not cost half a second. The caller names what it expects;
// anything else, and anything that is not JSON, is a JsonSyntax. Keys may stand in any order.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace nf::data {

struct JsonSyntax : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class JsonScanner {
 public:
  explicit JsonScanner(std::string_view text) : begin_(text.data()), at_(begin_) {
    end_ = begin_ + text.size();
  }

  // member(key) is called for each member and must read its value: one call of the functions below.
  template <class Member>
  void object(const Member& member) {
    list('{', '}', [&] {
      std::string decoded;
      const std::string_view key = string_view(decoded);
      expect(':');
      member(key);
    });
  }
  // element() is called for each element and must read it.
  template <class Element>
  void array(const Element& element) {
    list('[', ']', element);
  }
  std::string string() {
    std::string storage;
    return std::string(string_view(storage));
  }
  // The text itself where it has no escapes, else decoded into `storage`.
  std::string_view string_view(std::string& storage);
  uint64_t unsigned_number();
  bool boolean();
  void skip_value();
  void finish();  // nothing but white space may follow

 private:
  static constexpr int kMaxDepth = 100;

  [[noreturn]] void fail(const char* expected) const;
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }
  char peek() {
    skip_space();
    return at_ == end_ ? '\0' : *at_;
  }
  void expect(char c) {
    if (peek() != c) fail(std::string(1, c).c_str());
    ++at_;
  }
  void skip_word(std::string_view word);
  void skip_number();

  template <class Item>
  void list(char open, char close, const Item& item) {
    expect(open);
    if (++depth_ > kMaxDepth) fail("fewer levels");
    if (peek() == close) {
      ++at_;
    } else {
      for (;;) {
        item();
        if (peek() == close) break;
        expect(',');
      }
      ++at_;
    }
    --depth_;
  }

  const char *begin_, *at_, *end_;
  int depth_ = 0;
};

}  // namespace nf::data
