// What differs from one repetition of a recorded step to the next, put where its kernels look for
// it.  The words come as an argument: the host hands them over and need not wait.

typedef unsigned long long u64;

struct Words {
    u64 at[128];
};

extern "C" __global__ void put(u64* place, Words words) {
    place[threadIdx.x] = words.at[threadIdx.x];
}
