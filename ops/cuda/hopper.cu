// What launching kernels for Hopper needs of the driver.
#include "hopper.cuh"

namespace
{

typedef CUresult EncodeTiled(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                             const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                             const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                             CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's encoder, asked for at run time: nothing links the driver's library.
EncodeTiled *encoder()
{
    static EncodeTiled *found = [] {
        void *symbol = nullptr;
        cudaDriverEntryPointQueryResult result;
        CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                                    cudaEnableDefault, &result));
        if (result != cudaDriverEntryPointSuccess)
            cuda_fail("the driver has no tensor maps", "update it to one for CUDA 12 or later",
                      "cuTensorMapEncodeTiled", __FILE__, __LINE__);
        return reinterpret_cast<EncodeTiled *>(symbol);
    }();
    return found;
}

} // namespace

CUtensorMap tensor_map(DType type, const void *data, int batch, int rows, int cols)
{
    CUtensorMap map;
    const cuuint64_t dims[] = {(cuuint64_t)cols, (cuuint64_t)rows, (cuuint64_t)batch};
    const cuuint64_t strides[] = {2 * (cuuint64_t)cols, 2 * (cuuint64_t)cols * (cuuint64_t)rows};
    const cuuint32_t box[] = {64, 64, 1}, steps[] = {1, 1, 1};
    const CUresult status = encoder()(
        &map, type == DT_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        3, const_cast<void *>(data), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        cuda_fail("a tensor map was refused", "rows must be multiples of 16 bytes",
                  "cuTensorMapEncodeTiled", __FILE__, __LINE__);
    return map;
}

int multiprocessors()
{
    static const int count = [] {
        int device, value;
        CUDA_CHECK(cudaGetDevice(&device));
        CUDA_CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
        return value;
    }();
    return count;
}
