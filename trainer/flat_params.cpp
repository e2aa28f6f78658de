// See flat_params.h.
#include "trainer/flat_params.h"

namespace nf::train {

FlatLayout layout_of(const model::Nfnet& net) {
  std::vector<std::vector<int64_t>> shapes;
  for (const auto& p : net.parameters()) shapes.push_back(p.tensor.sizes().vec());
  return FlatLayout(shapes);
}

std::vector<Param> bind_params(model::Nfnet& net, const FlatLayout& layout,
                               const at::Tensor& weights) {
  std::vector<Param> params;
  for (size_t i = 0; i < net.parameters().size(); ++i) {
    net.rebind(i, layout.view(weights, i));
    const auto& p = net.parameters()[i];
    params.push_back({.name = p.name, .value = p.tensor, .role = p.role});
  }
  return params;
}

}  // namespace nf::train
