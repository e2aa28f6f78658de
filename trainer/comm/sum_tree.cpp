// See sum_tree.h.
#include "trainer/comm/sum_tree.h"

#include <algorithm>
#include <bit>

#include "core/check.h"

namespace nf::train {
namespace {

template <class T>
T fold(std::span<const T> leaves) {
  if (leaves.empty()) return T{0};
  std::vector<T> values(leaves.begin(), leaves.end());
  TreeFold tree(values.size());
  for (size_t i = 0; i < values.size(); ++i)
    tree.push({0, i}, i, [&](size_t into, size_t from) { values[into] += values[from]; });
  return values.front();  // the leftmost operand takes every addition of the root's left edge
}

}  // namespace

int TreeFold::root_level() const { return std::bit_width(leaves_ - 1); }

uint64_t TreeFold::end(TreeNode node) const {
  return std::min((node.index + 1) << node.level, leaves_);
}

void TreeFold::check_next(TreeNode node) const {
  NF_CHECK(node.level >= 0 && node.level <= root_level() && node.begin() < leaves_);
  NF_CHECK(held_.empty() || end(held_.back().node) == node.begin(), "nodes out of order");
}

std::vector<TreeNode> maximal_subtrees(uint64_t begin, uint64_t end, uint64_t leaves) {
  NF_CHECK(begin < end && end <= leaves);
  TreeFold tree(leaves);
  for (uint64_t leaf = begin; leaf < end; ++leaf) tree.push({0, leaf}, 0, [](size_t, size_t) {});
  std::vector<TreeNode> nodes;
  for (const auto& held : tree.held()) nodes.push_back(held.node);
  return nodes;
}

std::vector<Addition> order_of_additions(std::span<const TreeNode> nodes, uint64_t leaves) {
  NF_CHECK(!nodes.empty() && nodes.front().begin() == 0);
  std::vector<Addition> order;
  TreeFold tree(leaves);
  for (size_t i = 0; i < nodes.size(); ++i)
    tree.push(nodes[i], i, [&](size_t into, size_t from) { order.push_back({into, from}); });
  NF_CHECK(tree.complete(), "the nodes do not cover all leaves");
  return order;
}

double tree_sum(std::span<const double> leaves) { return fold(leaves); }
float tree_sum(std::span<const float> leaves) { return fold(leaves); }

FoldPlan make_fold_plan(uint64_t begin, uint64_t end, uint64_t leaves) {
  FoldPlan plan;
  TreeFold fold(leaves);
  std::vector<size_t> unused;
  for (uint64_t m = begin; m < end; ++m) {
    if (unused.empty()) unused.push_back(plan.buffers++);
    const size_t buffer = unused.back();
    unused.pop_back();
    plan.leaf_buffer.push_back(buffer);
    std::vector<Addition> now;
    fold.push({0, m}, buffer, [&](size_t into, size_t from) {
      now.push_back({into, from});
      unused.push_back(from);
    });
    plan.additions.push_back(std::move(now));
  }
  for (const auto& h : fold.held()) {
    plan.held.push_back(h.operand);
    plan.nodes.push_back(h.node);
  }
  return plan;
}

FoldPlan make_unfolded_plan(uint64_t begin, uint64_t end) {
  FoldPlan plan;
  plan.buffers = end - begin;
  plan.additions.resize(plan.buffers);
  for (size_t i = 0; i < plan.buffers; ++i) {
    plan.leaf_buffer.push_back(i);
    plan.held.push_back(i);
    plan.nodes.push_back({0, begin + i});
  }
  return plan;
}

}  // namespace nf::train
