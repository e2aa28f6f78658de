// What a parameter is for. AGC, weight decay, export and learning-rate rules go by role, never by
// name.
#pragma once

namespace nf {

enum class ParamRole {
  kConvWeight,        // weight-standardized convolution
  kGain,              // its gain, [C,1,1,1]
  kBias,              // bias of a convolution or of squeeze-excite
  kLinearWeight,      // squeeze-excite weights
  kSkipGain,          // scalar on the residual branch
  kClassifierWeight,  // the only parameter without AGC
  kClassifierBias
};

// nfnet_spec.md section 7: no decay on gains, biases and skip gains. (The classifier's bias is a
// bias.)
constexpr bool has_weight_decay(ParamRole role) {
  return role == ParamRole::kConvWeight || role == ParamRole::kLinearWeight ||
         role == ParamRole::kClassifierWeight;
}
// Section 6: everything is clipped but the classifier's weight matrix.
constexpr bool has_agc(ParamRole role) { return role != ParamRole::kClassifierWeight; }

}  // namespace nf
