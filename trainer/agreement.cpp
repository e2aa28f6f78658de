// See agreement.h.
#include "trainer/agreement.h"

#include <array>
#include <limits>
#include <new>
#include <numeric>
#include <vector>

#include "core/jsonl.h"

namespace nf::train {
namespace {

Json describe_failure(const std::function<void()>& work) {
  const auto as_json = [](ExitCode code, const std::string& where, const std::string& what,
                          const std::string& hint) {
    return Json{{"code", static_cast<int>(code)}, {"where", where}, {"what", what}, {"hint", hint}};
  };
  try {
    work();
    return nullptr;
  } catch (const Error& e) {
    return as_json(e.code(), e.where(), e.what(), e.hint());
  } catch (const std::bad_alloc&) {
    return as_json(
        ExitCode::kOther, "nf-train", "out of memory",
        "lower batch.size, raise batch.micro_batches, or start fewer ranks on this host");
  } catch (const std::exception& e) {
    return as_json(ExitCode::kOther, "nf-train", e.what(), "");
  }
}

void broadcast_text(Communicator& comm, std::string& text, int root) {
  int64_t size = static_cast<int64_t>(text.size());
  comm.broadcast(std::as_writable_bytes(std::span(&size, 1)), root);
  text.resize(static_cast<size_t>(size));
  if (size > 0) comm.broadcast(std::as_writable_bytes(std::span(text)), root);
}

}  // namespace

void together(Communicator& comm, const std::function<void()>& work) {
  const Json failure = describe_failure(work);
  // The largest of -rank over failing ranks names the lowest one.
  constexpr int64_t kNone = std::numeric_limits<int64_t>::min();
  std::array<int64_t, 1> lowest = {failure.is_null() ? kNone : -comm.rank()};
  comm.all_reduce_max(lowest);
  if (lowest[0] == kNone) return;
  const int culprit = static_cast<int>(-lowest[0]);
  std::string text = comm.rank() == culprit ? failure.dump() : std::string();
  broadcast_text(comm, text, culprit);
  const Json f = Json::parse(text);
  const std::string where = f["where"].get<std::string>();
  throw AgreedError(static_cast<ExitCode>(f["code"].get<int>()),
                    culprit == 0 ? where : "rank " + std::to_string(culprit) + ": " + where,
                    f["what"].get<std::string>(), f["hint"].get<std::string>());
}

void on_root(Communicator& comm, const std::function<void()>& work) {
  together(comm, [&] {
    if (comm.rank() == 0) work();
  });
}

std::vector<std::string> gather_strings(Communicator& comm, const std::string& mine) {
  const auto world = static_cast<size_t>(comm.size());
  const size_t own = mine.size();
  std::vector<size_t> bytes(world);
  comm.all_gather(reinterpret_cast<const std::byte*>(&own),
                  reinterpret_cast<std::byte*>(bytes.data()),
                  std::vector<size_t>(world, sizeof own));
  std::string all(std::accumulate(bytes.begin(), bytes.end(), size_t{0}), '\0');
  comm.all_gather(reinterpret_cast<const std::byte*>(mine.data()),
                  reinterpret_cast<std::byte*>(all.data()), bytes);
  std::vector<std::string> out;
  out.reserve(bytes.size());
  size_t at = 0;
  for (const size_t b : bytes) {
    out.push_back(all.substr(at, b));
    at += b;
  }
  return out;
}

std::string broadcast_string(Communicator& comm, const std::string& text) {
  std::string out = text;
  broadcast_text(comm, out, 0);
  return out;
}

}  // namespace nf::train
