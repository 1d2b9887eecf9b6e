/* Big-endian numbers, as msgpack writes them, on any platform; compilers turn these into one swap. */
#ifndef COPYCAT_BIG_ENDIAN_H
#define COPYCAT_BIG_ENDIAN_H

#include <stdint.h>

static inline uint64_t copycat_load_be(const uint8_t *at, int size) {
    uint64_t value = 0;
    for (int i = 0; i < size; i++) value = value << 8 | at[i];
    return value;
}

static inline void copycat_store_be(uint8_t *at, uint64_t value, int size) {
    for (int i = size - 1; i >= 0; i--) {
        at[i] = (uint8_t)value;
        value >>= 8;
    }
}

#endif
