nf_library(nf_lost_samples SOURCES lost_samples.cpp DEPS nf_data_order nf_core)
nf_program(lost_samples SOURCES lost_samples_main.cpp DEPS nf_lost_samples)
