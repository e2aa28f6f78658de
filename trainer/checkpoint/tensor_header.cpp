// See tensor_header.h. The parser trusts nothing: nesting is limited while the text is read, so
// hostile headers cannot exhaust the memory, and every number is range-checked before it is used.
#include "trainer/checkpoint/tensor_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "core/check.h"
#include "core/error.h"

namespace nf::train {
namespace {

using Json = nlohmann::ordered_json;

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  size_t size;
};
constexpr std::array kDtypes = {
    DtypeRow{Dtype::kF64, "F64", 8}, DtypeRow{Dtype::kF32, "F32", 4},
    DtypeRow{Dtype::kF16, "F16", 2}, DtypeRow{Dtype::kBF16, "BF16", 2},
    DtypeRow{Dtype::kI64, "I64", 8}, DtypeRow{Dtype::kI32, "I32", 4},
    DtypeRow{Dtype::kI16, "I16", 2}, DtypeRow{Dtype::kI8, "I8", 1},
    DtypeRow{Dtype::kU8, "U8", 1},   DtypeRow{Dtype::kBool, "BOOL", 1},
};

const DtypeRow& row_of(Dtype dtype) {
  const auto* row = std::find_if(kDtypes.begin(), kDtypes.end(),
                                 [&](const DtypeRow& r) { return r.dtype == dtype; });
  NF_CHECK(row != kDtypes.end());
  return *row;
}

// Bytes of a tensor, or nullopt when a extent is negative or the product does not fit.
std::optional<uint64_t> checked_bytes(Dtype dtype, const std::vector<int64_t>& shape) {
  uint64_t bytes = dtype_size(dtype);
  for (const int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) return std::nullopt;
  }
  return bytes;
}

// A printable form of text from a damaged file.
std::string printable(std::string_view text) {
  constexpr size_t kLongest = 80;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) out += c >= 0x20 && c < 0x7F ? c : '?';
  return out + (text.size() > kLongest ? "...'" : "'");
}

class HeaderParser {
 public:
  HeaderParser(const std::filesystem::path& file, uint64_t data_bytes)
      : file_(file), data_bytes_(data_bytes) {}

  TensorFileInfo parse(std::string_view text) const {
    const Json json = parse_json(text);
    if (!json.is_object()) fail("the header is not a JSON object");
    TensorFileInfo info;
    for (const auto& [name, value] : json.items()) {
      if (name == "__metadata__")
        info.metadata = parse_metadata(value);
      else
        info.tensors.push_back(parse_tensor(name, value));
    }
    std::sort(info.tensors.begin(), info.tensors.end(),
              [](const TensorInfo& a, const TensorInfo& b) {
                return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
              });
    check_layout(info.tensors);
    return info;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ExitCode::kWeights, file_.string(), "damaged safetensors file: " + what,
                "copy or download the file again, or use another checkpoint");
  }

  Json parse_json(std::string_view text) const {
    if (text.empty() || text.front() != '{') fail("the header is not a JSON object");
    std::vector<std::set<std::string>> keys(1);  // of the objects that are open
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
      if (depth > 3) fail("the header is nested too deeply");
      if (event == Json::parse_event_t::object_start) keys.emplace_back();
      if (event == Json::parse_event_t::object_end) keys.pop_back();
      if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
        fail("the header names " + printable(value.get<std::string>()) + " twice");
      return true;
    };
    try {
      return Json::parse(text, watch);
    } catch (const nlohmann::json::exception&) {
      fail("the header is not valid JSON");
    }
  }

  Metadata parse_metadata(const Json& json) const {
    if (!json.is_object()) fail("__metadata__ is not an object");
    Metadata out;
    for (const auto& [key, value] : json.items()) {
      if (!value.is_string()) fail("__metadata__." + printable(key) + " is not a string");
      out[key] = value.get<std::string>();
    }
    return out;
  }

  TensorInfo parse_tensor(const std::string& name, const Json& json) const {
    const std::string where = "tensor " + printable(name) + ": ";
    if (!json.is_object() || json.size() != 3 || !json.contains("dtype") ||
        !json.contains("shape") || !json.contains("data_offsets"))
      fail(where + "needs exactly dtype, shape and data_offsets");
    TensorInfo info;
    info.name = name;
    info.dtype = parse_dtype(where, json["dtype"]);
    if (!json["shape"].is_array()) fail(where + "shape is not a list");
    for (const Json& extent : json["shape"])
      info.shape.push_back(static_cast<int64_t>(parse_number(where + "shape", extent)));
    const Json& offsets = json["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) fail(where + "data_offsets is not a pair");
    info.begin = parse_number(where + "data_offsets", offsets[0]);
    info.end = parse_number(where + "data_offsets", offsets[1]);
    if (info.begin > info.end || info.end > data_bytes_)
      fail(where + "data_offsets [" + std::to_string(info.begin) + ", " + std::to_string(info.end) +
           "] lie outside the file, which has " + std::to_string(data_bytes_) +
           " bytes of tensors");
    const auto bytes = checked_bytes(info.dtype, info.shape);
    if (!bytes || *bytes != info.end - info.begin)
      fail(where + "type and shape do not fit its " + std::to_string(info.end - info.begin) +
           " bytes");
    return info;
  }

  Dtype parse_dtype(const std::string& where, const Json& json) const {
    if (!json.is_string()) fail(where + "dtype is not a string");
    const auto& name = json.get_ref<const std::string&>();
    const auto* row = std::find_if(kDtypes.begin(), kDtypes.end(),
                                   [&](const DtypeRow& r) { return r.name == name; });
    if (row == kDtypes.end()) fail(where + "unknown dtype " + printable(name));
    return row->dtype;
  }

  uint64_t parse_number(const std::string& where, const Json& json) const {
    if (!json.is_number_unsigned() ||
        json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(where + ": not a non-negative integer");
    return json.get<uint64_t>();
  }

  void check_layout(const std::vector<TensorInfo>& tensors) const {
    uint64_t at = 0;
    for (const TensorInfo& t : tensors) {
      if (t.begin < at) fail("tensor " + printable(t.name) + " overlaps another one");
      if (t.begin > at) fail("there is a gap before tensor " + printable(t.name));
      at = t.end;
    }
    if (at != data_bytes_)
      fail("the tensors end after " + std::to_string(at) + " bytes, the file holds " +
           std::to_string(data_bytes_));
  }

  const std::filesystem::path& file_;
  uint64_t data_bytes_;
};

}  // namespace

size_t dtype_size(Dtype dtype) { return row_of(dtype).size; }
std::string_view dtype_name(Dtype dtype) { return row_of(dtype).name; }

const TensorInfo* TensorFileInfo::find(std::string_view name) const {
  const auto at = std::find_if(tensors.begin(), tensors.end(),
                               [&](const TensorInfo& t) { return t.name == name; });
  return at == tensors.end() ? nullptr : &*at;
}

TensorFileInfo parse_tensor_header(const std::filesystem::path& file, std::string_view header,
                                   uint64_t data_bytes) {
  return HeaderParser(file, data_bytes).parse(header);
}

std::string print_tensor_header(const std::vector<TensorInfo>& tensors, const Metadata& metadata) {
  Json json = Json::object();
  if (!metadata.empty()) {
    Json& block = json["__metadata__"] = Json::object();
    for (const auto& [key, value] : metadata) block[key] = value;
  }
  for (const TensorInfo& t : tensors)
    json[t.name] = Json{{"dtype", std::string(dtype_name(t.dtype))},
                        {"shape", t.shape},
                        {"data_offsets", {t.begin, t.end}}};
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

uint64_t tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape) {
  const auto bytes = checked_bytes(dtype, shape);
  NF_CHECK(bytes.has_value(), "a tensor's shape has a negative extent or is too large");
  return *bytes;
}

}  // namespace nf::train
