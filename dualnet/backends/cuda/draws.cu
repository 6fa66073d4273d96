// Random numbers by counting: entry i of a key's sequence depends on the key and on i alone, so any
// number of threads can draw any part of the sequence, in any order.
//
// Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
// Philox4x32 with 10 rounds.  Of the 128 bits of a key, 64 are Philox's key and 64 the upper half
// of its counter; the lower half counts blocks of four words.
//
// REAL is float or double.  One launch serves many requests, each for a part of a key's sequence.
// A block of threads serves one of them.  A thread draws four entries at a time, from 4 q to
// 4 q + 3 of the sequence, and writes them by one wide store where they lie so in memory.

typedef unsigned int u32;
typedef unsigned long long u64;

struct Words {
    u32 at[4];
};

__device__ inline Words philox(u64 key, u64 stream, u64 block) {
    u32 a = (u32)block, b = (u32)(block >> 32), c = (u32)stream, d = (u32)(stream >> 32);
    u32 k0 = (u32)key, k1 = (u32)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        u32 p = 0xD2511F53u * a, p_high = __umulhi(0xD2511F53u, a);
        u32 q = 0xCD9E8D57u * c, q_high = __umulhi(0xCD9E8D57u, c);
        a = q_high ^ b ^ k0;
        b = q;
        c = p_high ^ d ^ k1;
        d = p;
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

union Bits {
    float number;
    u32 word;
};

// Return -2 ln(u) for u from 2^-33 to 1, off by at most 1.1 units in the last place.  Here u is m 2^e
// with m from 2/3 to 4/3; the polynomial has the least relative error of its degree for ln(m).
// logf takes a third more instructions, for numbers that do not occur here.
__device__ inline float minus_two_log(float u) {
    Bits m = {u};
    int e = (int)(m.word - 0x3f2aaaabu) >> 23;
    m.word -= (u32)e << 23;
    float f = m.number - 1.0f, p = -0.28052715f;
    p = fmaf(p, f, 0.30777067f);
    p = fmaf(p, f, -0.27991614f);
    p = fmaf(p, f, 0.32831922f);
    p = fmaf(p, f, -0.40022337f);
    p = fmaf(p, f, 0.5001564f);
    p = fmaf(p, f, -0.66666394f);
    p = fmaf(p, f, 0.99999875f);
    return fmaf((float)e, -1.3862944f, fmaf(f * f, p, -2.0f * f));
}

// Make two normal numbers from a number in (0, 1] and a share of a full turn: Box and Muller 1958.
// The share is in the upper 24 bits of a word.  It is taken apart into whole quarters of a turn and
// x quarters more, from -1/2 to 1/2, of which sine and cosine are polynomials.  A normal number is
// off by at most 6e-7 of itself, half of that by rsqrtf.
__device__ inline void on_circle(float above_zero, u32 turn, float* pair) {
    float squared = minus_two_log(above_zero);
    float radius = squared * rsqrtf(fmaxf(squared, 1e-30f));  // 0 where `squared` is 0
    u32 quarters = (turn + 0x20000000u) >> 30;
    float x = (float)(int)((turn & 0xffffff00u) << 2) * 0x1p-32f, z = x * x;
    float s = fmaf(fmaf(fmaf(-0.0046021777f, z, 0.07968023f), z, -0.64596348f), z, 1.5707963f) * x;
    float c = fmaf(fmaf(0.000904021667f, z, -0.0208602883f), z, 0.253669232f);
    c = fmaf(fmaf(c, z, -1.2337005f), z, 1.0f);
    Bits across = {radius * (quarters & 1u ? s : c)}, up = {radius * (quarters & 1u ? c : s)};
    across.word ^= ((quarters + 1u) & 2u) << 30;  // the cosine is negative in quarters 1 and 2
    up.word ^= (quarters & 2u) << 30;
    pair[0] = across.number;
    pair[1] = up.number;
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
        on_circle(fmaf((float)w.at[i], 0x1p-32f, 0x1p-33f), w.at[i + 1], four + i);
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

const int ROUNDS = 2;  // how many times a thread draws four entries
const u32 AT_ONCE = 64;

// Request i is for `size[i]` entries from `start[i]` on, at the address `out[i]`, and the blocks from
// `first[i]` on serve it; behind the last request, `first` is larger than any block's number.  The
// key's two words are `key[i]` and `stream[i]`, unless `later[i]` is the address of two words: then
// they are read from there.  A recorded step is repeated with the same arguments but another key.
struct Requests {
    u64 out[64];
    u64 size[64];
    u64 start[64];
    u64 key[64];
    u64 stream[64];
    u64 later[64];
    u32 kind[64];
    u32 first[64];
};

struct alignas(16) Four {
    REAL at[4];
};

template <FourOf four_of>
__device__ inline void serve(REAL* out, u64 size, u64 start, u64 key, u64 stream, u64 q) {
    u64 end = start + size;
    bool aligned = start % 4 == 0 && (u64)out % sizeof(Four) == 0;
    out -= start;
    for (int round = 0; round < ROUNDS; ++round, q += THREADS) {
        if (4 * q >= end) return;
        Four four;
        four_of(key, stream, q, four.at);
        if (aligned && 4 * q + 4 <= end)
            *(Four*)(out + 4 * q) = four;
        else
            for (int i = 0; i < 4; ++i)
                if (4 * q + i >= start && 4 * q + i < end) out[4 * q + i] = four.at[i];
    }
}

extern "C" __global__ void draw(Requests requests) {
    u32 at = 0;  // find the last request whose first block is not behind this one
    for (u32 step = AT_ONCE / 2; step; step /= 2)
        if (requests.first[at + step] <= blockIdx.x) at += step;
    REAL* out = (REAL*)requests.out[at];
    u64 size = requests.size[at], start = requests.start[at];
    u64 key = requests.key[at], stream = requests.stream[at];
    const u64* later = (const u64*)requests.later[at];
    if (later) key = later[0], stream = later[1];
    u64 block = blockIdx.x - requests.first[at];
    u64 q = start / 4 + block * ROUNDS * THREADS + threadIdx.x;
    switch (requests.kind[at]) {
        case 0: return serve<four_normal>(out, size, start, key, stream, q);
        case 1: return serve<four_uniform>(out, size, start, key, stream, q);
        case 2: return serve<four_signs>(out, size, start, key, stream, q);
    }
}
