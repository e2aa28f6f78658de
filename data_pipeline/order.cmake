# The order of samples and its proof (nothing but nf_core), and the loader on top of the store.
nf_library(nf_data_order
  SOURCES permutation.cpp sampler.cpp ledger.cpp audit_run.cpp
  DEPS nf_core)
