// What nf-fit writes and reads as JSON: fit.json of a study (and back, for the planner), and the
// pieces that its commands print. Numbers are the shortest text that reads back to the same bits;
// no date, path or machine is in it, so the same input gives the same bytes.
#pragma once

#include "analysis/learning_curve.h"
#include "analysis/planner.h"
#include "analysis/study.h"
#include "core/jsonl.h"

namespace nf::analysis {

Json to_json(const Interval& interval);  // [lo, hi]
// {"form", "objective", "parameters", "ci95"}
Json to_json(const CurveFit& fit, const CurveBootstrap& bootstrap);
Json to_json(const Regions& regions);
// {"parameters", "objective", "exponent_size", "exponent_images", "ci95"}
Json to_json(const ScalingLaw& law, const LawBootstrap& bootstrap);
Json to_json(const Study& study);
Json to_json(const Plan& plan);
Json to_json(const Prediction& prediction);

// The device's rates of a fit.json; `device` "" where it has only one. A device that is neither in
// the table nor known needs its peak_tflops (dense bfloat16). Throws Error(kUsage) for an unknown
// device without one, Error(kData) for a file that is no fit.json.
PlanBasis read_plan_basis(const Json& fit, const std::string& name, const std::string& device,
                          double peak_tflops = 0);
// The same of a file; Error(kData) also where that is no JSON.
PlanBasis load_plan_basis(const std::string& fit_file, const std::string& device,
                          double peak_tflops = 0);

}  // namespace nf::analysis
