nf_test(permutation_test SOURCES permutation_test.cpp DEPS nf_data_order LABELS unit)
nf_test(sampler_test SOURCES sampler_test.cpp DEPS nf_data_order LABELS unit threads)
nf_test(ledger_test SOURCES ledger_test.cpp DEPS nf_data_order LABELS unit)
