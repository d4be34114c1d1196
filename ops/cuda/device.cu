// The CUDA device: finding a GPU, its memory, and the table of its operations.
#include "device.h"

#include "cuda.cuh"

namespace
{

struct Device {
    bool found;
    int index;
    cudaStream_t stream;
    void *scratch;
} device;

// Other threads than the one that found the device may put memory: each has a current GPU of its
// own.
void use_device(void) { CUDA_CHECK(cudaSetDevice(device.index)); }

void *mem_alloc(size_t bytes)
{
    void *p = nullptr;
    use_device();
    if (bytes == 0) bytes = 1;
    const cudaError_t status = cudaMalloc(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); // or the next check would find it
        return nullptr;
    }
    CUDA_CHECK(status);
    CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, device.stream));
    return p;
}

void mem_free(void *p) { CUDA_CHECK(cudaFree(p)); } // waits for the GPU

void mem_zero(void *p, size_t bytes)
{
    if (bytes > 0) CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, device.stream));
}

// In order with the operations. Returns once pageable host memory has been read (it is staged), so
// that the caller may overwrite it.
void mem_put(void *to, const void *host, size_t bytes)
{
    use_device();
    if (bytes > 0)
        CUDA_CHECK(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, device.stream));
}

void mem_get(void *host, const void *from, size_t bytes)
{
    use_device();
    if (bytes == 0) return;
    CUDA_CHECK(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, device.stream));
    CUDA_CHECK(cudaStreamSynchronize(device.stream));
}

void sync_stream(void) { CUDA_CHECK(cudaStreamSynchronize(device.stream)); }

const Ops ops_cuda = {
    .name = "cuda",
    .real_size = sizeof(bf16),
    .acc_size = sizeof(float),
    .real_type = DT_BF16,
    .acc_type = DT_F32,
    .head_slice = 4096 * 50304,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_zero = mem_zero,
    .mem_put = mem_put,
    .mem_get = mem_get,
    .sync = sync_stream,
    .load_param = cuda_load_param,
    .accumulate = cuda_accumulate,
    .matmul = cuda_matmul,
    .matmul_grad = cuda_matmul_grad,
    .embed_forward = cuda_embed_forward,
    .embed_backward = cuda_embed_backward,
    .embed_scatter = cuda_embed_scatter,
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
    .attention_backward = cuda_attention_backward,
    .gate_forward = cuda_gate_forward,
    .gate_backward = cuda_gate_backward,
    .relu2_forward = cuda_relu2_forward,
    .relu2_backward = cuda_relu2_backward,
    .quantize = cuda_quantize,
    .softcap_loss = cuda_softcap_loss,
    .sum = cuda_sum,
    .adam = cuda_adam,
    .normuon = cuda_normuon,
    .normuon_workspace = cuda_normuon_workspace,
};

const char *hint_of(cudaError_t status)
{
    switch (status) {
    case cudaErrorMemoryAllocation:
        return "another program may hold the GPU's memory; nvidia-smi shows it";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
        return "a kernel before this call is at fault; CUDA_LAUNCH_BLOCKING=1 or compute-sanitizer "
               "names it";
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

void cuda_fail(const char *error, const char *hint, const char *call, const char *file, int line)
{
    fprintf(stderr, "error: %s:%d: %s: %s (%s)\n", file, line, call, error, hint);
    exit(1);
}

void cuda_check(cudaError_t status, const char *call, const char *file, int line)
{
    if (status != cudaSuccess)
        cuda_fail(cudaGetErrorString(status), hint_of(status), call, file, line);
}

cudaStream_t cuda_stream(void) { return device.stream; }
void *cuda_scratch(void) { return device.scratch; }

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
    cudaDeviceProp properties;
    status = cudaGetDeviceProperties(&properties, device.index);
    if (status != cudaSuccess) return fail(err, "the GPU: %s", cudaGetErrorString(status));
    if (properties.major < 8)
        return fail(err, "%s has compute capability %d.%d; bf16 needs 8.0", properties.name,
                    properties.major, properties.minor);
    if (!device.found) {
        status = cudaSetDevice(device.index);
        if (status == cudaSuccess)
            status = cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking);
        if (status == cudaSuccess) status = cudaMalloc(&device.scratch, kScratchBytes);
        if (status != cudaSuccess)
            return fail(err, "%s: %s", properties.name, cudaGetErrorString(status));
        device.found = true;
    }
    snprintf(description, size, "%s, %.0f GB, compute capability %d.%d", properties.name,
             (double)properties.totalGlobalMem / 1e9, properties.major, properties.minor);
    *ops = &ops_cuda;
    return true;
}
