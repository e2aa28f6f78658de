// See load_model.h.
#include "trainer/load_model.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "trainer/model_metadata.h"

namespace nf::train {

LoadedModel load_model(const std::string& path, WeightsChoice choice, const std::string& name,
                       const std::string& flavour) {
  const WeightsSource source = read_weights(path, choice);
  int64_t classes = 0;  // the classifier's rows say it best
  for (const auto& t : source.tensors)
    if (t.name == "head.fc.weight" && t.tensor.dim() == 2) classes = t.tensor.size(0);
  const model::NfnetSpec spec = described_model(source.metadata, path, name, flavour, classes);
  LoadedModel loaded{model::Nfnet(spec), spec.train_size};
  std::vector<ExpectedTensor> expected;
  for (const auto& p : loaded.net.parameters())
    expected.push_back({p.name, p.tensor.sizes().vec()});
  FitOptions options;
  options.model = spec.name;
  const auto fitted = fit_weights(source, expected, options);
  at::NoGradGuard no_grad;
  for (const auto& p : loaded.net.parameters())
    for (const auto& f : fitted)
      if (f.name == p.name) p.tensor.detach().copy_(f.tensor);
  if (const auto found = source.metadata.find("image_size");
      found != source.metadata.end() && !found->second.empty())
    loaded.image_size = std::atoll(found->second.c_str());
  return loaded;
}

}  // namespace nf::train
