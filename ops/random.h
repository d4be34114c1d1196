// splitmix64 (Steele, Lea, Flood 2014): random bits from a counter or from a state.
#ifndef OPS_RANDOM_H
#define OPS_RANDOM_H

#include <stdint.h>

#ifdef __CUDACC__ // for kernels too
#define RANDOM_FUNCTION static inline __host__ __device__
#else
#define RANDOM_FUNCTION static inline
#endif

#define RANDOM_STEP 0x9e3779b97f4a7c15u // the odd number that the counter advances by

// Its output function: the bits of one value of the counter.
RANDOM_FUNCTION uint64_t random_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// The next uniform number in [0, 1) of a sequence; *state starts with any seed.
RANDOM_FUNCTION double random_uniform(uint64_t *state)
{
    return (double)(random_mix(*state += RANDOM_STEP) >> 11) * 0x1p-53;
}

#endif
