// fit_weights of export.h: compares what a file holds with what a model needs, and says all of it
// at once.
#include <algorithm>
#include <map>
#include <string_view>

#include "core/error.h"
#include "trainer/checkpoint/export.h"

namespace nf::train {
namespace {

constexpr size_t kListed = 12;  // tensors named per kind of misfit; the others are counted

bool in_head(std::string_view name) { return name.starts_with("head."); }

std::string shape_text(at::IntArrayRef shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

// What does not fit, by kind, each line "name" or "name [is], expected [should be]".
struct Misfits {
  std::vector<std::string> missing, unexpected, shapes;
  bool only_head = true;
  bool empty() const { return missing.empty() && unexpected.empty() && shapes.empty(); }
  void add(std::vector<std::string>& list, const std::string& name, const std::string& text) {
    list.push_back(text);
    only_head = only_head && in_head(name);
  }
};

void list_kind(std::string& out, const char* kind, const std::vector<std::string>& list) {
  if (list.empty()) return;
  out += "\n  " + std::to_string(list.size()) + " " + kind + ": ";
  for (size_t i = 0; i < std::min(kListed, list.size()); ++i) out += (i ? "; " : "") + list[i];
  if (list.size() > kListed) out += "; and " + std::to_string(list.size() - kListed) + " more";
}

[[noreturn]] void throw_misfits(const WeightsSource& source, const Misfits& misfits,
                                const FitOptions& options) {
  std::string what = "the weights do not fit";
  if (!options.model.empty()) what += " " + options.model;
  const auto model = source.metadata.find("model");
  if (model != source.metadata.end()) what += "; the file says they are of " + model->second;
  list_kind(what, "missing", misfits.missing);
  list_kind(what, "unexpected", misfits.unexpected);
  list_kind(what, "of another shape", misfits.shapes);
  const char* hint = misfits.only_head && !options.new_head
                         ? "only the classifier differs: set init.new_head = true to start with a "
                           "new one, or model.classes to the file's number of classes"
                         : "set model.name (and depths, widths) to the network that the weights "
                           "were trained with";
  throw Error(ExitCode::kWeights, source.path.string(), what, hint);
}

}  // namespace

std::vector<NamedTensor> fit_weights(const WeightsSource& source,
                                     const std::vector<ExpectedTensor>& expected,
                                     const FitOptions& options) {
  const auto skipped = [&](const std::string& name) { return options.new_head && in_head(name); };
  std::map<std::string_view, const NamedTensor*> unused;
  for (const NamedTensor& t : source.tensors)
    if (!skipped(t.name)) unused[t.name] = &t;

  std::vector<NamedTensor> out;
  Misfits misfits;
  for (const ExpectedTensor& e : expected) {
    if (skipped(e.name)) continue;
    const auto found = unused.find(e.name);
    if (found == unused.end()) {
      misfits.add(misfits.missing, e.name, e.name);
      continue;
    }
    const NamedTensor& t = *found->second;
    if (t.tensor.sizes() != at::IntArrayRef(e.shape))
      misfits.add(
          misfits.shapes, e.name,
          e.name + " " + shape_text(t.tensor.sizes()) + ", expected " + shape_text(e.shape));
    out.push_back(t);
    unused.erase(found);
  }
  for (const NamedTensor& t : source.tensors)  // in the order of the file
    if (unused.contains(t.name)) misfits.add(misfits.unexpected, t.name, t.name);
  if (!misfits.empty()) throw_misfits(source, misfits, options);
  return out;
}

}  // namespace nf::train
