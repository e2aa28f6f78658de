// TensorBoard event files: scalar summaries in the record format that TensorBoard reads (TFRecord
// framing with masked CRC32C, tensorflow.Event messages encoded by hand: three fields do not
// justify a protobuf dependency).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace nf::train {

class EventFile {
 public:
  // Creates `directory`/events.out.tfevents.<seconds>.<host>.<pid>. Steps from `first_step` on that
  // older files of the folder hold are superseded (a session-start event tells TensorBoard to drop
  // them).
  EventFile(const std::filesystem::path& directory, uint64_t first_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void add(uint64_t step, const std::vector<std::pair<std::string, double>>& scalars);

 private:
  void write_event(uint64_t step, const std::string& payload);
  int fd_;
  std::filesystem::path path_;
};

}  // namespace nf::train
