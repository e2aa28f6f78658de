// See activity.h.
#include "trainer/watch/activity.h"

namespace nf::train {

const char* name(Section section) {
  switch (section) {
    case Section::kInit:
      return "init";
    case Section::kLoad:
      return "load";
    case Section::kStep:
      return "step";
    case Section::kEvaluate:
      return "evaluate";
    case Section::kSave:
      return "save";
    case Section::kEnd:
      return "end";
  }
  return "?";
}

const char* name(Wait wait) {
  switch (wait) {
    case Wait::kNone:
      return "";
    case Wait::kData:
      return "data";
    case Wait::kRanks:
      return "other ranks";
  }
  return "?";
}

}  // namespace nf::train
