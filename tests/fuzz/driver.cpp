// Runs a fuzz target without libFuzzer: replays seeds and files, then draws mutations of them.
// Input k is a function of --seed and k alone, so a finding can be run again.
//   NAME_fuzz [--inputs 2000] [--seconds 0] [--seed 1] [--only K] [--write-seeds DIR] [FILE|DIR...]
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/fuzz_target.h"

namespace nf::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxInput = 1 << 20;
volatile sig_atomic_t current_input = 0;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15 + 1) {}
  size_t below(size_t n) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<size_t>((state_ >> 11) % n);
  }

 private:
  uint64_t state_;
};

Bytes read_all(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void add_files(const fs::path& path, std::vector<Bytes>& corpus) {
  std::vector<fs::path> files;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(path);
  }
  for (const auto& file : files) {
    if (fs::file_size(file) <= kMaxInput) corpus.push_back(read_all(file));
  }
}

void mutate(Bytes& input, const std::vector<Bytes>& corpus, Random& random) {
  const auto at = [&] { return static_cast<std::ptrdiff_t>(random.below(input.size())); };
  const size_t times = 1 + random.below(6);
  for (size_t k = 0; k < times && !input.empty(); ++k) {
    switch (random.below(6)) {
      case 0:
        input[static_cast<size_t>(at())] ^= static_cast<uint8_t>(1U << random.below(8));
        break;
      case 1: {
        static constexpr uint8_t kEdges[] = {0, 1, 0x7F, 0x80, 0xC4, 0xD0, 0xD9, 0xDA, 0xFE, 0xFF};
        input[static_cast<size_t>(at())] = kEdges[random.below(sizeof kEdges)];
        break;
      }
      case 2:
        input[static_cast<size_t>(at())] = static_cast<uint8_t>(random.below(256));
        break;
      case 3: {
        const auto from = at();
        const auto length = static_cast<std::ptrdiff_t>(
            std::min<size_t>(1 + random.below(16), input.size() - static_cast<size_t>(from)));
        input.erase(input.begin() + from, input.begin() + from + length);
        break;
      }
      case 4:
        input.insert(input.begin() + at(), 1 + random.below(4),
                     static_cast<uint8_t>(random.below(256)));
        break;
      default: {  // the head of this one, the tail of another
        const Bytes& other = corpus[random.below(corpus.size())];
        if (other.empty()) break;
        input.resize(static_cast<size_t>(at()));
        const auto from = static_cast<std::ptrdiff_t>(random.below(other.size()));
        input.insert(input.end(), other.begin() + from, other.end());
      }
    }
  }
}

void on_crash(int number) {
  char text[64];
  const int n = std::snprintf(text, sizeof text, "at input %d\n", static_cast<int>(current_input));
  if (::write(2, text, static_cast<size_t>(n)) < 0) ::_exit(2);
  std::signal(number, SIG_DFL);
  std::raise(number);
}

int run(int argc, char** argv) {
  size_t inputs = 2000, seconds = 0, seed = 1, only = 0;
  std::vector<Bytes> corpus = seeds();
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] { return std::strtoull(i + 1 < argc ? argv[++i] : "0", nullptr, 10); };
    if (word == "--inputs") {
      inputs = value();
    } else if (word == "--seconds") {
      seconds = value();
    } else if (word == "--seed") {
      seed = value();
    } else if (word == "--only") {
      only = value();
    } else if (word == "--write-seeds" && i + 1 < argc) {
      const fs::path folder = argv[++i];
      fs::create_directories(folder);
      for (size_t k = 0; k < corpus.size(); ++k) {
        std::ofstream(folder / ("seed" + std::to_string(k)), std::ios::binary)
            .write(reinterpret_cast<const char*>(corpus[k].data()),
                   static_cast<std::streamsize>(corpus[k].size()));
      }
      return 0;
    } else if (fs::exists(word)) {
      add_files(word, corpus);
    } else {
      std::fprintf(stderr, "error: %s: no such file or option\n", word.c_str());
      return 2;
    }
  }
  std::signal(SIGABRT, on_crash);
  std::signal(SIGSEGV, on_crash);
  const auto begin = std::chrono::steady_clock::now();
  const auto more = [&](size_t k) {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    return seconds > 0 ? passed.count() < static_cast<double>(seconds) : k < corpus.size() + inputs;
  };
  size_t k = only;
  for (; only > 0 ? k == only : more(k); ++k) {
    current_input = static_cast<sig_atomic_t>(k);
    Bytes input = corpus[k % corpus.size()];
    Random random(seed * 1'000'003 + k);
    if (k >= corpus.size()) mutate(input, corpus, random);
    // A copy of exactly its size: sanitizers see what is read beyond it.
    const Bytes exact(input.begin(), input.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  }
  std::printf("%zu inputs from %zu seeds, no finding\n", k, corpus.size());
  return 0;
}

}  // namespace
}  // namespace nf::fuzz

int main(int argc, char** argv) { return nf::fuzz::run(argc, argv); }
