// See lost_samples.h.
#include "bench/lost_samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "core/check.h"
#include "core/rng.h"
#include "data_pipeline/sampler.h"

namespace nf::bench {
namespace {

struct Range {
  uint64_t begin, end;
};

// The usual pipeline of one host: its files one after the other, repeated for ever, through a
// shuffle buffer. Made anew at each start of the job, with a new seed, as a program without data
// state does.
class HostStream {
 public:
  HostStream(const LostSamplesOptions& o, uint64_t host, uint64_t start, bool shuffle_files)
      : rng_(o.seed, Stream::kTest, 1 + start * o.hosts + host) {
    for (uint64_t f = host; f < o.files; f += o.hosts) {
      files_.push_back({f * o.samples / o.files, (f + 1) * o.samples / o.files});
    }
    if (shuffle_files) {
      for (uint64_t i = files_.size(); i > 1; --i) std::swap(files_[i - 1], files_[rng_.below(i)]);
    }
    buffer_.resize(std::max<uint64_t>(1, o.buffer_batches * o.batch / o.hosts));
    for (uint64_t& sample : buffer_) sample = read();
  }

  uint64_t next() {
    uint64_t& slot = buffer_[rng_.below(buffer_.size())];
    const uint64_t sample = slot;
    slot = read();
    return sample;
  }

 private:
  uint64_t read() {
    while (row_ == files_[file_].end - files_[file_].begin) {
      file_ = (file_ + 1) % files_.size();
      row_ = 0;
    }
    return files_[file_].begin + row_++;
  }

  PositionRng rng_;
  std::vector<Range> files_;
  std::vector<uint64_t> buffer_;
  uint64_t file_ = 0, row_ = 0;
};

uint64_t positions(const LostSamplesOptions& o) {
  return data::positions_in_run(o.epochs, o.samples);
}

uint64_t steps(const LostSamplesOptions& o) { return (positions(o) + o.batch - 1) / o.batch; }

Range batch_of(const LostSamplesOptions& o, uint64_t step) {
  return {step * o.batch, std::min((step + 1) * o.batch, positions(o))};
}

// Calls run(first step, last step that survives, number of the start) for each life of the job. A
// life that is killed in step s keeps what its last checkpoint holds.
template <class Run>
void for_each_life(const LostSamplesOptions& o, const Run& run) {
  uint64_t at = 0, start = 0;
  for (const uint64_t kill : kill_steps(o)) {
    const uint64_t saved = std::max(at, kill / o.checkpoint_every * o.checkpoint_every);
    run(at, saved, start++);
    at = saved;
  }
  run(at, steps(o), start);
}

void use_usual(const LostSamplesOptions& o, bool shuffle_files, std::vector<uint32_t>& used) {
  for_each_life(o, [&](uint64_t first, uint64_t saved, uint64_t start) {
    for (uint64_t host = 0; host < o.hosts; ++host) {
      HostStream stream(o, host, start, shuffle_files);
      for (uint64_t step = first; step < saved; ++step) {
        const Range batch = batch_of(o, step);
        const uint64_t size = batch.end - batch.begin;
        const uint64_t share = (host + 1) * size / o.hosts - host * size / o.hosts;
        for (uint64_t k = 0; k < share; ++k) ++used[stream.next()];
      }
    }
  });
}

void use_ours(const LostSamplesOptions& o, std::vector<uint32_t>& used) {
  const data::Sampler sampler({.samples = o.samples, .seed = o.seed});
  std::vector<uint64_t> samples;
  for_each_life(o, [&](uint64_t first, uint64_t saved, uint64_t) {
    for (uint64_t step = first; step < saved; ++step) {
      const Range batch = batch_of(o, step);
      samples.resize(batch.end - batch.begin);
      sampler.fill(batch.begin, samples);
      for (const uint64_t sample : samples) ++used[sample];
    }
  });
}

struct Bin {
  uint64_t first, last;
  const char* name;
};
constexpr std::array<Bin, 10> kBins = {{{0, 0, "never"},
                                        {1, 1, "1"},
                                        {2, 2, "2"},
                                        {3, 3, "3"},
                                        {4, 4, "4"},
                                        {5, 5, "5"},
                                        {6, 10, "6-10"},
                                        {11, 20, "11-20"},
                                        {21, 30, "21-30"},
                                        {31, UINT64_MAX, "over 30"}}};

double percent(const LostSamplesOptions& o, uint64_t samples) {
  return 100.0 * static_cast<double>(samples) / static_cast<double>(o.samples);
}

double percent_in(const LostSamplesOptions& o, const UseCounts& counts, const Bin& bin) {
  uint64_t sum = 0;
  for (uint64_t k = bin.first; k <= bin.last && k < counts.samples_used.size(); ++k) {
    sum += counts.samples_used[k];
  }
  return percent(o, sum);
}

}  // namespace

const char* to_string(Pipeline pipeline) {
  switch (pipeline) {
    case Pipeline::kFixedFiles:
      return "usual pipeline";
    case Pipeline::kShuffledFiles:
      return "usual, files shuffled at each start";
    case Pipeline::kOurs:
      return "nfscale";
  }
  return "";
}

std::vector<uint64_t> kill_steps(const LostSamplesOptions& options) {
  NF_CHECK(options.kills < steps(options), "lost_samples: more kills than steps");
  PositionRng rng(options.seed, Stream::kTest, 0);
  std::set<uint64_t> kills;
  while (kills.size() < options.kills) kills.insert(rng.below(steps(options)));
  return {kills.begin(), kills.end()};
}

std::vector<uint32_t> times_used(const LostSamplesOptions& options, Pipeline pipeline) {
  NF_CHECK(options.samples >= options.files && options.files >= options.hosts && options.hosts > 0,
           "lost_samples: every file needs a sample and every host a file");
  NF_CHECK(options.batch > 0 && options.checkpoint_every > 0, "lost_samples: empty batch");
  std::vector<uint32_t> used(options.samples);
  if (pipeline == Pipeline::kOurs) {
    use_ours(options, used);
  } else {
    use_usual(options, pipeline == Pipeline::kShuffledFiles, used);
  }
  return used;
}

UseCounts count_uses(const LostSamplesOptions& options, Pipeline pipeline) {
  UseCounts counts;
  counts.pipeline = pipeline;
  const auto epochs = static_cast<uint32_t>(std::lround(options.epochs));
  for (const uint32_t times : times_used(options, pipeline)) {
    if (counts.samples_used.size() <= times) counts.samples_used.resize(times + 1);
    ++counts.samples_used[times];
    counts.never += times == 0;
    counts.wanted += times == epochs;
    counts.too_often += times > epochs;
    counts.most = std::max(counts.most, times);
  }
  return counts;
}

Json to_json(const LostSamplesOptions& o, const std::vector<UseCounts>& results) {
  Json pipelines = Json::array();
  for (const UseCounts& r : results) {
    pipelines.push_back({{"pipeline", to_string(r.pipeline)},
                         {"never", r.never},
                         {"as_often_as_epochs", r.wanted},
                         {"more_often", r.too_often},
                         {"most", r.most},
                         {"samples_used_k_times", r.samples_used}});
  }
  return {{"samples", o.samples},
          {"files", o.files},
          {"hosts", o.hosts},
          {"batch", o.batch},
          {"buffer_batches", o.buffer_batches},
          {"epochs", o.epochs},
          {"kills", kill_steps(o)},
          {"checkpoint_every", o.checkpoint_every},
          {"seed", o.seed},
          {"pipelines", pipelines}};
}

std::string table(const LostSamplesOptions& o, const std::vector<UseCounts>& results) {
  std::string text =
      fmt::format("{} samples, {} epochs, {} kills, checkpoint every {} of {} steps\n\n", o.samples,
                  o.epochs, o.kills, o.checkpoint_every, steps(o));
  text += fmt::format("{:<38}{:>10}{:>12}{:>14}{:>8}\n", "share of samples that were used", "never",
                      fmt::format("{} times", o.epochs), "more often", "most");
  for (const UseCounts& r : results) {
    text += fmt::format("{:<38}{:>9.3f}%{:>11.3f}%{:>13.3f}%{:>8}\n", to_string(r.pipeline),
                        percent(o, r.never), percent(o, r.wanted), percent(o, r.too_often), r.most);
  }
  return text;
}

std::string plot_script(const LostSamplesOptions& o, const std::vector<UseCounts>& results,
                        const std::string& svg) {
  // Okabe and Ito's colours: told apart with any colour vision; the hatching-free bars also differ
  // in lightness.
  constexpr std::array<const char*, 3> kColours = {"#D55E00", "#F0C36D", "#0072B2"};
  uint32_t most = 0;
  for (const UseCounts& r : results) most = std::max(most, r.most);
  std::string text = "$uses << EOD\n";
  for (const Bin& bin : kBins) {
    if (bin.first > most) break;
    text += fmt::format("\"{}\"", bin.name);
    for (const UseCounts& r : results) text += fmt::format(" {:.4f}", percent_in(o, r, bin));
    text += "\n";
  }
  text += "EOD\n";
  text += fmt::format(
      "set terminal svg size 920,500 font 'Helvetica,14' background 'white'\n"
      "set output '{}'\n"
      "set title \"How often each sample was used in {} epochs with {} preemptions\\n"
      "{{/*0.8 {} samples in {} files, {} hosts, batch {}, shuffle buffer of {} batches, "
      "checkpoint every {} steps}}\"\n",
      svg, o.epochs, o.kills, o.samples, o.files, o.hosts, o.batch, o.buffer_batches,
      o.checkpoint_every);
  text += fmt::format(
      "set xlabel 'times that a sample entered the final weights (wanted: {})'\n"
      "set ylabel 'share of all samples (%)'\n"
      "set yrange [0:112]\nset ytics 0,20,100\nset grid ytics lc rgb '#DDDDDD'\n"
      "set border 3\nset xtics nomirror\nset ytics nomirror\nset key top right\n"
      "set style data histogram\nset style histogram clustered gap 1\n"
      "set style fill solid 1 border rgb '#444444'\nset boxwidth 0.9 relative\n",
      o.epochs);
  text += "plot ";
  for (size_t i = 0; i < results.size(); ++i) {
    // Values above the bars that are worth reading.
    const double shift = (static_cast<double>(i) - (static_cast<double>(results.size()) - 1) / 2) /
                         (static_cast<double>(results.size()) + 1);
    text += fmt::format(
        "{}$uses using {}:xtic(1) title '{}' lc rgb '{}', "
        "'' using ($0{:+.3f}):(${} >= 0.5 ? ${} + 3 : 1/0):(sprintf('%.0f', ${})) with labels "
        "font ',11' notitle",
        i == 0 ? "" : ", ", i + 2, to_string(results[i].pipeline), kColours[i % kColours.size()],
        shift, i + 2, i + 2, i + 2);
  }
  return text + "\n";
}

}  // namespace nf::bench
