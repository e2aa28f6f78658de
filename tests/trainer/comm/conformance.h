// What every communicator must do, as one function that all ranks of any backend run: each
// operation against values that each rank can compute alone, uneven and empty pieces, many rounds
// with random delays so that ranks arrive in any order.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "core/rng.h"
#include "trainer/comm/communicator.h"
#include "trainer/comm/control.h"
#include "trainer/comm/grad_reducer.h"

namespace nf::test {

using train::Communicator;

// Draws that differ between rounds; equal on all ranks unless the rank enters as position.
inline PositionRng draws(uint64_t round, uint64_t position = 0) {
  return PositionRng(round, Stream::kTest, position);
}

inline void random_delay(const Communicator& comm, uint64_t round) {
  PositionRng rng = draws(round, 1000 + static_cast<uint64_t>(comm.rank()));
  if (rng.below(4) == 0) std::this_thread::sleep_for(std::chrono::microseconds(rng.below(500)));
}

inline std::byte byte_at(uint64_t round, int from, int to, size_t i) {
  return static_cast<std::byte>((round * 31 + static_cast<uint64_t>(from) * 7 +
                                 static_cast<uint64_t>(to) * 13 + i * (i % 5 + 1)) &
                                255);
}

inline void check_broadcast(Communicator& comm, uint64_t round) {
  const int root = static_cast<int>(round % static_cast<uint64_t>(comm.size()));
  std::vector<std::byte> data(draws(round).below(3000));
  if (comm.rank() == root)
    for (size_t i = 0; i < data.size(); ++i) data[i] = byte_at(round, root, 0, i);
  comm.broadcast(data, root);
  for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], byte_at(round, root, 0, i));
}

inline void check_integer_reductions(Communicator& comm, uint64_t round) {
  const size_t n = draws(round).below(9);
  const auto value = [&](int rank, size_t i) {
    return static_cast<int64_t>(draws(round, 50 + static_cast<uint64_t>(rank) * 64 + i).next_u64());
  };
  std::vector<int64_t> sum(n), max(n);
  for (size_t i = 0; i < n; ++i) sum[i] = max[i] = value(comm.rank(), i);
  comm.all_reduce_sum(sum);
  comm.all_reduce_max(max);
  for (size_t i = 0; i < n; ++i) {
    uint64_t total = 0;
    int64_t largest = value(0, i);
    for (int r = 0; r < comm.size(); ++r) {
      total += static_cast<uint64_t>(value(r, i));
      largest = std::max(largest, value(r, i));
    }
    ASSERT_EQ(static_cast<uint64_t>(sum[i]), total);  // wraps modulo 2^64
    ASSERT_EQ(max[i], largest);
  }
}

inline void check_all_to_all(Communicator& comm, uint64_t round) {
  const auto length = [&](int from, int to) {
    PositionRng rng = draws(round, 5000 + static_cast<uint64_t>(from * 64 + to));
    return rng.below(3) == 0 ? size_t{0} : static_cast<size_t>(rng.below(2000));
  };
  std::vector<size_t> send_bytes, receive_bytes;
  std::vector<std::byte> send, receive;
  for (int r = 0; r < comm.size(); ++r) {
    send_bytes.push_back(length(comm.rank(), r));
    receive_bytes.push_back(length(r, comm.rank()));
    for (size_t i = 0; i < send_bytes.back(); ++i)
      send.push_back(byte_at(round, comm.rank(), r, i));
    receive.resize(receive.size() + receive_bytes.back());
  }
  comm.all_to_all(send.data(), send_bytes, receive.data(), receive_bytes);
  size_t at = 0;
  for (int r = 0; r < comm.size(); ++r)
    for (size_t i = 0; i < length(r, comm.rank()); ++i)
      ASSERT_EQ(receive[at++], byte_at(round, r, comm.rank(), i)) << "from rank " << r;
}

inline void check_all_gather(Communicator& comm, uint64_t round) {
  std::vector<size_t> bytes;
  std::vector<std::byte> expected;
  size_t own_place = 0;
  for (int r = 0; r < comm.size(); ++r) {
    PositionRng rng = draws(round, 9000 + static_cast<uint64_t>(r));
    bytes.push_back(rng.below(3) == 0 ? 0 : rng.below(1500));
    if (r == comm.rank()) own_place = expected.size();
    for (size_t i = 0; i < bytes.back(); ++i) expected.push_back(byte_at(round, r, 77, i));
  }
  const size_t own = bytes[static_cast<size_t>(comm.rank())];
  std::vector<std::byte> received(expected.size());
  std::copy_n(expected.begin() + static_cast<ptrdiff_t>(own_place), own,
              received.begin() + static_cast<ptrdiff_t>(own_place));
  if (round % 2 == 0) {  // in place
    comm.all_gather(received.data() + own_place, received.data(), bytes);
  } else {
    const std::vector<std::byte> send(received.begin() + static_cast<ptrdiff_t>(own_place),
                                      received.begin() + static_cast<ptrdiff_t>(own_place + own));
    std::fill(received.begin(), received.end(), std::byte{0});
    comm.all_gather(send.data(), received.data(), bytes);
  }
  ASSERT_EQ(received, expected);
}

inline void check_fast_sum(Communicator& comm, uint64_t round) {
  std::vector<float> data(draws(round).below(700));
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<float>(i + static_cast<size_t>(comm.rank()));
  comm.all_reduce_sum_fast(data);
  const float w = static_cast<float>(comm.size());
  for (size_t i = 0; i < data.size(); ++i)  // small integers: exact in any order
    ASSERT_EQ(data[i], w * static_cast<float>(i) + w * (w - 1) / 2);
}

inline void check_agreement(Communicator& comm, uint64_t round) {
  const uint64_t w = static_cast<uint64_t>(comm.size());
  const int odd = static_cast<int>(round % (w + 1));  // a rank, or none
  const bool mine = comm.rank() == odd, some = odd < comm.size();
  train::Control control;
  control.stop_flags = mine ? 5 : 2;
  control.known_finite = !mine;
  control.valid_samples = comm.rank() + 10;
  control.error_code = mine ? 3 : 0;
  control.sample_digest = ~uint64_t{0} - static_cast<uint64_t>(comm.rank());
  const train::Control united = train::agree(comm, control);
  ASSERT_EQ(united.stop_flags, (some ? 5u : 0u) | (w > 1 || !some ? 2u : 0u));
  ASSERT_EQ(united.known_finite, !some);
  ASSERT_EQ(united.valid_samples, static_cast<int64_t>(w * 10 + w * (w - 1) / 2));
  ASSERT_EQ(united.error_code, some ? 3 : 0);
  ASSERT_EQ(united.sample_digest, uint64_t{0} - w - w * (w - 1) / 2);
  ASSERT_EQ(united.first_faulty_rank, some ? odd : -1);
}

inline void check_leaves(Communicator& comm, uint64_t round) {
  const uint64_t v = static_cast<uint64_t>(comm.size()) + round % 7;
  const auto value = [&](uint64_t m) { return draws(round, 20000 + m).normal(); };
  const auto [begin, end] = train::micro_batch_range(v, comm.rank(), comm.size());
  std::vector<train::LeafSums> own, all;
  for (uint64_t m = begin; m < end; ++m) own.push_back({value(m), -value(m)});
  train::Control control;
  control.step_seconds = comm.rank();
  const train::Control united = train::agree(comm, control, v, own, &all);
  ASSERT_EQ(united.step_seconds, comm.size() - 1);
  ASSERT_EQ(all.size(), v);
  for (uint64_t m = 0; m < v; ++m) {
    ASSERT_EQ(all[m].loss, value(m));
    ASSERT_EQ(all[m].top1, -value(m));
  }
}

// The suite. rounds: 100 where it is quick.
inline void check_conformance(Communicator& comm, uint64_t rounds) {
  ASSERT_GE(comm.rank(), 0);
  ASSERT_LT(comm.rank(), comm.size());
  for (uint64_t round = 0; round < rounds && !testing::Test::HasFatalFailure(); ++round) {
    random_delay(comm, round);
    comm.barrier();
    check_broadcast(comm, round);
    check_integer_reductions(comm, round);
    random_delay(comm, round + 100000);
    check_all_to_all(comm, round);
    check_all_gather(comm, round);
    random_delay(comm, round + 200000);
    check_fast_sum(comm, round);
    check_agreement(comm, round);
    check_leaves(comm, round);
  }
}

}  // namespace nf::test
