// Plans of micro-batches: they tile a run for every number of ranks; impossible ones are refused.
#include <gtest/gtest.h>

#include <map>

#include "data_pipeline/loader.h"

namespace nf::data {
namespace {

TEST(Plans, MicroBatchesTileTheRunForEveryWorld) {
  for (const uint64_t end : {1, 15, 16, 17, 96, 129}) {
    for (uint64_t world = 1; world <= 8; ++world) {
      uint64_t covered = 0;
      std::map<uint64_t, uint64_t> ranges;
      for (uint64_t rank = 0; rank < world; ++rank) {
        const TrainPlan plan{.batch_size = 16,
                             .micro_batches = 8,
                             .end_position = end,
                             .rank = rank,
                             .world = world};
        const BatchPlan at = plan.plan();
        for (uint64_t k = 0; const auto range = at(k); ++k) {
          covered += range->end - range->begin;
          if (range->end > range->begin) {
            EXPECT_TRUE(ranges.emplace(range->begin, range->end).second);
          }
        }
      }
      EXPECT_EQ(covered, end);
      uint64_t next = 0;
      for (const auto& [begin, last] : ranges) {
        EXPECT_EQ(begin, next);
        next = last;
      }
    }
  }
}

TEST(Plans, ImpossiblePlansAreRefused) {
  EXPECT_THROW((TrainPlan{.batch_size = 10, .micro_batches = 4, .end_position = 5}.plan()),
               std::logic_error);
  EXPECT_THROW(
      (TrainPlan{.batch_size = 8, .micro_batches = 2, .end_position = 5, .rank = 0, .world = 3}
           .plan()),
      std::logic_error);
  EXPECT_THROW(eval_plan(10, 0, 0, 1), std::logic_error);
}

}  // namespace
}  // namespace nf::data
