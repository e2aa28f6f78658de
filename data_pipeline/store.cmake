# The stored data set: shards, their reader, decoding, and nf-pack.
if(NF_HAVE_DATA)
  nf_library(nf_data_store
    SOURCES shard_format.cpp shard_writer.cpp shard_dataset.cpp dataset_index.cpp exif.cpp jpeg.cpp image_header.cpp
            tiff_header.cpp decode.cpp
    DEPS nf_core nf_hdf5 nf_jpeg nf_opencv)
  nf_library(nf_data_pack
    SOURCES parallel_for.cpp tar_reader.cpp manifest.cpp image_source.cpp resize_area.cpp image_preparer.cpp pack_scan.cpp
            pack_split.cpp pack_lock.cpp pack.cpp
    DEPS nf_data_store nf_json Threads::Threads)
  nf_program(nf-pack SOURCES pack_main.cpp DEPS nf_data_pack)
endif()
