// Factors of 16 bits.  Whatever REAL is, they are made of float32.

typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

// The upper half of each float32: a bfloat16, rounded to the nearest, ties to even.  The rounding
// carries into the exponent, and from the largest exponent to infinity.  NaN stays NaN: its upper
// half alone could be infinity's, so a bit is set there.
extern "C" __global__ void to_bfloat16(const u32* x, u16* y, i64 size) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    u32 bits = x[i];
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    u32 rounded = is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    y[i] = (u16)(rounded >> 16);
}
