// Round factors of products to 16 bits.  They are always made from float32, whatever REAL is.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// A bfloat16 is the upper half of a float32.  Round to the nearest one, ties to even.  The rounding
// may carry into the exponent, and from the largest exponent to infinity.  NaN stays NaN: its upper
// half alone could be that of infinity, so a bit is set in it.
__device__ inline u32 rounded(u32 bits) {
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return (is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

struct alignas(16) FourIn {
    u32 at[4];
};

struct alignas(8) FourOut {
    u32 low, high;
};

// A thread rounds four numbers, and reads them at once where x is aligned to that; y always is.
extern "C" __global__ void to_bfloat16(const u32* x, u16* y, i64 size) {
    i64 i = 4 * ((i64)blockIdx.x * blockDim.x + threadIdx.x);
    if (i + 4 <= size && (u64)x % sizeof(FourIn) == 0) {
        FourIn four = *(const FourIn*)(x + i);
        for (int j = 0; j < 4; ++j) four.at[j] = rounded(four.at[j]);
        FourOut pairs = {four.at[0] | four.at[1] << 16, four.at[2] | four.at[3] << 16};
        *(FourOut*)(y + i) = pairs;
    } else {
        for (int j = 0; j < 4 && i + j < size; ++j) y[i + j] = (u16)rounded(x[i + j]);
    }
}
