// One training image from memory: decode, random resized crop, flip, 224 x 224. Ours against what
// other loaders do, in one run, on one core, in turns.
//   decode_crop --data SPLICED --plain UNTOUCHED [--rounds 15] [--images 120] [--size 224]
// SPLICED: packed by nf-pack; UNTOUCHED: the same input with --no-transcode. All use the same
// crops. Peers are written here after their sources: FFCV decodes the whole image with the fast
// inverse DCT and averages the crop (libjpeg-turbo, INTER_AREA); OpenCV loaders use imdecode and
// INTER_LINEAR. Times are thread CPU time; a ratio is the median of the ratios inside one round.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <functional>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <vector>

#include "bench/measure.h"
#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "data_pipeline/augment.h"
#include "data_pipeline/jpeg_errors.h"

namespace nf::data {
namespace {

using bench::median;

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// FFCV's decoder keeps its libjpeg object from one image to the next; so do we.
class WholeDecoder {
 public:
  WholeDecoder() {
    init_jpeg_errors(errors_);
    cinfo_.err = &errors_.base;
    jpeg_create_decompress(&cinfo_);
  }
  ~WholeDecoder() { jpeg_destroy_decompress(&cinfo_); }
  WholeDecoder(const WholeDecoder&) = delete;
  WholeDecoder& operator=(const WholeDecoder&) = delete;

  bool decode(const std::vector<uint8_t>& bytes, J_DCT_METHOD method, Image& out) {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_mem_src(&cinfo_, bytes.data(), static_cast<unsigned long>(bytes.size()));
    jpeg_read_header(&cinfo_, TRUE);
    cinfo_.out_color_space = JCS_RGB;
    cinfo_.dct_method = method;
    jpeg_start_decompress(&cinfo_);
    out.width = static_cast<int>(cinfo_.output_width);
    out.height = static_cast<int>(cinfo_.output_height);
    const size_t stride = size_t{3} * cinfo_.output_width;
    if (out.rgb.size() < stride * cinfo_.output_height)
      out.rgb.resize(stride * cinfo_.output_height);
    while (cinfo_.output_scanline < cinfo_.output_height) {
      JSAMPROW row = out.rgb.data() + stride * cinfo_.output_scanline;
      jpeg_read_scanlines(&cinfo_, &row, 1);
    }
    jpeg_finish_decompress(&cinfo_);
    return true;
  }

 private:
  jpeg_decompress_struct cinfo_{};
  JpegErrors errors_{};
};

struct Sample {
  SampleData spliced, plain;
};

struct Way {
  std::string name;
  std::function<void(const Sample&, uint64_t position, uint8_t* out)> run;
  std::vector<double> ms;  // per image, one value a round
};

void must(const SampleFault& fault) {
  if (!fault.ok()) throw std::runtime_error(fault.reason);
}

cv::Rect rect(const Box& b) {
  return {static_cast<int>(b.x), static_cast<int>(b.y), static_cast<int>(b.width),
          static_cast<int>(b.height)};
}

// All ways; `side` is the image size. The state of each lives in its function.
std::vector<Way> make_ways(int side) {
  std::vector<Way> ways;
  const auto ours = [&](const std::string& name, bool spliced, Interpolation interpolation,
                        bool antialias) {
    AugmentOptions options;
    options.image_size = side;
    options.interpolation = interpolation;
    options.antialias = antialias;
    auto scratch = std::make_shared<LoadScratch>();
    ways.push_back({name,
                    [=](const Sample& s, uint64_t position, uint8_t* out) {
                      must(load_image((spliced ? s.spliced : s.plain).bytes, options, 1, position,
                                      out, *scratch));
                    },
                    {}});
  };
  const auto whole = [&](const std::string& name, J_DCT_METHOD method, int cv_interpolation) {
    auto decoder = std::make_shared<WholeDecoder>();
    auto image = std::make_shared<Image>();
    ways.push_back({name,
                    [=](const Sample& s, uint64_t position, uint8_t* out) {
                      if (!decoder->decode(s.plain.bytes, method, *image))
                        throw std::runtime_error("cannot decode");
                      AugmentOptions options;
                      const CropDraw draw =
                          draw_crop(options, image->width, image->height, 1, position);
                      const cv::Mat from(image->height, image->width, CV_8UC3, image->rgb.data());
                      cv::Mat to(side, side, CV_8UC3, out);
                      cv::resize(from(rect(draw.box)), to, to.size(), 0, 0, cv_interpolation);
                      if (draw.flip) cv::flip(to, to, 1);
                    },
                    {}});
  };
  ours("splice, bicubic", true, Interpolation::kBicubic, false);
  ours("splice, bilinear", true, Interpolation::kBilinear, false);
  ours("splice, bilinear antialiased", true, Interpolation::kBilinear, true);
  ours("region, bicubic", false, Interpolation::kBicubic, false);
  ours("region, bilinear", false, Interpolation::kBilinear, false);
  whole("FFCV's way: whole, fast DCT, area", JDCT_IFAST, cv::INTER_AREA);
  whole("libjpeg-turbo: whole, linear", JDCT_ISLOW, cv::INTER_LINEAR);
  ways.push_back({"cv::imdecode, linear",
                  [=](const Sample& s, uint64_t position, uint8_t* out) {
                    const cv::Mat encoded(1, static_cast<int>(s.plain.bytes.size()), CV_8UC1,
                                          const_cast<uint8_t*>(s.plain.bytes.data()));
                    const cv::Mat image = cv::imdecode(encoded, cv::IMREAD_COLOR);
                    AugmentOptions options;
                    const CropDraw draw = draw_crop(options, image.cols, image.rows, 1, position);
                    cv::Mat to(side, side, CV_8UC3, out);
                    cv::resize(image(rect(draw.box)), to, to.size(), 0, 0, cv::INTER_LINEAR);
                    if (draw.flip) cv::flip(to, to, 1);
                  },
                  {}});
  return ways;
}

Json report(const std::vector<Way>& ways) {
  const auto find = [&](const std::string& name) {
    return std::find_if(ways.begin(), ways.end(),
                        [&](const Way& w) { return w.name.rfind(name, 0) == 0; });
  };
  const auto ffcv = find("FFCV"), opencv = find("cv::imdecode");
  Json lines = Json::array();
  for (const Way& way : ways) {
    std::vector<double> to_ffcv, to_opencv;
    for (size_t r = 0; r < way.ms.size(); ++r) {
      to_ffcv.push_back(ffcv->ms[r] / way.ms[r]);
      to_opencv.push_back(opencv->ms[r] / way.ms[r]);
    }
    const auto [low, high] = std::minmax_element(way.ms.begin(), way.ms.end());
    const auto [low_ratio, high_ratio] = std::minmax_element(to_ffcv.begin(), to_ffcv.end());
    const double ms = median(way.ms);
    fmt::print(
        "{:36} {:6.3f} ms ({:.3f} to {:.3f}) {:6.0f} img/s  x{:.2f} FFCV ({:.2f} to {:.2f})  "
        "x{:.2f} OpenCV\n",
        way.name, ms, *low, *high, 1e3 / ms, median(to_ffcv), *low_ratio, *high_ratio,
        median(to_opencv));
    lines.push_back({{"way", way.name},
                     {"ms", ms},
                     {"ms_min", *low},
                     {"ms_max", *high},
                     {"ratio_ffcv", median(to_ffcv)},
                     {"ratio_opencv", median(to_opencv)}});
  }
  return lines;
}

int run(int argc, char** argv) {
  CLI::App app("Decode and crop: ours against others, one core.", "decode_crop");
  std::string spliced, plain, split = "train";
  int rounds = 15, side = 224;
  uint64_t images = 120;
  bool json = false;
  app.add_option("--data", spliced, "data set packed by nf-pack")->required();
  app.add_option("--plain", plain, "the same packed with --no-transcode")->required();
  app.add_option("--split", split, "split")->capture_default_str();
  app.add_option("--rounds", rounds, "rounds of all ways")->capture_default_str();
  app.add_option("--images", images, "images a round")->capture_default_str();
  app.add_option("--size", side, "image side, pixels")->capture_default_str();
  app.add_flag("--json", json, "one JSON line at the end");
  if (const auto code = parse_command_line(app, argc, argv)) return *code;
  cv::setNumThreads(1);
  const ShardDataset a(spliced, split), b(plain, split);
  if (a.size() != b.size()) throw std::runtime_error("the data sets differ in size");
  std::vector<Sample> samples(a.size());
  for (uint64_t i = 0; i < a.size(); ++i) {
    must(a.read(i, samples[i].spliced));
    must(b.read(i, samples[i].plain));
  }
  std::vector<Way> ways = make_ways(side);
  std::vector<uint8_t> out(static_cast<size_t>(side * side * 3));
  for (int round = -1; round < rounds; ++round) {  // the first warms up
    for (size_t k = 0; k < ways.size(); ++k) {
      Way& way = ways[(k + static_cast<size_t>(round + 1)) % ways.size()];
      const double begin = thread_seconds();
      for (uint64_t i = 0; i < images; ++i) {
        const uint64_t position = static_cast<uint64_t>(round + 1) * images + i;
        way.run(samples[position * 7 % samples.size()], position, out.data());
      }
      if (round >= 0)
        way.ms.push_back(1e3 * (thread_seconds() - begin) / static_cast<double>(images));
    }
  }
  const Json lines = report(ways);
  if (json) fmt::print("{}\n", Json{{"program", "decode_crop"}, {"ways", lines}}.dump());
  return 0;
}

}  // namespace
}  // namespace nf::data

int main(int argc, char** argv) {
  return nf::run_program("decode_crop", [&] { return nf::data::run(argc, argv); });
}
