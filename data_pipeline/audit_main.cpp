// nf-audit: proves what a data set holds and what a run used; answers when a sample is seen.
// Reports are JSON on stdout; what fails also says so on stderr and by exit code 3.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <map>

#include "core/command_line.h"
#include "core/error.h"
#include "core/program.h"
#include "data_pipeline/audit_data.h"
#include "data_pipeline/audit_run.h"
#include "data_pipeline/audit_where.h"

namespace {

using namespace nf::data;
using Digests = AuditOptions::Digests;

void print(const nf::Json& report) { std::cout << report.dump(2) << std::endl; }

struct Arguments {
  std::string dataset, run_dir;
  bool decode = false;
  int workers = 2;
  AuditOptions audit;
  WhereQuery where;
};

void add_data(CLI::App& app, Arguments& a) {
  app.add_option("DATASET", a.dataset, "packed data set")->required();
  app.add_flag("--decode", a.decode, "also decode every image");
  app.add_option("--workers", a.workers, "threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

void add_run(CLI::App& app, Arguments& a) {
  static const std::map<std::string, Digests> kModes = {{"auto", Digests::kAuto},
                                                        {"all", Digests::kAll},
                                                        {"sample", Digests::kSample},
                                                        {"none", Digests::kNone}};
  app.add_option("RUN_DIR", a.run_dir, "--output folder of nf-train")->required();
  app.add_option(
         "--digests", a.audit.digests,
         "steps whose digest is recomputed; auto: all of up to 1e8 positions, else a sample")
      ->transform(CLI::CheckedTransformer(kModes));
}

void add_where(CLI::App& app, Arguments& a) {
  static const std::map<std::string, Shuffle> kOrders = {
      {"none", Shuffle::kNone}, {"global", Shuffle::kGlobal}, {"windowed", Shuffle::kWindowed}};
  WhereQuery& q = a.where;
  app.add_option("DATASET", a.dataset, "packed data set")->required();
  app.add_option("--split", q.split, "split")->capture_default_str();
  app.add_option("--seed", q.seed, "run.seed")->required();
  app.add_option("--sample", q.sample, "index in the split")->required();
  app.add_option("--epoch", q.epoch, "counting from 0")->required();
  app.add_option("--batch-size", q.batch_size, "batch.size, to learn the step too");
  app.add_option("--shuffle", q.shuffle, "data.shuffle (global)")
      ->transform(CLI::CheckedTransformer(kOrders));
  app.add_option("--repeat", q.repeat, "data.repeat_augmentation")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--window-shards", q.window_shards, "data.window_shards")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
}

int data(const Arguments& a) {
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  const DataReport report =
      audit_data(a.dataset, a.decode, a.workers, [terminal](uint64_t done, uint64_t total) {
        if (!terminal) return;
        std::fprintf(stderr, "\rsamples %llu/%llu%s", static_cast<unsigned long long>(done),
                     static_cast<unsigned long long>(total), done == total ? "\n" : "");
      });
  print(to_json(report));
  if (report.passed()) return 0;
  throw nf::Error(nf::ExitCode::kData, a.dataset,
                  std::to_string(report.damaged.size()) + " damaged samples, " +
                      std::to_string(report.problems.size()) + " damaged files",
                  "restore the shards from a copy, or pack the data set again");
}

int run(const Arguments& a) {
  const AuditReport report = audit_run(a.run_dir, a.audit);
  print(to_json(report));
  if (report.passed()) return 0;
  throw nf::Error(
      nf::ExitCode::kData, a.run_dir,
      std::to_string(report.faults) + " faults; the first: " + report.fault_text.front(),
      "the run did not use every sample once per epoch, or its record was changed");
}

int start(int argc, char** argv) {
  CLI::App app{"Checks packed data sets and finished or running runs.", "nf-audit"};
  app.footer(
      "Examples:\n  nf-audit data DATASET --decode\n  nf-audit run RUN_DIR\n"
      "  nf-audit where DATASET --split train --seed 1 --sample 4711 --epoch 2");
  app.require_subcommand(1);
  Arguments a;
  auto* data_command = app.add_subcommand("data", "SHA-256 of every shard, CRC32C of every sample");
  auto* run_command = app.add_subcommand("run", "Was every sample used once per epoch?");
  auto* where_command = app.add_subcommand("where", "The position at which a sample is seen");
  add_data(*data_command, a);
  add_run(*run_command, a);
  add_where(*where_command, a);
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  if (*data_command) return data(a);
  if (*run_command) return run(a);
  print(answer_where(a.dataset, a.where));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("nf-audit", [&] { return start(argc, argv); });
}
