// See slurm_lab.h.
#include "tests/slurm/slurm_lab.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <functional>
#include <regex>

namespace nf::test {

namespace fs = std::filesystem;

namespace {

Outcome must(const std::vector<std::string>& command) {
  Outcome o = run(command);
  if (o.code != 0) throw std::runtime_error(command[0] + " failed: " + o.err + o.out);
  return o;
}

std::string node_name(int node) { return std::string("n").append(std::to_string(node)); }

fs::path proc_file(pid_t pid, const char* file) {
  return fs::path("/proc") / std::to_string(pid) / file;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// Ports that are free now; others may take them before Slurm does, which then says so.
std::vector<int> free_ports(int count) {
  std::vector<int> ports, sockets;
  for (int i = 0; i < count; ++i) {
    const int s = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (s < 0 || ::bind(s, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::getsockname(s, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw std::runtime_error("no free port");
    ports.push_back(ntohs(address.sin_port));
    sockets.push_back(s);
  }
  for (const int s : sockets) ::close(s);
  return ports;
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  const std::string text = name.data();
  return text.substr(0, text.find('.'));
}

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  for (const auto& entry : fs::directory_iterator("/proc"))
    if (const int pid = std::atoi(entry.path().filename().c_str()); pid > 0) pids.push_back(pid);
  return pids;
}

// Does the process have this file open?
bool has_open(pid_t pid, const fs::path& file) {
  std::error_code error;
  for (const auto& fd : fs::directory_iterator(proc_file(pid, "fd"), error)) {
    const fs::path target = fs::read_symlink(fd.path(), error);
    if (!error && target == file) return true;
  }
  return false;
}

void reap_adopted(const std::vector<pid_t>& pids) {
  for (const pid_t pid : pids) ::waitpid(pid, nullptr, WNOHANG);
}

}  // namespace

std::string slurm_is_missing() {
  if (::geteuid() != 0) return "Slurm's daemons of the tests need root";
  for (const char* program : {"slurmctld", "slurmd", "sbatch"})
    if (run({"sh", "-c", std::string("command -v ") + program}).code != 0)
      return std::string(program) + " is not installed (./dev setup installs it)";
  return "";
}

void wait_until(const std::string& what, const std::function<bool()>& ready, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!ready()) {
    if (std::chrono::steady_clock::now() > end)
      throw std::runtime_error("waited in vain for " + what);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

std::vector<pid_t> descendants(pid_t root) {
  std::vector<pid_t> found = {root};
  for (size_t i = 0; i < found.size(); ++i) {
    std::ifstream in(proc_file(found[i], "task") / std::to_string(found[i]) / "children");
    for (pid_t child; in >> child;) found.push_back(child);
  }
  found.erase(found.begin());
  return found;
}

SlurmLab::SlurmLab(const LabOptions& options) : options_(options) {
  if (const std::string why = slurm_is_missing(); !why.empty()) throw std::runtime_error(why);
  // Slurm's step daemons leave their parents; whoever ends them must be able to reap them.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ports_ = free_ports(options_.nodes + 1);
  write_config();
  setenv("SLURM_CONF", (folder_ / "slurm.conf").c_str(), 1);
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);  // more ranks than cores
  controller_ = std::make_unique<Process>(
      std::vector<std::string>{"setpriv", "--pdeathsig", "TERM", "slurmctld", "-D", "-c", "-f",
                               (folder_ / "slurm.conf").string()},
      folder_ / "controller.out", folder_ / "controller.err");
  nodes_.resize(static_cast<size_t>(options_.nodes));
  for (int node = 1; node <= options_.nodes; ++node) start_node(node);
}

SlurmLab::~SlurmLab() {
  try {
    run({"scancel", "--user", "root"});
    run({"scancel", "--user", "root", "--signal", "KILL", "--full"});
    for (int node = 1; node <= options_.nodes; ++node) kill_node(node);
  } catch (const std::exception&) {  // what is left goes with the controller
  }
  controller_->signal(SIGTERM);
  controller_->wait();
}

void SlurmLab::write_config() const {
  const std::string d = folder_.path().string();
  std::ofstream conf(folder_ / "slurm.conf");
  conf << "ClusterName=lab\n"
       << "SlurmctldHost=" << host_name() << "(127.0.0.1)\n"
       << "SlurmctldPort=" << ports_[0] << "\n"
       << "SlurmUser=root\nSlurmdUser=root\nAuthType=auth/none\nCredType=cred/none\n"
       << "AuthInfo=cred_expire=5\n"  // or a requeued job waits for two minutes
       << "SlurmdParameters=config_overrides\n"
       << (options_.user_signal ? "SlurmctldParameters=preempt_send_user_signal\n" : "")
       << "MpiDefault=none\nTmpFS=" << d << "/tmp-%n\n"
       << "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n"
       << "JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n"
       << "JobCompType=jobcomp/filetxt\nJobCompLoc=" << d << "/ended\n"
       << "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n"
       << "SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0\n"
       << "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n"
       << "KillWait=3\nReturnToService=2\nSlurmdTimeout=10\nUnkillableStepTimeout=30\n"
       << "StateSaveLocation=" << d << "/state\nSlurmdSpoolDir=" << d << "/spool-%n\n"
       << "SlurmdPidFile=" << d << "/slurmd-%n.pid\nSlurmctldPidFile=" << d << "/slurmctld.pid\n"
       << "SlurmctldLogFile=" << d << "/slurmctld.log\nSlurmdLogFile=" << d << "/slurmd-%n.log\n";
  std::string names;
  for (int node = 1; node <= options_.nodes; ++node) {
    const std::string name = node_name(node);
    fs::create_directories(folder_ / std::string("tmp-").append(name));
    fs::create_directories(folder_ / std::string("spool-").append(name));
    names += (names.empty() ? "" : ",") + name;
    conf << "NodeName=" << name << " NodeHostname=" << host_name()
         << " NodeAddr=127.0.0.1 Port=" << ports_[static_cast<size_t>(node)]
         << " CPUs=" << options_.cpus
         << " Boards=1 SocketsPerBoard=1 CoresPerSocket=" << options_.cpus
         << " ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN\n";
  }
  fs::create_directories(folder_ / "state");
  conf << "PartitionName=low Nodes=" << names
       << " Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime="
       << options_.grace_seconds << "\n"
       << "PartitionName=high Nodes=" << names
       << " MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF\n";
}

fs::path SlurmLab::log(int node) const {
  return folder_ / std::string("slurmd-").append(node_name(node)).append(".log");
}

void SlurmLab::wait_for_nodes() const {
  wait_until("the nodes of the Slurm of the tests", [&] {
    std::istringstream lines(run({"sinfo", "-N", "-h", "-p", "low", "-o", "%T"}).out);
    int up = 0;
    for (std::string state; std::getline(lines, state);)
      up += state == "idle" || state == "mixed" || state == "allocated" ? 1 : 0;
    return up == options_.nodes;
  });
}

void SlurmLab::start_node(int node) {
  const std::string name = node_name(node);
  nodes_[static_cast<size_t>(node - 1)] = std::make_unique<Process>(
      std::vector<std::string>{"setpriv", "--pdeathsig", "TERM", "slurmd", "-D", "-N", name, "-f",
                               (folder_ / "slurm.conf").string()},
      folder_ / (name + ".out"), folder_ / (name + ".err"));
  if (std::all_of(nodes_.begin(), nodes_.end(), [](const auto& n) { return n != nullptr; }))
    wait_for_nodes();
}

void SlurmLab::kill_node(int node) {
  auto& daemon = nodes_[static_cast<size_t>(node - 1)];
  if (!daemon) return;
  std::vector<pid_t> doomed;
  for (const pid_t pid : all_processes()) {
    std::ifstream in(proc_file(pid, "comm"));
    std::string comm;
    std::getline(in, comm);
    if (comm.rfind("slurmstepd", 0) != 0 || !has_open(pid, log(node))) continue;
    doomed.push_back(pid);
    for (const pid_t below : descendants(pid)) doomed.push_back(below);
  }
  daemon->signal(SIGKILL);
  for (const pid_t pid : doomed) ::kill(pid, SIGKILL);
  daemon.reset();
  wait_until("the end of a node's processes", [&] {
    reap_adopted(doomed);
    return std::none_of(doomed.begin(), doomed.end(),
                        [](pid_t pid) { return ::kill(pid, 0) == 0; });
  });
}

std::string SlurmLab::take(int nodes, int cpus) {
  std::vector<std::string> command = {"sbatch", "--parsable", "--partition=high",
                                      "--output=/dev/null", "--wrap=exec sleep 600"};
  const int n = nodes > 0 ? nodes : options_.nodes;
  command.push_back("--nodes=" + std::to_string(n));
  command.push_back("--ntasks-per-node=1");
  command.push_back("--cpus-per-task=" + std::to_string(cpus > 0 ? cpus : options_.cpus));
  std::string job = first_line(must(command).out);
  wait_until("the nodes to be taken",
             [&] { return states(job) == std::vector<std::string>{"RUNNING"}; });
  return job;
}

void SlurmLab::release(const std::string& job) {
  must({"scancel", job});
  wait_until("the nodes to be free", [&] { return states(job).empty(); });
}

std::map<std::string, std::vector<std::string>> SlurmLab::ended() const {
  static const std::regex pattern("JobId=(\\S+) .*JobState=(\\S+) ");
  static const std::regex element("ArrayJobId=(\\S+) ArrayTaskId=(\\S+) ");
  std::map<std::string, std::vector<std::string>> found;
  std::istringstream lines(slurp(folder_ / "ended"));
  for (std::string line; std::getline(lines, line);) {
    std::smatch match, task;
    if (!std::regex_search(line, match, pattern)) continue;
    const bool array = std::regex_search(line, task, element);
    found[array ? task.str(1) + "_" + task.str(2) : match.str(1)].push_back(match[2]);
  }
  return found;
}

std::vector<std::string> SlurmLab::states(const std::string& job) const {
  std::vector<std::string> found;
  std::istringstream lines(run({"squeue", "-h", "-r", "-j", job, "-o", "%T"}).out);
  for (std::string state; std::getline(lines, state);) found.push_back(state);
  return found;
}

}  // namespace nf::test
