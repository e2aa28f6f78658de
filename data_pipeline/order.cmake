# The order of samples and its proof (nothing but nf_core); the loader on top of the store; nf-audit.
nf_library(nf_data_order
  SOURCES permutation.cpp sampler.cpp ledger.cpp audit_run.cpp
  DEPS nf_core)

if(NF_HAVE_DATA)
  nf_library(nf_data
    SOURCES resize.cpp augment.cpp loader.cpp
    DEPS nf_data_order nf_data_store nf_core Threads::Threads)
  nf_program(nf-audit
    SOURCES audit_main.cpp audit_data.cpp audit_where.cpp
    DEPS nf_data_order nf_data_pack nf_data_store nf_core)
endif()
