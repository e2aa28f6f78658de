// The order in which the gradients of a step's V micro-batches are added, as pure functions of V
// alone. Leaves are the micro-batches; node (level j, index k) covers leaves [k 2^j, (k+1) 2^j) cut
// at V, and is its left child plus its right child, or its left child alone where the right one
// would begin at V or later. Every rank, backend and device adds in this order, which is why the
// number of ranks cannot change a bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nf::train {

struct TreeNode {
  int level = 0;
  uint64_t index = 0;

  uint64_t begin() const { return index << level; }
  bool operator==(const TreeNode&) const = default;
};

// One addition: operand `into` becomes operand `into` + operand `from`, in this order.
struct Addition {
  size_t into = 0;
  size_t from = 0;
  bool operator==(const Addition&) const = default;
};

// The fewest nodes that together cover leaves [begin, end), from left to right; 0 <= begin < end <=
// leaves.
std::vector<TreeNode> maximal_subtrees(uint64_t begin, uint64_t end, uint64_t leaves);

// How the sums of `nodes` (which cover [0, leaves) from left to right) become the total, which is
// left in operand 0.
std::vector<Addition> order_of_additions(std::span<const TreeNode> nodes, uint64_t leaves);

// The total of all leaves in the tree's order. No leaves: 0.
double tree_sum(std::span<const double> leaves);
float tree_sum(std::span<const float> leaves);

// Works off nodes from left to right like a binary counter: as soon as both halves of a node are
// there they are added, so 2^n leaves from an aligned start need n + 1 operands at a time (a range
// that starts or ends inside a node: up to 2n).
class TreeFold {
 public:
  struct Held {
    TreeNode node;
    size_t operand;
  };
  explicit TreeFold(uint64_t leaves) : leaves_(leaves) {}

  // The next node, which begins where the last one ended, its sum held in `operand`. Calls
  // add(into, from) for each addition that can be done now; after it `from` is free.
  template <class Add>
  void push(TreeNode node, size_t operand, Add add) {
    check_next(node);
    for (;;) {
      if (node.level < root_level() && node.index % 2 == 0 && end(node) == leaves_) {
        node = parent(node);  // the right side is missing
      } else if (node.index % 2 == 1 && !held_.empty() &&
                 held_.back().node == TreeNode{node.level, node.index - 1}) {
        add(held_.back().operand, operand);
        operand = held_.back().operand;
        held_.pop_back();
        node = parent(node);
      } else {
        break;
      }
    }
    held_.push_back({node, operand});
  }

  // Maximal subtrees of what was pushed so far, from left to right.
  const std::vector<Held>& held() const { return held_; }
  // Whether all leaves are in: the one sum that is held is the total.
  bool complete() const { return held_.size() == 1 && held_.front().node.level == root_level(); }
  void clear() { held_.clear(); }

 private:
  static TreeNode parent(TreeNode node) { return {node.level + 1, node.index / 2}; }
  int root_level() const;
  uint64_t end(TreeNode node) const;
  void check_next(TreeNode node) const;

  uint64_t leaves_;
  std::vector<Held> held_;
};

// What one rank does with its micro-batches, step after step the same: which buffer each gradient
// goes to, what is added as soon as it is there, and which buffers hold the rank's maximal subtrees
// in the end. A pure function of the range, so every rank knows every other's.
struct FoldPlan {
  std::vector<size_t> leaf_buffer;               // of own micro-batch i
  std::vector<std::vector<Addition>> additions;  // of buffers, once own micro-batch i is there
  std::vector<size_t> held;                      // the subtrees' buffers, from left to right
  std::vector<TreeNode> nodes;                   // the subtrees
  size_t buffers = 0;                            // log2(range) + 1 for an aligned power of two
};

// For micro-batches [begin, end) of `leaves`.
FoldPlan make_fold_plan(uint64_t begin, uint64_t end, uint64_t leaves);
// Each gradient keeps a buffer of its own and nothing is added.
FoldPlan make_unfolded_plan(uint64_t begin, uint64_t end);

}  // namespace nf::train
