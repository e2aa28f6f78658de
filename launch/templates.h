// The readable files of templates/, as they were when the program was built (templates.cpp.in).
#pragma once

namespace nf::launch {

extern const char* const kJobTemplate;  // templates/job.sbatch

}  // namespace nf::launch
