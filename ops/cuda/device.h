// The CUDA device, for programs in plain C.
#ifndef OPS_CUDA_DEVICE_H
#define OPS_CUDA_DEVICE_H

#include "../error.h"
#include "../ops.h"

typedef struct {
    bool portable;      // kernels that any GPU since sm_80 can run: no wgmma, TMA, or fp8 products
    bool deterministic; // algorithms of products by the library's order, not by timing (lt.cuh)
    bool no_graphs;     // every operation is queued by itself: nothing is recorded (ops.h)
} CudaConfig;

#ifdef __cplusplus
extern "C" {
#endif

// How the device computes from now on. Before ops_cuda_find; later for benches and tests alone.
void ops_cuda_configure(const CudaConfig *config);

// Picks the first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses), makes its stream and its
// workspaces, and points *ops to the table; `description` is its name and memory for people. False
// with the reason when there is no GPU, its driver is older than this program's CUDA, or its
// compute capability is below 8.0 (no bf16). Call again for the same table.
bool ops_cuda_find(const Ops **ops, char *description, size_t size, Error *err);

// Which of the GPUs that CUDA shows it picks, the first unless this is called before it.
void ops_cuda_select(int gpu);
// How many CUDA shows; 0 as well where there is no driver.
int ops_cuda_count(void);
// The identity of the GPU that was found, another for every GPU in the world: "GPU-" and hex
// digits.
enum { OPS_CUDA_UUID_BYTES = 40 };
void ops_cuda_uuid(char uuid[OPS_CUDA_UUID_BYTES]);

// A GPU that fails ends the program: by `handler`, which gets one line that says how and does not
// return; with NULL, and at first, by "error: LINE" and exit(1). ops_cuda_failed does it.
void ops_cuda_on_failure(void (*handler)(const char *line));
#ifdef __cplusplus
[[noreturn]]
#else
_Noreturn
#endif
void ops_cuda_failed(const char *line);
// The stream (a cudaStream_t) of all operations, for who times or captures them.
struct CUstream_st *cuda_stream(void);

// How often, since the start, the host has waited for the GPU and taken memory of it, which a new
// recording does too. Neither happens inside a training step (tests/gpu/test_gpt_cuda.c),
// but that the first micro-batch with a new number of documents, as padded, is recorded once.
typedef struct {
    long waits, allocations;
    long recordings; // that there are now
} CudaCounters;
CudaCounters cuda_counters(void);
#ifdef __cplusplus
}
#endif

#endif
