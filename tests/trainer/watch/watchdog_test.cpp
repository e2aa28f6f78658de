// Watchdogs of several ranks in one process: who is named when a rank freezes, stands still or
// waits for another.
#include "trainer/watch/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <optional>

#include "core/jsonl.h"
#include "trainer/comm/threads.h"

namespace nf::test {
namespace {

using train::Activity;
using train::HangReport;
using train::Section;
using train::Wait;
using train::Watchdog;

// The first report that any rank's watchdog gives.
class FirstReport {
 public:
  void put(const HangReport& r) {
    const std::lock_guard lock(mutex_);
    if (!report_) report_ = r;
    changed_.notify_all();
  }
  std::optional<HangReport> wait(double seconds) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                      [&] { return report_.has_value(); });
    return report_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<HangReport> report_;
};

// A job whose ranks only report what they do.
struct Job {
  explicit Job(int ranks, double silence = 1.0, double section = 30.0)
      : activities(static_cast<size_t>(ranks)), dogs(static_cast<size_t>(ranks)), group(ranks) {
    group.run([&](train::Communicator& comm) {
      const auto r = static_cast<size_t>(comm.rank());
      activities[r].enter(Section::kStep, 7);
      dogs[r] = std::make_unique<Watchdog>(
          comm, activities[r],
          train::WatchOptions{.silence_seconds = silence,
                              .section_seconds = section,
                              .least_step_seconds = 1.0,
                              .on_hang = [&](const HangReport& h) { first.put(h); }});
    });
  }
  void learn() {
    for (auto& d : dogs)
      for (int i = 0; i < 5; ++i) d->learn_step(0.01);
  }
  std::vector<Activity> activities;
  FirstReport first;
  std::vector<std::unique_ptr<Watchdog>> dogs;
  train::ThreadsGroup group;
};

TEST(Watchdog, IsQuietWhileAllRanksWork) {
  Job job(4);
  job.learn();
  for (int i = 0; i < 25; ++i) {
    for (auto& a : job.activities) a.enter(Section::kStep, 8 + static_cast<uint64_t>(i));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_FALSE(job.first.wait(0).has_value());
  EXPECT_THAT(job.dogs[0]->unheard(), testing::IsEmpty());
}

TEST(Watchdog, NamesTheRankThatFellSilent) {
  Job job(3);
  std::this_thread::sleep_for(std::chrono::milliseconds(900));  // heard once
  job.dogs[2].reset();  // its thread is gone, its section is not "end": as if frozen
  const auto report = job.first.wait(20);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->suspect.rank, 2);
  EXPECT_EQ(report->witness, 0);
  EXPECT_THAT(report->what, testing::HasSubstr("rank 2 on "));
  EXPECT_THAT(report->what, testing::HasSubstr("section step, step 7"));
  const Json json = Json::parse(train::to_json_text(*report));
  EXPECT_EQ(json["suspect"]["rank"], 2);
  EXPECT_EQ(json["ranks"].size(), 3u);
}

TEST(Watchdog, OthersNameRankZero) {
  Job job(3);
  std::this_thread::sleep_for(std::chrono::milliseconds(900));
  job.dogs[0].reset();
  const auto report = job.first.wait(20);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->suspect.rank, 0);
  EXPECT_NE(report->witness, 0);
}

TEST(Watchdog, ARankThatLeavesOnPurposeIsNotMissed) {
  Job job(2);
  std::this_thread::sleep_for(std::chrono::milliseconds(900));
  job.activities[1].enter(Section::kEnd, 9);
  job.dogs[1].reset();
  EXPECT_FALSE(job.first.wait(2.5).has_value());
}

TEST(Watchdog, NamesTheRankThatStandsStillAndNotThoseThatWaitForIt) {
  Job job(3, 1.0, 30.0);
  job.learn();  // steps take 10 ms, so a second is a hang
  for (const size_t r : {size_t{0}, size_t{2}}) job.activities[r].wait(Wait::kRanks);
  job.activities[1].wait(Wait::kData);
  const auto report = job.first.wait(20);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->suspect.rank, 1);
  EXPECT_THAT(report->what, testing::HasSubstr("waiting for data"));
}

TEST(Watchdog, SectionsHaveTheirOwnLimit) {
  Job job(2, 1.0, 2.0);
  job.learn();
  for (auto& a : job.activities) a.enter(Section::kEvaluate, 7);
  job.activities[0].wait(Wait::kRanks);
  EXPECT_FALSE(job.first.wait(1.5).has_value());
  const auto report = job.first.wait(20);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->suspect.rank, 1);
  EXPECT_THAT(report->what, testing::HasSubstr("section evaluate"));
}

TEST(Watchdog, TellsWhenAllWaitForEachOther) {
  Job job(2);
  job.learn();
  for (auto& a : job.activities) a.wait(Wait::kRanks);
  const auto report = job.first.wait(20);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->suspect.rank, -1);
}

TEST(HeartbeatSocket, StrangersAreToldApartByTheJob) {
  const train::HeartbeatSocket a, b;
  const auto to = train::HeartbeatSocket::resolve("localhost", b.port());
  ASSERT_TRUE(to.has_value());
  a.send(*to, {.job = 5, .rank = 3, .section = 2, .wait = 1, .step = 9, .seconds = 0.5});
  const auto got = b.receive(5000);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].job, 5u);
  EXPECT_EQ(got[0].rank, 3);
  EXPECT_EQ(got[0].step, 9u);
  EXPECT_FALSE(train::HeartbeatSocket::resolve("no-such-host.invalid", 1).has_value());
}

}  // namespace
}  // namespace nf::test
