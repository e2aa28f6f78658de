// See shard_map.h. The handler may run at any instruction of any thread: it reads a fixed table of
// atomics and makes system calls, nothing else.
#include "data_pipeline/shard_map.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <mutex>

namespace nf::data {
namespace {

// One mapped range. `version` is odd while the range changes; a reader that sees the same even
// number before and after has read one range and not parts of two.
struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<uint32_t> version{0};
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<uint64_t> lost{0};

  void set(uintptr_t first, uintptr_t last) {
    version.fetch_add(1);
    begin.store(first);
    end.store(last);
    version.fetch_add(1);
  }
  bool holds(uintptr_t address) const {
    const uint32_t before = version.load();
    const bool inside = address >= begin.load() && address < end.load();
    return inside && before % 2 == 0 && version.load() == before;
  }
};

static_assert(std::atomic<uintptr_t>::is_always_lock_free);
static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

constinit std::array<Slot, ShardMap::kMaxMaps> slots;
struct sigaction earlier;  // written once, before the handler is installed
uintptr_t page_size;       // the same

// The thread that faults holds its map open, so the range cannot vanish meanwhile.
bool replace_page(uintptr_t address) {
  for (Slot& slot : slots) {
    if (!slot.holds(address)) continue;
    slot.lost.fetch_add(1);  // first: see lost_pages()
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the address that the signal gives
    void* page = reinterpret_cast<void*>(address & ~(page_size - 1));
    return ::mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
           page;
  }
  return false;
}

void pass_on(int signal, siginfo_t* info, void* context) {
  if ((earlier.sa_flags & SA_SIGINFO) != 0 && earlier.sa_sigaction != nullptr) {
    earlier.sa_sigaction(signal, info, context);
    return;
  }
  if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
    earlier.sa_handler(signal);
    return;
  }
  const bool sent = info->si_code <= 0;  // by kill() and the like: no instruction will repeat it
  if (sent && earlier.sa_handler == SIG_IGN) return;
  // Back to the default: the instruction faults again and ends the process where it happened.
  struct sigaction fallback = {};
  fallback.sa_handler = SIG_DFL;
  ::sigaction(signal, &fallback, nullptr);
  if (sent) ::raise(signal);
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (info->si_code <= 0 || !replace_page(address)) pass_on(signal, info, context);
  errno = saved;
}

void install_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    ::sigaction(SIGBUS, nullptr, &earlier);
    struct sigaction ours = {};
    ours.sa_sigaction = on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&ours.sa_mask);
    ::sigaction(SIGBUS, &ours, nullptr);
  });
}

int take_slot() {
  for (int i = 0; i < ShardMap::kMaxMaps; ++i) {
    if (!slots[static_cast<size_t>(i)].taken.exchange(true)) return i;
  }
  return -1;
}

}  // namespace

std::unique_ptr<ShardMap> ShardMap::open(int fd, uint64_t bytes) {
  if (bytes == 0) return nullptr;
  install_once();
  const int index = take_slot();
  if (index < 0) return nullptr;
  Slot& slot = slots[static_cast<size_t>(index)];
  void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    slot.taken.store(false);
    return nullptr;
  }
  slot.lost.store(0);
  const auto begin = reinterpret_cast<uintptr_t>(data);
  slot.set(begin, begin + (bytes + page_size - 1) / page_size * page_size);
  return std::unique_ptr<ShardMap>(new ShardMap(static_cast<const uint8_t*>(data), bytes, index));
}

ShardMap::~ShardMap() {
  Slot& slot = slots[static_cast<size_t>(slot_)];
  slot.set(0, 0);
  ::munmap(const_cast<uint8_t*>(data_), size_);
  slot.taken.store(false);
}

uint64_t ShardMap::lost_pages() const {
  // An addition, not a load: what was read before it in the program stays before it.
  return slots[static_cast<size_t>(slot_)].lost.fetch_add(0);
}

int ShardMap::open_maps() {
  int count = 0;
  for (const Slot& slot : slots) count += slot.taken.load() ? 1 : 0;
  return count;
}

}  // namespace nf::data
