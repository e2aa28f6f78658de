// Which network a weights file holds, as string pairs in its header: enough to build the network
// again without a config.
#pragma once

#include <map>
#include <string>

#include "models/nfnet/spec.h"

namespace nf::train {

using MetadataMap = std::map<std::string, std::string>;

MetadataMap describe_model(const model::NfnetSpec& spec, int64_t image_size);
// Throws Error(kWeights) when the header does not name a network; name and flavour, if not empty,
// win over the header. classes 0: from the header.
model::NfnetSpec described_model(const MetadataMap& metadata, const std::string& file,
                                 const std::string& name, const std::string& flavour,
                                 int64_t classes);

}  // namespace nf::train
