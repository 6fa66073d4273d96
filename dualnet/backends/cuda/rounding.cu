// Round factors of products to 16 bits.  They are always made from float32, whatever REAL is.

typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

// A bfloat16 is the upper half of a float32.  Round to the nearest one, ties to even.  The rounding
// may carry into the exponent, and from the largest exponent to infinity.  NaN stays NaN: its upper
// half alone could be that of infinity, so a bit is set in it.
extern "C" __global__ void to_bfloat16(const u32* x, u16* y, i64 size) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    u32 bits = x[i];
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    u32 rounded = is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    y[i] = (u16)(rounded >> 16);
}
