// See image_source.h.
#include "data_pipeline/image_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/jsonl.h"
#include "data_pipeline/hdf5_source.h"
#include "data_pipeline/manifest.h"
#include "data_pipeline/tar_reader.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;  // nothing larger is a training image

bool is_hidden(const std::string& name) {
  return name[0] == '.' || name.find("/.") != std::string::npos;
}

std::string first_component(const std::string& name) { return name.substr(0, name.find('/')); }

// Every regular file below a folder, links followed, cycles of links cut.
class FolderWalk {
 public:
  using Take = std::function<void(std::string name, uint64_t bytes)>;
  explicit FolderWalk(Take take) : take_(std::move(take)) {}

  void run(const fs::path& folder, const std::string& prefix) {
    struct stat status {};
    if (::stat(folder.c_str(), &status) != 0) return;
    const std::pair<dev_t, ino_t> id(status.st_dev, status.st_ino);
    if (!above_.insert(id).second) return;
    std::error_code ec;
    fs::directory_iterator entries(folder, ec);
    if (ec)
      throw Error(ExitCode::kData, folder.string(), "cannot read the folder: " + ec.message(),
                  "check its permissions");
    for (const auto& entry : entries) {
      const std::string name = prefix + entry.path().filename().string();
      if (entry.is_directory(ec)) {
        if (!is_hidden(name)) run(entry.path(), name + "/");
      } else if (!is_hidden(name)) {
        const uint64_t bytes = entry.is_regular_file(ec) ? entry.file_size(ec) : 0;
        take_(name, ec ? 0 : bytes);
      }
    }
    above_.erase(id);
  }

 private:
  Take take_;
  std::set<std::pair<dev_t, ino_t>> above_;
};

SampleFault read_at(int fd, uint64_t at, uint64_t size, std::vector<uint8_t>& out) {
  if (size > kMaxFileBytes) return {"file larger than 256 MiB"};
  out.resize(size);
  for (uint64_t done = 0; done < size;) {
    const ssize_t n = ::pread(fd, out.data() + done, size - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return {std::string("cannot read: ") + std::strerror(errno)};
    if (n == 0) return {"cannot read: the file became shorter"};
    done += static_cast<uint64_t>(n);
  }
  return {};
}

// Class names go into JSON and must be text.
void check_class_name(const fs::path& input, const std::string& name) {
  try {
    (void)Json(name).dump();
  } catch (const Json::exception&) {
    throw Error(ExitCode::kData, input.string(),
                "the class name \"" + name + "\" is not valid UTF-8",
                "rename the folder or the label");
  }
}

}  // namespace

ImageSource::ImageSource(const SourceOptions& options, const std::vector<std::string>& known)
    : input_(options.input), folder_(options.input) {
  std::error_code ec;
  const auto status = fs::status(input_, ec);
  if (!fs::exists(status)) {
    throw Error(ExitCode::kData, input_.string(), "input does not exist",
                "give a folder of class folders, a tar file of the same, or a TSV");
  }
  std::string flat_class = fs::absolute(input_).lexically_normal().filename().string();
  if (fs::is_directory(status)) {
    if (flat_class.empty())
      flat_class = fs::absolute(input_).lexically_normal().parent_path().filename().string();
    list_folder();
  } else if (is_tar(input_)) {
    flat_class = input_.stem().string();
    list_tar();
  } else if (is_hdf5(input_)) {
    list_hdf5(options, known);
    return;
  } else {
    list_manifest(options, known);
    return;
  }
  if (files_.empty()) {
    throw Error(ExitCode::kData, input_.string(), "input holds no files",
                "expected CLASS/IMAGE files");
  }
  select_root(options);
  take_classes(options.subdir.empty() || options.subdir == "."
                   ? flat_class
                   : fs::path(options.subdir).filename().string(),
               known);
  for (const auto& name : class_names_) check_class_name(input_, name);
}

ImageSource::~ImageSource() {
  if (tar_ >= 0) ::close(tar_);
}

std::span<const int32_t> ImageSource::labels(uint64_t i) const {
  return std::span(label_).subspan(label_offset_[i], label_offset_[i + 1] - label_offset_[i]);
}

void ImageSource::list_folder() {
  FolderWalk walk([&](std::string name, uint64_t bytes) {
    files_.push_back({std::move(name), bytes, 0});
  });
  walk.run(input_, "");
  std::sort(files_.begin(), files_.end(),
            [](const File& a, const File& b) { return a.name < b.name; });
}

void ImageSource::list_tar() {
  tar_ = ::open(input_.c_str(), O_RDONLY | O_CLOEXEC);
  if (tar_ < 0)
    throw Error(ExitCode::kData, input_.string(),
                std::string("cannot read: ") + std::strerror(errno));
  for (auto& member : read_tar_index(input_)) {
    if (is_hidden(member.name)) continue;
    if (member.regular) {
      files_.push_back({std::move(member.name), member.bytes, member.at});
    } else {
      rejected_.push_back({std::move(member.name), "a link or device in a tar file"});
    }
  }
  // When a name stands twice the later member counts, as for tar itself.
  std::stable_sort(files_.begin(), files_.end(),
                   [](const File& a, const File& b) { return a.name < b.name; });
  const auto last = std::unique(files_.rbegin(), files_.rend(),
                                [](const File& a, const File& b) { return a.name == b.name; });
  files_.erase(files_.begin(), last.base());
}

void ImageSource::select_root(const SourceOptions& options) {
  std::string root = options.subdir;
  while (!root.empty() && root.back() == '/') root.pop_back();
  if (root.rfind("./", 0) == 0) root.erase(0, 2);
  if (root == ".") return;
  if (root.empty()) {
    const std::string prefix = options.split + "/";
    uint64_t inside = 0, direct = 0;
    for (const auto& file : files_) {
      if (file.name.rfind(prefix, 0) != 0) continue;
      ++inside;
      if (file.name.find('/', prefix.size()) == std::string::npos) ++direct;
    }
    if (inside == 0 || direct > 0) return;
    root = options.split;
  }
  const std::string prefix = root + "/";
  std::vector<File> kept;
  for (auto& file : files_) {
    if (file.name.rfind(prefix, 0) != 0) continue;
    file.name.erase(0, prefix.size());
    kept.push_back(std::move(file));
  }
  if (kept.empty())
    throw Error(ExitCode::kData, input_.string(), "no files in its folder " + root,
                "check --subdir");
  files_.swap(kept);
  folder_ /= root;
  std::erase_if(rejected_,
                [&](const RejectedFile& file) { return file.name.rfind(prefix, 0) != 0; });
  for (auto& file : rejected_) file.name.erase(0, prefix.size());
}

void ImageSource::take_classes(const std::string& flat_class,
                               const std::vector<std::string>& known) {
  const bool flat = std::none_of(files_.begin(), files_.end(), [](const File& f) {
    return f.name.find('/') != std::string::npos;
  });
  std::vector<File> kept;
  for (auto& file : files_) {
    if (!flat && file.name.find('/') == std::string::npos) {
      rejected_.push_back({std::move(file.name), "not inside a class folder"});
    } else {
      kept.push_back(std::move(file));
    }
  }
  files_.swap(kept);
  std::set<std::string> distinct;
  for (const auto& file : files_) distinct.insert(flat ? flat_class : first_component(file.name));
  const std::vector<std::string> names(distinct.begin(), distinct.end());
  class_names_ = known.empty() ? names : known;
  const std::vector<int32_t> indices = match_classes(input_.string(), names, class_names_);
  for (const auto& file : files_) {
    const auto at = std::lower_bound(names.begin(), names.end(),
                                     flat ? flat_class : first_component(file.name));
    label_.push_back(indices[static_cast<size_t>(at - names.begin())]);
    label_offset_.push_back(static_cast<uint32_t>(label_.size()));
  }
}

void ImageSource::list_manifest(const SourceOptions& options,
                                const std::vector<std::string>& known) {
  if (fs::file_size(input_) == 0)
    throw Error(ExitCode::kData, input_.string(), "the file is empty",
                "expected a tar file or a TSV");
  if (const auto end = input_.extension(); end == ".tar" || end == ".gz" || end == ".tgz" ||
                                           end == ".zst" || end == ".xz" || end == ".zip") {
    throw Error(ExitCode::kData, input_.string(), "not a readable tar file",
                "compressed archives must be unpacked first");
  }
  Manifest manifest = read_manifest(input_, options.multi_label, known);
  class_names_ = std::move(manifest.class_names);
  for (const auto& name : class_names_) check_class_name(input_, name);
  folder_ = input_.parent_path();
  for (auto& row : manifest.rows) {
    std::error_code ec;
    const uint64_t bytes = fs::file_size(folder_ / row.path, ec);
    if (ec) {
      rejected_.push_back({row.path, "cannot read: " + ec.message()});
      continue;
    }
    files_.push_back({std::move(row.path), bytes, 0});
    label_.insert(label_.end(), row.labels.begin(), row.labels.end());
    label_offset_.push_back(static_cast<uint32_t>(label_.size()));
  }
}

// Samples in the order of the file.
void ImageSource::list_hdf5(const SourceOptions& options, const std::vector<std::string>& known) {
  hdf5_ = std::make_unique<Hdf5Source>(input_);
  const uint64_t file_bytes = fs::file_size(input_);  // sizes of samples are not known beforehand
  for (uint64_t i = 0; i < hdf5_->size(); ++i) {
    std::string number = std::to_string(i);
    number.insert(0, number.size() < 12 ? 12 - number.size() : 0, '0');
    files_.push_back({"images/" + number, file_bytes, i});
  }
  const auto& texts = hdf5_->label_names();
  int32_t classes = 0;
  if (!texts.empty()) {
    const std::set<std::string> distinct(texts.begin(), texts.end());
    const std::vector<std::string> names(distinct.begin(), distinct.end());
    class_names_ = known.empty() ? names : known;
    const std::vector<int32_t> indices = match_classes(input_.string(), names, class_names_);
    for (const auto& text : texts) {
      const auto at = std::lower_bound(names.begin(), names.end(), text);
      label_.push_back(indices[static_cast<size_t>(at - names.begin())]);
      label_offset_.push_back(static_cast<uint32_t>(label_.size()));
    }
  } else {
    constexpr int32_t kMaxClasses = 1'000'000;
    const int32_t limit = known.empty() ? kMaxClasses : static_cast<int32_t>(known.size());
    for (uint64_t i = 0; i < hdf5_->size(); ++i) {
      const auto& labels = hdf5_->label_indices()[i];
      for (const int32_t label : labels) {
        if (label < 0 || label >= limit)
          throw Error(ExitCode::kData, input_.string(),
                      "label " + std::to_string(label) + " of sample " + std::to_string(i) +
                          " is out of range: 0 to " + std::to_string(limit - 1));
        classes = std::max(classes, label + 1);
      }
      if (labels.size() > 1 && !options.multi_label)
        throw Error(ExitCode::kData, input_.string(),
                    "sample " + std::to_string(i) + " has several labels",
                    "--multi-label allows it");
      label_.insert(label_.end(), labels.begin(), labels.end());
      label_offset_.push_back(static_cast<uint32_t>(label_.size()));
    }
    class_names_ = known;
    for (int32_t c = 0; c < classes && known.empty(); ++c)
      class_names_.push_back(std::to_string(c));
  }
  for (const auto& name : class_names_) check_class_name(input_, name);
}

SampleFault ImageSource::read(uint64_t i, std::vector<uint8_t>& out) const {
  const File& file = files_[i];
  if (hdf5_) return hdf5_->read(file.at, out);
  if (tar_ >= 0) return read_at(tar_, file.at, file.bytes, out);
  const int fd = ::open((folder_ / file.name).c_str(),
                        O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hang us
  if (fd < 0) return {std::string("cannot read: ") + std::strerror(errno)};
  struct stat status {};
  SampleFault fault;
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    fault = {"not a regular file"};
  } else {
    fault = read_at(fd, 0, static_cast<uint64_t>(status.st_size), out);
  }
  ::close(fd);
  return fault;
}

}  // namespace nf::data
