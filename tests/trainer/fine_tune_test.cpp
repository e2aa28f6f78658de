// What fine-tuning adds to a run: weights of another run, frozen and slower layers, growing images,
// recomputed blocks, repeated augmentation; each for several numbers of ranks, and continued.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "tests/support/thread_runs.h"
#include "tests/support/tiny_net.h"
#include "trainer/checkpoint/export.h"
#include "trainer/step.h"
#include "trainer/train_cost.h"

namespace nf {
namespace {

using Strings = std::vector<std::string>;

class FineTune : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new test::RunScratch(20, 23);
    scratch_->train("pretrained", 1, {"limit.steps=2"});
  }
  static void TearDownTestSuite() { delete scratch_; }

  static std::filesystem::path train(const std::string& name, int world, const Strings& more) {
    return scratch_->train(name, world, more);
  }
  static std::string from_pretrained() {
    return "init.weights=" + (*scratch_ / "pretrained").string();
  }
  static std::map<std::string, at::Tensor> weights(
      const std::filesystem::path& run, train::WeightsChoice choice = train::WeightsChoice::kRaw) {
    std::map<std::string, at::Tensor> out;
    for (const auto& t : train::read_weights(run, choice).tensors) out[t.name] = t.tensor;
    return out;
  }

  static test::RunScratch* scratch_;
};
test::RunScratch* FineTune::scratch_ = nullptr;

// The first update has a learning rate of zero: it leaves the weights that were loaded.
TEST_F(FineTune, StartsFromTheWeightsAndANewHead) {
  const auto before = weights(*scratch_ / "pretrained");
  const auto average = weights(*scratch_ / "pretrained", train::WeightsChoice::kEma);
  const Strings one = {from_pretrained(), "limit.steps=1", "run.seed=5"};
  const auto with = [&](Strings more) {
    more.insert(more.end(), one.begin(), one.end());
    return more;
  };
  const auto kept = weights(train("kept", 1, with({})));
  const auto anew = weights(train("anew", 2, with({"init.new_head=true"})));
  const auto mean = weights(train("mean", 1, with({"init.ema=true"})));
  for (const auto& [name, tensor] : before) {
    EXPECT_TRUE(test::same_bits(kept.at(name), tensor)) << name;
    EXPECT_TRUE(test::same_bits(mean.at(name), average.at(name))) << name;
    if (!name.starts_with("head.fc.")) {
      EXPECT_TRUE(test::same_bits(anew.at(name), tensor)) << name;
    }
  }
  EXPECT_FALSE(test::same_bits(anew.at("head.fc.weight"), before.at("head.fc.weight")));
  EXPECT_NEAR(anew.at("head.fc.weight").std().item<double>(), 0.01, 0.002);
  EXPECT_EQ(anew.at("head.fc.bias").abs().max().item<double>(), 0.0);
}

TEST_F(FineTune, FrozenLayersKeepTheirBitsAndOthersLearn) {
  const auto before = weights(*scratch_ / "pretrained");
  const Strings freeze = {from_pretrained(), "optimizer.freeze=[\"stem\", \"stages.1.0.conv1\"]",
                          "sam.rho=0.05"};
  const auto one = train("frozen1", 1, freeze);
  test::expect_same_run(one, train("frozen3", 3, freeze));
  for (const auto& [name, tensor] : weights(one)) {
    const bool frozen = name.starts_with("stem.") || name.starts_with("stages.1.0.conv1.");
    const bool same = test::same_bits(tensor, before.at(name));
    // A gain of 1 may round back to 1 while its branch's skip gain is still near 0.
    EXPECT_EQ(same, frozen || (same && name.ends_with(".gain"))) << name;
  }
}

TEST_F(FineTune, SlowerLayersMoveLess) {
  const auto way = [&](const std::string& name, Strings more) {
    more.insert(more.end(), {from_pretrained(), "limit.steps=2"});
    const auto before = weights(*scratch_ / "pretrained"), after = weights(train(name, 1, more));
    return (after.at("stages.0.0.conv1.weight") - before.at("stages.0.0.conv1.weight"))
        .norm()
        .item<double>();
  };
  // Six layers: stem, four blocks, head; of two updates the first has a learning rate of zero.
  const double full = way("full", {});
  EXPECT_NEAR(way("decay", {"optimizer.layer_decay=0.5"}) / full, std::pow(0.5, 4), 1e-3);
  EXPECT_NEAR(way("scale", {"optimizer.stage_scale=[1,0.25,1,1,1,1]"}) / full, 0.25, 1e-3);
}

TEST_F(FineTune, RecomputedBlocksGiveTheSameBits) {
  const Strings run = {"sam.rho=0.05", "schedule.epochs=1.5"};
  const auto kept = train("kept_blocks", 1, run);
  for (const std::string mode : {"blocks", "auto"}) {
    Strings again = run;
    again.push_back("train.recompute=" + mode);
    test::expect_same_run(kept, train("again_" + mode, 3, again));
  }
}

// Evaluating the average writes nothing: ranks that share their state would write beneath others.
TEST_F(FineTune, TheAveragedNetIsAViewOfTheAverage) {
  train::LocalCommunicator alone;
  train::Trainer trainer(test::tiny_config(scratch_->data(), {"ema.decay=0.9"}), alone);
  train::initialize_weights(trainer);
  trainer.weights.detach().mul_(2);
  const model::Nfnet average = train::averaged_net(trainer);
  ASSERT_EQ(average.parameters().size(), trainer.params.size());
  for (size_t i = 0; i < trainer.params.size(); ++i) {
    const at::Tensor& p = average.parameters()[i].tensor;
    EXPECT_EQ(p.data_ptr(), trainer.ema->values()[i].data_ptr());
    EXPECT_TRUE((2 * p).equal(trainer.params[i].value));
  }
}

// Fetching ahead, as steps on a GPU do, changes no micro-batch and does not outlive a seek.
TEST_F(FineTune, FetchedAheadIsTheSameMicroBatch) {
  train::LocalCommunicator alone;
  const auto config = test::tiny_config(scratch_->data(), {});
  train::Trainer plain(config, alone), ahead(config, alone);
  const auto expect_same = [&](int count) {
    for (int i = 0; i < count; ++i) {
      const auto a = plain.feed->next(), b = ahead.feed->next();
      ASSERT_EQ(a.has_value(), b.has_value());
      if (a) {
        EXPECT_EQ(a->batch.samples, b->batch.samples);
        EXPECT_TRUE(a->images.equal(b->images));
      }
      ahead.feed->fetch_ahead();
      if (i % 3 == 0) ahead.feed->fetch_ahead();  // there is one at most
    }
  };
  expect_same(5);
  plain.seek(1);
  ahead.seek(1);
  expect_same(4);
  plain.seek(plain.total_steps() - 1);
  ahead.seek(plain.total_steps() - 1);
  expect_same(10);  // and the end
}

TEST_F(FineTune, ImagesGrowAtTheSamePositionsForAnyWorldAndRestart) {
  const Strings grow = {"schedule.epochs=2", "schedule.image_sizes=[16, 24, 32]",
                        "schedule.image_size_starts=[0, 0.3, 0.6]", "checkpoint.every_steps=1",
                        "evaluate.split=holdout"};
  const auto calm = train("grow", 1, grow);
  for (int stop = 1; stop <= 7; stop += 2) {
    Strings more = grow;
    more.push_back("limit.steps=" + std::to_string(stop));
    train("grow_again", stop / 2 + 1, more);
  }
  test::expect_same_run(calm, train("grow_again", 2, grow));

  // 354 positions in batches of 48: sizes begin at positions 106 and 212, so with steps 3 and 5.
  train::LocalCommunicator alone;
  train::Trainer trainer(test::tiny_config(scratch_->data(), grow), alone);
  std::vector<int64_t> sizes;
  for (uint64_t step = 0; step < trainer.total_steps(); ++step) {
    for (int m = 0; m < 8; ++m) {
      const auto item = trainer.feed->next();
      ASSERT_TRUE(item.has_value());
      const data::MicroBatch& batch = item->batch;
      EXPECT_EQ(batch.image_size, trainer.plan.image_size(step));
      EXPECT_EQ(static_cast<int64_t>(batch.pixels.size()),
                batch.count * batch.image_size * batch.image_size * 3);
      EXPECT_EQ(item->images.size(0), batch.count);
      EXPECT_EQ(item->images.size(3), batch.image_size);
    }
    sizes.push_back(trainer.plan.image_size(step));
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{16, 16, 16, 24, 24, 32, 32, 32}));

  const Json result = Json::parse(test::slurp(calm / "result.json"));
  const auto& spec = trainer.net.spec();
  const auto flops = [&](int64_t size) {
    return train::train_flops_per_image(trainer.config, spec, size);
  };
  EXPECT_DOUBLE_EQ(result["train_flops"].get<double>(),
                   144 * flops(16) + 96 * flops(24) + 114 * flops(32));
}

// Of batches of 48 with four copies each: 12 samples a batch, each exactly four times, every sample
// once per repeated epoch; copies are augmented each for itself.
TEST_F(FineTune, RepeatedAugmentation) {
  const Strings repeat = {"data.repeat_augmentation=4", "schedule.epochs=8", "data.trace=true",
                          "checkpoint.every_steps=3", "model.depths=[1,1,1,1]"};
  const auto calm = train("repeat", 1, repeat);
  for (const int stop : {5, 11, 20}) {
    Strings more = repeat;
    more.push_back("limit.steps=" + std::to_string(stop));
    train("repeat_again", stop % 3 + 1, more);
  }
  test::expect_same_run(calm, train("repeat_again", 2, repeat));

  constexpr uint64_t kSamples = 177;
  std::map<uint64_t, uint64_t> sample_of;
  std::ifstream in(calm / "trace/rank_00000.tsv");
  for (uint64_t step, position, epoch, sample; in >> step >> position >> epoch >> sample;)
    sample_of[position] = sample;
  ASSERT_EQ(sample_of.size(), 8 * kSamples);
  for (uint64_t begin = 0; begin < 8 * kSamples; begin += 48) {
    std::map<uint64_t, int> count;
    const uint64_t end = std::min(begin + 48, 8 * kSamples);
    for (uint64_t p = begin; p < end; ++p) ++count[sample_of.at(p)];
    for (const auto& [sample, n] : count) EXPECT_EQ(n % 4, 0) << "sample " << sample;
    EXPECT_EQ(std::accumulate(count.begin(), count.end(), uint64_t{0},
                              [](uint64_t sum, const auto& c) { return sum + c.second; }),
              end - begin);
    if (begin / (4 * kSamples) == (end - 1) / (4 * kSamples)) {
      EXPECT_EQ(count.size(), (end - begin) / 4) << begin;
    }
  }
  for (uint64_t epoch = 0; epoch < 2; ++epoch) {
    std::map<uint64_t, int> count;
    for (uint64_t p = 0; p < 4 * kSamples; ++p) ++count[sample_of.at(epoch * 4 * kSamples + p)];
    EXPECT_EQ(count.size(), kSamples);
    for (const auto& [sample, n] : count) EXPECT_EQ(n, 4) << sample;
  }
}

TEST_F(FineTune, CopiesAreAugmentedEachForItself) {
  train::LocalCommunicator alone;
  train::Trainer trainer(
      test::tiny_config(scratch_->data(), {"data.repeat_augmentation=4", "schedule.epochs=4"}),
      alone);
  const auto batch = trainer.loader->next();  // 6 images: 4 copies of one, 2 of the next
  ASSERT_TRUE(batch.has_value());
  const size_t bytes = batch->pixels.size() / static_cast<size_t>(batch->count);
  std::set<std::string> different;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(batch->samples[i], batch->samples[0]);
    different.insert(std::string(reinterpret_cast<const char*>(&batch->pixels[i * bytes]), bytes));
  }
  EXPECT_GE(different.size(), 3u);
}

// Dropout and stochastic depth are no part of an evaluation, and their masks belong to positions:
// the ranks' own draws would give other losses.
TEST_F(FineTune, MasksFollowTheSampleAndEvaluationHasNone) {
  const Strings masks = {"model.dropout=0.5", "model.stochastic_depth=0.8",
                         "evaluate.split=holdout", "optimizer.learning_rate=0"};
  const auto one = train("masks1", 1, masks);
  for (const int world : {2, 4, 7})
    test::expect_same_run(one, train("masks" + std::to_string(world), world, masks));
  const auto none = train("masks0", 1,
                          {"model.dropout=0", "model.stochastic_depth=0", "evaluate.split=holdout",
                           "optimizer.learning_rate=0"});
  const auto loss = [](const std::filesystem::path& run) {
    return Json::parse(test::slurp(run / "result.json"))["heldout_loss"].dump();
  };
  EXPECT_EQ(loss(one), loss(none));
  EXPECT_NE(test::losses_of(one), test::losses_of(none));
}

// Raw and averaged weights are evaluated side by side, at another size than training, and the
// checkpoint that is best by top-1 stays.
TEST_F(FineTune, EvaluatesBothWeightsAtItsOwnSizeAndKeepsTheBest) {
  const auto run =
      train("best", 2,
            {from_pretrained(), "init.new_head=true", "schedule.epochs=3",
             "optimizer.learning_rate=0.3", "evaluate.split=holdout", "evaluate.image_size=40",
             "evaluate.every_steps=2", "checkpoint.keep_best=top1", "checkpoint.keep=1"});
  std::map<std::string, std::set<uint64_t>> steps;
  double best_top1 = -1;
  uint64_t best = 0;
  for (const auto& line : read_jsonl(run / "metrics.jsonl")) {
    if (line["kind"] != "eval") continue;
    steps[line["weights"]].insert(line["step"].get<uint64_t>());
    if (line["weights"] == "ema" && line["top1"] > best_top1) {
      best_top1 = line["top1"];
      best = line["step"];
    }
  }
  EXPECT_EQ(steps["raw"], steps["ema"]);
  EXPECT_EQ(steps["raw"].size(), 6u);  // 2, 4, .. 10 and the end, 12
  EXPECT_EQ(train::follow_latest(run / "checkpoints/best"),
            train::checkpoint_path(run / "checkpoints", best));
  EXPECT_TRUE(std::filesystem::exists(run / "checkpoints/best"));
}

}  // namespace
}  // namespace nf
