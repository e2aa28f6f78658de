// What names the samples: dataset.json, the TSV that nf-pack takes, the ledger's lines. Of any
// bytes: nothing crashes or throws anything but a data error; the scanner that reads dataset.json
// without a tree accepts exactly what a JSON parser accepts; what is read, written and read again
// stays.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/json_scanner.h"
#include "data_pipeline/ledger.h"
#include "data_pipeline/manifest.h"
#include "tests/data_pipeline/stored_samples.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/paths.h"

namespace nf::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path& folder() {
  static const test::TempDir dir;
  return dir.path();
}

template <class Body>
bool is_accepted(const Body& body) {
  try {
    body();
    return true;
  } catch (const Error& e) {
    fuzz_expect(e.code() == ExitCode::kData, "an error that is not a data error");
  }
  return false;
}

void check_scanner(std::string_view text) {
  bool accepted = true;
  try {
    data::JsonScanner json(text);
    json.skip_value();
    json.finish();
  } catch (const data::JsonSyntax&) {
    accepted = false;
  }
  const bool valid = nlohmann::json::accept(text);
  fuzz_expect(valid || !accepted, "the scanner accepts what is not JSON");
  // It refuses a byte order mark, more than a hundred levels, and zero bytes, which the parser
  // takes for the end of the text.
  const bool odd =
      text.starts_with("\xEF\xBB\xBF") || text.find('\0') != text.npos ||
      std::count(text.begin(), text.end(), '[') + std::count(text.begin(), text.end(), '{') >= 100;
  fuzz_expect(accepted || !valid || odd, "the scanner refuses JSON");
}

// What is accepted is what a tree of the same text says.
void check_index(std::string_view text) {
  data::DatasetIndex index;
  if (!is_accepted([&] { index = data::read_dataset_index(folder()); })) return;
  const auto tree = nlohmann::json::parse(text);
  fuzz_expect(tree.at("classes") == index.class_names, "other class names");
  for (const data::SplitEntry& split : index.splits) {
    const auto& expected = tree.at("splits").at(split.name);
    fuzz_expect(expected.at("samples") == split.samples &&
                    expected.at("fingerprint") == split.fingerprint &&
                    expected.at("shards").size() == split.shards.size(),
                "another split");
    for (size_t k = 0; k < split.shards.size(); ++k) {
      const auto& shard = expected.at("shards").at(k);
      fuzz_expect(shard.at("file") == split.shards[k].file &&
                      shard.at("bytes") == split.shards[k].bytes &&
                      shard.at("sha256") == split.shards[k].sha256,
                  "another shard");
    }
  }
}

}  // namespace

std::vector<Bytes> seeds() {
  std::vector<Bytes> all;
  const test::TempDir dir;
  test::write_dataset(dir.path(), test::make_samples(12), 5);
  all.push_back(test::read_bytes(dir / data::kDatasetFile));
  for (const std::string text :
       {"a.jpg\t0\nb.jpg\t1\nc.jpg\t0\n", "a/b.jpg\tcat\nc.jpg\tdog,cat\n", "x\t1,2,3\r\ny\t4\r\n",
        R"({"a": [1, -2.5e3, true, false, null, "x\"\u00e9\\"], "b": {}})",
        R"({"step":1,"begin":0,"end":96,"digest":"0123456789abcdef"}
{"step":2,"begin":96,"end":192,"digest":"fedcba9876543210"}
)"})
    all.emplace_back(text.begin(), text.end());
  return all;
}

}  // namespace nf::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace nf;
  using namespace nf::fuzz;
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  check_scanner(text);
  const auto put = [&](const char* name) {
    fs::remove(folder() / name);  // some file systems write a truncated file to the disk at once
    std::ofstream(folder() / name, std::ios::binary)
        .write(text.data(), static_cast<std::streamsize>(size));
    return folder() / name;
  };
  put(data::kDatasetFile);
  check_index(text);
  for (const bool multi_label : {false, true})
    is_accepted([&] { data::read_manifest(put("list.tsv"), multi_label, {}); });
  is_accepted([&] { data::read_ledger(put("ledger.jsonl")); });
  return 0;
}
