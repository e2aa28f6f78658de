// The conformance suite on one rank and on threads, and what happens when a rank does not come,
// fails, disagrees or aborts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "core/error.h"
#include "tests/trainer/comm/conformance.h"
#include "trainer/comm/deadline.h"
#include "trainer/comm/launcher.h"
#include "trainer/comm/local.h"
#include "trainer/comm/threads.h"

namespace nf::test {
namespace {

using testing::HasSubstr;
using train::LocalCommunicator;
using train::ThreadsGroup;

TEST(LocalCommunicator, Conformance) {
  LocalCommunicator comm;
  EXPECT_EQ(comm.size(), 1);
  check_conformance(comm, 100);
}

TEST(LocalCommunicator, AbortEndsTheProcessWithTheCode) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(LocalCommunicator().abort(5), testing::ExitedWithCode(5), "");
}

class Threads : public testing::TestWithParam<int> {};

TEST_P(Threads, Conformance) {
  ThreadsGroup group(GetParam());
  std::atomic<int> ranks{0};
  group.run([&](Communicator& comm) {
    ++ranks;
    EXPECT_EQ(comm.size(), GetParam());
    check_conformance(comm, 100);
  });
  EXPECT_EQ(ranks, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Ranks, Threads, testing::Values(1, 2, 3, 4, 8));

TEST(ThreadsGroup, CommunicatorsWorkOnThreadsOfTheCaller) {
  ThreadsGroup group(2);
  int64_t other[] = {7};
  auto rank1 = std::async(std::launch::async, [&] { group.communicator(1).all_reduce_sum(other); });
  int64_t own[] = {35};
  group.communicator(0).all_reduce_sum(own);
  rank1.get();
  EXPECT_EQ(own[0], 42);
  EXPECT_EQ(other[0], 42);
}

// Runs body and gives the message of the Error(kRank) that it must throw.
template <class Body>
std::string rank_error(Body body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kRank);
    return e.where() + ": " + e.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

TEST(ThreadsGroup, ARankThatDoesNotComeIsNamed) {
  ThreadsGroup group(4, 0.2);
  std::atomic<int> errors{0};
  group.run([&](Communicator& comm) {
    comm.barrier();
    if (comm.rank() == 2) return;
    const std::string text = rank_error([&] { comm.barrier(); });
    EXPECT_THAT(text, HasSubstr("rank " + std::to_string(comm.rank()) + ": barrier"));
    EXPECT_THAT(text, HasSubstr("no answer from rank 2 within"));
    EXPECT_THAT(rank_error([&] { comm.barrier(); }), HasSubstr("rank 2"));  // stays broken
    ++errors;
  });
  EXPECT_EQ(errors, 3);
}

TEST(ThreadsGroup, AnExceptionWakesTheOthersAndIsRethrown) {
  ThreadsGroup group(3);  // the timeout of a minute must not be what ends this
  std::atomic<int> woken{0};
  EXPECT_THROW(group.run([&](Communicator& comm) {
    if (comm.rank() == 1) throw Error(ExitCode::kData, "shard", "damaged");
    EXPECT_THAT(rank_error([&] { comm.barrier(); }), HasSubstr("rank 1 failed: damaged"));
    ++woken;
  }),
               Error);
  EXPECT_EQ(woken, 2);
}

TEST(ThreadsGroup, TheFirstExceptionWins) {
  ThreadsGroup group(3);
  try {
    group.run([&](Communicator& comm) {
      if (comm.rank() == 2) throw Error(ExitCode::kData, "shard", "damaged");
      comm.barrier();  // throws kRank later
    });
    ADD_FAILURE() << "no Error was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kData);
  }
}

TEST(ThreadsGroup, AbortWakesTheOthers) {
  ThreadsGroup group(3);
  std::atomic<int> errors{0};
  group.run([&](Communicator& comm) {
    const std::string text = rank_error([&] {
      if (comm.rank() == 0) comm.abort(75);
      comm.barrier();
    });
    EXPECT_THAT(text, HasSubstr("rank 0 called abort(75)"));
    ++errors;
  });
  EXPECT_EQ(errors, 3);
}

TEST(ThreadsGroup, DifferentCallsAreAnError) {
  ThreadsGroup group(2);
  group.run([&](Communicator& comm) {
    int64_t value[] = {1};
    const std::string text = rank_error([&] {
      if (comm.rank() == 0)
        comm.barrier();
      else
        comm.all_reduce_sum(value);
    });
    EXPECT_THAT(text, HasSubstr("ranks disagree"));
    EXPECT_THAT(text, HasSubstr("barrier"));
    EXPECT_THAT(text, HasSubstr("all_reduce_sum"));
  });
}

TEST(ThreadsGroup, DifferentLengthsAreAnError) {
  ThreadsGroup group(2);
  group.run([&](Communicator& comm) {
    std::vector<int64_t> values(comm.rank() == 0 ? 2 : 3);
    EXPECT_THAT(rank_error([&] { comm.all_reduce_max(values); }), HasSubstr("ranks disagree"));
  });
}

TEST(Deadline, PassesAndHoldsHugeValues) {
  EXPECT_TRUE(train::Deadline(0.0).passed());
  EXPECT_FALSE(train::Deadline(1e300).passed());
}

TEST(Launcher, IsRecognisedByItsVariables) {
  const auto environment = [](std::map<std::string, std::string> variables) {
    return [variables = std::move(variables)](const char* name) -> const char* {
      const auto it = variables.find(name);
      return it == variables.end() ? nullptr : it->second.c_str();
    };
  };
  const auto alone = environment({{"PATH", "/bin"}});
  EXPECT_FALSE(train::launched_by_mpi(alone));
  EXPECT_EQ(train::launched_ranks(alone), 0);
  const auto mpirun = environment({{"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_TRUE(train::launched_by_mpi(mpirun));
  EXPECT_EQ(train::launched_ranks(mpirun), 4);
  const auto srun = environment({{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}});
  EXPECT_TRUE(train::launched_by_mpi(srun));
  EXPECT_EQ(train::launched_ranks(srun), 2);
  EXPECT_FALSE(train::launched_by_mpi(environment({{"SLURM_PROCID", "0"}})));  // a batch script
  EXPECT_TRUE(train::launched_by_mpi(environment({{"PMIX_RANK", "0"}})));
  EXPECT_EQ(train::launched_ranks(environment({{"OMPI_COMM_WORLD_SIZE", "4x"}})), 0);
}

}  // namespace
}  // namespace nf::test
