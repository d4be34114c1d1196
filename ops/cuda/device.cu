// The CUDA device: finding a GPU, its memory, and the table of its operations.
#include "device.h"

#include <atomic>
#include <cassert>
#include <mutex>

#include "lt.cuh"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define HAVE_NVTX
#endif

namespace
{

struct Device {
    bool found, hopper;
    int index;
    CudaConfig config;
    cudaStream_t stream;
    void *scratch;
    void (*failed)(const char *line);
    std::atomic<long> waits, allocations;
    bool recording;
    long recordings;
} device;

// What mem_put has copied from the host and the GPU has not yet: slots of pinned memory, used in
// turn. A step of the speedrun puts 32 times 128 KiB, so that the host can be steps ahead.
constexpr size_t kSlotBytes = 128 << 10;
constexpr int kSlots = 128;

struct Staging {
    std::mutex lock;
    char *memory;               // kSlots * kSlotBytes
    cudaEvent_t copied[kSlots]; // the slot may be overwritten
    int next;
} staging;

// Other threads than the one that found the device may put memory: each has a current GPU of its
// own.
void use_device(void) { CUDA_CHECK(cudaSetDevice(device.index)); }

void *mem_alloc(size_t bytes)
{
    void *p = nullptr;
    use_device();
    if (bytes == 0) bytes = 1;
    device.allocations++;
    const cudaError_t status = cudaMalloc(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); // or the next check would find it
        return nullptr;
    }
    CUDA_CHECK(status);
    CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, device.stream));
    return p;
}

void mem_free(void *p)
{
    if (p) device.waits++; // for the GPU
    CUDA_CHECK(cudaFree(p));
}

void mem_zero(void *p, size_t bytes)
{
    if (bytes > 0) CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, device.stream));
}

// In order with the operations, by way of a slot that the GPU has read.
void put_piece(void *to, const void *host, size_t bytes)
{
    const std::lock_guard<std::mutex> guard(staging.lock);
    const int slot = staging.next;
    char *pinned = staging.memory + slot * kSlotBytes;
    staging.next = (slot + 1) % kSlots;
    if (cudaEventQuery(staging.copied[slot]) == cudaErrorNotReady) {
        (void)cudaGetLastError(); // or the next check would find it
        device.waits++;
        CUDA_CHECK(cudaEventSynchronize(staging.copied[slot]));
    }
    memcpy(pinned, host, bytes);
    CUDA_CHECK(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, device.stream));
    CUDA_CHECK(cudaEventRecord(staging.copied[slot], device.stream));
}

void mem_put(void *to, const void *host, size_t bytes)
{
    assert(!device.recording); // a replay would copy what the slot holds by then
    use_device();
    for (size_t at = 0; at < bytes; at += kSlotBytes)
        put_piece((char *)to + at, (const char *)host + at,
                  bytes - at < kSlotBytes ? bytes - at : kSlotBytes);
}

void mem_get(void *host, const void *from, size_t bytes)
{
    use_device();
    if (bytes == 0) return;
    device.waits++;
    CUDA_CHECK(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, device.stream));
    CUDA_CHECK(cudaStreamSynchronize(device.stream));
}

void sync_stream(void)
{
    device.waits++;
    CUDA_CHECK(cudaStreamSynchronize(device.stream));
}

// Recordings are CUDA graphs: what this thread queues on the stream is captured. Other threads,
// such as NCCL's, may take memory or ask for events meanwhile, hence the mode; in this one a call
// that cannot be captured ends the program.
void record(void)
{
    device.recording = true;
    CUDA_CHECK(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal));
}

void *recorded(void)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t made = nullptr;
    size_t nodes = 0;
    CUDA_CHECK(cudaStreamEndCapture(device.stream, &graph));
    CUDA_CHECK(cudaGraphGetNodes(graph, nullptr, &nodes));
    if (nodes > 0) {
        CUDA_CHECK(cudaGraphInstantiate(&made, graph, 0));
        device.allocations++;
        device.recordings++;
    }
    CUDA_CHECK(cudaGraphDestroy(graph));
    device.recording = false;
    return made;
}

void replay(void *recording)
{
    CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording), device.stream));
}

// One that the GPU is still at is freed when it is done (cuGraphExecDestroy), without a wait here.
void forget(void *recording)
{
    CUDA_CHECK(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording)));
    device.recordings--;
}

// The stream, the scratch and the staging memory.
cudaError_t open_device(void)
{
    cudaError_t status = cudaSetDevice(device.index);
    if (status == cudaSuccess)
        status = cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking);
    if (status == cudaSuccess) status = cudaMalloc(&device.scratch, kScratchBytes);
    if (status == cudaSuccess)
        status = cudaHostAlloc((void **)&staging.memory, kSlots * kSlotBytes, cudaHostAllocDefault);
    for (int i = 0; i < kSlots && status == cudaSuccess; i++)
        status = cudaEventCreateWithFlags(&staging.copied[i], cudaEventDisableTiming);
    return status;
}

void mem_info(size_t *own, size_t *available, size_t *total)
{
    use_device();
    CUDA_CHECK(cudaMemGetInfo(available, total));
    *own = kScratchBytes + kLtWorkspaceBytes;
}

// NVTX ranges: nothing is linked, and without a profiler a call is a test of a pointer.
void phase(const char *name)
{
#ifdef HAVE_NVTX
    static bool open;
    if (open) nvtxRangePop();
    if (name) nvtxRangePushA(name);
    open = name != nullptr;
#else
    (void)name;
#endif
}

Ops ops_cuda = {
    .name = "cuda",
    .real_size = sizeof(bf16),
    .acc_size = sizeof(float),
    .real_type = DT_BF16,
    .acc_type = DT_F32,
    .fp8_size = sizeof(bf16), // set_fp8_size
    .head_slice = (size_t)16384 * 50304,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_zero = mem_zero,
    .mem_put = mem_put,
    .mem_get = mem_get,
    .sync = sync_stream,
    .mem_info = mem_info,
    .phase = phase,
    .load_param = cuda_load_param,
    .accumulate = cuda_accumulate,
    .matmul = cuda_matmul,
    .matmul_grad = cuda_matmul_grad,
    .matmul_fp8 = cuda_matmul_fp8,
    .embed_forward = cuda_embed_forward,
    .embed_backward = cuda_embed_backward,
    .embed_scatter = cuda_embed_scatter,
    .gather_rows = cuda_gather_rows,
    .mix_norm_forward = cuda_mix_norm_forward,
    .mix_norm_backward = cuda_mix_norm_backward,
    .norm_forward = cuda_norm_forward,
    .norm_backward = cuda_norm_backward,
    .backout_norm_forward = cuda_backout_norm_forward,
    .backout_norm_backward = cuda_backout_norm_backward,
    .add = cuda_add,
    .qkv_forward = cuda_qkv_forward,
    .qkv_backward = cuda_qkv_backward,
    .attention_forward = cuda_attention_forward,
    .attention_decode = cuda_attention_decode,
    .attention_backward = cuda_attention_backward,
    .gate_forward = cuda_gate_forward,
    .gate_backward = cuda_gate_backward,
    .relu2_forward = cuda_relu2_forward,
    .relu2_backward = cuda_relu2_backward,
    .quantize = cuda_quantize,
    .softcap_loss = cuda_softcap_loss,
    .softcap_loss_fp8 = cuda_softcap_loss_fp8,
    .sum = cuda_sum,
    .adam = cuda_adam,
    .normuon = cuda_normuon,
    .normuon_workspace = cuda_normuon_workspace,
    .record = record,
    .recorded = recorded,
    .replay = replay,
    .forget = forget,
    .tune = cuda_tune,
    .plans_text = cuda_plans_text,
    .plans_restore = cuda_plans_restore,
};

void set_fp8_size(void) { ops_cuda.fp8_size = cuda_fp8() ? 1 : sizeof(bf16); }

const char *hint_of(cudaError_t status)
{
    switch (status) {
    case cudaErrorMemoryAllocation:
        return "another program may hold the GPU's memory; nvidia-smi shows it";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
        return "a kernel before this call is at fault; --graphs no with CUDA_LAUNCH_BLOCKING=1, or "
               "compute-sanitizer, names it";
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
        return "a CUDA graph does not hold what was queued; --graphs no goes without; report it";
    case cudaErrorNoKernelImageForDevice:
        return "this program was built for other GPUs: make clean and build it here";
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchOutOfResources:
        return "the shape is outside what the kernel was written for; report it";
    default:
        return "nvidia-smi shows whether the GPU is well";
    }
}

} // namespace

void ops_cuda_on_failure(void (*handler)(const char *line)) { device.failed = handler; }

void ops_cuda_failed(const char *line)
{
    if (device.failed) device.failed(line);
    fprintf(stderr, "error: %s\n", line);
    exit(1);
}

void cuda_fail(const char *error, const char *hint, const char *call, const char *file, int line)
{
    char text[480];
    snprintf(text, sizeof text, "%s:%d: %s: %s (%s)", file, line, call, error, hint);
    ops_cuda_failed(text);
}

void cuda_check(cudaError_t status, const char *call, const char *file, int line)
{
    if (status != cudaSuccess)
        cuda_fail(cudaGetErrorString(status), hint_of(status), call, file, line);
}

cudaStream_t cuda_stream(void) { return device.stream; }
void *cuda_scratch(void) { return device.scratch; }
// Also where nothing but ns.h is used, and ops_cuda_find was never called.
bool cuda_portable(void)
{
    static const bool hopper = [] {
        int index, major;
        CUDA_CHECK(cudaGetDevice(&index));
        CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
        return major == 9;
    }();
    return device.config.portable || !hopper;
}
bool cuda_deterministic(void) { return device.config.deterministic; }
void ops_cuda_configure(const CudaConfig *config)
{
    device.config = *config;
    ops_cuda.record = config->no_graphs ? nullptr : record;
    if (device.found) set_fp8_size(); // which asks the GPU
}
CudaCounters cuda_counters(void)
{
    return CudaCounters{device.waits, device.allocations, device.recordings};
}

void ops_cuda_select(int gpu) { device.index = gpu; }

int ops_cuda_count(void)
{
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void ops_cuda_uuid(char uuid[OPS_CUDA_UUID_BYTES])
{
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index));
    char *end = uuid + sprintf(uuid, "GPU-");
    for (const char byte : properties.uuid.bytes) end += sprintf(end, "%02x", (unsigned char)byte);
}

bool ops_cuda_find(const Ops **ops, char *description, size_t size, Error *err)
{
    int count = 0, driver = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver);
        if (driver == 0) return fail(err, "no NVIDIA driver is installed");
        return fail(err, "the NVIDIA driver is for CUDA %d.%d, this program needs %d.%d: update it",
                    driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                    CUDART_VERSION % 1000 / 10);
    }
    if (status != cudaSuccess || count == 0)
        return fail(err, "no GPU: %s",
                    cudaGetErrorString(status == cudaSuccess ? cudaErrorNoDevice : status));
    if (device.index >= count)
        return fail(err, "GPU %d is wanted, and CUDA shows %d", device.index, count);
    cudaDeviceProp properties;
    status = cudaGetDeviceProperties(&properties, device.index);
    if (status != cudaSuccess) return fail(err, "the GPU: %s", cudaGetErrorString(status));
    if (properties.major < 8)
        return fail(err, "%s has compute capability %d.%d; bf16 needs 8.0", properties.name,
                    properties.major, properties.minor);
    if (!device.found) {
        status = open_device();
        if (status != cudaSuccess)
            return fail(err, "%s: %s", properties.name, cudaGetErrorString(status));
        device.found = true;
        device.hopper = properties.major == 9;
        set_fp8_size();
    }
    snprintf(description, size, "%s, %.0f GB, compute capability %d.%d%s", properties.name,
             (double)properties.totalGlobalMem / 1e9, properties.major, properties.minor,
             !device.hopper    ? "; not Hopper (9.0), so portable kernels"
             : cuda_portable() ? "; portable kernels"
                               : "");
    *ops = &ops_cuda;
    return true;
}
