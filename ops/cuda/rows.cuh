// Rows of D numbers in registers, one group of threads to a row: a warp for D <= 1024, a block for
// wider ones. D is a multiple of 8. Every lane of the group holds kVecs vectors of 8 columns.
#ifndef OPS_CUDA_ROWS_CUH
#define OPS_CUDA_ROWS_CUH

#include "cuda.cuh"

constexpr int kRowThreads = 256;

template <int kGroupSize, int kVecCount> struct RowShape {
    static constexpr int kGroup = kGroupSize, kVecs = kVecCount;
    static constexpr int kRows = kRowThreads / kGroup; // of a block
};

// Calls launch(RowShape<...>()) with the smallest shape that holds d columns.
template <typename Launch> void with_row_shape(int d, Launch launch)
{
    if (d % 8 != 0 || d > 8192)
        cuda_fail("rows are a multiple of 8 wide and at most 8192", "choose another width",
                  "with_row_shape", __FILE__, __LINE__);
    const int vecs = d / 8;
    if (vecs <= 32)
        launch(RowShape<32, 1>());
    else if (vecs <= 64)
        launch(RowShape<32, 2>());
    else if (vecs <= 96)
        launch(RowShape<32, 3>());
    else if (vecs <= 128)
        launch(RowShape<32, 4>());
    else if (vecs <= 256)
        launch(RowShape<256, 1>());
    else if (vecs <= 512)
        launch(RowShape<256, 2>());
    else
        launch(RowShape<256, 4>());
}

// Blocks for t rows: all of them, and as many as a summing kernel takes.
template <typename Shape> int row_blocks(Shape, int t) { return ceil_div((size_t)t, Shape::kRows); }
template <typename Shape> int sum_blocks(Shape shape, int t)
{
    const int blocks = row_blocks(shape, t);
    return blocks < kSumBlocks ? blocks : kSumBlocks;
}

#ifdef __CUDACC__

template <typename Shape> struct Row {
    Vec8 v[Shape::kVecs];
};

template <typename Shape> __device__ __forceinline__ int row_lane()
{
    return (int)threadIdx.x % Shape::kGroup;
}

// The first row of this thread's group; a block's groups take consecutive rows.
template <typename Shape> __device__ __forceinline__ int first_row()
{
    return (int)blockIdx.x * Shape::kRows + (int)threadIdx.x / Shape::kGroup;
}

// Column of the i-th vector of this lane.
template <typename Shape> __device__ __forceinline__ int row_column(int i)
{
    return (i * Shape::kGroup + row_lane<Shape>()) * 8;
}

template <typename Shape> __device__ __forceinline__ Row<Shape> load_row(const bf16 *p, int d)
{
    Row<Shape> row;
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        const int at = row_column<Shape>(i);
        row.v[i] = at < d ? load8(p + at) : Vec8{make_uint4(0, 0, 0, 0)};
    }
    return row;
}

// Sum over the group's threads, known to all of them.
template <typename Shape> __device__ __forceinline__ float group_sum(float x)
{
    if constexpr (Shape::kGroup == kWarp) {
        return warp_sum(x);
    } else {
        __shared__ float room[kRowThreads / kWarp];
        return block_sum<kRowThreads>(x, room);
    }
}

// Sum of a[j] b[j].
template <typename Shape>
__device__ __forceinline__ float row_dot(const Row<Shape> &a, const Row<Shape> &b)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        float x[8], y[8];
        unpack8(x, a.v[i]);
        unpack8(y, b.v[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += x[j] * y[j];
    }
    return group_sum<Shape>(sum);
}

// Adds up column i of the partial sums that a summing kernel's blocks left, in block order whatever
// the timing: partial[i kSumBlocks + block]. All kRowThreads threads call it and get the sum.
__device__ __forceinline__ double total_of(const float *partial, int i, int blocks)
{
    __shared__ double room[kRowThreads / kWarp];
    double sum = 0;
    for (int b = (int)threadIdx.x; b < blocks; b += kRowThreads)
        sum += (double)partial[i * kSumBlocks + b];
    return block_sum<kRowThreads>(sum, room);
}

// Leaves this block's sum of x as its partial sum i.
__device__ __forceinline__ void leave_partial(float *partial, int i, float x)
{
    __shared__ float room[kRowThreads / kWarp];
    x = block_sum<kRowThreads>(x, room);
    if (threadIdx.x == 0) partial[i * kSumBlocks + (int)blockIdx.x] = x;
}

#endif
#endif
