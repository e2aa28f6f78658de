# Tests of the stored data set: decoding, shards, archives, nf-pack.
if(NF_HAVE_DATA)
  add_library(nf_store_fixtures STATIC store_fixtures.cpp)
  target_link_libraries(nf_store_fixtures PUBLIC nf_flags nf_data_pack)
  target_compile_definitions(nf_store_fixtures PRIVATE NF_SOURCE_DIR="${PROJECT_SOURCE_DIR}" NF_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  nf_test(decode_test SOURCES decode_test.cpp DEPS nf_store_fixtures LABELS unit)
  nf_test(shard_test SOURCES shard_test.cpp DEPS nf_store_fixtures LABELS unit)
  nf_test(pack_source_test SOURCES pack_source_test.cpp DEPS nf_store_fixtures LABELS unit)
  nf_test(pack_test SOURCES pack_test.cpp DEPS nf_store_fixtures LABELS unit threads)
  nf_test(pack_program_test SOURCES pack_program_test.cpp odd_files.cpp odd_files_collected.cpp
    DEPS nf_store_fixtures LABELS program)
  add_dependencies(pack_program_test nf-pack)
endif()
