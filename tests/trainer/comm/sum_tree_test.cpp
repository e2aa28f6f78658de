// The tree of gradient sums: which subtrees a rank's range has, the order in which they are joined,
// and its sums against the definition.
#include "trainer/comm/sum_tree.h"

#include <gtest/gtest.h>

#include <bit>
#include <numeric>

#include "tests/trainer/comm/oracle.h"
#include "trainer/comm/grad_reducer.h"

namespace nf::test {
namespace {

using train::Addition;
using train::maximal_subtrees;
using train::order_of_additions;
using train::TreeFold;
using train::TreeNode;

TEST(MaximalSubtrees, KnownCases) {
  using Nodes = std::vector<TreeNode>;
  EXPECT_EQ(maximal_subtrees(0, 8, 8), (Nodes{{3, 0}}));
  EXPECT_EQ(maximal_subtrees(4, 8, 8), (Nodes{{2, 1}}));
  EXPECT_EQ(maximal_subtrees(1, 7, 8), (Nodes{{0, 1}, {1, 1}, {1, 2}, {0, 6}}));
  EXPECT_EQ(maximal_subtrees(4, 5, 5), (Nodes{{2, 1}}));  // leaf 4 is all of [4, 8)
  EXPECT_EQ(maximal_subtrees(3, 5, 5), (Nodes{{0, 3}, {2, 1}}));
  EXPECT_EQ(maximal_subtrees(0, 1, 1), (Nodes{{0, 0}}));
  EXPECT_EQ(maximal_subtrees(2, 6, 6), (Nodes{{1, 1}, {2, 1}}));
}

TEST(MaximalSubtrees, CoverEveryRangeWithoutGapsAndCannotBeJoined) {
  for (uint64_t v = 1; v <= 20; ++v)
    for (uint64_t a = 0; a < v; ++a)
      for (uint64_t b = a + 1; b <= v; ++b) {
        uint64_t at = a;
        const auto nodes = maximal_subtrees(a, b, v);
        for (size_t i = 0; i < nodes.size(); ++i) {
          const auto [level, index] = nodes[i];
          EXPECT_EQ(nodes[i].begin(), at);
          at = std::min(v, (index + 1) << level);
          if (i + 1 < nodes.size()) {
            EXPECT_FALSE(index % 2 == 0 && nodes[i + 1] == (TreeNode{level, index + 1}));
          }
        }
        EXPECT_EQ(at, b);
      }
}

TEST(OrderOfAdditions, KnownCases) {
  using Order = std::vector<Addition>;
  const std::vector<TreeNode> four = {{0, 0}, {0, 1}, {0, 2}, {0, 3}};
  EXPECT_EQ(order_of_additions(four, 4), (Order{{0, 1}, {2, 3}, {0, 2}}));
  const std::vector<TreeNode> three = {{0, 0}, {0, 1}, {0, 2}};
  EXPECT_EQ(order_of_additions(three, 3), (Order{{0, 1}, {0, 2}}));
  const std::vector<TreeNode> root = {{0, 0}};
  EXPECT_TRUE(order_of_additions(root, 1).empty());
}

TEST(OrderOfAdditions, RefusesNodesThatDoNotCoverTheLeaves) {
  const std::vector<TreeNode> short_list = {{0, 0}, {0, 1}};
  EXPECT_THROW(order_of_additions(short_list, 4), std::logic_error);
  const std::vector<TreeNode> gap = {{0, 0}, {0, 2}};
  EXPECT_THROW(order_of_additions(gap, 4), std::logic_error);
}

TEST(TreeSum, FollowsTheDefinition) {
  size_t differs_from_serial = 0;
  for (size_t v = 1; v <= 70; ++v) {
    std::vector<float> leaves(v);
    std::vector<double> wide(v);
    for (size_t i = 0; i < v; ++i) {
      leaves[i] = gradient(v, i);
      wide[i] = static_cast<double>(leaves[i]) * 1.1;
    }
    EXPECT_EQ(train::tree_sum(leaves), oracle_sum<float>(leaves)) << v;
    EXPECT_EQ(train::GradReducer::tree_sum(wide), oracle_sum<double>(wide)) << v;
    if (train::tree_sum(leaves) != std::accumulate(leaves.begin(), leaves.end(), 0.0f))
      ++differs_from_serial;
  }
  EXPECT_GT(differs_from_serial, 20u);  // the order matters for these numbers
  EXPECT_EQ(train::tree_sum(std::span<const double>{}), 0.0);
}

TEST(TreeFold, HoldsFewOperands) {
  for (uint64_t v = 1; v <= 256; ++v) {
    TreeFold fold(v);
    size_t most = 0;
    for (uint64_t leaf = 0; leaf < v; ++leaf) {
      most = std::max(most, fold.held().size() + 1);  // and the leaf itself
      fold.push({0, leaf}, leaf, [](size_t, size_t) {});
    }
    EXPECT_LE(most, static_cast<size_t>(std::bit_width(v - 1)) + 1) << v;
    EXPECT_EQ(fold.held().size(), 1u);
    EXPECT_EQ(fold.held()[0].operand, 0u);
  }
}

}  // namespace
}  // namespace nf::test
