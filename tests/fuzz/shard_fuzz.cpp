// The shard reader: the input is the file of one shard. Of any bytes: nothing crashes, hangs or
// throws anything but a data error; a sample that is read without a fault is one that its checksum
// vouches for; what the plain reader says of a sample it says again.
#include <fstream>

#include "core/error.h"
#include "data_pipeline/shard_dataset.h"
#include "data_pipeline/shard_format.h"
#include "tests/data_pipeline/stored_samples.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/process.h"

namespace nf::fuzz {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kSamples = 5;

Bytes shard_of(const std::vector<test::StoredSample>& samples) {
  const test::TempDir dir;
  test::write_dataset(dir.path(), samples, samples.size());
  return test::read_bytes(dir / "train-00000.h5");
}

// A data set whose table of contents believes whatever size the shard has.
class OneShardSet {
 public:
  OneShardSet() {
    test::write_dataset(dir_.path(), test::make_samples(kSamples), kSamples);
    table_ = test::slurp(dir_ / data::kDatasetFile);
    const std::string key = "\"bytes\": ";
    bytes_at_ = table_.rfind(key) + key.size();  // of the shard; the split's stands before it
    bytes_digits_ = table_.find_first_not_of("0123456789", bytes_at_) - bytes_at_;
  }
  fs::path put(const uint8_t* bytes, size_t size) {
    // New files each time: some file systems write a truncated one to the disk at once.
    fs::remove(dir_ / "train-00000.h5");
    fs::remove(dir_ / data::kDatasetFile);
    std::ofstream(dir_ / "train-00000.h5", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes), static_cast<std::streamsize>(size));
    std::string table = table_;
    table.replace(bytes_at_, bytes_digits_, std::to_string(size));
    std::ofstream(dir_ / data::kDatasetFile) << table;
    return dir_.path();
  }

 private:
  const test::TempDir dir_;
  std::string table_;
  size_t bytes_at_ = 0, bytes_digits_ = 0;
};

void read_all(const fs::path& folder) {
  const data::ShardDataset set(folder, "train");
  data::SampleData sample, again;
  for (uint64_t i = 0; i < set.size(); ++i) {
    set.will_need(i);
    const auto fault = set.read(i, sample);
    fuzz_expect(set.read(i, again).ok() == fault.ok(), "a second read differs");
    if (!fault.ok()) continue;
    fuzz_expect(again.bytes == sample.bytes && again.labels == sample.labels, "other bytes");
    fuzz_expect(set.read_unchecked(i, again).ok() && again.bytes == sample.bytes,
                "the check changes what is read");
  }
}

}  // namespace

std::vector<Bytes> seeds() {
  std::vector<Bytes> all;
  for (const size_t count : {kSamples, uint64_t{1}, uint64_t{3}})
    all.push_back(shard_of(test::make_samples(count)));
  auto larger = test::make_samples(kSamples);
  for (auto& s : larger) s.bytes.resize(600, 7);
  all.push_back(shard_of(larger));
  return all;
}

}  // namespace nf::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static nf::fuzz::OneShardSet set;
  try {
    nf::fuzz::read_all(set.put(data, size));
  } catch (const nf::Error& e) {
    nf::fuzz::fuzz_expect(e.code() == nf::ExitCode::kData, "an error that is not a data error");
  }
  return 0;
}
