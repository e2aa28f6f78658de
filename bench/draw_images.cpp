// Draws a small labelled image set, one folder of JPEGs per class, for the demo and the tests:
// shapes with random place, size, colours and noise. Everything comes from PositionRng, so the same
// arguments draw the same pictures.
//   draw_images --output DIR [--per-class 200] [--size 40] [--seed 1]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "core/error.h"
#include "core/program.h"
#include "core/rng.h"

namespace {

const char* const kClasses[] = {"bar",  "chess",  "circle",  "cross",    "dots",
                                "ring", "square", "stripes", "triangle", "wedge"};

cv::Scalar color(nf::PositionRng& rng, double low, double high) {
  return {rng.uniform(low, high), rng.uniform(low, high), rng.uniform(low, high)};
}

void draw_shape(cv::Mat& image, int shape, const cv::Scalar& ink, nf::PositionRng& rng) {
  const double s = image.cols, r = s * rng.uniform(0.16, 0.32), angle = rng.uniform(0, 6.28318);
  const cv::Point2d c(rng.uniform(0.35, 0.65) * s, rng.uniform(0.35, 0.65) * s);
  const auto at = [&](double radius, double turn) {
    return cv::Point(cvRound(c.x + radius * std::cos(angle + turn)),
                     cvRound(c.y + radius * std::sin(angle + turn)));
  };
  const int thick = std::max(1, cvRound(r / 3));
  switch (shape) {
    case 0:
      cv::line(image, at(r, 0), at(r, 3.14159), ink, thick);
      break;
    case 1:
      for (int i = -2; i < 2; ++i)
        for (int j = -2; j < 2; ++j)
          if ((i + j) % 2 == 0)
            cv::rectangle(image,
                          cv::Rect(cvRound(c.x + i * r / 2), cvRound(c.y + j * r / 2),
                                   cvRound(r / 2), cvRound(r / 2)),
                          ink, cv::FILLED);
      break;
    case 2:
      cv::circle(image, at(0, 0), cvRound(r), ink, cv::FILLED);
      break;
    case 3:
      cv::line(image, at(r, 0), at(r, 3.14159), ink, thick);
      cv::line(image, at(r, 1.5708), at(r, 4.71239), ink, thick);
      break;
    case 4:
      for (int i = 0; i < 5; ++i)
        cv::circle(image, at(r, i * 1.25664), std::max(1, cvRound(r / 5)), ink, cv::FILLED);
      break;
    case 5:
      cv::circle(image, at(0, 0), cvRound(r), ink, thick);
      break;
    case 6:
    case 8: {
      const int corners = shape == 6 ? 4 : 3;
      std::vector<cv::Point> p;
      for (int i = 0; i < corners; ++i) p.push_back(at(r * 1.2, i * 6.28318 / corners));
      cv::fillConvexPoly(image, p, ink);
      break;
    }
    case 7:
      for (int i = -2; i <= 2; ++i) {
        const cv::Point2d o(-std::sin(angle) * i * r / 2, std::cos(angle) * i * r / 2);
        cv::line(image, at(r, 0) + cv::Point(o), at(r, 3.14159) + cv::Point(o), ink,
                 std::max(1, thick / 3));
      }
      break;
    default:
      cv::ellipse(image, at(0, 0), cv::Size(cvRound(r * 1.2), cvRound(r * 1.2)), angle * 57.3, 0,
                  100, ink, cv::FILLED);
  }
}

void draw_image(const std::filesystem::path& file, int shape, int size, uint64_t seed,
                uint64_t index) {
  nf::PositionRng rng(seed, nf::Stream::kTest, index);
  cv::Mat image(size, size, CV_8UC3, color(rng, 0, 140));
  draw_shape(image, shape, color(rng, 110, 255), rng);
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x)
      for (int ch = 0; ch < 3; ++ch) {
        auto& v = image.at<cv::Vec3b>(y, x)[ch];
        v = cv::saturate_cast<uchar>(v + 60.0 * (rng.uniform() - 0.5));
      }
  if (!cv::imwrite(file.string(), image, {cv::IMWRITE_JPEG_QUALITY, 92}))
    throw nf::Error(nf::ExitCode::kOther, file.string(), "cannot write the image");
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("draw_images", [&] {
    CLI::App app("Draws ten classes of shapes as JPEGs, one folder per class.");
    std::string output;
    int per_class = 200, size = 40;
    uint64_t seed = 1;
    app.add_option("--output", output, "folder to create")->required();
    app.add_option("--per-class", per_class, "images per class")->capture_default_str();
    app.add_option("--size", size, "side in pixels")->capture_default_str();
    app.add_option("--seed", seed, "other pictures")->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    for (int shape = 0; shape < 10; ++shape) {
      const auto folder = std::filesystem::path(output) / kClasses[shape];
      std::filesystem::create_directories(folder);
      for (int i = 0; i < per_class; ++i)
        draw_image(folder / fmt::format("{:05}.jpg", i), shape, size, seed,
                   static_cast<uint64_t>(shape) << 32 | static_cast<uint64_t>(i));
    }
    fmt::print("{} images in {}\n", per_class * 10, output);
    return 0;
  });
}
