// Mapped shards: pages that are lost become zeros and a count, never the end of the process; what
// training gets is what pread gives, whatever becomes of the file meanwhile; SIGBUS from elsewhere
// stays what it was.
#include "data_pipeline/shard_map.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "core/atomic_file.h"
#include "data_pipeline/shard_dataset.h"
#include "data_pipeline/shard_format.h"
#include "tests/data_pipeline/stored_samples.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;
using test::ByteVector;
using test::StoredSample;

constexpr uint64_t kPage = 4096;
constexpr ReadOptions kMapped{.mapped = true, .copies_before_map = 0};

class OpenFile {
 public:
  OpenFile(const fs::path& path, uint64_t bytes)
      : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    const ByteVector content(bytes, 7);
    EXPECT_EQ(::pwrite(fd_, content.data(), bytes, 0), static_cast<ssize_t>(bytes));
  }
  ~OpenFile() { ::close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }
  void cut(uint64_t bytes) const { EXPECT_EQ(::ftruncate(fd_, static_cast<off_t>(bytes)), 0); }

 private:
  int fd_;
};

TEST(ShardMap, LostPagesAreZerosAndCounted) {
  const test::TempDir dir;
  const OpenFile file(dir / "f", 5 * kPage + 100);
  const auto map = ShardMap::open(file.fd(), 5 * kPage + 100);
  ASSERT_NE(map, nullptr);
  EXPECT_EQ(map->data()[5 * kPage + 99], 7);
  file.cut(2 * kPage);
  EXPECT_EQ(map->lost_pages(), 0u);
  EXPECT_EQ(map->data()[kPage], 7);
  EXPECT_EQ(map->lost_pages(), 0u);
  EXPECT_EQ(map->data()[3 * kPage + 5], 0);
  EXPECT_EQ(map->lost_pages(), 1u);
  EXPECT_EQ(map->data()[3 * kPage + 6], 0);
  EXPECT_EQ(map->lost_pages(), 1u) << "replaced once";
  EXPECT_EQ(map->data()[5 * kPage + 99], 0) << "the last page, which the file never filled";
  EXPECT_EQ(map->lost_pages(), 2u);
  EXPECT_EQ(map->data()[0], 7);
}

TEST(ShardMap, MapsAreFewAndTheirPlacesAreUsedAgain) {
  const test::TempDir dir;
  const OpenFile file(dir / "f", kPage);
  EXPECT_EQ(ShardMap::open(file.fd(), 0), nullptr);
  EXPECT_EQ(ShardMap::open(-1, kPage), nullptr);
  EXPECT_EQ(ShardMap::open_maps(), 0);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::unique_ptr<ShardMap>> maps;
    for (int i = 0; i < ShardMap::kMaxMaps; ++i) {
      maps.push_back(ShardMap::open(file.fd(), kPage));
      ASSERT_NE(maps.back(), nullptr) << i;
      EXPECT_EQ(maps.back()->lost_pages(), 0u);
    }
    EXPECT_EQ(ShardMap::open(file.fd(), kPage), nullptr);
    file.cut(0);
    EXPECT_EQ(maps[500]->data()[0], 0);
    EXPECT_EQ(maps[500]->lost_pages(), 1u);
    EXPECT_EQ(maps[501]->lost_pages(), 0u);
    file.cut(kPage);
  }
  EXPECT_EQ(ShardMap::open_maps(), 0);
}

void answer_with_42(int) { ::_exit(42); }
void answer_with_43(int, siginfo_t* info, void*) { ::_exit(info->si_code == BUS_ADRERR ? 43 : 1); }

void handle_by(void (*before)(int, siginfo_t*, void*)) {
  struct sigaction action = {};
  action.sa_sigaction = before;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

// A map that is not ours loses its page, beside one that is.
[[noreturn]] void touch_a_foreign_lost_page(const fs::path& folder) {
  const OpenFile ours(folder / "ours", kPage), other(folder / "other", kPage);
  const auto map = ShardMap::open(ours.fd(), kPage);
  void* foreign = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, other.fd(), 0);
  other.cut(0);
  ours.cut(0);
  if (map->data()[0] != 0) ::_exit(1);  // ours goes on
  ::_exit(2 + *static_cast<volatile uint8_t*>(foreign));
}

TEST(ShardMapDeathTest, ForeignBusErrorsDoWhatTheyDid) {
  const test::TempDir dir;
  const auto touch = [&](void (*before)(int)) {
    std::signal(SIGBUS, before);
    touch_a_foreign_lost_page(dir.path());
  };
  EXPECT_EXIT(touch(SIG_DFL), testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(touch(SIG_IGN), testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(touch(answer_with_42), testing::ExitedWithCode(42), "");
  EXPECT_EXIT((handle_by(answer_with_43), touch_a_foreign_lost_page(dir.path())),
              testing::ExitedWithCode(43), "");
}

[[noreturn]] void send_bus_error(const fs::path& folder, void (*before)(int)) {
  std::signal(SIGBUS, before);
  const OpenFile file(folder / "ours", kPage);
  const auto map = ShardMap::open(file.fd(), kPage);
  ::kill(::getpid(), SIGBUS);
  ::_exit(44);
}

TEST(ShardMapDeathTest, SentBusErrorsDoWhatTheyDid) {
  const test::TempDir dir;
  EXPECT_EXIT(send_bus_error(dir.path(), SIG_DFL), testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(send_bus_error(dir.path(), SIG_IGN), testing::ExitedWithCode(44), "");
}

// Samples of three pages each, so that a shard can lose some and keep others.
class MappedShard : public testing::Test {
 protected:
  static std::vector<StoredSample> large_samples() {
    auto samples = test::make_samples(8);
    for (StoredSample& s : samples) {
      const ByteVector small = s.bytes;
      while (s.bytes.size() < 3 * kPage) s.bytes.insert(s.bytes.end(), small.begin(), small.end());
      s.bytes.resize(3 * kPage, 1);
      for (uint8_t& b : s.bytes) b |= 1;  // a page of zeros is never right
    }
    return samples;
  }
  void SetUp() override {
    test::write_dataset(dir.path(), samples, samples.size());
    data_at = read_shard_layout(file).data_at;
    whole = read_file(file);
  }
  bool is_right(uint64_t i, const SampleView& view) const {
    return std::equal(view.bytes.begin(), view.bytes.end(), samples[i].bytes.begin(),
                      samples[i].bytes.end()) &&
           view.data.labels == samples[i].labels && view.data.width == samples[i].width;
  }

  const test::TempDir dir;
  const fs::path file = dir / "train-00000.h5";
  const std::vector<StoredSample> samples = large_samples();
  uint64_t data_at = 0;
  std::string whole;
};

TEST_F(MappedShard, BytesLieInTheMapAndOnlyWhereAsked) {
  const ShardDataset copied(dir.path(), "train"), mapped(dir.path(), "train", kMapped),
      later(dir.path(), "train", {.mapped = true, .copies_before_map = 5});
  SampleView view;
  for (uint64_t i = 0; i < samples.size(); ++i) {
    ASSERT_TRUE(copied.view(i, view).ok());
    EXPECT_TRUE(is_right(i, view));
    EXPECT_EQ(view.held, nullptr);
    ASSERT_TRUE(mapped.view(i, view).ok());
    EXPECT_TRUE(is_right(i, view));
    EXPECT_NE(view.held, nullptr);
    EXPECT_FALSE(mapped.is_doubtful(view));
    ASSERT_TRUE(later.view(i, view).ok());
    EXPECT_TRUE(is_right(i, view));
    EXPECT_EQ(view.held != nullptr, i >= 5) << i;
  }
  view.release();
  EXPECT_EQ(view.held, nullptr);
}

TEST_F(MappedShard, ATruncatedShardGivesFaultsAsPreadDoes) {
  for (const uint64_t cut :
       {uint64_t{0}, uint64_t{100}, data_at, data_at + 1, data_at + 4 * kPage,
        data_at + 4 * kPage + 17, data_at + 21 * kPage + 4000, data_at + 24 * kPage - 1}) {
    write_file_atomic(file, whole);
    const ShardDataset copied(dir.path(), "train"), mapped(dir.path(), "train", kMapped);
    SampleView a, b;
    ASSERT_TRUE(copied.view(0, a).ok());
    ASSERT_TRUE(mapped.view(0, b).ok());
    b.release();
    fs::resize_file(file, cut);
    uint64_t faults = 0;
    for (int round = 0; round < 3; ++round) {
      for (uint64_t i = 0; i < samples.size(); ++i) {
        const SampleFault expected = copied.view(i, a), fault = mapped.view(i, b);
        EXPECT_EQ(fault.reason, expected.reason) << cut << ", " << i;
        EXPECT_TRUE(!fault.ok() || is_right(i, b));
        faults += fault.ok() ? 0 : 1;
      }
    }
    EXPECT_GE(faults, 3u) << cut;
  }
}

TEST_F(MappedShard, WhatChangesAfterTheCheckIsNoticed) {
  struct Case {
    uint64_t cut, sample;
    bool still_there;
  };
  for (const Case& c : {Case{data_at + kPage, 0, false},           // whole pages are lost
                        Case{data_at + 3 * kPage - 50, 0, false},  // zeros without a SIGBUS
                        Case{data_at + 6 * kPage, 1, true}}) {     // another sample's pages
    write_file_atomic(file, whole);
    const ShardDataset set(dir.path(), "train", kMapped);
    SampleView view;
    ASSERT_TRUE(set.view(c.sample, view).ok());
    EXPECT_FALSE(set.is_doubtful(view));
    fs::resize_file(file, c.cut);
    EXPECT_EQ(is_right(c.sample, view), c.still_there);
    EXPECT_TRUE(set.is_doubtful(view));
    EXPECT_EQ(set.view_copy(c.sample, view).ok(), c.still_there);
    EXPECT_EQ(is_right(c.sample, view) && view.bytes.size() == 3 * kPage, c.still_there);
    EXPECT_FALSE(set.is_doubtful(view)) << "a copy stays what it is";
  }
}

TEST_F(MappedShard, AByteWrittenAfterTheCheckIsNoticed) {
  const ShardDataset set(dir.path(), "train", kMapped);
  SampleView view;
  ASSERT_TRUE(set.view(3, view).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // times of files go in ticks
  {
    const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_EQ(::pwrite(fd, "\0", 1, static_cast<off_t>(data_at + 9 * kPage + 5)), 1);
    ::close(fd);
  }
  EXPECT_TRUE(set.is_doubtful(view));
  EXPECT_EQ(set.view_copy(3, view).reason, "CRC32C does not match");
  EXPECT_TRUE(set.view(4, view).ok());
  EXPECT_NE(view.held, nullptr) << "the shard is mapped anew";
  EXPECT_FALSE(set.is_doubtful(view));
}

// One thread cuts the file and puts it back; the others read. Nothing may crash, and whatever is
// neither a fault nor doubtful must be right.
TEST_F(MappedShard, ReadersOutliveAFileThatComesAndGoes) {
  const ShardDataset set(dir.path(), "train", kMapped);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> right{0}, not_right{0}, wrong{0};
  std::vector<std::jthread> readers;
  for (uint64_t t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      SampleView view;
      for (uint64_t k = t; !stop; ++k) {
        const uint64_t i = k % samples.size();
        const bool sound = set.view(i, view).ok() && is_right(i, view);
        if (set.is_doubtful(view)) {
          const bool copied = set.view_copy(i, view).ok();
          ++(copied ? right : not_right);
          if (copied && !is_right(i, view)) ++wrong;
        } else {
          ++(sound ? right : not_right);
        }
        view.release();
      }
    });
  }
  const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(15)); };
  for (int round = 0; round < 40; ++round) {
    const uint64_t cut = data_at + static_cast<uint64_t>(round * 7919) % (24 * kPage);
    ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(cut)), 0);
    pause();
    ASSERT_EQ(::pwrite(fd, whole.data() + cut, whole.size() - cut, static_cast<off_t>(cut)),
              static_cast<ssize_t>(whole.size() - cut));
    pause();
  }
  stop = true;
  readers.clear();
  ::close(fd);
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(right, 100u);
  EXPECT_GT(not_right, 10u);
  SampleView view;
  for (uint64_t i = 0; i < samples.size(); ++i) {
    EXPECT_TRUE(set.view(i, view).ok()) << "whole again";
    EXPECT_TRUE(is_right(i, view));
  }
}

TEST(MappedShards, AtMostAsManyMapsAsOpenShards) {
  const test::TempDir dir;
  const auto samples = test::make_samples(150);
  test::write_dataset(dir.path(), samples, 1);
  {
    const ShardDataset set(dir.path(), "train", kMapped);
    std::vector<std::jthread> threads;
    std::atomic<int> wrong{0}, in_maps{0}, most{0};
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        SampleView view;
        for (uint64_t k = 0; k < 600; ++k) {
          const uint64_t i = (k * 7 + t * 13) % 150;
          if (!set.view(i, view).ok() ||
              !std::equal(view.bytes.begin(), view.bytes.end(), samples[i].bytes.begin(),
                          samples[i].bytes.end()))
            ++wrong;
          in_maps += view.held != nullptr ? 1 : 0;
          most = std::max(most.load(), ShardMap::open_maps());
        }
      });
    }
    threads.clear();
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(in_maps, 2000) << "a few come while another thread maps the shard";
    EXPECT_GE(most, 64);
    EXPECT_LE(most, 64 + 2 * 4) << "the limit, and what the threads hold or are closing";
  }
  EXPECT_EQ(ShardMap::open_maps(), 0);
}

}  // namespace
}  // namespace nf::data
