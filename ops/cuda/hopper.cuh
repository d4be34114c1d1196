// Hopper's instructions for matrix kernels, one small function each: mbarriers, bulk tensor copies
// (TMA), warpgroup matrix products (wgmma), what a warp has in common, and moving registers between
// warpgroups. Everything in the namespace needs sm_90a; elsewhere there is none of it, and kernels
// have empty bodies.
#ifndef OPS_CUDA_HOPPER_CUH
#define OPS_CUDA_HOPPER_CUH

#include <cuda.h>
#include <stdint.h>
#include <type_traits>

#include "cuda.cuh"
#include "ptx.cuh"

#define ON_HOPPER HAS_WGMMA // ptx.cuh

// ---- host (hopper.cu)
// ------------------------------------------------------------------------------------------

// Boxes of 64 x 64 of (batch, rows, cols), 16-bit; what lies outside reads as zero and is not
// written. Data and rows start at multiples of 16 bytes.
CUtensorMap tensor_map(DType type, const void *data, int batch, int rows, int cols);
int multiprocessors();

namespace hopper
{

#if ON_HOPPER

// A place in shared memory: a pointer, or its 32-bit address, where arithmetic on pointers would be
// done again at each use.
struct Shared {
    uint32_t address;
    __device__ __forceinline__ Shared(const void *p) : address(shared_address(p)) {}
    __device__ __forceinline__ Shared(uint32_t address) : address(address) {}
};

// ---- mbarrier
// ------------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(Shared bar, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar.address), "r"(arrivals));
}

// Makes barrier_init visible to the copy engine.
__device__ __forceinline__ void barrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_expect(Shared bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar.address),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void barrier_arrive(Shared bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar.address) : "memory");
}

// Until the phase of this parity is complete.
__device__ __forceinline__ void barrier_wait(Shared bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra finished;\n"
                 "bra again;\n"
                 "finished:\n"
                 "}\n" ::"r"(bar.address),
                 "r"(parity)
                 : "memory");
}

// ---- what a warp has in common
// -----------------------------------------------------------------------------------

// A number that all lanes have, told to the compiler, which then keeps addresses made of it in
// uniform registers, where wgmma and the copy engine want them.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

// True in one lane of a warp, of which all call it; and the compiler knows that it is one.
__device__ __forceinline__ bool elected()
{
    uint32_t is;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "elect.sync _|p, 0xffffffff;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}\n"
                 : "=r"(is));
    return is;
}

// ---- clusters of two blocks
// -----------------------------------------------------------------------------------

__device__ __forceinline__ uint32_t cluster_rank()
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Arrives on the barrier at this place in another block of the cluster.
__device__ __forceinline__ void barrier_arrive_at(Shared bar, uint32_t rank)
{
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}\n" ::"r"(bar.address),
                 "r"(rank)
                 : "memory");
}

// Until all threads of the cluster that have not ended are here.
__device__ __forceinline__ void cluster_barrier()
{
    asm volatile("barrier.cluster.arrive.release;\n"
                 "barrier.cluster.wait.acquire;\n" ::
                     : "memory");
}

// A barrier of `threads` threads of the block; id 1 to 15.
__device__ __forceinline__ void named_barrier(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- bulk tensor copies
// --------------------------------------------------------------------------

// The box of `map` at column x, row y, matrix z, into shared memory; completes on `bar`.
__device__ __forceinline__ void tma_load(Shared to, const CUtensorMap *map, Shared bar, int x,
                                         int y, int z)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to.address),
                 "l"(map), "r"(bar.address), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

// The same into both blocks of a cluster, at the same place, completing on the barrier of each.
__device__ __forceinline__ void tma_load_both(Shared to, const CUtensorMap *map, Shared bar, int x,
                                              int y, int z)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to.address),
                 "l"(map), "r"(bar.address), "r"(x), "r"(y), "r"(z), "h"((uint16_t)3)
                 : "memory");
}

__device__ __forceinline__ void tma_store(const CUtensorMap *map, Shared from, int x, int y, int z)
{
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group"
                 " [%0, {%2, %3, %4}], [%1];" ::"l"(map),
                 "r"(from.address), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

__device__ __forceinline__ void tma_store_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until at most kLeft committed groups of this thread's stores have not read their shared memory.
template <int kLeft> __device__ __forceinline__ void tma_store_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kLeft) : "memory");
}

// Until all stores of this thread are done.
__device__ __forceinline__ void tma_store_wait()
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Orders this thread's plain shared-memory accesses before the copy engine's and the tensor cores'.
__device__ __forceinline__ void async_proxy_fence()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- counters in global memory that order the work of different blocks
// ----------------------------------------

// Until *counter reaches `least`; what the counting threads' copies wrote may then be copied.
__device__ __forceinline__ void counter_wait(const int *counter, int least)
{
    int seen;
    do {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    } while (seen < least);
    asm volatile("fence.proxy.async;" ::: "memory");
}

// Counts this thread's finished stores.
__device__ __forceinline__ void counter_add(int *counter)
{
    asm volatile("fence.proxy.async;" ::: "memory");
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
}

// ---- 8x8 blocks of 16-bit numbers from fragments to shared memory (back: ldmatrix)
// --------------------------------

// Lane l gives the address of row l % 8 of block l / 8.
__device__ __forceinline__ void store_blocks(uint32_t address, const uint32_t (&r)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

__device__ __forceinline__ void store_blocks_transposed(uint32_t address, const uint32_t (&r)[4])
{
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
}

// ---- warpgroup matrix products
// -------------------------------------------------------------------

// Keeps the compiler from moving accesses of accumulators across a fence or a wait.
template <int kCount> __device__ __forceinline__ void hold(float (&d)[kCount])
{
#pragma unroll
    for (int i = 0; i < kCount; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// clang-format off
#define REGS_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"

#define OUTS_32(d) \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])

#define REGS_64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#define OUTS_64(d) \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])

#define REGS_128 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define OUTS_128(d) \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), \
    "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), \
    "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), \
    "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), \
    "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), \
    "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), \
    "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), \
    "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), \
    "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])

// clang-format on

#define WGMMA(shape, type, regs, outs, i0, i1, i2, i3)                                             \
    asm volatile("wgmma.mma_async.sync.aligned." shape ".f32." type "." type " {" regs "},"        \
                 " %" #i0 ", %" #i1 ", 1, 1, 1, %" #i2 ", %" #i3 ";"                               \
                 : outs                                                                            \
                 : "l"(a), "l"(b), "n"(kTransA), "n"(kTransB))

// d (64,64) += A (64,16) B (16,64). A lies along K in shared memory, B along K, too (as B^T); with
// kTransA = 1 and kTransB = 1 along its rows and its columns.
template <typename T, int kTransA, int kTransB>
__device__ __forceinline__ void wgmma(float (&d)[32], uint64_t a, uint64_t b)
{
    if constexpr (std::is_same<T, bf16>::value)
        WGMMA("m64n64k16", "bf16", REGS_32, OUTS_32(d), 32, 33, 34, 35);
    else
        WGMMA("m64n64k16", "f16", REGS_32, OUTS_32(d), 32, 33, 34, 35);
}

// The same with 256 columns.
template <typename T, int kTransA, int kTransB>
__device__ __forceinline__ void wgmma(float (&d)[128], uint64_t a, uint64_t b)
{
    if constexpr (std::is_same<T, bf16>::value)
        WGMMA("m64n256k16", "bf16", REGS_128, OUTS_128(d), 128, 129, 130, 131);
    else
        WGMMA("m64n256k16", "f16", REGS_128, OUTS_128(d), 128, 129, 130, 131);
}

// The first 128 of 256 columns.
template <typename T, int kTransA, int kTransB>
__device__ __forceinline__ void wgmma_narrow(float (&d)[128], uint64_t a, uint64_t b)
{
    if constexpr (std::is_same<T, bf16>::value)
        WGMMA("m64n128k16", "bf16", REGS_64, OUTS_64(d), 64, 65, 66, 67);
    else
        WGMMA("m64n128k16", "f16", REGS_64, OUTS_64(d), 64, 65, 66, 67);
}

#undef WGMMA
#undef REGS_32
#undef OUTS_32
#undef REGS_64
#undef OUTS_64
#undef REGS_128
#undef OUTS_128

// ---- registers
// -----------------------------------------------------------------------------------

template <int kRegisters> __device__ __forceinline__ void registers_give()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters> __device__ __forceinline__ void registers_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

#endif // ON_HOPPER

} // namespace hopper

#endif
