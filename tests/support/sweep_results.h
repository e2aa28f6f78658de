// What a sweep's results.csv says that must not depend on where and how often its runs were
// started.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/csv.h"
#include "tests/support/process.h"

namespace nf::test {

// Name of a run -> its status, loss, accuracy, images missed, model.
inline std::map<std::string, std::string> sweep_results(const std::filesystem::path& file) {
  const std::string text = slurp(file);
  analysis::CsvReader reader(text, file.string());
  std::vector<std::string_view> fields;
  std::vector<std::string> header;
  std::map<std::string, std::string> rows;
  while (reader.next(fields)) {
    if (header.empty()) {
      header.assign(fields.begin(), fields.end());
      continue;
    }
    std::string& row = rows[std::string(fields[0])];
    for (size_t i = 0; i < fields.size(); ++i)
      for (const char* column :
           {"status", "heldout_loss", "heldout_top1", "images_missed", "model_sha256"})
        if (header[i] == column) row.append(fields[i]).append(" ");
  }
  return rows;
}

}  // namespace nf::test
