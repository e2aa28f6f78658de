// Owns one HDF5 identifier and its closing function. Use under hdf5_mutex() only.
#pragma once

#include <hdf5.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace nf::data {

// What the HDF5 library refused to do; callers turn it into an Error that names the file.
struct Hdf5Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);

  Hdf5Handle(hid_t id, Close closer, const std::string& what) : id_(id), close_(closer) {
    if (id < 0) throw Hdf5Failure(what);
  }
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  operator hid_t() const { return id_; }

  // Closes now and reports what a destructor would have to swallow.
  void close(const std::string& what) {
    if (close_(std::exchange(id_, -1)) < 0) throw Hdf5Failure(what);
  }

 private:
  hid_t id_;
  Close close_;
};

inline void hdf5_check(herr_t status, const std::string& what) {
  if (status < 0) throw Hdf5Failure(what);
}

// To be called before any other call of the library. It must not print its error stack, our errors
// say what users need; and not tidy up at exit: after a failed write (disk full) that crashes, and
// every handle here is closed by its owner.
inline void hdf5_begin() {
  static const herr_t no_cleanup =
      H5dont_atexit();  // fails harmlessly when the library is running already
  static_cast<void>(no_cleanup);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

}  // namespace nf::data
