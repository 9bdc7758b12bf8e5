// What tch does not reach: process-wide switches, memory, flash attention, loading CUDA, the CUDA driver's facts.
//
// Every function returns null, or a message that the caller frees with nanorun_free. No exception leaves this file.
// Built by build.rs with the C++ compiler alone: no CUDA toolkit is needed, the driver is looked up at run time.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/ones.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/version.h>

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

char* copy(const std::string& text) { return strdup(text.c_str()); }

template <class F>
char* guarded(F&& body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return copy(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return copy(error.what());
  } catch (...) {
    return copy("an unknown C++ exception");
  }
}

// CPU memory, counted, limited and kept for the next tensor of its size. The CPU device has neither statistics nor an end
// of its own, for the system promises more than it has; and large blocks that go back to the system cost a page fault a
// page when they come again. Each block is preceded by a header as long as the alignment, which holds its bytes.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = nullptr;
    if (bytes > 0) {
      // Nothing is counted before it fits: a request that is refused must not fail another thread's.
      auto before = live.load();
      do {
        const auto most = limit.load();
        TORCH_CHECK_WITH(OutOfMemoryError, before <= most && bytes <= most - before,
                         "out of memory: tried to allocate ", bytes, " bytes beside ", before, " of ", most);
      } while (!live.compare_exchange_weak(before, before + bytes));
      const auto now = before + bytes;
      try {
        char* base = take(room(bytes));
        std::memcpy(base, &bytes, sizeof bytes);
        data = base + header;
      } catch (...) {
        live.fetch_sub(bytes);
        throw;
      }
      auto seen = peak.load();
      while (now > seen && !peak.compare_exchange_weak(seen, now)) {
      }
    }
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }

  static void release(void* data) {
    if (data == nullptr) return;
    char* base = static_cast<char*>(data) - header;
    size_t bytes = 0;
    std::memcpy(&bytes, base, sizeof bytes);
    live.fetch_sub(bytes);
    try {
      const std::lock_guard<std::mutex> lock(pool().mutex);
      pool().blocks[room(bytes)].push_back(base);
    } catch (...) {
      c10::free_cpu(base);
    }
  }

  // Hands what nobody uses back to the system.
  static void trim() {
    const std::lock_guard<std::mutex> lock(pool().mutex);
    for (auto& [size, blocks] : pool().blocks) {
      for (char* base : blocks) c10::free_cpu(base);
    }
    pool().blocks.clear();
  }

  static std::atomic<uint64_t> live;
  static std::atomic<uint64_t> peak;
  static std::atomic<uint64_t> count;
  static std::atomic<uint64_t> limit;

 private:
  static constexpr size_t header = c10::gAlignment;

  struct Pool {
    std::mutex mutex;
    std::unordered_map<size_t, std::vector<char*>> blocks;
  };

  // Never destroyed: tensors in thread-local storage outlive statics.
  static Pool& pool() {
    static auto* instance = new Pool;
    return *instance;
  }

  // Bytes rounded up so that tensors of nearly one size share blocks: to 64 bytes, or an eighth of the power of two.
  static size_t room(size_t bytes) {
    size_t step = 64;
    while (step * 16 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
  }

  static char* take(size_t size) {
    {
      const std::lock_guard<std::mutex> lock(pool().mutex);
      const auto found = pool().blocks.find(size);
      if (found != pool().blocks.end() && !found->second.empty()) {
        char* base = found->second.back();
        found->second.pop_back();
        return base;
      }
    }
    count.fetch_add(1);
    try {
      return static_cast<char*>(c10::alloc_cpu(size + header));
    } catch (...) {
      trim();
    }
    return static_cast<char*>(c10::alloc_cpu(size + header));
  }
};

std::atomic<uint64_t> CountingAllocator::live{0};
std::atomic<uint64_t> CountingAllocator::peak{0};
std::atomic<uint64_t> CountingAllocator::count{0};
std::atomic<uint64_t> CountingAllocator::limit{UINT64_MAX};

c10::DeviceAllocator* cuda_allocator() {
  auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
  TORCH_CHECK(allocator != nullptr && allocator->initialized(), "CUDA's allocator has not started");
  return allocator;
}

// Entry points of the CUDA driver, by their documented signatures.
struct Driver {
  int (*init)(unsigned) = nullptr;
  int (*version)(int*) = nullptr;
  int (*count)(int*) = nullptr;
  int (*get)(int*, int) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*memory)(size_t*, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
  bool found = false;

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    const auto load = [library](auto& entry, const char* symbol) {
      entry = reinterpret_cast<std::decay_t<decltype(entry)>>(dlsym(library, symbol));
      return entry != nullptr;
    };
    found = load(init, "cuInit") && load(version, "cuDriverGetVersion") && load(count, "cuDeviceGetCount") &&
            load(get, "cuDeviceGet") && load(name, "cuDeviceGetName") && load(memory, "cuDeviceTotalMem_v2") &&
            load(attribute, "cuDeviceGetAttribute");
  }
};

const Driver& driver() {
  static const Driver instance;
  return instance;
}

}  // namespace

extern "C" {

void nanorun_free(char* text) { std::free(text); }

// Once a process, before its first tensor: counts CPU memory, fixes the workspaces of cuBLAS and the code paths of MKL
// and oneDNN, asks for deterministic kernels, keeps float32 products in float32.
char* nanorun_start() {
  static std::once_flag once;
  return guarded([] {
    std::call_once(once, [] {
      setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 1);
      // Upstream's choice: the pool grows in place instead of falling to pieces. The older name counts where it is set.
      if (getenv("PYTORCH_CUDA_ALLOC_CONF") == nullptr) {
        setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True", 0);
      }
      // These change bits, and the environment class does not tell of them.
      for (const char* name : {"CUBLASLT_WORKSPACE_SIZE", "DISABLE_ADDMM_CUDA_LT", "TORCH_BLAS_PREFER_CUBLASLT",
                               "PYTORCH_TUNABLEOP_ENABLED", "NVIDIA_TF32_OVERRIDE", "MKL_ENABLE_INSTRUCTIONS",
                               "MKL_DEBUG_CPU_TYPE", "MKL_VML_DEBUG_CPU_TYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
                               "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"}) {
        unsetenv(name);
      }
      setenv("MKL_CBWR", "AUTO", 1);
      static CountingAllocator allocator;
      c10::SetCPUAllocator(&allocator, 1);
      auto& context = at::globalContext();
      context.setDeterministicAlgorithms(true, false);
      // Deterministic mode would also fill every fresh tensor; nothing here reads one before writing it.
      context.setDeterministicFillUninitializedMemory(false);
      context.setDeterministicCuDNN(true);
      context.setBenchmarkCuDNN(false);
      context.setAllowTF32CuBLAS(false);
      context.setAllowTF32CuDNN(false);
      context.setAllowBF16ReductionCuBLAS(false);
      // MKL's vector functions (exp, log, tanh) find out what the CPU is in their first call, and write down a wrong
      // answer for a moment before the right one. A second thread that computes meanwhile takes another kernel, with
      // other last bits. One number is computed by one thread: after this call the answer stands.
      at::exp(at::ones({1}));
    });
  });
}

// Intra-op threads, for the calling thread: OpenMP keeps them a thread.
char* nanorun_threads(int threads) {
  return guarded([threads] {
    thread_local int current = 0;
    if (current != threads) {
      at::set_num_threads(threads);
      // OMP_DYNAMIC=true lets OpenMP start fewer threads while the machine is busy, and the number decides bits.
      static const auto set_dynamic = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_dynamic"));
      if (set_dynamic != nullptr) set_dynamic(0);
      current = threads;
    }
  });
}

// How many of the calling thread's intra-op threads really start: OMP_THREAD_LIMIT and OMP_MAX_ACTIVE_LEVELS allow fewer
// without a word. libtorch's headers start threads only in files that are compiled for OpenMP, and those would bring a
// second OpenMP; this is the entry that such files call, in the OpenMP that libtorch has.
int nanorun_team(int threads) {
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (parallel == nullptr) return threads;
  std::atomic<int> started{0};
  parallel([](void* count) { static_cast<std::atomic<int>*>(count)->fetch_add(1); }, &started,
           static_cast<unsigned>(threads), 0);
  return started.load();
}

// Version of libtorch's headers; the build and the library agree unless the library was exchanged.
char* nanorun_version() { return copy(TORCH_VERSION); }

// File of the libtorch that is loaded.
char* nanorun_library() {
  Dl_info info{};
  const bool found = dladdr(reinterpret_cast<void*>(&at::get_cpu_capability), &info) != 0;
  return copy(found && info.dli_fname != nullptr ? info.dli_fname : "");
}

// Widest vector instructions libtorch uses on this CPU.
char* nanorun_cpu_capability() {
  try {
    return copy(at::get_cpu_capability());
  } catch (...) {
    return copy("unknown");
  }
}

// Loads the CUDA half of libtorch from beside the half that is loaded, once a process. It must come before anything
// asks whether there is CUDA: libtorch remembers its first answer.
char* nanorun_load_cuda() {
  return guarded([] {
    static std::once_flag once;
    static std::string failure;
    std::call_once(once, [] {
      Dl_info info{};
      std::string file = "libtorch_cuda.so";
      if (dladdr(reinterpret_cast<void*>(&at::get_cpu_capability), &info) != 0 && info.dli_fname != nullptr) {
        const std::string here = info.dli_fname;
        file = here.substr(0, here.rfind('/') + 1) + file;
      }
      if (access(file.c_str(), R_OK) != 0) {
        failure = "this libtorch was built without CUDA (no " + file + ")";
      } else if (dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
        const char* words = dlerror();
        failure = words != nullptr ? words : file + " cannot be loaded";
      } else {
        // Throws where libtorch settled on having no CUDA before.
        at::detail::getCUDAHooks().versionCUDART();
      }
    });
    TORCH_CHECK(failure.empty(), failure);
  });
}

// Waits until a CUDA device has done what it was given.
char* nanorun_cuda_synchronize(int device) {
  return guarded([=] {
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    cuda.synchronizeDevice(static_cast<c10::DeviceIndex>(device));
  });
}

uint64_t nanorun_cpu_bytes() { return CountingAllocator::live.load(); }
uint64_t nanorun_cpu_peak() { return CountingAllocator::peak.load(); }
uint64_t nanorun_cpu_allocations() { return CountingAllocator::count.load(); }
void nanorun_cpu_limit(uint64_t bytes) { CountingAllocator::limit.store(bytes); }
void nanorun_cpu_reset_peak() { CountingAllocator::peak.store(CountingAllocator::live.load()); }

// Bytes in tensors now and at most since the last reset, and how often the pool asked the device, on a CUDA device.
char* nanorun_cuda_bytes(int device, uint64_t* live, uint64_t* peak, uint64_t* allocations) {
  return guarded([=] {
    const auto stats = cuda_allocator()->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    const auto& bytes = stats.allocated_bytes[0];
    *live = static_cast<uint64_t>(bytes.current);
    *peak = static_cast<uint64_t>(bytes.peak);
    *allocations = static_cast<uint64_t>(stats.num_device_alloc);
  });
}

char* nanorun_cuda_reset_peak(int device) {
  return guarded([=] { cuda_allocator()->resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

// A copy in pinned memory, from which a device reads while the host goes on. The pool of such memory waits for the device
// before it hands a block out again.
char* nanorun_pin(const at::Tensor* x, at::Tensor** out) {
  return guarded([=] { out[0] = new at::Tensor(x->pin_memory()); });
}

// Hands pooled CPU memory back to the system.
char* nanorun_cpu_trim() {
  return guarded([] { CountingAllocator::trim(); });
}

// Hands pooled memory back to the device.
char* nanorun_cuda_empty_cache() {
  return guarded([] { cuda_allocator()->emptyCache(); });
}

// CUDA devices the driver knows and its version (12040 is 12.4).
char* nanorun_driver(int* version, int* count) {
  return guarded([=] {
    const auto& cuda = driver();
    TORCH_CHECK(cuda.found, "no NVIDIA driver (libcuda.so.1)");
    const int code = cuda.init(0);
    constexpr int no_device = 100;
    TORCH_CHECK(code != no_device, "the NVIDIA driver shows no device: none is there, or CUDA_VISIBLE_DEVICES hides it");
    TORCH_CHECK(code == 0, "the NVIDIA driver does not start (cuInit returned ", code, ")");
    TORCH_CHECK(cuda.version(version) == 0 && cuda.count(count) == 0, "the NVIDIA driver does not answer");
  });
}

// Name, memory and compute capability (90 is 9.0) of a device; after nanorun_driver.
char* nanorun_device(int device, char* name, int capacity, uint64_t* bytes, int* capability) {
  return guarded([=] {
    const auto& cuda = driver();
    constexpr int major_attribute = 75, minor_attribute = 76;
    size_t total = 0;
    int handle = 0, major = 0, minor = 0;
    const bool answered = cuda.found && cuda.get(&handle, device) == 0 && cuda.name(name, capacity, handle) == 0 &&
                          cuda.memory(&total, handle) == 0 &&
                          cuda.attribute(&major, major_attribute, handle) == 0 &&
                          cuda.attribute(&minor, minor_attribute, handle) == 0;
    TORCH_CHECK(answered, "the NVIDIA driver does not answer about device ", device);
    *bytes = total;
    *capability = 10 * major + minor;
  });
}

// Causal attention within a window: q (B, T, H, D), k and v (B, T, K, D), bf16, on CUDA.
// -> output (B, T, H, D), logsumexp (B, H, T), and the two tensors that the backward asks for.
char* nanorun_flash_forward(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v, double scale,
                            int64_t window, at::Tensor** out) {
  return guarded([=] {
    const auto len = q->size(1);
    auto [o, lse, state, unused, mask] =
        at::_flash_attention_forward(*q, *k, *v, std::nullopt, std::nullopt, len, len, 0.0, true, false, scale,
                                     window, 0);
    out[0] = new at::Tensor(std::move(o));
    out[1] = new at::Tensor(std::move(lse));
    out[2] = new at::Tensor(std::move(state));
    out[3] = new at::Tensor(std::move(unused));
  });
}

// Its backward, with the deterministic kernel that nanorun_start asked for. -> dq, dk, dv
char* nanorun_flash_backward(const at::Tensor* d_o, const at::Tensor* q, const at::Tensor* k,
                             const at::Tensor* v, const at::Tensor* o, const at::Tensor* lse,
                             const at::Tensor* state, const at::Tensor* unused, double scale, int64_t window,
                             at::Tensor** out) {
  return guarded([=] {
    const auto len = q->size(1);
    auto [dq, dk, dv] =
        at::_flash_attention_backward(*d_o, *q, *k, *v, *o, *lse, at::Tensor(), at::Tensor(), len, len, 0.0, true,
                                      *state, *unused, scale, window, 0);
    out[0] = new at::Tensor(std::move(dq));
    out[1] = new at::Tensor(std::move(dk));
    out[2] = new at::Tensor(std::move(dv));
  });
}

}  // extern "C"
