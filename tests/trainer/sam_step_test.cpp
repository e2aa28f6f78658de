// train_step with SAM against an oracle in float64 that was written from the formulas alone
// (nfnet_spec.md sections 5 to 9): loss, AGC, decay, momentum and SAM are spelled out here, once
// more and naively; only the network is the product's, whose logits and gradients have golden
// values of their own.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <map>

#include "tests/support/thread_runs.h"
#include "tests/support/tiny_net.h"
#include "trainer/normalize.h"
#include "trainer/step.h"

namespace nf {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

double norm_of(const Tensors& tensors) {
  double squares = 0;
  for (const Tensor& t : tensors) squares += t.square().sum().item<double>();
  return std::sqrt(squares);
}

bool ends_with(const std::string& name, const std::string& end) { return name.ends_with(end); }

class Oracle {
 public:
  Oracle(const train::RunConfig& config, train::Trainer& trainer)
      : c_(config), net_(trainer.net.spec(), at::kDouble) {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < net_.parameters().size(); ++i) {
      net_.parameters()[i].tensor.copy_(trainer.net.parameters()[i].tensor);
      momentum_.push_back(at::zeros_like(net_.parameters()[i].tensor).detach());
    }
    steps_ = static_cast<double>(trainer.total_steps());
    warmup_ = c_.schedule.warmup_epochs * static_cast<double>(trainer.train_set.size()) /
              static_cast<double>(c_.batch.size);
  }

  // One update; micro_batches in order.
  void step(const std::vector<data::MicroBatch>& micro_batches) {
    Tensors total;
    double count = 0;
    for (const data::MicroBatch& batch : micro_batches) {
      const Tensors before = values();
      if (c_.sam.rho > 0) climb(batch);
      const Tensors h = gradient(batch, batch.count);
      assign(before);
      for (size_t i = 0; i < h.size(); ++i)
        total.size() < h.size() ? total.push_back(h[i]) : (void)(total[i] = total[i] + h[i]);
      count += static_cast<double>(batch.count);
    }
    for (size_t i = 0; i < total.size(); ++i) update(i, total[i] / count);
    ++t_;
  }

  Tensors values() const {
    Tensors out;
    for (const auto& p : net_.parameters()) out.push_back(p.tensor.detach().clone());
    return out;
  }

 private:
  // Sum of the losses of the first n images, and its gradient.
  Tensors gradient(const data::MicroBatch& batch, int64_t n) {
    model::ForwardOptions options;
    options.training = true;
    options.compute = at::kDouble;
    options.dropout = c_.model.dropout;
    options.stochastic_depth = c_.model.stochastic_depth;
    options.seed = static_cast<uint64_t>(c_.run.seed);
    std::vector<uint64_t> positions;
    for (int64_t i = 0; i < n; ++i)
      positions.push_back(batch.range.begin + static_cast<uint64_t>(i));
    options.positions = positions;
    const Tensor images = train::normalized_images(batch, at::kCPU).to(at::kDouble).narrow(0, 0, n);
    const Tensor log_p = at::log_softmax(net_.forward(images, options), 1);
    const auto classes = log_p.size(1);
    const double s = c_.loss.label_smoothing;
    Tensor loss = at::zeros({}, at::kDouble);
    for (int64_t i = 0; i < n; ++i) {
      const int32_t label = batch.labels[batch.label_offset[static_cast<size_t>(i)]];
      for (int64_t k = 0; k < classes; ++k)
        loss = loss - ((k == label ? 1 - s : 0.0) + s / static_cast<double>(classes)) * log_p[i][k];
    }
    Tensors leaves, out;
    for (const auto& p : net_.parameters()) leaves.push_back(p.tensor);
    for (const Tensor& g : torch::autograd::grad({loss}, leaves)) out.push_back(g.detach());
    return out;
  }

  void climb(const data::MicroBatch& batch) {
    const auto n =
        std::max<int64_t>(1, std::lround(c_.sam.fraction * static_cast<double>(batch.count)));
    const Tensors g = gradient(batch, n), w = values();
    Tensors scaled, moved;
    for (size_t i = 0; i < g.size(); ++i)
      scaled.push_back(c_.sam.adaptive ? w[i].abs() * g[i] : g[i]);
    const double length = norm_of(scaled);
    for (size_t i = 0; i < g.size(); ++i)
      moved.push_back(w[i] + c_.sam.rho / length * (c_.sam.adaptive ? w[i] * w[i] * g[i] : g[i]));
    assign(moved);
  }

  void assign(const Tensors& values) {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < values.size(); ++i) net_.parameters()[i].tensor.copy_(values[i]);
  }

  double rate() const {
    if (t_ <= warmup_) return c_.optimizer.learning_rate * t_ / warmup_;
    return 0.5 * c_.optimizer.learning_rate *
           (1 + std::cos(M_PI * (t_ - warmup_) / (steps_ - warmup_)));
  }

  static Tensor clipped(const std::string& name, const Tensor& w, const Tensor& g, double clip) {
    if (name == "head.fc.weight") return g;
    int wide = 0;
    for (const int64_t extent : w.sizes()) wide += extent != 1 ? 1 : 0;
    const int64_t units = wide <= 1 ? 1 : w.size(0);
    const Tensor wu = w.reshape({units, -1}), gu = g.reshape({units, -1});
    const Tensor limit = clip * wu.norm(2, {1}, true).clamp_min(1e-3);
    const Tensor length = gu.norm(2, {1}, true);
    return at::where(length > limit, gu * limit / length.clamp_min(1e-6), gu).reshape(g.sizes());
  }

  void update(size_t i, const Tensor& mean) {
    const at::NoGradGuard no_grad;
    const std::string& name = net_.parameters()[i].name;
    Tensor w = net_.parameters()[i].tensor.detach();
    Tensor g = clipped(name, w, mean, c_.optimizer.agc_clip);
    if (ends_with(name, ".weight")) g = g + c_.optimizer.weight_decay * w;
    momentum_[i] = c_.optimizer.momentum * momentum_[i] + g;
    w.copy_(w - rate() * (g + c_.optimizer.momentum * momentum_[i]));
  }

  const train::RunConfig& c_;
  model::Nfnet net_;
  Tensors momentum_;
  double t_ = 0, steps_ = 0, warmup_ = 0;
};

class SamStep : public testing::Test {
 protected:
  static void SetUpTestSuite() { scratch_ = new test::RunScratch(20, 23); }
  static void TearDownTestSuite() { delete scratch_; }

  static train::RunConfig config(const std::vector<std::string>& more) {
    std::vector<std::string> all = {"batch.micro_batches=4", "optimizer.weight_decay=0.01",
                                    "schedule.warmup_epochs=0.3", "schedule.epochs=4"};
    all.insert(all.end(), more.begin(), more.end());
    return test::tiny_config(scratch_->data(), all);
  }

  // Three updates by both; the distance of their weights after them, as a part of the way that the
  // oracle went. `other`: the oracle's config, where it is not the same.
  static double distance(const train::RunConfig& c, const train::RunConfig& other) {
    at::set_num_threads(1);
    train::LocalCommunicator alone;
    train::Trainer trainer(c, alone), batches(c, alone);
    train::initialize_weights(trainer);
    Oracle oracle(other, trainer);
    const Tensors start = oracle.values();
    for (int step = 0; step < 3; ++step) {
      std::vector<data::MicroBatch> parts;
      for (int64_t m = 0; m < c.batch.micro_batches; ++m) parts.push_back(*batches.loader->next());
      oracle.step(parts);
      train::train_step(trainer, {});
    }
    Tensors apart, way;
    const Tensors end = oracle.values();
    for (size_t i = 0; i < end.size(); ++i) {
      apart.push_back(trainer.params[i].value.detach().to(at::kDouble) - end[i]);
      way.push_back(end[i] - start[i]);
    }
    return norm_of(apart) / norm_of(way);
  }

  // The product follows the oracle, and not the oracle without SAM.
  static void expect_follows(const std::vector<std::string>& sam) {
    const train::RunConfig c = config(sam);
    train::RunConfig plain = c;
    plain.sam.rho = 0;
    EXPECT_LT(distance(c, c), 2e-5) << sam[0] << " " << sam[1];
    EXPECT_GT(distance(c, plain), 1e-2) << sam[0] << " " << sam[1];
  }

  static test::RunScratch* scratch_;
};
test::RunScratch* SamStep::scratch_ = nullptr;

TEST_F(SamStep, AFifthOfEachMicroBatchPointsUphill) {
  expect_follows({"sam.rho=0.5", "sam.fraction=0.2"});
}

TEST_F(SamStep, TheWholeMicroBatchPointsUphill) {
  expect_follows({"sam.rho=0.5", "sam.fraction=1"});
}

TEST_F(SamStep, Adaptive) {
  expect_follows({"sam.rho=2", "sam.fraction=0.2", "sam.adaptive=true"});
}

TEST_F(SamStep, WithoutSamTheOracleIsPlainSgd) {
  const train::RunConfig c = config({"sam.rho=0"});
  EXPECT_LT(distance(c, c), 2e-5);
}

// Weights, momentum and average to the bit; state.json holds a hash of the config, which differs.
TEST_F(SamStep, RhoZeroIsPlainSgdToTheBit) {
  const auto plain = scratch_->train("plain", 1);
  const auto zero =
      scratch_->train("zero", 2, {"sam.rho=0", "sam.fraction=1", "sam.adaptive=true"});
  const auto some = scratch_->train("some", 1, {"sam.rho=0.05"});
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "ema.safetensors"}) {
    EXPECT_EQ(test::state_of(plain, file), test::state_of(zero, file)) << file;
    EXPECT_NE(test::state_of(plain, file), test::state_of(some, file)) << file;
  }
}

TEST_F(SamStep, AnyNumberOfRanks) {
  const std::vector<std::vector<std::string>> kinds = {
      {"sam.rho=0.05"},
      {"sam.rho=0.05", "sam.fraction=1", "comm.shared_memory=false"},
      {"sam.rho=0.05", "precision.compute=bfloat16"},
      {"sam.rho=1", "sam.adaptive=true", "data.mixup_alpha=0.2", "data.repeat_augmentation=2"}};
  for (size_t k = 0; k < kinds.size(); ++k) {
    const auto name = [&](int world) {
      return std::string("ranks")
          .append(std::to_string(k))
          .append("_")
          .append(std::to_string(world));
    };
    const auto one = scratch_->train(name(1), 1, kinds[k]);
    for (const int world : {2, 4})
      test::expect_same_run(one, scratch_->train(name(world), world, kinds[k]));
  }
}

// Stopped every two steps and continued with other ranks.
TEST_F(SamStep, ResumedOnOtherRanks) {
  const std::vector<std::string> sam = {"sam.rho=0.05", "schedule.epochs=2",
                                        "checkpoint.every_steps=1"};
  const auto calm = scratch_->train("calm", 1, sam);
  for (int stop = 2; stop <= 8; stop += 2) {
    auto more = sam;
    more.push_back("limit.steps=" + std::to_string(stop));
    scratch_->train("moved", stop / 2 % 4 + 1, more);
  }
  test::expect_same_run(calm, scratch_->train("moved", 3, sam));
}

}  // namespace
}  // namespace nf
