/* Numbers of the byte formats, which are little-endian and rarely aligned. Compilers make a single
   load or store of each on a little-endian machine. */

#ifndef COPYCAT_LITTLE_ENDIAN_H
#define COPYCAT_LITTLE_ENDIAN_H

#include <stdint.h>

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t load64(const uint8_t *p)
{
    return (uint64_t)load32(p) | (uint64_t)load32(p + 4) << 32;
}

static inline void store32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
    p[2] = (uint8_t)(value >> 16);
    p[3] = (uint8_t)(value >> 24);
}

static inline void store64(uint8_t *p, uint64_t value)
{
    store32(p, (uint32_t)value);
    store32(p + 4, (uint32_t)(value >> 32));
}

#endif
