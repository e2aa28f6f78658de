// The forms of a curve ln f(z; p) with their gradients, z = ln(x / x0): power law, power law with a
// constant, the sigmoid form of arXiv 2209.06640 (three regions) and a smoothly broken power law
// (arXiv 2210.14891). Parameters are free real numbers; positive quantities enter by logarithm.
#pragma once

#include <string_view>

namespace nf::analysis {

enum class Form { kPowerLaw, kPowerLawConstant, kSigmoid, kBroken };

inline constexpr int kMostParameters = 6;

std::string_view form_name(Form form);  // "pl", "plc", "sigmoid", "broken"
int form_parameters(Form form);         // 2, 3, 5, 6
int form_least_points(Form form);       // 3, 4, 6, 7

// ln(e^a + e^b) without overflow.
double log_sum_exp(double a, double b);
double softplus(double v);  // ln(1 + e^v)

// ln f at z; gradient (may be null) with respect to p:
//   pl       a, alpha                       a - alpha z
//   plc      e, a, alpha                    lse(e, a - alpha z)
//   sigmoid  e, w, eta, a, alpha            L in (E, E0): ln(L - E) - H ln(E0 - L) = a - alpha z
//   with
//                                           E = exp(e), E0 = E + exp(w), H = exp(eta)
//   broken   e, b, c0, d, c1, f             lse(e, b - c0 z - c1 F softplus((z - d) / F)), F =
//   exp(f)
double log_form(Form form, const double* p, double z, double* gradient);

// The sigmoid form as a curve of its own: the local slope -d ln L / d ln x at a level between its
// two limits, given by t = logit((L - E) / (E0 - E)), and z as a function of t.
double sigmoid_slope(const double* p, double t);
double sigmoid_z(const double* p, double t);

}  // namespace nf::analysis
