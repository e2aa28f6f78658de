// What Linux tells of memory, in bytes; 0 where it tells nothing. Torch-free.
#pragma once

namespace nf {

double resident_bytes();       // of this process, now
double peak_resident_bytes();  // the most that this process had resident so far
double available_bytes();      // what the host could give to new programs without swapping

}  // namespace nf
