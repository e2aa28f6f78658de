// The conformance suite and the gradient sum on real MPI ranks. Every rank runs every test; rank 0
// reports as usual, the others print only failures, and one failing rank fails the program.
#include "trainer/comm/mpi.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tests/trainer/comm/conformance.h"
#include "tests/trainer/comm/oracle.h"

namespace nf::test {
namespace {

std::unique_ptr<train::MpiSession> session;  // made by main before, and gone after, the tests

TEST(MpiCommunicator, DelaysAreThereWhenAskedFor) {
  if (std::getenv("NF_DELAY_MS") != nullptr) {
    EXPECT_NE(dlsym(RTLD_DEFAULT, "nf_mpi_delays"), nullptr) << "the library was not loaded";
  }
}

TEST(MpiCommunicator, Conformance) { check_conformance(session->communicator(), 100); }

TEST(MpiCommunicator, ADuplicateIsIndependent) {
  const auto second = session->duplicate();
  EXPECT_EQ(second->rank(), session->communicator().rank());
  EXPECT_EQ(second->size(), session->communicator().size());
  check_conformance(*second, 5);
}

TEST(MpiCommunicator, LargeMessages) {
  Communicator& comm = session->communicator();
  const size_t n = size_t{3} << 20;  // beyond every eager limit
  const std::vector<std::byte> send(n, static_cast<std::byte>(comm.rank() + 1));
  std::vector<std::byte> all(n * static_cast<size_t>(comm.size()));
  comm.all_gather(send.data(), all.data(),
                  std::vector<size_t>(static_cast<size_t>(comm.size()), n));
  for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(static_cast<size_t>(all[i]), i / n + 1);
}

TEST(MpiCommunicator, GradientsHaveTheOraclesBits) {
  Communicator& comm = session->communicator();
  for (const auto& [v, shared] : {std::pair<uint64_t, bool>{4, true},
                                  {4, false},
                                  {5, true},
                                  {8, false},
                                  {8, true},
                                  {13, true},
                                  {13, false}}) {
    const size_t elements = 20011;
    const auto all = gradients(v, elements);
    const auto expected = oracle_gradient(all);
    const auto [begin, end] = train::micro_batch_range(v, comm.rank(), comm.size());
    train::GradReducer reducer(comm, v, elements,
                               {.bucket_elements = 7000, .shared_memory = shared});
    EXPECT_EQ(reducer.in_shared_memory(), shared && comm.size() > 1);  // ranks of one host
    for (int step = 0; step < 2; ++step) {
      for (uint64_t m = begin; m < end; ++m) {
        std::copy(all[m].begin(), all[m].end(), reducer.buffer().begin());
        reducer.add(m);
      }
      EXPECT_TRUE(same_bits(reducer.finish(), expected)) << "V " << v;
    }
  }
}

class FailuresOnly : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", session->communicator().rank(),
                 result.file_name() ? result.file_name() : "?", result.line_number(),
                 result.summary());
  }
};

}  // namespace
}  // namespace nf::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  nf::test::session = std::make_unique<nf::train::MpiSession>(&argc, &argv, 60.0);
  auto& comm = nf::test::session->communicator();
  if (comm.rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new nf::test::FailuresOnly);
  }
  int64_t failed[] = {RUN_ALL_TESTS()};
  comm.all_reduce_max(failed);
  nf::test::session.reset();
  return static_cast<int>(failed[0]);
}
