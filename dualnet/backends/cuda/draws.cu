// Random numbers by counting: entry i of a key's sequence depends on the key and on i alone, so any
// number of threads can draw any part of the sequence, in any order.
//
// Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
// Philox4x32 with 10 rounds.  Of the 128 bits of a key, 64 are Philox's key and 64 the upper half
// of its counter; the lower half counts blocks of four words.
//
// REAL is float or double.  A thread draws the entries 4 q to 4 q + 3 of the sequence.  The key's
// two words are arguments, unless `later` is no null pointer: then they are read from there.  A
// recorded step is repeated with the same arguments but with another key.

typedef unsigned int u32;
typedef unsigned long long u64;

struct Words {
    u32 at[4];
};

__device__ inline Words philox(u64 key, u64 stream, u64 block) {
    u32 a = (u32)block, b = (u32)(block >> 32), c = (u32)stream, d = (u32)(stream >> 32);
    u32 k0 = (u32)key, k1 = (u32)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        u64 p = (u64)0xD2511F53u * a, q = (u64)0xCD9E8D57u * c;
        a = (u32)(q >> 32) ^ b ^ k0;
        b = (u32)q;
        c = (u32)(p >> 32) ^ d ^ k1;
        d = (u32)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words words = {{a, b, c, d}};
    return words;
}

__device__ inline float evenly(u32 word) { return (word >> 8) * 0x1p-24f; }

__device__ inline double evenly(u32 high, u32 low) {
    return ((u64)(high >> 5) * 67108864u + (low >> 6)) * 0x1p-53;
}

// Make two normal numbers from a number in (0, 1] and a share of a full turn: Box and Muller 1958.
__device__ inline void on_circle(float above_zero, float turn, float* pair) {
    float radius = sqrtf(-2.0f * logf(above_zero)), s, c;
    sincospif(2.0f * turn, &s, &c);
    pair[0] = radius * c;
    pair[1] = radius * s;
}

__device__ inline void on_circle(double above_zero, double turn, double* pair) {
    double radius = sqrt(-2.0 * log(above_zero)), s, c;
    sincospi(2.0 * turn, &s, &c);
    pair[0] = radius * c;
    pair[1] = radius * s;
}

// Draw four normal numbers from entry 4 q on; below, four uniform ones.
__device__ inline void four_normal(u64 key, u64 stream, u64 q, float* four) {
    Words w = philox(key, stream, q);
    for (int i = 0; i < 4; i += 2)  // plus half a step, because a word may be 0 and log(0) infinite
        on_circle(w.at[i] * 0x1p-32f + 0x1p-33f, evenly(w.at[i + 1]), four + i);
}

__device__ inline void four_normal(u64 key, u64 stream, u64 q, double* four) {
    for (int i = 0; i < 2; ++i) {
        Words w = philox(key, stream, 2 * q + i);
        on_circle(evenly(w.at[0], w.at[1]) + 0x1p-54, evenly(w.at[2], w.at[3]), four + 2 * i);
    }
}

__device__ inline void four_uniform(u64 key, u64 stream, u64 q, float* four) {
    Words w = philox(key, stream, q);
    for (int i = 0; i < 4; ++i) four[i] = evenly(w.at[i]);
}

__device__ inline void four_uniform(u64 key, u64 stream, u64 q, double* four) {
    for (int i = 0; i < 2; ++i) {
        Words w = philox(key, stream, 2 * q + i);
        four[2 * i] = evenly(w.at[0], w.at[1]);
        four[2 * i + 1] = evenly(w.at[2], w.at[3]);
    }
}

// Draw four signs from entry 4 q on.  A sign is one bit, so the 32 threads of a warp share the 128
// bits of one block of Philox.
__device__ inline void four_signs(u64 key, u64 stream, u64 q, REAL* four) {
    Words w = philox(key, stream, q / 32);
    u32 bits = w.at[q / 8 % 4] >> (4 * (q % 8));
    for (int i = 0; i < 4; ++i) four[i] = (bits >> i) & 1u ? (REAL)1 : (REAL)-1;
}

typedef void FourOf(u64 key, u64 stream, u64 q, REAL* four);

template <FourOf four_of>
__device__ inline void draw(REAL* out, u64 size, u64 start, u64 key, u64 stream, const u64* later) {
    if (later) key = later[0], stream = later[1];
    u64 q = start / 4 + (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * q >= start + size) return;
    REAL four[4];
    four_of(key, stream, q, four);
    for (u64 i = 4 * q; i < 4 * q + 4; ++i)
        if (i >= start && i < start + size) out[i - start] = four[i - 4 * q];
}

extern "C" __global__ void normal(
    REAL* out, u64 size, u64 start, u64 key, u64 stream, const u64* later) {
    draw<four_normal>(out, size, start, key, stream, later);
}

extern "C" __global__ void uniform(
    REAL* out, u64 size, u64 start, u64 key, u64 stream, const u64* later) {
    draw<four_uniform>(out, size, start, key, stream, later);
}

extern "C" __global__ void signs(
    REAL* out, u64 size, u64 start, u64 key, u64 stream, const u64* later) {
    draw<four_signs>(out, size, start, key, stream, later);
}
