// Failures that every rank must hear of. Setup runs through together(): when any rank fails, all
// ranks throw the same error, nobody waits for a rank that is gone, and rank 0 alone reports it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "trainer/comm/communicator.h"

namespace nf::train {

// An error that all ranks throw at the same point: they may leave in good order, and rank 0 prints
// it.
class AgreedError : public Error {
 public:
  using Error::Error;
};

// Every rank does `work`; if one throws, every rank throws AgreedError with the lowest such rank's
// error.
void together(Communicator& comm, const std::function<void()>& work);
// Rank 0 alone does `work`; its error is everybody's.
void on_root(Communicator& comm, const std::function<void()>& work);
// Every rank's text, in rank order, on every rank.
std::vector<std::string> gather_strings(Communicator& comm, const std::string& mine);
// Rank 0's text on every rank.
std::string broadcast_string(Communicator& comm, const std::string& text);

}  // namespace nf::train
